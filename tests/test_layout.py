"""The notation: what each construct means, counted by hand, and what is said of a pattern that is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from loopback import LAYOUTS, SPECS, holds, label

from gatewise.core.layout import (
    CANONICAL,
    GATES,
    PARTS,
    Key,
    Layout,
    axis_length,
    check_holds,
    gaps,
    gates_of,
    store,
    wanted_parts,
)
from gatewise.core.proof import Reader
from gatewise.core.spec import GRU, LSTM, RNN, Dense, Embedding
from gatewise.errors import LayoutError, UnsupportedSpecError

SMALL = LSTM(3, 5)  # 4 gates, 5 units, 3 features, a state of 5


def layout(tensors, cell="lstm", gates=None, **more):
    tensors = {"w": tensors} if isinstance(tensors, str) else tensors
    return Layout("mine:Cell", cell=cell, gates=gates or GATES[cell], tensors=tensors, source="invented", **more)


# ── shapes and places ───────────────────────────────────────────────────────────────────────────────────────────

# pattern, spec, shape, then (block, its element) → index in the tensor; gates are i f g o = 0 1 2 3.
CONSTRUCTS = {
    "two dimensions, packed": (
        "kernel: (gate units) features",
        SMALL,
        (20, 3),
        {("kernel", "i", (0, 0)): (0, 0), ("kernel", "g", (4, 2)): (2 * 5 + 4, 2)},
    ),
    "transposed": (
        "kernel: features (gate units)",
        SMALL,
        (3, 20),
        {("kernel", "f", (3, 1)): (1, 1 * 5 + 3)},
    ),
    "interleaved": (
        "kernel: (units gate) features",
        SMALL,
        (20, 3),
        {("kernel", "o", (2, 1)): (2 * 4 + 3, 1)},
    ),
    "three in one": (
        "kernel: (features gate units)",
        SMALL,
        (60,),
        {("kernel", "f", (3, 2)): (2 * 20 + 1 * 5 + 3,)},
    ),
    "three dimensions": ("kernel: units features gate", SMALL, (5, 3, 4), {("kernel", "g", (4, 1)): (4, 1, 2)}),
    "an integer": ("bias: 1 (gate units)", SMALL, (1, 20), {("bias", "f", (2,)): (0, 7)}),
    "an integer behind": ("bias: (gate units) 1", SMALL, (20, 1), {("bias", "f", (2,)): (7, 0)}),
    "a sum of rows": (
        "kernel + recurrent_kernel: (features + state) (gate units)",
        SMALL,
        (8, 20),
        {("kernel", "f", (3, 2)): (2, 8), ("recurrent_kernel", "f", (3, 2)): (3 + 2, 8)},
    ),
    "a sum of integers": (
        "bias + recurrent_bias: (1 + 1) (gate units)",
        SMALL,
        (2, 20),
        {("bias", "o", (1,)): (0, 16), ("recurrent_bias", "o", (1,)): (1, 16)},
    ),
    "a sum in the other order": (
        "recurrent_bias + bias: (gate units + units gate)",
        SMALL,
        (40,),
        {("recurrent_bias", "f", (2,)): (7,), ("bias", "f", (2,)): (20 + 2 * 4 + 1,)},
    ),
    "a sum inside a product": (
        "kernel + recurrent_kernel: (gate (units features + units state))",
        SMALL,
        (4 * (15 + 25),),
        {("kernel", "f", (3, 2)): (40 + 3 * 3 + 2,), ("recurrent_kernel", "f", (3, 2)): (40 + 15 + 3 * 5 + 2,)},
    ),
    "letters": (
        "bias[of]: (gate units)",
        SMALL,
        (10,),
        {("bias", "o", (4,)): (4,), ("bias", "f", (4,)): (9,)},
    ),
    "sums with letters": (
        "bias[gi] + recurrent_bias[f] + bias[o]: (gate units + units + units)",
        SMALL,
        (20,),
        {
            ("bias", "g", (1,)): (1,),
            ("bias", "i", (1,)): (6,),
            ("recurrent_bias", "f", (1,)): (11,),
            ("bias", "o", (1,)): (16,),
        },
    ),
    "one letter without a gate axis": ("kernel[g]: units features", SMALL, (5, 3), {("kernel", "g", (4, 2)): (4, 2)}),
    "one length with two names": (
        "recurrent_kernel + peephole[foi]: (state | units) (gate units + gate)",
        LSTM(3, 5, peepholes=True),
        (5, 23),
        {
            ("recurrent_kernel", "o", (3, 4)): (4, 18),
            ("peephole", "f", (3,)): (3, 20),
            ("peephole", "i", (3,)): (3, 22),
        },
    ),
    "peepholes have three gates": (
        "peephole: gate units",
        LSTM(3, 5, peepholes=True),
        (3, 5),
        {("peephole", "f", (2,)): (1, 2), ("peephole", "o", (2,)): (2, 2)},
    ),
    "full peepholes": (
        "peephole_kernel: memory (units gate)",
        LSTM(3, 5, peepholes="full"),
        (5, 15),
        {("peephole_kernel", "o", (1, 4)): (4, 1 * 3 + 2)},
    ),
    "projection": ("projection: units state", LSTM(3, 5, projection=2), (5, 2), {("projection", "", (1, 4)): (4, 1)}),
    "a state that is projected": (
        "recurrent_kernel: state (gate units)",
        LSTM(3, 5, projection=2),
        (2, 20),
        {("recurrent_kernel", "f", (4, 1)): (1, 9)},
    ),
    "shape and memory apart": (  # element (unit 3, feature 2) is number 3·3 + 2 = 11 of its block, which is 5 wide
        "kernel: features (gate units) ~ units features",
        SMALL,
        (3, 20),
        {("kernel", "f", (3, 2)): (11 // 5, 5 + 11 % 5), ("kernel", "i", (1, 0)): (0, 3)},
    ),
    "a dense layer": ("kernel: features units", Dense(3, 5), (3, 5), {("kernel", "", (4, 2)): (2, 4)}),
    "a row of biases": (
        "kernel + bias: (features + 1) units",
        Dense(3, 5),
        (4, 5),
        {("kernel", "", (4, 2)): (2, 4), ("bias", "", (4,)): (3, 4)},
    ),
    "an embedding": ("table: units tokens", Embedding(7, 5), (5, 7), {("table", "", (6, 2)): (2, 6)}),
    "a plain cell": ("kernel: (gate units) features", RNN(3, 5), (5, 3), {("kernel", "h", (4, 2)): (4, 2)}),
    "nothing behind the colon is a scalar": ("bias[h]: units", RNN(3, 1), (1,), {("bias", "h", (0,)): (0,)}),
}


@pytest.mark.parametrize(("pattern", "spec", "shape", "places"), CONSTRUCTS.values(), ids=CONSTRUCTS)
def test_every_construct(pattern, spec, shape, places):
    written = layout(pattern, cell=spec.cell)
    stored = store(written, spec)
    assert stored.shapes == {"w": shape}
    read = Reader(written, spec)
    for (part, gate, element), index in places.items():
        assert read("w", index) == (Key(part, 0, 0, gate), element)
        slot = stored.slots[Key(part, 0, 0, gate)]
        if slot.memory:
            continue  # told by the reader; ``test_plan`` compares it with the planner
        axes = [axis for axis in PARTS[spec.cell][part].split() if axis != "gate"]
        found = list(slot.offsets)
        for axis, dimension, stride in slot.strides:
            found[dimension] += stride * element[axes.index(axis)]
        assert tuple(found) == index


@pytest.mark.parametrize(("pattern", "spec"), [case[:2] for case in CONSTRUCTS.values()], ids=CONSTRUCTS)
def test_every_number_of_a_tensor_is_one_element(pattern, spec):
    """Slots neither overlap nor leave gaps: each index reads as another element."""
    written = layout(pattern, cell=spec.cell)
    read, shape = Reader(written, spec), store(written, spec).shapes["w"]
    elements = {read("w", index) for index in np.ndindex(shape)}
    assert len(elements) == np.prod(shape)


def test_gate_orders_move_blocks():
    for gates in ("ifgo", "ogfi", "giof"):
        stored = store(layout("bias: (gate units)", gates=gates), SMALL)
        assert [stored.slots[Key("bias", 0, 0, gate)].offsets for gate in gates] == [(0,), (5,), (10,), (15,)]


# ── stacks and directions ───────────────────────────────────────────────────────────────────────────────────────

STACK = LSTM(3, 5, layers=3, bidirectional=True)  # upper layers read 2 · 5 = 10


def test_layers_in_a_product_are_ragged():
    written = layout("kernel + bias: (layer direction gate units features + layer direction gate units)")
    stored = store(written, STACK)
    first, upper = 4 * 5 * 3, 4 * 5 * 10
    assert stored.shapes == {"w": (2 * first + 2 * 2 * upper + 3 * 2 * 20,)}
    assert stored.slots[Key("kernel", 0, 1, "i")].offsets == (first,)
    assert stored.slots[Key("kernel", 1, 0, "i")].offsets == (2 * first,)
    assert stored.slots[Key("kernel", 2, 1, "f")].offsets == (2 * first + 2 * upper + upper + 5 * 10,)
    assert stored.slots[Key("bias", 1, 0, "g")].offsets == (2 * first + 4 * upper + 2 * 20 + 10,)


def test_layers_in_a_product_below_directions_are_ragged():
    stored = store(layout("kernel: (direction layer gate units features)"), LSTM(3, 5, layers=2, bidirectional=True))
    first, upper = 60, 200
    assert stored.shapes == {"w": (2 * (first + upper),)}
    assert stored.slots[Key("kernel", 1, 0, "i")].offsets == (first,)
    assert stored.slots[Key("kernel", 0, 1, "i")].offsets == (first + upper,)
    assert stored.slots[Key("kernel", 1, 1, "i")].offsets == (2 * first + upper,)


@pytest.mark.parametrize("merge", ["concat", "sum"])
def test_what_upper_layers_read(merge):
    spec = LSTM(3, 5, layers=2, bidirectional=True, merge=merge, projection=4)
    stored = store(layout({"w{layer}{direction}": "kernel: (gate units) features"}), spec)
    below = 2 * 4 if merge == "concat" else 4
    assert stored.shapes == {"w0": (20, 3), "w0_reverse": (20, 3), "w1": (20, below), "w1_reverse": (20, below)}


def test_layers_of_different_width_do_not_share_a_tensor():
    """As in oneDNN: one tensor of all layers, which then have one width."""
    written = layout("kernel: layer direction features gate units")
    assert store(written, LSTM(5, 5, layers=3)).shapes == {"w": (3, 1, 5, 4, 5)}
    assert store(written, LSTM(10, 5, layers=2, bidirectional=True)).shapes == {"w": (2, 2, 10, 4, 5)}
    for spec in (LSTM(3, 5, layers=2, bias=False), LSTM(5, 5, layers=2, bidirectional=True, bias=False)):
        with pytest.raises(UnsupportedSpecError) as caught:
            store(written, spec)
        assert caught.value.option == "layers"
        assert "differ in width" in caught.value.met
        assert "shapes" in caught.value.where
        assert "one by one" in caught.value.hint
        assert [gap.option for gap in gaps(written, spec)] == ["layers"]


def test_a_layout_of_one_layer_refuses_more():
    written = layout("kernel: (gate units) features")
    with pytest.raises(UnsupportedSpecError, match="does not support layers=2") as caught:
        check_holds(written, LSTM(3, 5, layers=2, bias=False))
    assert caught.value.option == "layers"
    with pytest.raises(UnsupportedSpecError, match="does not support bidirectional=True"):
        check_holds(written, LSTM(3, 5, bidirectional=True, bias=False))


# ── what a spec lacks ───────────────────────────────────────────────────────────────────────────────────────────

WHOLE = {
    "w": "kernel + recurrent_kernel + bias: (features + state + 1) (gate units)",
    "c": "recurrent_bias: (gate units)",
    "p": "peephole: (gate units)",
    "r": "projection: state units",
}


def test_parts_that_a_spec_lacks_vanish():
    assert store(layout(WHOLE), SMALL).shapes == {"w": (9, 20), "c": (20,)}
    assert store(layout(WHOLE), SMALL.replace(bias=False)).shapes == {"w": (8, 20)}
    assert store(layout(WHOLE), SMALL.replace(peepholes=True)).shapes == {"w": (9, 20), "c": (20,), "p": (15,)}
    assert store(layout(WHOLE), SMALL.replace(projection=2)).shapes == {"w": (6, 20), "c": (20,), "r": (2, 5)}


def test_parts_in_always_stay():
    written = layout(WHOLE, always="bias peephole")
    assert store(written, SMALL.replace(bias=False)).shapes == {"w": (9, 20), "p": (15,)}
    assert store(written, SMALL).shapes == {"w": (9, 20), "c": (20,), "p": (15,)}


def test_a_tied_gate_is_not_stored():
    written = layout({"w": "kernel: (gate units) features"}, gates="gifo", tied={"i": "f"})
    stored = store(written, SMALL)
    assert stored.shapes == {"w": (15, 3)}
    assert [key.gate for key in stored.slots] == ["g", "f", "o"]


@pytest.mark.parametrize("spec", [spec for specs in SPECS.values() for spec in specs], ids=str)
def test_the_canonical_layout_has_every_part_once(spec):
    stored = store(CANONICAL[spec.cell], spec)
    keys = {
        Key(part, layer, direction, gate)
        for layer in range(axis_length(spec, "layer"))
        for direction in range(axis_length(spec, "direction"))
        for part in wanted_parts(spec)
        for gate in gates_of(spec.cell, part) or ("",)
    }
    assert set(stored.slots) == keys


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────────────

ONE, TWO, BOTH = SMALL, LSTM(3, 5, layers=2), LSTM(3, 5, bidirectional=True)
NAMES = [
    ("w{layer}", TWO, ["w0", "w1"]),
    ("w{layer}", ONE, ["w0"]),
    ("w{layer:|_#}", ONE, ["w"]),
    ("w{layer:|_#}", TWO, ["w_0", "w_1"]),
    ("w{layer:only|cell_#/}", ONE, ["wonly"]),
    ("w{layer:only|cell_#/}", TWO, ["wcell_0/", "wcell_1/"]),
    ("w{layer:first,second}", TWO, ["wfirst", "wsecond"]),
    ("w{layer:first,#}", LSTM(3, 5, layers=3), ["wfirst", "w1", "w2"]),
    ("w{direction}", BOTH, ["w", "w_reverse"]),
    ("w{direction:,r}", BOTH, ["w", "wr"]),
    ("w{direction:|fw/,bw/}", ONE, ["w"]),
    ("w{direction:|fw/,bw/}", BOTH, ["wfw/", "wbw/"]),
    ("w{direction:fw,bw}", ONE, ["wfw"]),
    ("l{layer}d{direction:#}", LSTM(3, 5, layers=2, bidirectional=True), ["l0d0", "l0d1", "l1d0", "l1d1"]),
    ("{position}/w", LSTM(3, 5, layers=2, bidirectional=True), ["0/w", "1/w", "2/w", "3/w"]),
    ("{position:|p#.}w", ONE, ["w"]),
    ("{position:|p#.}w", TWO, ["p0.w", "p1.w"]),
]


@pytest.mark.parametrize(("template", "spec", "names"), NAMES)
def test_names(template, spec, names):
    assert list(store(layout({template: "kernel: (gate units) features"}), spec).shapes) == names


GATE_NAMES = [
    ("w{gate}", "ifgo", ["wi", "wf", "wg", "wo"]),
    ("w{gate}", "ogfi", ["wo", "wg", "wf", "wi"]),
    ("w{gate:4,5,6,7}", "ifgo", ["w4", "w5", "w6", "w7"]),
    ("w{gate:out,in,new,keep}", "oigf", ["wout", "win", "wnew", "wkeep"]),
    ("{gate:_a,,_b,_c}", "oigf", ["_a", "", "_b", "_c"]),
]


@pytest.mark.parametrize(("template", "gates", "names"), GATE_NAMES)
def test_gate_names(template, gates, names):
    stored = store(layout({template: "kernel: units features"}, gates=gates), SMALL)
    assert stored.shapes == dict.fromkeys(names, (5, 3))
    assert [stored.slots[Key("kernel", 0, 0, gate)].tensor for gate in gates] == names


def test_a_spelling_for_all_names():
    written = layout({"w{direction}{gate}": "kernel: units features"}, names={"direction": "f,b", "gate": "I,F,G,O"})
    assert list(store(written, BOTH).shapes) == ["fI", "fF", "fG", "fO", "bI", "bF", "bG", "bO"] or list(
        store(written, BOTH).shapes
    ) == ["wfI", "wfF", "wfG", "wfO", "wbI", "wbF", "wbG", "wbO"]


def test_names_are_listed_by_layer_direction_tensor_gate():
    written = layout(
        {"a{layer}{direction:f,b}": "kernel: gate units features", "b{layer}{direction:f,b}{gate}": "bias: units"}
    )
    spec = LSTM(3, 5, layers=2, bidirectional=True)
    order = [name for at in ("0f", "0b", "1f", "1b") for name in (f"a{at}", *(f"b{at}{gate}" for gate in "ifgo"))]
    assert list(store(written, spec).shapes) == order


# ── wrong patterns ──────────────────────────────────────────────────────────────────────────────────────────────

# cell, pattern, what was met, what stands at the caret, what was expected
UNREADABLE = [
    ("lstm", "kernel (gate units) features", "'(gate' at character 8", "(gate", "':'"),
    ("lstm", "kernel: (gate unit) features", "'unit)' at character 15", "unit", "one of the axes"),
    ("lstm", "kernal: (gate units) features", "'kernal:' at character 1", "kernal", "a part of the lstm cell: kernel"),
    ("gru", "peephole: (gate units)", "'peephole:' at character 1", "peephole", "a part of the gru cell"),
    ("dense", "kernel: gate units features", "'gate' at character 9", "gate", "one of the axes"),
    ("lstm", "kernel: (gate units features", "the end at character 29", "", "')'"),
    ("lstm", "kernel: gate units) features", "')' at character 19", ")", "the end of the pattern"),
    ("lstm", "kernel: gate units features ~ units", "the end at character 36", "", "one of the axes"),
    ("lstm", "kernel: gate units features ~ units features gate", "'gate' at character 46", "gate", "the end"),
    ("lstm", "kernel + : gate units features", "':' at character 10", ":", "a part of the lstm cell"),
    ("lstm", "kernel: gate, units features", "', ' at character 13", ",", "an axis, a number or one of"),
    ("lstm", "kernel: 2 gate units features", "'2' at character 9", "2", "the number 1"),
    ("lstm", "kernel[iz]: gate units features", "'iz]:' at character 8", "iz", "some of the gates i f g o"),
    ("lstm", "kernel[ii]: gate units features", "'ii]:' at character 8", "ii", "some of the gates i f g o"),
    ("lstm", "peephole[g]: units", "'g]:' at character 10", "g", "some of the gates i f o"),
    ("lstm", "projection[i]: state units", "'i]:' at character 12", "i", "of a part that has any"),
    ("lstm", "kernel[if: gate units features", "':' at character 10", ":", "']'"),
    ("lstm", "kernel + bias: (features + 1 | units) (gate units)", "at character 16", "(", "not both"),
    ("lstm", "", "the end at character 1", "", "a part of the lstm cell"),
    ("lstm", "kernel", "the end at character 7", "", "':'"),
]


@pytest.mark.parametrize(
    ("cell", "pattern", "met", "there", "expected"), UNREADABLE, ids=[case[1] for case in UNREADABLE]
)
def test_an_unreadable_pattern_is_pointed_at(cell, pattern, met, there, expected):
    with pytest.raises(LayoutError) as caught:
        layout({"tensor": pattern}, cell=cell)
    error = caught.value
    assert error.met.startswith("Cannot read the pattern of 'tensor' in mine:Cell: ")
    assert met.replace("', '", "','") in error.met
    shown, caret = error.where.splitlines()
    assert shown == pattern
    assert expected in caret
    assert shown[caret.index("^") :].startswith(there)
    assert error.hint


# what is wrong, the tensors, cell, words of what was met, words of what was expected
CONTRADICTIONS = [
    ({"w": "kernel: (gate units)"}, "lstm", "no place for the axis 'features' of kernel", "gate units features"),
    ({"w": "bias: units"}, "lstm", "no place for the axis 'gate' of bias", "gate units"),
    ({"w": "bias[if]: units"}, "lstm", "no place for the axis 'gate'", "gate units"),
    ({"w": "bias: gate gate units"}, "lstm", "has the axis 'gate' twice for bias", "gate units"),
    ({"w": "kernel: gate units features units"}, "lstm", "has the axis 'units' twice", "gate units features"),
    ({"w{gate}": "bias: gate units"}, "lstm", "has the axis 'gate' twice", "gate units"),
    ({"w{layer}": "bias: layer gate units"}, "lstm", "has the axis 'layer' twice", ""),
    ({"{position}{layer}": "bias: gate units"}, "lstm", "has the axis 'layer' twice", ""),
    ({"w": "kernel + bias: (features + features) (gate units)"}, "lstm", "'features' that for bias", "gate units"),
    ({"w": "kernel + bias: features (gate units)"}, "lstm", "for bias", ""),
    ({"w": "kernel + bias: (gate units features)"}, "lstm", "for bias", ""),
    (
        {"w": "kernel + bias + recurrent_bias: (features + 1) (gate units)"},
        "lstm",
        "2 blocks end to end for 3 parts",
        "",
    ),
    ({"w": "kernel + bias: (features + 1 + 1) (gate units)"}, "lstm", "blocks end to end for 2 parts", "one leaf"),
    ({"w": "kernel + bias: (features | 1 | 1) (gate units)"}, "lstm", "gives one length 3 names for 2 parts", ""),
    ({"w": "kernel: gate units features ~ gate units"}, "lstm", "reorders the memory of axes", "other than gate"),
    ({"w": "bias: gate units ~ units features"}, "lstm", None, None),
    ({"w{unit}": "kernel: gate units features"}, "lstm", "a name cannot spell 'unit'", "position"),
    ({"w{units}": "kernel: gate features"}, "lstm", "a name cannot spell 'units'", "position"),
    ({"w": "table: tokens units tokens"}, "embedding", "has the axis 'tokens' twice", "tokens units"),
]


@pytest.mark.parametrize(
    ("tensors", "cell", "met", "expected"), CONTRADICTIONS, ids=[str(case[0]) for case in CONTRADICTIONS]
)
def test_a_contradiction_is_named(tensors, cell, met, expected):
    with pytest.raises(LayoutError) as caught:
        layout(tensors, cell=cell)
    error = caught.value
    template = next(iter(tensors))
    assert repr(template) in error.met
    assert "mine:Cell" in error.met
    assert (met or "") in error.met
    assert (expected or "") in error.where + error.hint
    assert error.hint


def test_one_block_is_not_stored_twice():
    with pytest.raises(LayoutError, match="twice") as caught:
        store(layout({"a": "bias: gate units", "b": "bias: units gate"}), SMALL)
    assert "'a' and 'b'" in caught.value.where
    with pytest.raises(LayoutError, match="stores two things in 'w'"):
        store(layout({"w{layer:}": "kernel: gate units features"}), TWO)
    with pytest.raises(LayoutError, match="twice"):
        store(layout("bias + bias: (gate units + gate units)"), SMALL)


def test_a_tensor_has_no_gaps():
    """Two parts end to end in both dimensions would leave two corners that are nothing, and would be counted."""
    with pytest.raises(LayoutError, match="leaves gaps in 'w': 160 numbers, of which 80 are something"):
        store(layout("bias + kernel: (1 + features) (gate units + units gate)"), SMALL)
    joined = layout("recurrent_kernel + peephole: (state | units) (gate units + gate)")
    assert store(joined, LSTM(3, 5, peepholes=True)).shapes == {"w": (5, 23)}
    with pytest.raises(LayoutError, match="leaves gaps"):
        store(joined, LSTM(3, 5, peepholes=True, projection=2))


def test_parts_of_different_gates_do_not_share_a_gate_axis():
    with pytest.raises(LayoutError, match="3 and 4 gates share one gate axis"):
        store(layout("bias + peephole: (1 + 1) (gate units)"), LSTM(3, 5, peepholes=True))


@pytest.mark.parametrize(
    ("cell", "gates"),
    [("lstm", "ifg"), ("lstm", "ifgoo"), ("lstm", "ifgx"), ("gru", "ifgo"), ("cell", ""), ("dense", "h")],
)
def test_gates_are_those_of_the_cell(cell, gates):
    with pytest.raises(LayoutError) as caught:
        Layout("mine:Cell", cell=cell, gates=gates, tensors={}, source="invented")
    assert repr(gates) in caught.value.met
    assert "lstm 'ifgo'" in caught.value.where
    assert caught.value.hint


def test_a_layout_of_another_cell_is_refused():
    with pytest.raises(LayoutError, match="kind lstm") as caught:
        store(layout("kernel: gate units features"), GRU(3, 5))
    assert "kind gru" in caught.value.where


# ── all layouts there are ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("written", LAYOUTS, ids=label)
def test_every_layout_is_whole(written):
    """Each index of each tensor is one element, each element has one index, and it says where it comes from."""
    assert written.source
    assert written.verified in ("live", "source")
    assert set(written.always.split()) <= written.parts()
    assert set(written.adds) <= set(written.gates)
    held = [spec for spec in SPECS[written.cell] if holds(written, spec)]
    assert held
    for spec in held[:5]:
        stored, read = store(written, spec), Reader(written, spec)
        seen = {read(name, index) for name, shape in stored.shapes.items() for index in np.ndindex(shape)}
        assert len(seen) == sum(int(np.prod(shape)) for shape in stored.shapes.values())
        assert {element.key for element in seen} == set(stored.slots)
