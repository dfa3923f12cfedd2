"""How cuDNN stores a recurrent network: one flat buffer, all matrices by layer and direction, then all biases.

Read from the sources of PyTorch, which slices this buffer; nothing here runs cuDNN. Its projection has a matrix of its
own (number 8 behind the eight of the gates), whose place in the buffer was not read: it is not described here.
"""

from gatewise.core.layout import Framework, Layout

_SOURCE = "pytorch/pytorch aten/src/ATen/native/cudnn/RNN.cpp, get_parameters"
_NOTE = "With two biases, as every framework here sets it; without any where the spec has none."

_BUFFER = {
    "weights": "kernel + recurrent_kernel + bias + recurrent_bias: (layer direction (gate units features + gate units"
    " state) + layer direction (gate units + gate units))"
}

LSTM = Layout(
    "cudnn:LSTM",
    cell="lstm",
    gates="ifgo",
    tensors=_BUFFER,
    computes={"activation": "tanh", "recurrent_activation": "sigmoid", "cell_clip": "*"},
    source=_SOURCE,
    note=_NOTE,
)
GRU = Layout(
    "cudnn:GRU",
    cell="gru",
    gates="rzn",
    reset="after",
    tensors=_BUFFER,
    computes={"activation": "tanh", "recurrent_activation": "sigmoid"},
    source=_SOURCE,
    note=_NOTE,
)
RNN = Layout(
    "cudnn:RNN",
    cell="rnn",
    gates="h",
    tensors=_BUFFER,
    computes={"activation": "tanh relu"},
    source=_SOURCE,
    note=_NOTE,
)

FRAMEWORK = Framework("cudnn", "cuDNN", ("cudnn",), (LSTM, GRU, RNN))
