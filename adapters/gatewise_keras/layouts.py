"""How Keras 3 stores its layers.

Nothing here imports Keras: counts, explanations and mappings work where it is not installed. A stack of layers is
listed layer by layer, and within ``Bidirectional`` the forward copy first, as ``get_weights()`` does.
"""

import os
import sys

from gatewise.core.layout import Framework, Layout, Limit, defaults
from gatewise.errors import AdapterError, nearest

_RNN = "keras-team/keras keras/src/layers/rnn"

_PREFIX = "{layer:|layer_#/}{direction:|forward_layer/,backward_layer/}"
_KERNELS = {
    "kernel": "kernel: features (gate units)",
    "recurrent_kernel": "recurrent_kernel: state (gate units)",
}
_ONE_BIAS = {**_KERNELS, "bias": "bias: (gate units)"}
_TWO_BIASES = {**_KERNELS, "bias": "bias + recurrent_bias: (1 + 1) (gate units)"}


# What its classes compute. Two activations need arguments, and fail by name alone.
_ANY = (
    "* !threshold !glu hard_sigmoid_02=gatewise_keras.functions.hard_sigmoid_02 elu(#)=keras.layers.ELU(#) "
    "leaky_relu(#)=keras.layers.LeakyReLU(#) relu(#)=keras.layers.ReLU(#) by"
)
_ACTIVATION = {"activation": f"linear {_ANY} activation"}
_RUN = {
    "merge": "concat * by merge_mode",
    "go_backwards": "False True by go_backwards",
    "stateful": "False True by stateful",
    "zero_output_for_mask": "False True by zero_output_for_mask",
}
_CELL = {
    "activation": f"tanh {_ANY} activation",
    "dropout": "0.0 * by dropout",
    "recurrent_dropout": "0.0 * by recurrent_dropout",
}
_GATED = {**_CELL, "recurrent_activation": f"sigmoid {_ANY} recurrent_activation"}
_RESET = {"reset": "after=True before=False by reset_after"}


def _layer(tensors: dict[str, str]) -> dict[str, str]:
    return {_PREFIX + name: pattern for name, pattern in tensors.items()}


# Cells of gatewise_keras.cells, used through keras.layers.RNN, for what Keras has none for. In the
# list of layouts they stand behind Keras's own, so that "keras" alone means those.
_GENERAL = {**_ONE_BIAS, "projection_kernel": "projection: units state"}
GENERAL_LSTM = Layout(
    "keras:RNN(GeneralLSTMCell)",
    cell="lstm",
    gates="ifgo",
    tensors=_layer({**_GENERAL, "peephole_kernel": "peephole: (gate units)"}),
    computes={**_GATED, **_RUN, "cell_clip": "None * by cell_clip", "peepholes": "False * by peepholes"},
    supplied="keras:RNN(GeneralLSTMCell)",
    source="gatewise gatewise_keras/cells.py, GeneralLSTMCell.build",
    verified="live",
)
GENERAL_LSTM_FULL = Layout(
    "keras:RNN(GeneralLSTMCell)",
    cell="lstm",
    gates="ifgo",
    tensors=_layer({**_GENERAL, "peephole_kernel": "peephole_kernel: memory (gate units)"}),
    computes={**_GATED, **_RUN, "cell_clip": "None * by cell_clip", "peepholes": "False * by peepholes"},
    supplied="keras:RNN(GeneralLSTMCell)",
    source="gatewise gatewise_keras/cells.py, GeneralLSTMCell.build with peepholes='full'",
    verified="live",
)
LSTM = Layout(
    "keras:LSTM",
    cell="lstm",
    gates="ifgo",
    tensors=_layer(_ONE_BIAS),
    computes={**_GATED, **_RUN},
    instead=(GENERAL_LSTM, GENERAL_LSTM_FULL),
    source=f"{_RNN}/lstm.py, LSTM",
    verified="live",
)
LSTM_CELL = Layout(
    "keras:LSTMCell",
    cell="lstm",
    gates="ifgo",
    tensors=_ONE_BIAS,
    computes=_GATED,
    source=f"{_RNN}/lstm.py, LSTMCell.build",
    verified="live",
)
GRU = Layout(
    "keras:GRU",
    cell="gru",
    gates="zrn",
    reset="after",
    tensors=_layer(_TWO_BIASES),
    computes={**_GATED, **_RUN, **_RESET},
    source=f"{_RNN}/gru.py, GRU with reset_after=True",
    verified="live",
)
GRU_BEFORE = Layout(
    "keras:GRU",
    cell="gru",
    gates="zrn",
    reset="before",
    tensors=_layer(_ONE_BIAS),
    computes={**_GATED, **_RUN, **_RESET},
    source=f"{_RNN}/gru.py, GRU with reset_after=False",
    verified="live",
)
GRU_CELL = Layout(
    "keras:GRUCell",
    cell="gru",
    gates="zrn",
    reset="after",
    tensors=_TWO_BIASES,
    computes={**_GATED, **_RESET},
    source=f"{_RNN}/gru.py, GRUCell.build with reset_after=True",
    verified="live",
)
GRU_CELL_BEFORE = Layout(
    "keras:GRUCell",
    cell="gru",
    gates="zrn",
    reset="before",
    tensors=_ONE_BIAS,
    computes={**_GATED, **_RESET},
    source=f"{_RNN}/gru.py, GRUCell.build with reset_after=False",
    verified="live",
)
SIMPLE_RNN = Layout(
    "keras:SimpleRNN",
    cell="rnn",
    gates="h",
    tensors=_layer(_ONE_BIAS),
    computes={**_CELL, **_RUN},
    source=f"{_RNN}/simple_rnn.py, SimpleRNN",
    verified="live",
)
SIMPLE_RNN_CELL = Layout(
    "keras:SimpleRNNCell",
    cell="rnn",
    gates="h",
    tensors=_ONE_BIAS,
    computes=_CELL,
    source=f"{_RNN}/simple_rnn.py, SimpleRNNCell.build",
    verified="live",
)

DENSE = Layout(
    "keras:Dense",
    cell="dense",
    tensors={"kernel": "kernel: features units", "bias": "bias: units"},
    computes=_ACTIVATION,
    source="keras-team/keras keras/src/layers/core/dense.py, Dense.build",
    verified="live",
)
EMBEDDING = Layout(
    "keras:Embedding",
    cell="embedding",
    tensors={"embeddings": "table: tokens units"},
    computes={"mask_zero": "False True by mask_zero"},
    source="keras-team/keras keras/src/layers/core/embedding.py, Embedding.build",
    verified="live",
)
BATCH_NORM = Layout(
    "keras:BatchNormalization",
    cell="batchnorm",
    tensors={
        "gamma": "scale: features",
        "beta": "shift: features",
        "moving_mean": "mean: features",
        "moving_variance": "variance: features",
    },
    computes={"epsilon": "0.001 * by epsilon"},
    source="keras-team/keras keras/src/layers/normalization/batch_normalization.py, BatchNormalization.build",
    verified="live",
)
LAYER_NORM = Layout(
    "keras:LayerNormalization",
    cell="layernorm",
    tensors={"gamma": "scale: features", "beta": "shift: features"},
    computes={"epsilon": "0.001 * by epsilon"},
    source="keras-team/keras keras/src/layers/normalization/layer_normalization.py, LayerNormalization.build",
    verified="live",
)
CONV_1D = Layout(
    "keras:Conv1D",
    cell="conv1d",
    tensors={"kernel": "kernel: width channels units", "bias": "bias: units"},
    computes=_ACTIVATION,
    source="keras-team/keras keras/src/layers/convolutional/base_conv.py, BaseConv.build",
    verified="live",
)
ATTENTION = Layout(
    "keras:Attention",
    cell="attention",
    tensors={"scale": "scale:", "concat_score_weight": "concat_score:"},
    source="keras-team/keras keras/src/layers/attention/attention.py, Attention.build",
    verified="live",
)
ADDITIVE_ATTENTION = Layout(
    "keras:AdditiveAttention",
    cell="additive_attention",
    tensors={"scale": "scale: features"},
    source="keras-team/keras keras/src/layers/attention/additive_attention.py, AdditiveAttention.build",
    verified="live",
)
CONV_2D = Layout(
    "keras:Conv2D",
    cell="conv2d",
    tensors={"kernel": "kernel: height width channels units", "bias": "bias: units"},
    computes=_ACTIVATION,
    source="keras-team/keras keras/src/layers/convolutional/base_conv.py, BaseConv.build",
    verified="live",
)

DEFAULTS = defaults(
    f"{_RNN}/lstm.py, class LSTM, section Args",
    initialisation="Kernel glorot_uniform, recurrent kernel orthogonal, each over all gates at once; bias zeros.",
    forget_bias="Ones in the stored bias at the start (LSTM, unit_forget_bias=True); nothing is added at run time.",
    activations="LSTM and GRU: tanh, gates sigmoid; SimpleRNN: tanh. Any other by name; hard_sigmoid is x/6 + 0.5 cut to 0…1.",
    dropout="None. dropout and recurrent_dropout: one mask for all steps, in training only; one a gate with the latter.",
    masks=(
        "Followed: a masked step keeps the state and repeats the output before it; Masking and mask_zero make them.",
        f"{_RNN}/rnn.py, class RNN, section Masking",
    ),
    time_axis="Second: (batch, time, features).",
    state_order="h, c; each (batch, units).",
    directions=(
        "Bidirectional turns the backward output back, then joins (merge_mode='concat'); states: forward first.",
        f"{_RNN}/bidirectional.py, Bidirectional.call",
    ),
)

LIMITS = (
    Limit(
        "a layer",
        "Conv3D, ConvLSTM, MultiHeadAttention, other normalisations, …",
        "ours",
        "Beyond recurrent models: counted and explained, and not ported.",
    ),
    Limit(
        "Embedding", "of a token below 0, or beyond its table", "theirs", "A port raises TokenError; backends differ."
    ),
    Limit("MaxPooling1D, MaxPooling2D", "of NaN", "theirs", "TensorFlow leaves NaN out, torch hands it on."),
    Limit("supports_masking", "set by hand", "ours", "Masks go as they do for the layer's class."),
    Limit("mask", "of other axes than the steps, not concatenated", "theirs", "Keras fails, or takes it for features."),
    Limit("mask", "given from outside, backwards or on more axes", "ours", "model(x, mask=…) raises there."),
    Limit("call, compute_mask, …", "replaced on a layer or class", "impossible", "Its code cannot be read."),
    Limit("axis", "other than the last, of a normalisation", "ours", "Features lie on the last axis."),
    Limit("data_format", "channels_first", "ours", "Features lie on the last axis, of sequences and of images."),
    Limit(
        "interpolation", "bilinear and others, of UpSampling2D", "ours", "Each place is given several times, as it is."
    ),
    Limit("renorm, rms_scaling", "True", "ours", "They normalise by other numbers; no layer of torch does."),
    Limit("activation", "a callable of your own", "impossible", "Its code has no name in another framework."),
    Limit("activation", "threshold, glu", "theirs", "They fail in a recurrent layer of Keras itself."),
    Limit("activation", "gelu, leaky_relu in float64", "theirs", "TensorFlow rounds their constants to float32: 4e-8."),
    Limit("cell", "a class of your own", "impossible", "Its code cannot be read."),
    Limit("unroll", "with go_backwards and zero_output_for_mask, masked", "theirs", "Keras zeroes the wrong steps."),
    Limit("cell", "a stack of cells, stateful", "theirs", "Keras cannot reset the states of stacked cells."),
    Limit(
        "backward_layer", "with fewer or more states, which are asked for", "theirs", "Keras takes them to be as many."
    ),
    Limit("stateful", "in TimeDistributed, steps not known", "theirs", "Keras runs all steps at once, from one state."),
    Limit("stateful", "of a batch size not known", "theirs", "Keras makes the states for one batch size."),
    Limit("initial_state", "a constant, batch not known", "theirs", "It fits one size of the batch."),
    Limit("mask", "made by a Lambda or a function of your own", "impossible", "Its code cannot be read."),
    Limit("keras.ops", "along the batch; einsum, sort, …", "ours", "Beyond recurrent layers."),
    Limit("keras.ops.matmul", "of tensors of unlike ranks", "ours", "The batch of one would be an axis of the other."),
    Limit("Attention", "alone, or of other than 3 axes", "ours", "It reads several sequences; a model has them."),
    Limit(
        "training",
        "True, told to a layer in a model",
        "theirs",
        "Keras follows it in model(x) alone, not in fit or predict. Left behind with a remark.",
    ),
    Limit("mask", "of numbers, told to a Softmax", "ours", "It counts above a half, any other mask where it is not 0."),
    Limit("mask", "of a Softmax, of 3 axes, that a layer follows", "ours", "Other layers take an entry for each step."),
    Limit("dropout", "of a bare cell", "theirs", "Cells of other frameworks have none."),
    Limit("dtype", "of a stack of cells, or of a layer as activation", "theirs", "Keras rounds there to its own type."),
    Limit("return_state", "within TimeDistributed", "theirs", "Keras stacks output and states along the batch."),
    Limit("initial_state", "of two directions with unlike states", "theirs", "Keras gives half of them to each."),
    Limit("a model", "with a call of your own", "impossible", "Its code cannot be read; its graph does not say it."),
    Limit("implementation", "1, in a file", "theirs", "Keras does not write it, nor copy it into Bidirectional."),
    Limit(
        "activity_regularizer",
        "of a cell",
        "theirs",
        "Keras cannot train with it. Left behind with a remark.",
    ),
    Limit("kernel_regularizer", "a class or function of your own", "impossible", "Left behind with a remark."),
    Limit("dtype", "int8, int4, float8", "theirs", "Inputs are rounded at every call, too, as nn.Linear cannot."),
    Limit("dtype", "float16, bfloat16, mixed policies", "impossible", "Each rounds otherwise: float32, with a remark."),
    Limit("lora_rank", "any", "theirs", "Merged, with a remark: torch has no second, low-rank kernel."),
    Limit(
        "a cell used twice", "in a .keras file", "theirs", "Keras writes its weights once, and cannot read the file."
    ),
)
"""What a port from Keras refuses, or leaves behind with a remark."""


BACKENDS = ("tensorflow", "jax", "torch", "numpy", "openvino")
"""What Keras can compute with: each is the name of the package, too."""


def backend() -> str:
    """Return the package that Keras computes with here: as it says itself, or will find when it is imported.

    It asks ``KERAS_BACKEND``, then its own file of settings, and takes TensorFlow where neither says anything.

    Raises:
        AdapterError: It is set to a backend that Keras does not have.
    """
    if hasattr(sys.modules.get("keras"), "config"):
        return str(sys.modules["keras"].config.backend())
    said, where = _setting()
    if said not in BACKENDS:
        raise AdapterError(
            f"Keras has no backend {said!r}.",
            f"Set by {where}. Known: {', '.join(BACKENDS)}.",
            f"{nearest(said, BACKENDS)}Set KERAS_BACKEND to one of these, or leave it out for tensorflow.",
        )
    return said


def _setting() -> tuple[str, str]:
    """Return the backend that is set, and where."""
    if named := os.environ.get("KERAS_BACKEND"):
        return named, "KERAS_BACKEND"
    import json  # here, as a count has no use for it

    path = os.path.join(os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras"), "keras.json")
    try:
        with open(path, encoding="utf-8") as file:
            return str(json.load(file).get("backend", "tensorflow")), path
    except (OSError, ValueError, AttributeError):
        return "tensorflow", path


FRAMEWORK = Framework(
    "keras",
    "Keras 3",
    ("keras",),
    (
        *(LSTM, GRU, GRU_BEFORE, SIMPLE_RNN, DENSE, EMBEDDING, LSTM_CELL, GRU_CELL, GRU_CELL_BEFORE, SIMPLE_RNN_CELL),
        *(GENERAL_LSTM, GENERAL_LSTM_FULL, BATCH_NORM, LAYER_NORM, CONV_1D, CONV_2D, ATTENTION, ADDITIVE_ATTENTION),
    ),
    DEFAULTS,
    LIMITS,
    backend,
)
