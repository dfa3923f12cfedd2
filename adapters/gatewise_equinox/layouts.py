"""How Equinox stores its layers.

Nothing here imports Equinox: counts, explanations and mappings work where it is not installed.
"""

from gatewise.core.layout import Framework, Layout, defaults

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
    computes={"activation": "linear * behind"},
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

DEFAULTS = defaults(
    "patrick-kidger/equinox equinox/nn/_rnn.py",
    initialisation="Every tensor, biases too, uniform within 1/sqrt(hidden_size).",
    forget_bias="None, stored or at run time.",
    activations="LSTM and GRU: tanh, gates sigmoid, no others.",
    dropout="None.",
    masks="No masks.",
    time_axis="None: a cell takes one vector, and the loop and the batch are the user's (jax.lax.scan, jax.vmap).",
    state_order="h, c.",
    directions="One only.",
)

FRAMEWORK = Framework("equinox", "Equinox", ("equinox", "jax"), (LSTM_CELL, GRU_CELL, LINEAR, EMBEDDING), DEFAULTS)
