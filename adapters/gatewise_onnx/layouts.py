"""How ONNX stores its recurrent operators: one operator is one layer, and the direction is the first axis.

A tensor is named as the input of the operator that it is. Nothing here imports onnx: counts, explanations and mappings
work where it is not installed.
"""

from gatewise.core.layout import Framework, Layout, defaults

_DEFINITIONS = "onnx/onnx onnx/defs/rnn/defs.cc"

ACTIVATIONS: dict[str, tuple[str, dict[str, float]]] = {
    "linear": ("Affine", {"alpha": 1.0, "beta": 0.0}),
    "tanh": ("Tanh", {}),
    "sigmoid": ("Sigmoid", {}),
    "relu": ("Relu", {}),
    # x / 6 + 1/2, as in Keras 3 and PyTorch; ONNX's own default is the x / 5 + 1/2 of Keras 2.
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "hard_sigmoid_02": ("HardSigmoid", {"alpha": 0.2, "beta": 0.5}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.2}),
    "elu": ("Elu", {"alpha": 1.0}),
    "softsign": ("Softsign", {}),
    "softplus": ("Softplus", {}),
    # Of a dense layer only:
    "selu": ("Selu", {}),
    "softmax": ("Softmax", {}),
    "exponential": ("Exp", {}),
}
"""Activation → the function of the operators that it is, with what it is given as alpha and beta."""

_RECURRENT = [name for name in ACTIVATIONS if name not in ("selu", "softmax", "exponential")]


def _function(name: str, prefix: str = "") -> str:
    function, given = ACTIVATIONS[name]
    numbers = ",".join(f"{prefix}{letter}={number!r}" for letter, number in given.items())
    return f"{name}={function}" + (f"({numbers})" if numbers else "")


def _listed(default: str, places: str) -> str:
    """Return the row of an option whose functions are entries of the attribute activations."""
    words = [_function(name, "activation_") for name in dict.fromkeys([default, *_RECURRENT])]
    return f"{' '.join(words)} by activations[{places}]"


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
    computes={"recurrent_activation": _listed("sigmoid", "0"), "activation": _listed("tanh", "1,2")},
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
    computes={
        "recurrent_activation": _listed("sigmoid", "0"),
        "activation": _listed("tanh", "1"),
        "reset": "before=0 after=1 by linear_before_reset",
    },
    source=f"{_DEFINITIONS}, GRU with linear_before_reset=0 or 1",
    verified="live",
)
RNN = Layout(
    "onnx:RNN",
    cell="rnn",
    gates="h",
    tensors=_TENSORS,
    computes={"activation": _listed("tanh", "0")},
    source=f"{_DEFINITIONS}, RNN",
    verified="live",
)
GEMM = Layout(
    "onnx:Gemm",
    cell="dense",
    # Without an attribute, that is with transB=0, B has one row a feature. Exporters of PyTorch models set transB=1.
    tensors={"B": "kernel: features units", "C": "bias: units"},
    computes={"activation": f"linear {' '.join(_function(name) for name in ACTIVATIONS if name != 'linear')} behind"},
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
