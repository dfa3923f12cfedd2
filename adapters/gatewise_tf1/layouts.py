"""How TensorFlow 1 stores its cells, ``tf.compat.v1.nn.rnn_cell`` in TensorFlow 2.

A variable is named behind its cell's own scope: ``rnn/lstm_cell/kernel`` is ``kernel``. A stack puts ``cell_0/`` before
it, two directions ``fw/`` or ``bw/``. There is always a bias. Nothing here imports TensorFlow: counts, explanations and
mappings work where it is not installed.
"""

from gatewise.core.layout import Framework, Layout, defaults

_CELLS = "keras-team/tf-keras tf_keras/layers/rnn/legacy_cells.py"

# The candidate takes any function, or a name of Keras 2's; the gates are sigmoid.
_ACTIVATION = {"activation": "tanh * !threshold !glu !hard_sigmoid hard_sigmoid_02=hard_sigmoid by activation"}
_COMPUTES = {**_ACTIVATION, "recurrent_activation": "sigmoid"}

_PREFIX = "{layer:|cell_#/}{direction:|fw/,bw/}"
_KERNEL_AND_BIAS = {
    _PREFIX + "kernel": "kernel + recurrent_kernel: (features + state) (gate units)",
    _PREFIX + "bias": "bias: (gate units)",
}

LSTM_CELL = Layout(
    "tf1:LSTMCell",
    cell="lstm",
    gates="igfo",
    tensors={
        **_KERNEL_AND_BIAS,
        _PREFIX + "w_f_diag": "peephole[f]: units",
        _PREFIX + "w_i_diag": "peephole[i]: units",
        _PREFIX + "w_o_diag": "peephole[o]: units",
        _PREFIX + "projection/kernel": "projection: units state",
    },
    adds={"f": 1.0},
    always="bias",
    computes={**_COMPUTES, "cell_clip": "None * by cell_clip", "peepholes": "False True by use_peepholes"},
    source=f"{_CELLS}, LSTMCell",
    verified="live",
    note="Its argument forget_bias, 1 by default, is added at every step; the stored bias of that gate starts at 0.",
)
BASIC_LSTM_CELL = Layout(
    "tf1:BasicLSTMCell",
    cell="lstm",
    gates="igfo",
    tensors=_KERNEL_AND_BIAS,
    adds={"f": 1.0},
    always="bias",
    computes=_COMPUTES,
    source=f"{_CELLS}, BasicLSTMCell",
    verified="live",
    note="Its argument forget_bias, 1 by default, is added at every step; the stored bias of that gate starts at 0.",
)
GRU_CELL = Layout(
    "tf1:GRUCell",
    cell="gru",
    gates="rzn",
    reset="before",
    tensors={
        _PREFIX + "gates/kernel": "kernel[rz] + recurrent_kernel[rz]: (features + state) (gate units)",
        _PREFIX + "gates/bias": "bias[rz]: (gate units)",
        _PREFIX + "candidate/kernel": "kernel[n] + recurrent_kernel[n]: (features + state) units",
        _PREFIX + "candidate/bias": "bias[n]: units",
    },
    always="bias",
    computes=_COMPUTES,
    source=f"{_CELLS}, GRUCell",
    verified="live",
    note="Its biases start at 1 for the gates and at 0 for the candidate.",
)
BASIC_RNN_CELL = Layout(
    "tf1:BasicRNNCell",
    cell="rnn",
    gates="h",
    tensors=_KERNEL_AND_BIAS,
    always="bias",
    computes=_ACTIVATION,
    source=f"{_CELLS}, BasicRNNCell",
    verified="live",
)

DEFAULTS = defaults(
    f"{_CELLS}",
    initialisation="The initialiser of the variable scope, else glorot_uniform; biases zeros, ones for the GRU's gates.",
    forget_bias="1 added at run time (forget_bias=1.0); the stored bias starts at zero.",
    activations="LSTM and GRU: tanh, gates sigmoid always; BasicRNNCell: tanh.",
    dropout="None in the cell; DropoutWrapper draws a new mask at each step unless variational_recurrent=True.",
    masks="No masks; sequence_length gives zero outputs and keeps the state behind the end of a sequence.",
    time_axis="Second: (batch, time, features), unless time_major=True.",
    state_order="c, h: LSTMStateTuple(c, h).",
    directions="bidirectional_dynamic_rnn gives a pair, the backward output in the order of time; nothing is joined.",
)

FRAMEWORK = Framework(
    "tf1", "TensorFlow 1", ("tensorflow", "tf_keras"), (LSTM_CELL, GRU_CELL, BASIC_RNN_CELL, BASIC_LSTM_CELL), DEFAULTS
)
