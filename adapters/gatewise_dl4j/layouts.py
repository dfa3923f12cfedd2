"""How Deeplearning4j stores its layers; parameters are named as in ``paramTable()``.

A network puts the layer's number before a name (``0_W``), ``Bidirectional`` an ``f`` or a ``b``. Read from its source:
nothing here runs Deeplearning4j.
"""

from gatewise.core.layout import Framework, Layout

_NN = "deeplearning4j/deeplearning4j deeplearning4j/deeplearning4j-nn/src/main/java/org/deeplearning4j/nn"
_HELPERS = "nn/layers/recurrent/LSTMHelpers.java"
_NOTE = (
    "Its comments call the blocks input, forget, output and input modulation; the code gives the layer's activation to "
    "the first and the gates' to the last, so they are candidate, forget, output and input."
)

# What its classes compute. A layer takes the activation of the whole network, sigmoid, unless it is told otherwise
# (conf/NeuralNetConfiguration.java); HARDSIGMOID is 0.2x + 0.5 (nd4j activations/impl/ActivationHardSigmoid.java).
_FUNCTIONS = (
    "sigmoid=SIGMOID tanh=TANH relu=RELU linear=IDENTITY hard_sigmoid_02=HARDSIGMOID hard_tanh=HARDTANH relu6=RELU6 "
    "elu=ELU selu=SELU softmax=SOFTMAX softplus=SOFTPLUS softsign=SOFTSIGN silu=SWISH mish=MISH"
)
_ACTIVATION = {"activation": f"{_FUNCTIONS} by activation"}
_GATED = {**_ACTIVATION, "recurrent_activation": f"{_FUNCTIONS} by gateActivationFunction"}

_PREFIX = "{layer:|#_}{direction:|f,b}"
_KERNELS = {
    _PREFIX + "W": "kernel: features (gate units)",
    _PREFIX + "RW": "recurrent_kernel: state (gate units)",
    _PREFIX + "b": "bias: 1 (gate units)",
}

LSTM = Layout(
    "dl4j:LSTM",
    cell="lstm",
    gates="gfoi",
    tensors=_KERNELS,
    always="bias",
    computes=_GATED,
    source=f"{_NN}/params/LSTMParamInitializer.java; {_HELPERS}",
    note=_NOTE,
)
GRAVES_LSTM = Layout(
    "dl4j:GravesLSTM",
    cell="lstm",
    gates="gfoi",
    # Behind the 4H columns of the gates stand three with the peepholes of forget, output and input gate.
    tensors={
        **_KERNELS,
        _PREFIX + "RW": "recurrent_kernel + peephole[foi]: (state | units) (gate units + gate)",
    },
    always="bias peephole",
    computes=_GATED,
    source=f"{_NN}/params/GravesLSTMParamInitializer.java; {_HELPERS}",
    note=_NOTE,
)
GRAVES_BIDIRECTIONAL_LSTM = Layout(
    "dl4j:GravesBidirectionalLSTM",
    cell="lstm",
    gates="gfoi",
    tensors={
        "W{direction:F,B}": "kernel: features (gate units)",
        "RW{direction:F,B}": "recurrent_kernel + peephole[foi]: (state | units) (gate units + gate)",
        "b{direction:F,B}": "bias: 1 (gate units)",
    },
    always="bias peephole",
    computes={**_GATED, "bidirectional": "True", "merge": "sum"},
    source=f"{_NN}/params/GravesBidirectionalLSTMParamInitializer.java; {_HELPERS}",
    note=_NOTE,
)
SIMPLE_RNN = Layout(
    "dl4j:SimpleRnn",
    cell="rnn",
    gates="h",
    tensors=_KERNELS,
    always="bias",
    computes=_ACTIVATION,
    source=f"{_NN}/params/SimpleRnnParamInitializer.java",
)
DENSE = Layout(
    "dl4j:DenseLayer",
    cell="dense",
    tensors={"W": "kernel: features units", "b": "bias: 1 units"},
    computes=_ACTIVATION,
    source=f"{_NN}/params/DefaultParamInitializer.java",
)

FRAMEWORK = Framework(
    "dl4j", "Deeplearning4j", ("deeplearning4j",), (LSTM, SIMPLE_RNN, DENSE, GRAVES_LSTM, GRAVES_BIDIRECTIONAL_LSTM)
)
