"""How Flax nnx stores its layers.

Nothing here imports Flax: counts, explanations and mappings work where it is not installed. Flax lists the state of a
module by the alphabet; the gates of ``LSTMCell``, each a layer of its own there, are one line here.
"""

from gatewise.core.layout import Framework, Layout, defaults

_RNN = "google/flax flax/nnx/nn/recurrent.py"
_LINEAR = "google/flax flax/nnx/nn/linear.py"

# Functions are given as such; jax.nn has most of them, and calls one soft_sign.
_ACTIVATION = {"activation": "tanh softsign=soft_sign * by activation_fn"}
_GATED = {**_ACTIVATION, "recurrent_activation": "sigmoid softsign=soft_sign * by gate_fn"}

_AT = "{direction:|forward_rnn/cell/,backward_rnn/cell/}"

LSTM_CELL = Layout(
    "nnx:LSTMCell",
    cell="lstm",
    gates="ifgo",
    tensors={
        _AT + "h{gate}/bias": "bias: units",
        _AT + "h{gate}/kernel": "recurrent_kernel: state units",
        _AT + "{gate:ii,if_,ig,io}/kernel": "kernel: features units",  # an attribute cannot be called "if"
    },
    always="bias",
    computes=_GATED,
    source=f"{_RNN}, LSTMCell",
    verified="live",
)
OPTIMIZED_LSTM_CELL = Layout(
    "nnx:OptimizedLSTMCell",
    cell="lstm",
    gates="ifgo",
    tensors={
        _AT + "dense_h/bias": "bias: (gate units)",
        _AT + "dense_h/kernel": "recurrent_kernel: state (gate units)",
        _AT + "dense_i/kernel": "kernel: features (gate units)",
    },
    always="bias",
    computes=_GATED,
    source=f"{_RNN}, OptimizedLSTMCell",
    verified="live",
    note="Its help calls the parameters compatible with LSTMCell; they are packed, and those are not.",
)
GRU_CELL = Layout(
    "nnx:GRUCell",
    cell="gru",
    gates="rzn",
    reset="after",
    tensors={
        _AT + "dense_h/kernel": "recurrent_kernel: state (gate units)",
        _AT + "dense_i/bias": "bias: (gate units)",
        _AT + "dense_i/kernel": "kernel: features (gate units)",
    },
    always="bias",
    computes=_GATED,
    source=f"{_RNN}, GRUCell",
    verified="live",
    note="It has no bias behind the reset gate, although its help writes b_hn.",
)
SIMPLE_CELL = Layout(
    "nnx:SimpleCell",
    cell="rnn",
    gates="h",
    tensors={
        _AT + "dense_h/kernel": "recurrent_kernel: state units",
        _AT + "dense_i/bias": "bias: units",
        _AT + "dense_i/kernel": "kernel: features units",
    },
    always="bias",
    computes=_ACTIVATION,
    source=f"{_RNN}, SimpleCell with residual=False",
    verified="live",
)
LINEAR = Layout(
    "nnx:Linear",
    cell="dense",
    tensors={"bias": "bias: units", "kernel": "kernel: features units"},
    computes={"activation": "linear softsign=soft_sign * behind"},
    source=f"{_LINEAR}, Linear",
    verified="live",
)
EMBED = Layout(
    "nnx:Embed",
    cell="embedding",
    tensors={"embedding": "table: tokens units"},
    source=f"{_LINEAR}, Embed",
    verified="live",
)

DEFAULTS = defaults(
    "google/flax flax/nnx/nn/recurrent.py",
    initialisation="Kernels lecun_normal, recurrent kernels orthogonal; biases zeros.",
    forget_bias="None, stored or at run time.",
    activations="LSTM and GRU: tanh, gates sigmoid; any function can be given.",
    dropout="None.",
    masks="No masks; seq_lengths chooses which state is the last.",
    time_axis="Second: (batch, time, features), unless time_major=True.",
    state_order="c, h: the carry of LSTMCell.",
    directions="RNN(reverse=True) gives outputs in the order of reading unless keep_order=True; Bidirectional keeps the order of time and joins.",
)

FRAMEWORK = Framework(
    "nnx", "Flax nnx", ("flax", "jax"), (LSTM_CELL, GRU_CELL, SIMPLE_CELL, LINEAR, EMBED, OPTIMIZED_LSTM_CELL), DEFAULTS
)
