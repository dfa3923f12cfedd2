"""How Flax linen stores its layers.

Nothing here imports Flax: counts, explanations and mappings work where it is not installed. Flax lists a tree of
parameters by the alphabet; the gates, each a layer of its own there, are one line here.
"""

from gatewise.core.layout import Framework, Layout, defaults

_RNN = "google/flax flax/linen/recurrent.py"
_LINEAR = "google/flax flax/linen/linear.py"

# Functions are given as such; jax.nn has most of them, and calls one soft_sign.
_ACTIVATION = {"activation": "tanh softsign=soft_sign * by activation_fn"}
_GATED = {**_ACTIVATION, "recurrent_activation": "sigmoid softsign=soft_sign * by gate_fn"}

_AT = "{direction:|forward_rnn/cell/,backward_rnn/cell/}"

# The bias of the LSTM stands on the h side alone, those of the GRU and of the simple cell on the i side.
_LSTM = {
    _AT + "h{gate}/bias": "bias: units",
    _AT + "h{gate}/kernel": "recurrent_kernel: state units",
    _AT + "i{gate}/kernel": "kernel: features units",
}

LSTM_CELL = Layout(
    "flax:LSTMCell",
    cell="lstm",
    gates="ifgo",
    tensors=_LSTM,
    always="bias",
    computes=_GATED,
    source=f"{_RNN}, LSTMCell",
    verified="live",
)
OPTIMIZED_LSTM_CELL = Layout(
    "flax:OptimizedLSTMCell",
    cell="lstm",
    gates="ifgo",
    tensors=_LSTM,
    always="bias",
    computes=_GATED,
    source=f"{_RNN}, OptimizedLSTMCell",
    verified="live",
    note="It joins the kernels at run time; what is stored is the same as in LSTMCell.",
)
GRU_CELL = Layout(
    "flax:GRUCell",
    cell="gru",
    gates="rzn",
    reset="after",
    tensors={
        _AT + "hn/bias": "recurrent_bias[n]: units",
        _AT + "h{gate}/kernel": "recurrent_kernel: state units",
        _AT + "i{gate}/bias": "bias: units",
        _AT + "i{gate}/kernel": "kernel: features units",
    },
    always="bias recurrent_bias",
    computes=_GATED,
    source=f"{_RNN}, GRUCell",
    verified="live",
)
SIMPLE_CELL = Layout(
    "flax:SimpleCell",
    cell="rnn",
    gates="h",
    tensors={
        _AT + "h/kernel": "recurrent_kernel: state units",
        _AT + "i/bias": "bias: units",
        _AT + "i/kernel": "kernel: features units",
    },
    always="bias",
    computes=_ACTIVATION,
    source=f"{_RNN}, SimpleCell with residual=False",
    verified="live",
)
DENSE = Layout(
    "flax:Dense",
    cell="dense",
    tensors={"bias": "bias: units", "kernel": "kernel: features units"},
    computes={"activation": "linear softsign=soft_sign * behind"},
    source=f"{_LINEAR}, Dense",
    verified="live",
)
EMBED = Layout(
    "flax:Embed",
    cell="embedding",
    tensors={"embedding": "table: tokens units"},
    source=f"{_LINEAR}, Embed",
    verified="live",
)

DEFAULTS = defaults(
    "google/flax flax/linen/recurrent.py",
    initialisation="Kernels lecun_normal, recurrent kernels orthogonal, each gate by itself; biases zeros.",
    forget_bias="None, stored or at run time.",
    activations="LSTM and GRU: tanh, gates sigmoid; any function can be given.",
    dropout="None.",
    masks="No masks; seq_lengths chooses which state is the last.",
    time_axis="Second: (batch, time, features), unless time_major=True.",
    state_order="c, h: the carry of LSTMCell.",
    directions="RNN(reverse=True) gives outputs in the order of reading unless keep_order=True; Bidirectional keeps the order of time and joins.",
)

FRAMEWORK = Framework(
    "flax",
    "Flax linen",
    ("flax", "jax"),
    (LSTM_CELL, GRU_CELL, SIMPLE_CELL, DENSE, EMBED, OPTIMIZED_LSTM_CELL),
    DEFAULTS,
)
