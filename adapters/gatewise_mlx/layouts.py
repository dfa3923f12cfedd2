"""How Apple's MLX stores its layers.

Nothing here imports MLX: counts, explanations and mappings work where it is not installed.
"""

from gatewise.core.layout import Framework, Layout, defaults

_RNN = "ml-explore/mlx python/mlx/nn/layers/recurrent.py"

_KERNELS = {"Wx": "kernel: (gate units) features", "Wh": "recurrent_kernel: (gate units) state"}
_FIXED = {"activation": "tanh", "recurrent_activation": "sigmoid"}

LSTM = Layout(
    "mlx:LSTM",
    cell="lstm",
    gates="ifgo",
    tensors={**_KERNELS, "bias": "bias: (gate units)"},
    computes=_FIXED,
    source=f"{_RNN}, LSTM",
    verified="live",
    note="It returns the hidden and the cell states of all steps.",
)
GRU = Layout(
    "mlx:GRU",
    cell="gru",
    gates="rzn",
    reset="after",
    tensors={**_KERNELS, "b": "bias: (gate units)", "bhn": "recurrent_bias[n]: units"},
    computes=_FIXED,
    # ml-explore/mlx issue 3249; 0.31.1 was measured to be wrong, 0.32.4 to be right.
    since={"bias": ("0.32.4", "Until 0.31.1 its first step leaves out bhn, unless a hidden state is given.")},
    source=f"{_RNN}, GRU",
    verified="live",
)
RNN = Layout(
    "mlx:RNN",
    cell="rnn",
    gates="h",
    tensors={"Wxh": "kernel: units features", "Whh": "recurrent_kernel: units state", "bias": "bias: units"},
    computes={"activation": "tanh * by nonlinearity"},
    source=f"{_RNN}, RNN",
    verified="live",
)
LINEAR = Layout(
    "mlx:Linear",
    cell="dense",
    tensors={"weight": "kernel: units features", "bias": "bias: units"},
    computes={"activation": "linear * behind"},
    source="ml-explore/mlx python/mlx/nn/layers/linear.py, Linear",
    verified="live",
)
EMBEDDING = Layout(
    "mlx:Embedding",
    cell="embedding",
    tensors={"weight": "table: tokens units"},
    source="ml-explore/mlx python/mlx/nn/layers/embedding.py, Embedding",
    verified="live",
)

DEFAULTS = defaults(
    "ml-explore/mlx python/mlx/nn/layers/recurrent.py",
    initialisation="Every tensor, biases too, uniform within 1/sqrt(hidden_size).",
    forget_bias="None, stored or at run time.",
    activations="LSTM and GRU: tanh, gates sigmoid, no others; RNN: tanh, or any function.",
    dropout="None.",
    masks="No masks.",
    time_axis="Second: (batch, time, features).",
    state_order="h, c: both for all steps, and not the last ones alone.",
    directions="One only.",
)

FRAMEWORK = Framework("mlx", "Apple MLX", ("mlx",), (LSTM, GRU, RNN, LINEAR, EMBEDDING), DEFAULTS)
