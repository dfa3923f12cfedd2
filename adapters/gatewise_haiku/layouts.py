"""How Haiku stores its layers.

Nothing here imports Haiku: counts, explanations and mappings work where it is not installed. Names are those behind
the module's own, ``lstm/linear/w`` being ``linear/w``.
"""

from gatewise.core.layout import Framework, Layout, defaults

_RNN = "google-deepmind/dm-haiku haiku/_src/recurrent.py"

LSTM = Layout(
    "haiku:LSTM",
    cell="lstm",
    gates="igfo",
    tensors={
        "linear/w": "kernel + recurrent_kernel: (features + state) (gate units)",
        "linear/b": "bias: (gate units)",
    },
    adds={"f": 1.0},
    always="bias",
    computes={"activation": "tanh", "recurrent_activation": "sigmoid"},
    source=f"{_RNN}, LSTM.__call__",
    verified="live",
    note="1 is added to the forget gate at every step, not only at the start.",
)
GRU = Layout(
    "haiku:GRU",
    cell="gru",
    gates="zrn",
    reset="before",
    update="takes",
    tensors={
        "w_i": "kernel: features (gate units)",
        "w_h": "recurrent_kernel: state (gate units)",
        "b": "bias: (gate units)",
    },
    always="bias",
    computes={"activation": "tanh", "recurrent_activation": "sigmoid"},
    source=f"{_RNN}, GRU.__call__",
    verified="live",
    note="Its help calls z the reset and r the update gate; the code has it as here.",
)

# The input side has a bias whatever the arguments say; double_bias is about the other one.
_ONE_BIAS = {
    "linear/w": "kernel: features units",
    "linear/b": "bias: units",
    "linear_1/w": "recurrent_kernel: state units",
}
VANILLA_RNN = Layout(
    "haiku:VanillaRNN",
    cell="rnn",
    gates="h",
    tensors={**_ONE_BIAS, "linear_1/b": "recurrent_bias: units"},
    always="bias",
    computes={"activation": "relu"},
    source=f"{_RNN}, VanillaRNN.__call__",
    verified="live",
    note="It computes relu, where the plain layers of other frameworks compute tanh.",
)
VANILLA_RNN_SINGLE = Layout(
    "haiku:VanillaRNN(double_bias=False)",
    cell="rnn",
    gates="h",
    tensors=_ONE_BIAS,
    always="bias",
    computes={"activation": "relu"},
    source=f"{_RNN}, VanillaRNN.__call__ with double_bias=False",
    verified="live",
)
LINEAR = Layout(
    "haiku:Linear",
    cell="dense",
    tensors={"w": "kernel: features units", "b": "bias: units"},
    computes={"activation": "linear * behind"},
    source="google-deepmind/dm-haiku haiku/_src/basic.py, Linear",
    verified="live",
)
EMBED = Layout(
    "haiku:Embed",
    cell="embedding",
    tensors={"embeddings": "table: tokens units"},
    source="google-deepmind/dm-haiku haiku/_src/embed.py, Embed",
    verified="live",
)

DEFAULTS = defaults(
    "google-deepmind/dm-haiku haiku/_src/recurrent.py",
    initialisation=(
        "Truncated normal, 1/sqrt(features + units) wide; biases zeros.",
        "google-deepmind/dm-haiku haiku/_src/basic.py, Linear",
    ),
    forget_bias="1 added at run time, always.",
    activations="LSTM and GRU: tanh, gates sigmoid, no others; VanillaRNN: relu.",
    dropout="None.",
    masks="No masks.",
    time_axis="First: (time, batch, features) in dynamic_unroll.",
    state_order="h, c: LSTMState(hidden, cell).",
    directions="One; dynamic_unroll(reverse=True) reads from the end, and its outputs stay in the order of time.",
)

FRAMEWORK = Framework(
    "haiku", "Haiku", ("haiku", "jax"), (LSTM, GRU, VANILLA_RNN, LINEAR, EMBED, VANILLA_RNN_SINGLE), DEFAULTS
)
