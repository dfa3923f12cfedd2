"""How tf_keras stores its layers: Keras 2, and with it the layers of TensorFlow up to 2.15.

Names, shapes and order are those of Keras 3. A stack of layers is listed layer by layer, and within ``Bidirectional``
the forward copy first, as ``get_weights()`` does. Nothing here imports tf_keras: counts, explanations and mappings work
where it is not installed.
"""

from gatewise.core.layout import Framework, Layout, defaults

_RNN = "keras-team/tf-keras tf_keras/layers/rnn"

_CUDNN = {"activation": "tanh", "recurrent_activation": "sigmoid"}
_CUDNN_NOTE = (
    "Each block of a kernel has the shape of the plain layer's, but its numbers lie as cuDNN wants them. Checked against "
    "the conversion that tf_keras itself makes when it loads such weights into the plain layer, not on a GPU."
)

_PREFIX = "{layer:|layer_#/}{direction:|forward_layer/,backward_layer/}"
_KERNELS = {
    _PREFIX + "kernel": "kernel: features (gate units)",
    _PREFIX + "recurrent_kernel": "recurrent_kernel: state (gate units)",
}
_ONE_BIAS = {**_KERNELS, _PREFIX + "bias": "bias: (gate units)"}
_OF_CUDNN = {
    _PREFIX + "kernel": "kernel: features (gate units) ~ units features",
    _PREFIX + "recurrent_kernel": "recurrent_kernel: state (gate units) ~ units state",
    _PREFIX + "bias": "bias + recurrent_bias: (gate units + gate units)",
}

# What its classes compute; hard_sigmoid is 0.2x + 0.5 here (tf_keras/backend.py, hard_sigmoid).
_ANY = "* !threshold !glu !hard_sigmoid hard_sigmoid_02=hard_sigmoid silu=swish by"
_RUN = {
    "merge": "concat * by merge_mode",
    "go_backwards": "False True by go_backwards",
    "stateful": "False True by stateful",
    "zero_output_for_mask": "False True by zero_output_for_mask",
    "activation": f"tanh {_ANY} activation",
    "dropout": "0.0 * by dropout",
    "recurrent_dropout": "0.0 * by recurrent_dropout",
}
_GATED = {**_RUN, "recurrent_activation": f"sigmoid {_ANY} recurrent_activation"}
_RESET = {"reset": "after=True before=False by reset_after"}

LSTM = Layout(
    "tf_keras:LSTM",
    cell="lstm",
    gates="ifgo",
    tensors=_ONE_BIAS,
    computes=_GATED,
    source=f"{_RNN}/lstm.py, LSTM",
    verified="live",
)
GRU = Layout(
    "tf_keras:GRU",
    cell="gru",
    gates="zrn",
    reset="after",
    tensors={**_KERNELS, _PREFIX + "bias": "bias + recurrent_bias: (1 + 1) (gate units)"},
    computes={**_GATED, **_RESET},
    source=f"{_RNN}/gru.py, GRU with reset_after=True",
    verified="live",
)
GRU_BEFORE = Layout(
    "tf_keras:GRU",
    cell="gru",
    gates="zrn",
    reset="before",
    tensors=_ONE_BIAS,
    computes={**_GATED, **_RESET},
    source=f"{_RNN}/gru.py, GRU with reset_after=False",
    verified="live",
)
SIMPLE_RNN = Layout(
    "tf_keras:SimpleRNN",
    cell="rnn",
    gates="h",
    tensors=_ONE_BIAS,
    computes=_RUN,
    source=f"{_RNN}/simple_rnn.py, SimpleRNN",
    verified="live",
)
DENSE = Layout(
    "tf_keras:Dense",
    cell="dense",
    tensors={"kernel": "kernel: features units", "bias": "bias: units"},
    computes={"activation": f"linear {_ANY} activation"},
    source="keras-team/tf-keras tf_keras/layers/core/dense.py, Dense.build",
    verified="live",
)
EMBEDDING = Layout(
    "tf_keras:Embedding",
    cell="embedding",
    tensors={"embeddings": "table: tokens units"},
    computes={"mask_zero": "False True by mask_zero"},
    source="keras-team/tf-keras tf_keras/layers/core/embedding.py, Embedding.build",
    verified="live",
)
CUDNN_LSTM = Layout(
    "tf_keras:CuDNNLSTM",
    cell="lstm",
    gates="ifgo",
    tensors=_OF_CUDNN,
    always="bias recurrent_bias",
    computes=_CUDNN,
    source=f"{_RNN}/cudnn_lstm.py, CuDNNLSTM; tf_keras/saving/legacy/hdf5_format.py",
    verified="live",
    note=_CUDNN_NOTE,
)
CUDNN_GRU = Layout(
    "tf_keras:CuDNNGRU",
    cell="gru",
    gates="zrn",
    reset="after",
    tensors=_OF_CUDNN,
    always="bias recurrent_bias",
    computes=_CUDNN,
    source=f"{_RNN}/cudnn_gru.py, CuDNNGRU; tf_keras/saving/legacy/hdf5_format.py",
    verified="live",
    note=_CUDNN_NOTE,
)

DEFAULTS = defaults(
    f"{_RNN}/lstm.py, class LSTM, section Args",
    initialisation="Kernel glorot_uniform, recurrent kernel orthogonal, each over all gates at once; bias zeros.",
    forget_bias="Ones in the stored bias at the start (LSTM, unit_forget_bias=True); nothing is added at run time.",
    activations="LSTM and GRU: tanh, gates sigmoid; SimpleRNN: tanh. Any other by name; hard_sigmoid is 0.2x + 0.5 cut to 0…1.",
    dropout="None. dropout and recurrent_dropout: one mask for all steps, in training only; one a gate with the latter.",
    masks=(
        "Followed: a masked step keeps the state and repeats the output before it; Masking and mask_zero make them.",
        f"{_RNN}/rnn.py, class RNN, section Masking",
    ),
    time_axis="Second: (batch, time, features).",
    state_order="h, c; each (batch, units).",
    directions=(
        "Bidirectional turns the backward output back, then joins (merge_mode='concat'); states: forward first.",
        f"{_RNN}/bidirectional.py, Bidirectional.call",
    ),
)

FRAMEWORK = Framework(
    "tf_keras",
    "tf_keras (Keras 2)",
    ("tf_keras", "tensorflow"),
    (LSTM, GRU, GRU_BEFORE, SIMPLE_RNN, DENSE, EMBEDDING, CUDNN_LSTM, CUDNN_GRU),
    DEFAULTS,
)
