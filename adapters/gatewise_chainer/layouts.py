"""How Chainer stores its links; a parameter is named as in ``namedparams()`` and in ``.npz`` files, without the slash.

Chainer 7.8.1 needs a NumPy older than 1.24, so no test here runs it. Each layout was compared with it once, at every
step, with two layers and two directions where there are any.
"""

from gatewise.core.layout import Framework, Layout

_LINKS = "chainer/chainer chainer/links"
_COMPUTES = {"activation": "tanh", "recurrent_activation": "sigmoid"}

# Row 4u + k belongs to unit u: the gates of one unit lie side by side, a i f o.
_INTERLEAVED = {
    "lateral/W": "recurrent_kernel: (units gate) state",
    "upward/W": "kernel: (units gate) features",
    "upward/b": "bias: (units gate)",
}


def _n_step(inner: str, outer: str) -> dict[str, str]:
    """One link for each layer and direction; its tensors are numbered, first those of the input, then of the state."""
    return {
        "{position}/b{gate:" + inner + "}": "bias: units",
        "{position}/b{gate:" + outer + "}": "recurrent_bias: units",
        "{position}/w{gate:" + inner + "}": "kernel: units features",
        "{position}/w{gate:" + outer + "}": "recurrent_kernel: units state",
    }


LSTM = Layout(
    "chainer:LSTM",
    cell="lstm",
    gates="gifo",
    tensors=_INTERLEAVED,
    always="bias",
    computes=_COMPUTES,
    source=f"{_LINKS}/rnn/lstm.py, LSTM and StatelessLSTM; chainer/functions/rnn/lstm.py",
)
N_STEP_LSTM = Layout(
    "chainer:NStepLSTM",
    cell="lstm",
    gates="ifgo",
    tensors=_n_step("0,1,2,3", "4,5,6,7"),
    always="bias recurrent_bias",
    computes=_COMPUTES,
    source=f"{_LINKS}/rnn/n_step_lstm.py, NStepLSTM and NStepBiLSTM; chainer/functions/rnn/n_step_lstm.py",
    note="Its help text lists the gates as i f o a; its code takes them as i f a o.",
)
PEEPHOLE_LSTM = Layout(
    "chainer:StatefulPeepholeLSTM",
    cell="lstm",
    gates="gifo",
    tensors={
        "lateral/W": _INTERLEAVED["lateral/W"],
        "peep_f/W": "peephole_kernel[f]: units memory",
        "peep_i/W": "peephole_kernel[i]: units memory",
        "peep_o/W": "peephole_kernel[o]: units memory",
        "upward/W": _INTERLEAVED["upward/W"],
        "upward/b": _INTERLEAVED["upward/b"],
    },
    always="bias peephole_kernel",
    computes=_COMPUTES,
    source=f"{_LINKS}/rnn/peephole.py, StatefulPeepholeLSTM",
    note="Its peepholes are full matrices: every unit sees the memory of every other.",
)
STATEFUL_GRU = Layout(
    "chainer:StatefulGRU",
    cell="gru",
    gates="rzn",
    reset="before",
    update="takes",
    tensors={
        f"{side}{suffix}/{name}": f"{part}[{gate}]: {axes}"
        for side, weight, bias in (
            ("U", ("recurrent_kernel", "units state"), "recurrent_bias"),
            ("W", ("kernel", "units features"), "bias"),
        )
        for suffix, gate in (("", "n"), ("_r", "r"), ("_z", "z"))
        for name, (part, axes) in (("W", weight), ("b", (bias, "units")))
    },
    always="bias recurrent_bias",
    computes=_COMPUTES,
    source=f"{_LINKS}/rnn/gru.py, StatefulGRU and StatelessGRU",
    note="Without a state, StatefulGRU leaves out the recurrent biases at its first step; a state of zeros adds them.",
)
N_STEP_GRU = Layout(
    "chainer:NStepGRU",
    cell="gru",
    gates="rzn",
    reset="after",
    tensors=_n_step("0,1,2", "3,4,5"),
    always="bias recurrent_bias",
    computes=_COMPUTES,
    source=f"{_LINKS}/rnn/n_step_gru.py, NStepGRU and NStepBiGRU; chainer/functions/rnn/n_step_gru.py",
)
N_STEP_RNN_RELU = Layout(
    "chainer:NStepRNNReLU",
    cell="rnn",
    gates="h",
    tensors=_n_step("0", "1"),
    always="bias recurrent_bias",
    computes={"activation": "relu"},
    source=f"{_LINKS}/rnn/n_step_rnn.py, NStepRNNReLU and NStepBiRNNReLU",
)
N_STEP_RNN_TANH = Layout(
    "chainer:NStepRNNTanh",
    cell="rnn",
    gates="h",
    tensors=_n_step("0", "1"),
    always="bias recurrent_bias",
    computes={"activation": "tanh"},
    instead=(N_STEP_RNN_RELU,),
    source=f"{_LINKS}/rnn/n_step_rnn.py, NStepRNNTanh and NStepBiRNNTanh",
)
LINEAR = Layout(
    "chainer:Linear",
    cell="dense",
    tensors={"W": "kernel: units features", "b": "bias: units"},
    computes={"activation": "linear * behind"},
    source=f"{_LINKS}/connection/linear.py, Linear",
)
EMBED_ID = Layout(
    "chainer:EmbedID",
    cell="embedding",
    tensors={"W": "table: tokens units"},
    source=f"{_LINKS}/connection/embed_id.py, EmbedID",
)

FRAMEWORK = Framework(
    "chainer",
    "Chainer",
    ("chainer",),
    (
        LSTM,
        STATEFUL_GRU,
        N_STEP_RNN_TANH,
        LINEAR,
        EMBED_ID,
        N_STEP_LSTM,
        PEEPHOLE_LSTM,
        N_STEP_GRU,
        N_STEP_RNN_RELU,
    ),
)
