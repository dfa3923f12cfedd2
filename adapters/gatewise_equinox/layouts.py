"""How Equinox stores its layers.

Nothing here imports Equinox: counts, explanations and mappings work where it is not installed.
"""

from gatewise.core.layout import Framework, Layout

_RNN = "patrick-kidger/equinox equinox/nn/_rnn.py"

_CELL = {
    "weight_ih": "kernel: (gate units) features",
    "weight_hh": "recurrent_kernel: (gate units) state",
    "bias": "bias: (gate units)",
}
_FIXED = {"activation": "tanh", "recurrent_activation": "sigmoid"}

LSTM_CELL = Layout(
    "equinox:LSTMCell",
    cell="lstm",
    gates="ifgo",
    tensors=_CELL,
    computes=_FIXED,
    source=f"{_RNN}, LSTMCell",
    verified="live",
)
GRU_CELL = Layout(
    "equinox:GRUCell",
    cell="gru",
    gates="rzn",
    reset="after",
    tensors={**_CELL, "bias_n": "recurrent_bias[n]: units"},
    computes=_FIXED,
    source=f"{_RNN}, GRUCell",
    verified="live",
)
LINEAR = Layout(
    "equinox:Linear",
    cell="dense",
    tensors={"weight": "kernel: units features", "bias": "bias: units"},
    source="patrick-kidger/equinox equinox/nn/_linear.py, Linear",
    verified="live",
)
EMBEDDING = Layout(
    "equinox:Embedding",
    cell="embedding",
    tensors={"weight": "table: tokens units"},
    source="patrick-kidger/equinox equinox/nn/_embedding.py, Embedding",
    verified="live",
)

FRAMEWORK = Framework("equinox", "Equinox", ("equinox", "jax"), (LSTM_CELL, GRU_CELL, LINEAR, EMBEDDING))
