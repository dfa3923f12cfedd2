"""How cuDNN stores a recurrent network: one flat buffer, all matrices by layer and direction, then all biases.

PyTorch slices this buffer; on a GPU (`make test-gpu`) a plan makes the one that ``nn.LSTM`` and the like hold there.
"""

from gatewise.core.layout import Framework, Layout

_SOURCE = "pytorch/pytorch aten/src/ATen/native/cudnn/RNN.cpp, get_parameters"
_NOTE = (
    "With two biases, as every framework here sets it; without any where the spec has none, though PyTorch then leaves "
    "room for two, of zeros, at the end."
)

_BUFFER = {
    "weights": "kernel + recurrent_kernel + bias + recurrent_bias: (layer direction (gate units features + gate units"
    " state) + layer direction (gate units + gate units))"
}
_PROJECTED = {
    "weights": "kernel + recurrent_kernel + projection + bias + recurrent_bias: (layer direction (gate units features"
    " + gate units state + state units) + layer direction (gate units + gate units))"
}

LSTM = Layout(
    "cudnn:LSTM",
    cell="lstm",
    gates="ifgo",
    tensors=_PROJECTED,
    computes={"activation": "tanh", "recurrent_activation": "sigmoid", "cell_clip": "None * by clip"},
    source=_SOURCE,
    note=_NOTE,
    verified="live",
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
    verified="live",
)
RNN = Layout(
    "cudnn:RNN",
    cell="rnn",
    gates="h",
    tensors=_BUFFER,
    computes={"activation": "tanh=CUDNN_RNN_TANH relu=CUDNN_RNN_RELU by cellMode"},
    source=_SOURCE,
    note=_NOTE,
    verified="live",
)

FRAMEWORK = Framework("cudnn", "cuDNN", ("cudnn",), (LSTM, GRU, RNN))
