"""How OpenVINO stores its sequence operations: one operation is one layer, and the direction is the first axis.

A tensor is named as the input of the operation that it is. There is one bias, always. Nothing here imports openvino:
counts, explanations and mappings work where it is not installed.
"""

from gatewise.core.layout import Framework, Layout, defaults

_OPERATIONS = (
    "openvinotoolkit/openvino docs/articles_en/documentation/openvino-ir-format/operation-sets/operation-specs/sequence"
)

# The operations name more; these are the ones that the CPU plugin runs.
_GATES = "sigmoid tanh relu by activations[0]"
_COMPUTES = {"recurrent_activation": _GATES, "activation": "tanh sigmoid relu by activations[1,2]"}
_OF_GRU = {
    "recurrent_activation": _GATES,
    "activation": "tanh sigmoid relu by activations[1]",
    "reset": "before=False after=True by linear_before_reset",
}

_WEIGHTS = {
    "W": "kernel: direction (gate units) features",
    "R": "recurrent_kernel: direction (gate units) state",
}
_ONE_BIAS = {**_WEIGHTS, "B": "bias: direction (gate units)"}

LSTM = Layout(
    "openvino:LSTMSequence",
    cell="lstm",
    gates="figo",
    tensors=_ONE_BIAS,
    always="bias",
    computes=_COMPUTES,
    source=f"{_OPERATIONS}/lstm-sequence-5.rst",
    verified="live",
)
GRU_AFTER = Layout(
    "openvino:GRUSequence",
    cell="gru",
    gates="zrn",
    reset="after",
    tensors={**_WEIGHTS, "B": "bias + recurrent_bias[n]: direction (gate units + units)"},
    always="bias recurrent_bias",
    computes=_OF_GRU,
    source=f"{_OPERATIONS}/gru-sequence-5.rst with linear_before_reset=true",
    verified="live",
)
GRU_BEFORE = Layout(
    "openvino:GRUSequence",
    cell="gru",
    gates="zrn",
    reset="before",
    tensors=_ONE_BIAS,
    always="bias",
    computes=_OF_GRU,
    source=f"{_OPERATIONS}/gru-sequence-5.rst with linear_before_reset=false",
    verified="live",
)
RNN = Layout(
    "openvino:RNNSequence",
    cell="rnn",
    gates="h",
    tensors=_ONE_BIAS,
    always="bias",
    computes={"activation": "tanh sigmoid relu by activations[0]"},
    source=f"{_OPERATIONS}/rnn-sequence-5.rst",
    verified="live",
)

DEFAULTS = defaults(
    f"{_OPERATIONS}/lstm-sequence-5.rst",
    initialisation="None: weights are given.",
    forget_bias="None, stored or at run time.",
    activations="LSTM: sigmoid, tanh, tanh; GRU: sigmoid, tanh; RNN: tanh.",
    dropout="None.",
    masks="No masks; sequence_lengths says where each sequence ends.",
    time_axis="Second: (batch, time, features).",
    state_order="h, c: Ho, Co.",
    directions="An axis of their own: Y is (batch, directions, time, units).",
)

FRAMEWORK = Framework("openvino", "OpenVINO", ("openvino",), (LSTM, GRU_AFTER, GRU_BEFORE, RNN), DEFAULTS)
