"""How ONNX stores its recurrent operators: one operator is one layer, and the direction is the first axis.

A tensor is named as the input of the operator that it is. Nothing here imports onnx: counts, explanations and mappings
work where it is not installed.
"""

from gatewise.core.layout import Framework, Layout, defaults

_DEFINITIONS = "onnx/onnx onnx/defs/rnn/defs.cc"

# What the operators have under a name of their own; a slope or a bound is given as alpha and beta.
_ACTIVATIONS = "linear tanh sigmoid relu hard_sigmoid hard_sigmoid_02 leaky_relu elu softsign softplus"

_TENSORS = {
    "W": "kernel: direction (gate units) features",
    "R": "recurrent_kernel: direction (gate units) state",
    "B": "bias + recurrent_bias: direction (gate units + gate units)",
}

LSTM = Layout(
    "onnx:LSTM",
    cell="lstm",
    gates="iofg",
    tensors={**_TENSORS, "P": "peephole: direction (gate units)"},
    computes={"activation": _ACTIVATIONS, "recurrent_activation": _ACTIVATIONS},
    source=f"{_DEFINITIONS}, LSTM",
    verified="live",
    note="Its attribute clip bounds what goes into an activation, not the memory.",
)
GRU = Layout(
    "onnx:GRU",
    cell="gru",
    gates="zrn",
    reset="before after",
    tensors=_TENSORS,
    computes={"activation": _ACTIVATIONS, "recurrent_activation": _ACTIVATIONS},
    source=f"{_DEFINITIONS}, GRU with linear_before_reset=0 or 1",
    verified="live",
)
RNN = Layout(
    "onnx:RNN",
    cell="rnn",
    gates="h",
    tensors=_TENSORS,
    computes={"activation": _ACTIVATIONS},
    source=f"{_DEFINITIONS}, RNN",
    verified="live",
)
GEMM = Layout(
    "onnx:Gemm",
    cell="dense",
    # Without an attribute, that is with transB=0, B has one row a feature. Exporters of PyTorch models set transB=1.
    tensors={"B": "kernel: features units", "C": "bias: units"},
    computes={"activation": f"{_ACTIVATIONS} selu softmax exponential"},
    source="onnx/onnx onnx/defs/math/defs.cc, Gemm with transB=0",
    verified="live",
)
GATHER = Layout(
    "onnx:Gather",
    cell="embedding",
    tensors={"data": "table: tokens units"},
    source="onnx/onnx onnx/defs/tensor/defs.cc, Gather with axis=0",
    verified="live",
)

DEFAULTS = defaults(
    "onnx/onnx onnx/defs/rnn/defs.cc, LSTM",
    initialisation="None: weights are given. A missing B is zero.",
    forget_bias="None, stored or at run time.",
    activations="LSTM: Sigmoid, Tanh, Tanh; GRU: Sigmoid, Tanh; RNN: Tanh. HardSigmoid is 0.2x + 0.5 cut to 0…1.",
    dropout="None.",
    masks="No masks; sequence_lens gives zero outputs behind the end of a sequence.",
    time_axis="First: (time, batch, features); layout=1 puts the batch first, and ONNX Runtime refuses it on the CPU.",
    state_order="h, c: Y_h, Y_c.",
    directions="An axis of their own: Y is (time, directions, batch, units), in the order of time.",
)

FRAMEWORK = Framework("onnx", "ONNX", ("onnx", "onnxruntime"), (LSTM, GRU, RNN, GEMM, GATHER), DEFAULTS)
