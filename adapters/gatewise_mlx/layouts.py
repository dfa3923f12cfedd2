"""How Apple's MLX stores its layers.

Nothing here imports MLX: counts, explanations and mappings work where it is not installed.
"""

from gatewise.core.layout import Framework, Layout

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
    source=f"{_RNN}, GRU",
    verified="live",
)
RNN = Layout(
    "mlx:RNN",
    cell="rnn",
    gates="h",
    tensors={"Wxh": "kernel: units features", "Whh": "recurrent_kernel: units state", "bias": "bias: units"},
    source=f"{_RNN}, RNN",
    verified="live",
)
LINEAR = Layout(
    "mlx:Linear",
    cell="dense",
    tensors={"weight": "kernel: units features", "bias": "bias: units"},
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

FRAMEWORK = Framework("mlx", "Apple MLX", ("mlx",), (LSTM, GRU, RNN, LINEAR, EMBEDDING))
