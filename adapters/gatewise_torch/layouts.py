"""How PyTorch stores its layers.

Nothing here imports torch: counts, explanations and mappings work where it is not installed.
"""

import functools

from gatewise.core.layout import Framework, Layout, Limit, defaults

_RNN = "pytorch/pytorch torch/nn/modules/rnn.py"

_SEQUENCE = {
    "weight_ih_l{layer}{direction}": "kernel: (gate units) features",
    "weight_hh_l{layer}{direction}": "recurrent_kernel: (gate units) state",
    "bias_ih_l{layer}{direction}": "bias: (gate units)",
    "bias_hh_l{layer}{direction}": "recurrent_bias: (gate units)",
}
_CELL = {
    "weight_ih": "kernel: (gate units) features",
    "weight_hh": "recurrent_kernel: (gate units) state",
    "bias_ih": "bias: (gate units)",
    "bias_hh": "recurrent_bias: (gate units)",
}

ACTIVATION_MODULES = {
    "CELU": "celu",
    "ELU": "elu",
    "GELU": "gelu",
    "Hardshrink": "hard_shrink",
    "Hardsigmoid": "hard_sigmoid",
    "Hardswish": "hard_silu",
    "Hardtanh": "hard_tanh",
    "LogSigmoid": "log_sigmoid",
    "LogSoftmax": "log_softmax",
    "Mish": "mish",
    "ReLU": "relu",
    "ReLU6": "relu6",
    "SELU": "selu",
    "SiLU": "silu",
    "Sigmoid": "sigmoid",
    "Softmax": "softmax",
    "Softshrink": "soft_shrink",
    "Softsign": "softsign",
    "Tanh": "tanh",
    "Tanhshrink": "tanh_shrink",
}
"""Class of ``torch.nn`` → the activation that it applies, where its options are the usual ones."""

# What its classes compute: torch.nn has no choice of activations but in nn.RNN, and drops out between layers alone.
_PLAIN = {
    "activation": "tanh",
    "merge": "concat",
    "go_backwards": "False",
    "stateful": "False",
    "zero_output_for_mask": "False",
    "dropout": "0.0",
    "recurrent_dropout": "0.0",
    "dropout_between": "0.0 * by dropout",
}
_GATED = {**_PLAIN, "recurrent_activation": "sigmoid"}
_GATED_CELL = {"activation": "tanh", "recurrent_activation": "sigmoid"}
_NONLINEARITY = {"activation": "tanh relu by nonlinearity"}
_BEHIND = {
    "activation": "linear "
    + " ".join(f"{name}=torch.nn.{module}" for module, name in ACTIVATION_MODULES.items() if "softmax" not in name)
    + " softmax=torch.nn.Softmax(dim=-1) log_softmax=torch.nn.LogSoftmax(dim=-1)"
    + " leaky_relu=torch.nn.LeakyReLU(0.2) exponential=torch.exp"
    + " elu(#)=torch.nn.ELU(#) leaky_relu(#)=torch.nn.LeakyReLU(#) relu(#)=torch.nn.Hardtanh(0,#) * behind"
}
_EPSILON = {"epsilon": "1e-05 * by eps"}
_GENERAL_OPTIONS = {
    "activation": "tanh * !threshold !glu by activation",
    "merge": "concat * by merge",
    "go_backwards": "False True by go_backwards",
    "stateful": "False True by stateful",
    "zero_output_for_mask": "False True by zero_output_for_mask",
    "dropout": "0.0 * by input_dropout",
    "recurrent_dropout": "0.0 * by recurrent_dropout",
    "dropout_between": "0.0 * by dropout",
    "dropout_masks": "None * by dropout_masks",
}
_GENERAL_GATED = {**_GENERAL_OPTIONS, "recurrent_activation": "sigmoid * !threshold !glu by recurrent_activation"}

# The general layers of gatewise_torch.modules: tensors of the same names, and what torch.nn has none for. In the
# list of layouts they stand behind torch.nn's own, so that "torch" alone means those.
_GENERAL = "gatewise gatewise_torch/modules.py"
_LSTM_TENSORS = {**_SEQUENCE, "weight_hr_l{layer}{direction}": "projection: state units"}

GENERAL_LSTM = Layout(
    "torch:general.LSTM",
    cell="lstm",
    gates="ifgo",
    tensors={**_LSTM_TENSORS, "weight_ch_l{layer}{direction}": "peephole: (gate units)"},
    computes={**_GENERAL_GATED, "cell_clip": "None * by cell_clip", "peepholes": "False * by peepholes"},
    supplied="gatewise_torch.LSTM",
    source=f"{_GENERAL}, class LSTM",
    verified="live",
)
GENERAL_LSTM_FULL = Layout(
    "torch:general.LSTM",
    cell="lstm",
    gates="ifgo",
    tensors={**_LSTM_TENSORS, "weight_ch_l{layer}{direction}": "peephole_kernel: (gate units) memory"},
    computes={**_GENERAL_GATED, "cell_clip": "None * by cell_clip", "peepholes": "False * by peepholes"},
    supplied="gatewise_torch.LSTM",
    source=f"{_GENERAL}, class LSTM with peepholes='full'",
    verified="live",
)
GENERAL_GRU = Layout(
    "torch:general.GRU",
    cell="gru",
    gates="rzn",
    tensors=_SEQUENCE,
    computes={**_GENERAL_GATED, "reset": "after before by reset"},
    supplied="gatewise_torch.GRU",
    source=f"{_GENERAL}, class GRU",
    verified="live",
)
GENERAL_RNN = Layout(
    "torch:general.RNN",
    cell="rnn",
    gates="h",
    tensors=_SEQUENCE,
    computes=_GENERAL_OPTIONS,
    supplied="gatewise_torch.RNN",
    source=f"{_GENERAL}, class RNN",
    verified="live",
)
LSTM = Layout(
    "torch:LSTM",
    cell="lstm",
    gates="ifgo",
    tensors={**_SEQUENCE, "weight_hr_l{layer}{direction}": "projection: state units"},
    computes=_GATED,
    instead=(GENERAL_LSTM, GENERAL_LSTM_FULL),
    source=f"{_RNN}, class LSTM, section Attributes",
    verified="live",
)
LSTM_CELL = Layout(
    "torch:LSTMCell",
    cell="lstm",
    gates="ifgo",
    tensors=_CELL,
    computes=_GATED_CELL,
    source=f"{_RNN}, class LSTMCell",
    verified="live",
)
GRU = Layout(
    "torch:GRU",
    cell="gru",
    gates="rzn",
    reset="after",
    tensors=_SEQUENCE,
    computes=_GATED,
    instead=(GENERAL_GRU,),
    source=f"{_RNN}, class GRU, section Attributes",
    verified="live",
)
GRU_CELL = Layout(
    "torch:GRUCell",
    cell="gru",
    gates="rzn",
    reset="after",
    tensors=_CELL,
    computes=_GATED_CELL,
    source=f"{_RNN}, class GRUCell",
    verified="live",
)
RNN = Layout(
    "torch:RNN",
    cell="rnn",
    gates="h",
    tensors=_SEQUENCE,
    computes={**_PLAIN, **_NONLINEARITY},
    instead=(GENERAL_RNN,),
    source=f"{_RNN}, class RNN, section Attributes",
    verified="live",
)
RNN_CELL = Layout(
    "torch:RNNCell",
    cell="rnn",
    gates="h",
    tensors=_CELL,
    computes=_NONLINEARITY,
    source=f"{_RNN}, class RNNCell",
    verified="live",
)
LINEAR = Layout(
    "torch:Linear",
    cell="dense",
    tensors={"weight": "kernel: units features", "bias": "bias: units"},
    computes=_BEHIND,
    source="pytorch/pytorch torch/nn/modules/linear.py, class Linear",
    verified="live",
)
EMBEDDING = Layout(
    "torch:Embedding",
    cell="embedding",
    tensors={"weight": "table: tokens units"},
    source="pytorch/pytorch torch/nn/modules/sparse.py, class Embedding",
    verified="live",
)
BATCH_NORM = Layout(
    "torch:BatchNorm1d",
    cell="batchnorm",
    tensors={
        "weight": "scale: features",
        "bias": "shift: features",
        "running_mean": "mean: features",
        "running_var": "variance: features",
    },
    uncounted="mean variance",
    together="scale shift",
    computes=_EPSILON,
    source="pytorch/pytorch torch/nn/modules/batchnorm.py, class _NormBase",
    verified="live",
    note="A fourth buffer, num_batches_tracked, counts the training steps.",
)
LAYER_NORM = Layout(
    "torch:LayerNorm",
    cell="layernorm",
    tensors={"weight": "scale: features", "bias": "shift: features"},
    computes=_EPSILON,
    source="pytorch/pytorch torch/nn/modules/normalization.py, class LayerNorm",
    verified="live",
)
CONV_1D = Layout(
    "torch:Conv1d",
    cell="conv1d",
    tensors={"weight": "kernel: units channels width", "bias": "bias: units"},
    computes=_BEHIND,
    source="pytorch/pytorch torch/nn/modules/conv.py, class Conv1d",
    verified="live",
)
CONV_2D = Layout(
    "torch:Conv2d",
    cell="conv2d",
    tensors={"weight": "kernel: units channels height width", "bias": "bias: units"},
    computes=_BEHIND,
    source="pytorch/pytorch torch/nn/modules/conv.py, class Conv2d",
    verified="live",
)

GENERAL_BATCH_NORM = Layout(
    "torch:general.BatchNorm",
    cell="batchnorm",
    tensors=BATCH_NORM.tensors,
    uncounted="mean variance",
    supplied="gatewise_torch.BatchNorm",
    source="gatewise gatewise_torch/normalisation.py, class BatchNorm",
    verified="live",
)
GENERAL_ATTENTION = Layout(
    "torch:general.Attention",
    cell="attention",
    tensors={"scale": "scale:", "concat_score": "concat_score:"},
    supplied="gatewise_torch.Attention",
    source="gatewise gatewise_torch/attention.py, class Attention",
    verified="live",
)
GENERAL_ADDITIVE_ATTENTION = Layout(
    "torch:general.AdditiveAttention",
    cell="additive_attention",
    tensors={"scale": "scale: features"},
    supplied="gatewise_torch.AdditiveAttention",
    source="gatewise gatewise_torch/attention.py, class AdditiveAttention",
    verified="live",
)


@functools.cache
def variant(layout: Layout, *, bias: str, forget_bias: float) -> Layout:
    """Return the layout of a general layer with other biases, or with a forget bias that it adds at run time.

    Args:
        layout: That of the layer with two biases.
        bias: ``"dual"``, ``"single"`` or ``"none"``.
        forget_bias: What it adds.

    >>> list(variant(GENERAL_RNN, bias="single", forget_bias=0.0).tensors)[-1]
    'bias_ih_l{layer}{direction}'
    """
    without = {"dual": (), "single": ("bias_hh",), "none": ("bias_ih", "bias_hh")}[bias]
    tensors = {name: pattern for name, pattern in layout.tensors.items() if not name.startswith(without or ("-",))}
    adds = {"f": forget_bias} if forget_bias else {}
    said = [f"bias={bias!r}"] + [f"forget_bias={forget_bias:g}"] * bool(adds)
    return layout.replace(name=f"{layout.name}({', '.join(said)})", tensors=tensors, adds=adds)


DEFAULTS = defaults(
    f"{_RNN}, class LSTM",
    initialisation=(
        "Every tensor, biases too, uniform within 1/sqrt(hidden_size).",
        f"{_RNN}, RNNBase.reset_parameters",
    ),
    forget_bias="None, stored or at run time.",
    activations="LSTM and GRU: tanh, gates sigmoid, no others; RNN: tanh, or relu.",
    dropout="None. dropout acts between stacked layers, with a new mask at each step; there is none within a layer.",
    masks="No masks; a PackedSequence leaves out the steps behind the end of each sequence.",
    time_axis="First: (time, batch, features), unless batch_first=True; states never have the batch first.",
    state_order="h, c; each (layers * directions, batch, size).",
    directions="Outputs lie in the order of time, forward and backward half side by side.",
)

LIMITS = (
    Limit("activation", "a callable", "impossible", "Its code has no name in another framework."),
    Limit("dropout_masks", "'layer', with recurrent_dropout", "theirs", "Keras draws a mask for each gate then."),
    Limit("input_dropout, recurrent_dropout", "1, of LSTM and GRU", "theirs", "Keras's drop nothing at that rate."),
    Limit("stateful", "before the first batch", "theirs", "Keras makes the states for one batch size."),
    Limit("stateful", "in two directions, with its states", "theirs", "Keras fails to call such a layer."),
    Limit("nn.Embedding", "of a token below 0, or beyond its table", "theirs", "torch raises, Keras gives some row."),
    Limit("nn.MaxPool1d, nn.MaxPool2d", "of NaN", "theirs", "torch hands NaN on, TensorFlow leaves it out."),
    Limit("forward", "replaced on a module or class", "impossible", "Its code cannot be read."),
    Limit("batch_first", "False, kept in a port", "ours", "A port is batch first, and warns."),
    Limit("hooks", "on what goes in or comes out", "impossible", "Their code cannot be read."),
    Limit("a module of your own", "any", "impossible", "Its code cannot be read; port its layers one by one."),
    Limit("nn.Dropout, nn.ReLU, …", "alone", "impossible", "They have no size; in an nn.Sequential they go along."),
    Limit("nn.Sequential", "of a recurrent layer that gives its states, not last", "theirs", "torch cannot run it."),
    Limit("max_norm, scale_grad_by_freq", "of nn.Embedding", "theirs", "Keras's Embedding has no such option."),
    Limit(
        "nn.BatchNorm1d, nn.Conv1d, nn.Conv2d",
        "alone",
        "theirs",
        "Features second, where layers of Keras have them last.",
    ),
    Limit(
        "gatewise_torch.Attention", "alone", "ours", "It reads several sequences; a model that gatewise built has them."
    ),
    Limit("PackedSequence", "any", "theirs", "Keras takes padded sequences with a mask."),
)

FRAMEWORK = Framework(
    "torch",
    "PyTorch",
    ("torch",),
    (
        *(LSTM, GRU, RNN, LINEAR, EMBEDDING, LSTM_CELL, GRU_CELL, RNN_CELL),
        *(GENERAL_LSTM, GENERAL_LSTM_FULL, GENERAL_GRU, GENERAL_RNN, BATCH_NORM, LAYER_NORM, CONV_1D, CONV_2D),
        *(GENERAL_BATCH_NORM, GENERAL_ATTENTION, GENERAL_ADDITIVE_ATTENTION),
    ),
    DEFAULTS,
    LIMITS,
)
