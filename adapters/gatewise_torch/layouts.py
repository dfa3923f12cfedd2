"""How PyTorch stores its layers.

Nothing here imports torch: counts, explanations and mappings work where it is not installed.
"""

from gatewise.core.layout import Framework, Layout

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

LSTM = Layout(
    "torch:LSTM",
    cell="lstm",
    gates="ifgo",
    tensors={**_SEQUENCE, "weight_hr_l{layer}{direction}": "projection: state units"},
    source=f"{_RNN}, class LSTM, section Attributes",
    verified="live",
)
LSTM_CELL = Layout(
    "torch:LSTMCell", cell="lstm", gates="ifgo", tensors=_CELL, source=f"{_RNN}, class LSTMCell", verified="live"
)
GRU = Layout(
    "torch:GRU",
    cell="gru",
    gates="rzn",
    reset="after",
    tensors=_SEQUENCE,
    source=f"{_RNN}, class GRU, section Attributes",
    verified="live",
)
GRU_CELL = Layout(
    "torch:GRUCell",
    cell="gru",
    gates="rzn",
    reset="after",
    tensors=_CELL,
    source=f"{_RNN}, class GRUCell",
    verified="live",
)
RNN = Layout(
    "torch:RNN",
    cell="rnn",
    gates="h",
    tensors=_SEQUENCE,
    source=f"{_RNN}, class RNN, section Attributes",
    verified="live",
)
RNN_CELL = Layout(
    "torch:RNNCell", cell="rnn", gates="h", tensors=_CELL, source=f"{_RNN}, class RNNCell", verified="live"
)
LINEAR = Layout(
    "torch:Linear",
    cell="dense",
    tensors={"weight": "kernel: units features", "bias": "bias: units"},
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

FRAMEWORK = Framework(
    "torch", "PyTorch", ("torch",), (LSTM, GRU, RNN, LINEAR, EMBEDDING, LSTM_CELL, GRU_CELL, RNN_CELL)
)
