"""An invented framework, "loopback", with every oddity that a layout can have and no real framework combines.

Its layouts stand beside the real ones in every sweep: odd gate orders, interleaved and packed flat tensors, memory that
lies in another order than the shape says, gates, layers and directions in names, constants at run time, a tied gate.
"""

from __future__ import annotations

import functools
import itertools

from gatewise.core.layout import Framework, Layout, gaps, store
from gatewise.core.spec import (
    GRU,
    LSTM,
    RNN,
    AdditiveAttention,
    Attention,
    BatchNorm,
    Conv1D,
    Conv2D,
    Dense,
    Embedding,
    LayerNorm,
    Spec,
)
from gatewise.errors import UnsupportedSpecError
from gatewise.registry import frameworks

_INVENTED = {"source": "invented"}

LSTM_LAYOUTS = (
    # Packed in an odd order, transposed, both biases in one vector; layer and direction in the names.
    Layout(
        "loopback:Shuffled",
        cell="lstm",
        gates="ogfi",
        tensors={
            "{direction:|up/,down/}W{layer:|_#}": "kernel: features (gate units)",
            "{direction:|up/,down/}U{layer:|_#}": "recurrent_kernel: (gate units) state",
            "{direction:|up/,down/}b{layer:|_#}": "recurrent_bias + bias: (gate units + gate units)",
            "{direction:|up/,down/}P{layer:|_#}": "projection: units state",
        },
        **_INVENTED,
    ),
    # The gates of one unit side by side, input and state in one matrix, one bias, a constant on two gates.
    Layout(
        "loopback:Interleaved",
        cell="lstm",
        gates="fiog",
        tensors={
            "{layer:|#.}{direction:|fw.,bw.}weight": "kernel + recurrent_kernel: (units gate) (features + state)",
            "{layer:|#.}{direction:|fw.,bw.}bias": "bias: (units gate)",
        },
        adds={"f": 1.5, "g": -0.25},
        always="bias",
        **_INVENTED,
    ),
    # One flat buffer; the layers inside it differ in width, and each part packs its axes in another order.
    Layout(
        "loopback:Flat",
        cell="lstm",
        gates="gofi",
        tensors={
            "buffer": "recurrent_bias + bias + recurrent_kernel + kernel: (layer direction (units gate + gate units)"
            " + direction layer (gate state units + units gate features))",
        },
        **_INVENTED,
    ),
    # Gates in the middle of a packed dimension: no slice of it is dense.
    Layout(
        "loopback:Woven",
        cell="lstm",
        gates="igof",
        tensors={
            "{position}:x": "kernel: (features gate units)",
            "{position}:h": "recurrent_kernel: (state units gate)",
            "{position}:p": "peephole: (units gate)",
            "{position}:b": "recurrent_bias + bias: (1 + 1) units gate",
            "{position}:r": "projection: (units state)",
        },
        **_INVENTED,
    ),
    # Shape and memory disagree, in three ways.
    Layout(
        "loopback:Swapped",
        cell="lstm",
        gates="foig",
        tensors={
            "x": "kernel: features (gate units) ~ units features",
            "h": "recurrent_kernel: (gate units) state ~ state units",
            "b": "bias + recurrent_bias: (gate + gate) units",
            "p": "peephole_kernel: gate (memory units) ~ units memory",
        },
        **_INVENTED,
    ),
    # The gates of one part in two leaves of a sum, in an order of their own.
    Layout(
        "loopback:Letters",
        cell="lstm",
        gates="ifgo",
        tensors={
            "{direction:|l,r}{layer:one|low,up#}": "kernel[go] + kernel[fi]: features (gate units + units gate)",
            "{direction:|l,r}{layer:one|low,up#}/state": "recurrent_kernel[ofig]: state gate units",
            "{direction:|l,r}{layer:one|low,up#}/shift": "bias[f] + bias[goi]: (units + gate units)",
            "{direction:|l,r}{layer:one|low,up#}/more": "recurrent_bias[g] + recurrent_bias[oif]: (units + units gate)",
        },
        **_INVENTED,
    ),
    # Peepholes as columns beside the recurrent kernel: their rows are units where the kernel's are the state.
    Layout(
        "loopback:Peeping",
        cell="lstm",
        gates="gifo",
        tensors={
            "{direction:,b_}W{layer:|#}": "kernel: 1 features (units gate)",
            "{direction:,b_}R{layer:|#}": "recurrent_kernel + peephole[ofi]: (gate units + gate) (state | units)",
            "{direction:,b_}B{layer:|#}": "bias: (gate units) 1",
        },
        always="bias peephole",
        adds={"o": 0.5},
        **_INVENTED,
    ),
    # The input gate is one minus the forget gate and is not stored; the forget gate has a constant besides.
    Layout(
        "loopback:Coupled",
        cell="lstm",
        gates="fgoi",
        tensors={
            "w": "kernel + recurrent_kernel + bias: (gate units) (features + state + 1)",
        },
        tied={"i": "f"},
        adds={"f": 1.0},
        computes={"recurrent_activation": "sigmoid"},
        **_INVENTED,
    ),
    # A tensor for each gate, with words for gates, layers and directions.
    Layout(
        "loopback:Named",
        cell="lstm",
        gates="ofig",
        tensors={
            "{layer:cell_#}.{direction:fwd,bwd}.{gate:out,keep,in,new}.w": "kernel: features units",
            "{layer:cell_#}.{direction:fwd,bwd}.{gate:#}.u": "recurrent_kernel: units state",
            "{layer:cell_#}.{direction:fwd,bwd}.b_{gate}": "bias: units",
            "{layer:cell_#}.{direction:fwd,bwd}.c_{gate}": "recurrent_bias: 1 units",
            "{layer:cell_#}.{direction:fwd,bwd}.p_{gate}": "peephole: units",
            "{layer:cell_#}.{direction:fwd,bwd}.m_{gate}": "peephole_kernel: memory units",
        },
        always="bias recurrent_bias",
        **_INVENTED,
    ),
    # All layers in one tensor of one width.
    Layout(
        "loopback:Blocks",
        cell="lstm",
        gates="ifgo",
        tensors={
            "weights_layer": "kernel: layer direction features gate units",
            "weights_iter": "recurrent_kernel: layer direction state gate units",
            "bias": "bias: layer direction gate units",
            "weights_projection": "projection: layer direction units state",
            "weights_peephole": "peephole[ifo]: layer direction gate units",
        },
        **_INVENTED,
    ),
    # No bias at all.
    Layout(
        "loopback:Bare",
        cell="lstm",
        gates="giof",
        tensors={"all": "recurrent_kernel + kernel: gate (state + features) units"},
        **_INVENTED,
    ),
)

GRU_LAYOUTS = (
    Layout(
        "loopback:TakesAfter",
        cell="gru",
        gates="nzr",
        reset="after",
        update="takes",
        tensors={
            "{layer:|#/}{direction:,back/}w": "kernel: (gate units) features",
            "{layer:|#/}{direction:,back/}u": "recurrent_kernel: (units gate) state",
            "{layer:|#/}{direction:,back/}b": "recurrent_bias[nrz] + bias: (gate units + units gate)",
        },
        **_INVENTED,
    ),
    Layout(
        "loopback:KeepsAfter",
        cell="gru",
        gates="nrz",
        reset="after",
        tensors={
            "gates": "kernel[zr] + recurrent_kernel[zr] + bias[zr]: (features + state + 1) (gate units)",
            "new_x": "kernel[n] + bias[n]: (features + 1) units",
            "new_h": "recurrent_kernel[n] + recurrent_bias[n]: units (state + 1)",
        },
        **_INVENTED,
    ),
    Layout(
        "loopback:TakesBefore",
        cell="gru",
        gates="zrn",
        reset="before",
        update="takes",
        tensors={
            "W{gate:z,r,h}": "kernel: units features",
            "U{gate:z,r,h}": "recurrent_kernel: state units",
            "b{gate:z,r,h}": "bias: units",
        },
        adds={"z": 1.0},
        **_INVENTED,
    ),
    Layout(
        "loopback:KeepsBefore",
        cell="gru",
        gates="rnz",
        reset="before",
        tensors={
            "buffer": "kernel + recurrent_kernel + bias + recurrent_bias: (layer direction (features gate units"
            " + units gate state) + layer direction (gate units + units gate))",
        },
        **_INVENTED,
    ),
    # Computes both; without the recurrent bias that only "after" can tell.
    Layout(
        "loopback:Both",
        cell="gru",
        gates="zrn",
        reset="before after",
        tensors={
            "x{layer}{direction:,r}": "kernel: features (gate units) ~ units features",
            "h{layer}{direction:,r}": "recurrent_kernel: state (gate units) ~ units state",
            "b{layer}{direction:,r}": "bias: 1 (gate units)",
        },
        **_INVENTED,
    ),
    # The reset gate is one minus the update gate.
    Layout(
        "loopback:TiedGates",
        cell="gru",
        gates="zrn",
        reset="before",
        tensors={
            "x": "kernel: (gate units) features",
            "h": "recurrent_kernel: (gate units) state",
            "b": "bias: (gate units)",
        },
        tied={"r": "z"},
        computes={"recurrent_activation": "sigmoid hard_sigmoid"},
        **_INVENTED,
    ),
)

RNN_LAYOUTS = (
    Layout(
        "loopback:Plain",
        cell="rnn",
        gates="h",
        tensors={"all": "bias + kernel + recurrent_kernel: units (1 + features + state)"},
        adds={"h": -0.5},
        always="bias",
        **_INVENTED,
    ),
    Layout(
        "loopback:PlainFlat",
        cell="rnn",
        gates="h",
        tensors={
            "buffer": "recurrent_kernel + kernel + recurrent_bias + bias: (direction layer (state gate units"
            " + features units gate) + layer direction (units + units))",
        },
        **_INVENTED,
    ),
    Layout(
        "loopback:PlainCell",
        cell="rnn",
        gates="h",
        tensors={
            "l{layer}/{direction:a,b}/{gate:candidate}/x": "kernel: features units",
            "l{layer}/{direction:a,b}/{gate:candidate}/h": "recurrent_kernel: 1 state units",
            "l{layer}/{direction:a,b}/b": "recurrent_bias + bias: (1 + 1) units",
        },
        **_INVENTED,
    ),
)

OTHER_LAYOUTS = (
    Layout("loopback:Affine", cell="dense", tensors={"w": "bias + kernel: units (1 + features)"}, **_INVENTED),
    Layout(
        "loopback:Turned",
        cell="dense",
        tensors={"w": "kernel: (units features) ~ features units", "b": "bias: 1 units"},
        **_INVENTED,
    ),
    Layout(
        "loopback:Normal",
        cell="batchnorm",
        tensors={
            "moments": "variance + mean: (1 + 1) features",
            "gain": "scale: features 1",
            "offset": "shift: features",
        },
        **_INVENTED,
    ),
    Layout("loopback:Level", cell="layernorm", tensors={"w": "shift + scale: (features + features)"}, **_INVENTED),
    Layout(
        "loopback:Slide",
        cell="conv1d",
        tensors={"w": "bias + kernel: (1 + channels width) units"},
        **_INVENTED,
    ),
    Layout(
        "loopback:Sweep",
        cell="conv2d",
        tensors={"w": "kernel: width (units height) channels", "b": "bias: 1 units"},
        **_INVENTED,
    ),
    Layout("loopback:Look", cell="attention", tensors={"w": "concat_score + scale: (1 + 1)"}, **_INVENTED),
    Layout("loopback:Add", cell="additive_attention", tensors={"w": "scale: 1 features"}, **_INVENTED),
    Layout("loopback:Table", cell="embedding", tensors={"rows": "table: (units tokens) 1"}, **_INVENTED),
)

FRAMEWORK = Framework("loopback", "Loopback", (), (*LSTM_LAYOUTS, *GRU_LAYOUTS, *RNN_LAYOUTS, *OTHER_LAYOUTS))


# ── what the sweeps go over ─────────────────────────────────────────────────────────────────────────────────────

LAYOUTS: tuple[Layout, ...] = (
    *(layout for record in frameworks() for layout in record.layouts),
    *FRAMEWORK.layouts,
)
"""Every layout of every framework that has an adapter here, and the invented ones."""

SPECS: dict[str, tuple[Spec, ...]] = {
    "lstm": (
        LSTM(3, 5),
        LSTM(4, 2, bias=False),
        LSTM(2, 3, layers=2, bidirectional=True),
        LSTM(3, 4, projection=2),
        LSTM(3, 4, peepholes=True),
        LSTM(4, 3, peepholes="full"),
        LSTM(4, 4),
        LSTM(1, 1),
        LSTM(2, 3, bidirectional=True, merge="sum"),
        LSTM(3, 2, layers=3, bias=False),
        LSTM(3, 3, layers=2),
        LSTM(2, 4, layers=2, bidirectional=True, projection=3),
        LSTM(3, 2, peepholes=True, bias=False),
        LSTM(3, 2, activation="relu", recurrent_activation="hard_sigmoid"),
        LSTM(5, 1),
        LSTM(1, 3, bidirectional=True, bias=False),
    ),
    "gru": (
        GRU(3, 5),
        GRU(3, 5, reset="before"),
        GRU(4, 2, bias=False),
        GRU(4, 2, bias=False, reset="before"),
        GRU(2, 3, layers=2, bidirectional=True),
        GRU(2, 3, layers=2, bidirectional=True, reset="before"),
        GRU(4, 4),
        GRU(1, 1, reset="before"),
        GRU(2, 3, bidirectional=True, merge="sum"),
        GRU(3, 3, layers=3, reset="before"),
        GRU(3, 2, recurrent_activation="hard_sigmoid", reset="before"),
        GRU(3, 2, recurrent_activation="hard_sigmoid"),
    ),
    "rnn": (
        RNN(3, 5),
        RNN(3, 5, activation="relu"),
        RNN(4, 2, bias=False),
        RNN(4, 2, bias=False, activation="relu"),
        RNN(2, 3, layers=2, bidirectional=True),
        RNN(2, 3, layers=2, bidirectional=True, activation="relu"),
        RNN(4, 4),
        RNN(1, 1, activation="relu"),
        RNN(2, 3, bidirectional=True, merge="sum"),
        RNN(3, 4, layers=3),
    ),
    "dense": (Dense(3, 5), Dense(4, 2, bias=False), Dense(4, 4), Dense(1, 1), Dense(1, 6), Dense(6, 1)),
    "embedding": (Embedding(7, 5), Embedding(4, 4), Embedding(1, 3), Embedding(9, 1)),
    "batchnorm": (BatchNorm(5), BatchNorm(1), BatchNorm(3, scale=False, shift=False), BatchNorm(4, scale=False)),
    "layernorm": (LayerNorm(5), LayerNorm(1), LayerNorm(3, shift=False), LayerNorm(2, scale=False)),
    "conv1d": (
        Conv1D(3, 5, 4),
        Conv1D(4, 2, 3, bias=False),
        Conv1D(4, 6, 2, groups=2),
        Conv1D(3, 3, 3, padding="same"),
        Conv1D(1, 1),
    ),
    "conv2d": (
        Conv2D(3, 5, 4, 2),
        Conv2D(4, 2, 2, 3, bias=False),
        Conv2D(4, 6, 3, 2, groups=2),
        Conv2D(3, 3, 3, 3, padding="same"),
        Conv2D(1, 1),
    ),
    "attention": (Attention(scale=True, score="concat"), Attention(scale=True), Attention(score="concat")),
    "additive_attention": (AdditiveAttention(5), AdditiveAttention(1)),
}
"""Layers that between them have every option; features and units differ in most, and are equal or 1 in some."""


@functools.cache
def holds(layout: Layout, spec: Spec) -> bool:
    """Whether a layout can store a layer at all, and computes it."""
    try:
        return not gaps(layout, spec) and bool(store(layout, spec))
    except UnsupportedSpecError:
        return False


def pairs() -> list[tuple[Layout, Layout]]:
    """Every ordered pair of layouts of one cell."""
    return [(a, b) for a, b in itertools.product(LAYOUTS, LAYOUTS) if a.cell == b.cell]


def label(layout: Layout) -> str:
    """A test id: some classes have two layouts, one for each reset."""
    return f"{layout.name}-{layout.reset.replace(' ', '-')}" if layout.cell == "gru" else layout.name
