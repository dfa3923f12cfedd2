"""Where a comparison fails, the mistake is named: each is planted in a ported model, and has to be found."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import gatewise as gw
from gatewise.arrays.network import Call, plain, unstacked, walk
from gatewise.arrays.readings import exchange
from gatewise.core.between import Activation, Input, Masking
from gatewise.core.layout import CANONICAL, GATES, gates_of
from gatewise.core.plan import plan
from gatewise.live import own_layouts
from gatewise.parity.diagnosis import TEXTS
from gatewise.parity.subject import side
from gatewise.parity.units import halves, units

pytest.importorskip("keras")
torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def _frameworks(keras, torch):
    """Both frameworks, set up as the whole suite sets them up."""


def build(network, framework="keras", seed=0, scale=0.7):
    """A model with random weights, no bias of which is zero."""
    network = gw.Network.chain(network) if not isinstance(network, gw.Network) else network
    made = gw.build(network, framework, seed)
    random = np.random.default_rng(seed)
    change(
        made, lambda unit, parts: {name: random.normal(scale=scale, size=array.shape) for name, array in parts.items()}
    )
    return made


def change(obj, how, only=None):
    """Write other canonical weights into a live object: ``how`` gets the spec and the parts of one direction."""
    one = side(obj)
    natives = one.adapter.natives(obj)
    layouts = own_layouts(one.framework, one.network, one.adapter.form(obj), natives)
    for place, layer in enumerate(one.network.weighted):
        if only not in (None, place):
            continue
        canonical, there = CANONICAL[layer.spec.cell], layouts[layer.name]
        parts = plan(layer.spec, there, canonical).apply(one.adapter.read(natives[layer.name]))
        changed = {}
        for start in sorted({name.rpartition("/")[0] for name in parts}):
            own = {name.rpartition("/")[2]: array for name, array in parts.items() if name.rpartition("/")[0] == start}
            made = how(layer.spec, own)
            changed |= {
                f"{start}/{name}" if start else name: np.asarray(
                    made[name], parts[f"{start}/{name}" if start else name].dtype
                )
                for name in made
            }
        one.adapter.write(natives[layer.name], plan(layer.spec, canonical, there).apply(changed))
    return obj


def found(a, b, **options):
    parity = gw.verify(a, b, **options)
    assert parity.verdict == "failed"
    for each in parity.diagnosis:
        assert each.mistake in TEXTS
        assert each.text in str(parity).replace("\n", " ")
    if parity.diagnosis:
        assert parity.diagnosis[-1].after < 1e-4
        assert parity.diagnosis[-1].after < parity.diagnosis[0].before
    return parity.diagnosis


def slugs(a, b, **options):
    return [each.mistake for each in found(a, b, **options)]


# ── mistakes of weights ─────────────────────────────────────────────────────────────────────────────────────────


def reordered(order, *names):
    def how(spec, parts):
        return {
            name: array[list(order)] if gates_of(spec.cell, name) and (name in names or not names) else array
            for name, array in parts.items()
        }

    return how


def with_part(name, change_of):
    return lambda spec, parts: {part: change_of(array) if part == name else array for part, array in parts.items()}


def unit_major(array):
    gates, rows = array.shape[:2]
    return array.reshape(gates * rows, -1).reshape(rows, gates, -1).swapaxes(0, 1).reshape(array.shape)


def gate_major(array):
    gates, rows = array.shape[:2]
    return array.swapaxes(0, 1).reshape(gates, rows, *array.shape[2:])


def reshaped(array):
    gates, rows, columns = array.shape
    return array.reshape(gates * rows, columns).T.reshape(gates * rows, columns).reshape(array.shape)


def scaled_bias(bias, recurrent):
    def how(spec, parts):
        return parts | {
            name: array * factor
            for name, array, factor in (
                ("bias", parts.get("bias"), bias),
                ("recurrent_bias", parts.get("recurrent_bias"), recurrent),
            )
            if array is not None
        }

    return how


def forget(amount):
    def how(spec, parts):
        moved = parts["bias"].copy()
        moved[GATES["lstm"].index("f")] += amount
        return parts | {"bias": moved}

    return how


def candidate(which):
    def how(spec, parts):
        bias, recurrent = parts["bias"], parts["recurrent_bias"]
        pairs = {
            "exchanged": (recurrent, bias),
            "first": (bias + recurrent, 0 * bias),
            "second": (0 * bias, bias + recurrent),
        }
        return parts | dict(zip(("bias", "recurrent_bias"), pairs[which], strict=True))

    return how


def rounded(spec, parts):
    return {name: array.astype(np.float16) for name, array in parts.items()}


def in_each_tensor(change_of):
    return lambda spec, parts: {
        name: change_of(array) if gates_of(spec.cell, name) else array for name, array in parts.items()
    }


EVERYWHERE = {
    "unit-major": [in_each_tensor(unit_major), in_each_tensor(gate_major)],
    "kernel-transposed": [with_part("recurrent_kernel", lambda array: array.swapaxes(1, 2))],
    "kernel-reshaped": [with_part("recurrent_kernel", reshaped), with_part("kernel", reshaped)],
    "bias-dropped": [scaled_bias(0, 0)],
    "bias-doubled": [scaled_bias(2, 2)],
    "bias-halved": [scaled_bias(0.5, 0.5)],
    "rounded": [rounded],
}
"""Slug → the mistakes that any recurrent layer can have."""

OWN = {
    "lstm": {"forget-bias-missing": [forget(-1)], "forget-bias-twice": [forget(1)]},
    "gru": {
        "bias-misplaced": [candidate("exchanged"), candidate("first"), candidate("second")],
        "bias-dropped": [scaled_bias(1, 0), scaled_bias(0, 1)],
    },
    "rnn": {},
}
SPECS = {"lstm": gw.LSTM, "gru": gw.GRU, "rnn": gw.RNN}
MISTAKES = [
    (cell, slug, number)
    for cell in SPECS
    for slug, each in {
        **EVERYWHERE,
        **OWN[cell],
        "bias-dropped": EVERYWHERE["bias-dropped"] + OWN[cell].get("bias-dropped", []),
    }.items()
    for number in range(len(each))
    # One gate lies in one order only, and a square kernel of one gate is reshaped as it is transposed.
    if not (cell == "rnn" and (slug == "unit-major" or (slug == "kernel-reshaped" and number == 0)))
]


def planted(cell, slug, number):
    both = EVERYWHERE.get(slug, []) + OWN[cell].get(slug, [])
    return both[number]


def models(cell, seed):
    """A model around one layer with random options, whose features and units differ."""
    random = np.random.default_rng(seed)
    units, features = random.choice(range(2, 6), 2, replace=False)
    options = {"bidirectional": bool(random.integers(2)), "return_sequences": bool(random.integers(2))}
    spec = SPECS[cell](int(features), int(units), return_state=bool(random.integers(2)), **options)
    width = spec.merged_directions * spec.units
    return gw.Network.chain(spec, gw.Dense(width, 2)) if not spec.return_state else gw.Network.chain(spec)


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize(("cell", "slug", "number"), MISTAKES)
def test_mistake_of_weights(cell, slug, number, back):
    seed = MISTAKES.index((cell, slug, number)) + 100 * back
    a = build(models(cell, seed), "torch" if back else "keras", seed)
    b = change(gw.port(a, "keras" if back else "torch"), planted(cell, slug, number), only=0)
    assert slugs(a, b) == [slug]


@pytest.mark.parametrize(
    ("cell", "order"),
    [(cell, order) for cell in ("lstm", "gru") for order in itertools.permutations(range(len(GATES[cell])))],
)
def test_gates_in_any_order(cell, order):
    a = build(models(cell, sum(order)), "torch", 3)
    b = change(gw.port(a, "torch"), reordered(order), only=0)
    if list(order) == sorted(order):
        assert gw.verify(a, b).diagnosis == ()
        return
    (each,) = found(a, b)
    assert each.mistake == "gates-exchanged"
    assert exchange(GATES[cell], np.argsort(order)).format(what=repr(each.layer)) in each.text


def test_gates_of_one_part():
    a = build(models("lstm", 1), "keras", 4)
    for part in ("kernel", "recurrent_kernel", "bias"):
        b = change(gw.port(a, "torch"), reordered((0, 2, 1, 3), part), only=0)
        (each,) = found(a, b)
        assert each.mistake == "gates-exchanged"
        assert f"gates f and g of the {part.replace('_', ' ')} of" in each.text


def test_dense_and_embedding():
    network = gw.Network.chain(gw.Embedding(6, 4), gw.GRU(4, 3, return_state=False), gw.Dense(3, 3), gw.Dense(3, 2))
    a = build(network, "keras", 5)
    for place, how, slug in (
        (0, with_part("table", lambda table: np.roll(table, 1, 0)), "rows-shifted"),
        (2, with_part("kernel", lambda kernel: kernel.T), "kernel-transposed"),
        (3, with_part("kernel", lambda kernel: kernel.T.reshape(kernel.shape)), "kernel-reshaped"),
        (3, with_part("bias", lambda bias: 0 * bias), "bias-dropped"),
        (2, with_part("kernel", lambda kernel: np.roll(kernel, 1, 0)), "rows-shifted"),
        (3, with_part("kernel", lambda kernel: np.roll(kernel, 2, 1)), "columns-shifted"),
        (2, with_part("kernel", lambda kernel: 0 * kernel), "not-copied"),
        (2, with_part("kernel", lambda kernel: kernel + 0.1), "other-weights"),
    ):
        b = change(gw.port(a, "torch"), how, only=place)
        (each,) = found(a, b)
        assert (each.mistake, each.layer) == (slug, side(b).network.weighted[place].name)


def test_directions():
    a = build(gw.LSTM(3, 4, bidirectional=True), "torch", 6)
    b = gw.port(a, "keras")
    layer = next(layer for layer in b.layers if layer.weights)
    weights = layer.get_weights()
    layer.set_weights(weights[3:] + weights[:3])
    assert slugs(a, b) == ["directions-exchanged"]


def test_square_kernel():
    a = build(gw.LSTM(4, 4), "keras", 7)
    b = change(gw.port(a, "torch"), with_part("kernel", lambda kernel: kernel.swapaxes(1, 2)))
    (each,) = found(a, b)
    assert each.mistake == "kernel-transposed"
    assert "the kernel of 'lstm' is transposed" in each.text


def test_mistakes_in_several_layers():
    network = gw.Network.chain(
        gw.LSTM(3, 4, bidirectional=True, return_state=False), gw.GRU(8, 3, return_state=False), gw.Dense(3, 2)
    )
    a = build(network, "keras", 8)
    b = change(gw.port(a, "torch"), forget(-1), only=0)
    change(b, reordered((1, 0, 2)), only=1)
    told = found(a, b)
    assert [(each.layer, each.mistake) for each in told] == [
        ("lstm", "forget-bias-missing"),
        ("gru", "gates-exchanged"),
    ]
    assert told[0].after == told[1].before > 1e-3


def test_stack():
    a = build(gw.GRU(3, 4, layers=2), "torch", 9)
    b = change(gw.port(a, "keras"), reordered((1, 0, 2)), only=1)
    (each,) = found(a, b)
    assert each.mistake == "gates-exchanged"


def test_the_same_mistake_in_every_layer():
    """A wrong converter makes its mistake everywhere; it is said once."""
    layers = [gw.LSTM(width, 4, bidirectional=True, return_state=False) for width in (3, 8, 8)]
    a = build(gw.Network.chain(*layers, gw.Dense(8, 2)), "keras", 30)
    b = gw.port(a, "torch")
    for place in range(3):
        change(b, reordered((0, 2, 1, 3)), only=place)
    (each,) = found(a, b)
    assert (each.mistake, each.layer) == ("gates-exchanged", "lstm, lstm_1, lstm_2")
    assert "gates f and g of 'lstm', 'lstm_1' and 'lstm_2' are exchanged" in each.text


def test_one_layer_of_a_stack_is_named():
    a = build(gw.GRU(3, 4, layers=3), "torch", 31)
    for wrong, whose in (([1], "the second layer of 'gru'"), ([0, 1, 2], "'gru'"), ([1, 2], "the second and third")):
        b = gw.port(a, "torch")
        with torch.no_grad():
            for name in (f"{name}_l{k}" for k in wrong for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")):
                parameter = getattr(b.gru, name)
                parameter.copy_(parameter.reshape(3, 4, -1)[[1, 0, 2]].reshape(parameter.shape))
        (each,) = found(a, b)
        assert f"gates r and z of {whose}" in each.text


TWICE = [
    (gw.LSTM, ["recurrent_kernel", "recurrent_kernel"], [0, 1], ["gates-exchanged", "kernel-transposed"]),
    (gw.LSTM, ["bias", "bias"], [0, 2], ["bias-doubled", "gates-exchanged"]),
    (gw.LSTM, ["bias", "bias"], [2, 3], ["bias-doubled", "forget-bias-missing"]),
    (gw.GRU, ["recurrent_kernel", "recurrent_kernel"], [0, 5], ["gates-exchanged", "rounded"]),
    (gw.GRU, ["recurrent_kernel", "recurrent_kernel"], [4, 0], ["gates-exchanged", "kernel-reshaped"]),
    (gw.LSTM, ["recurrent_kernel", "recurrent_kernel"], [4, 0], ["kernel-reshaped"]),
]


@pytest.mark.parametrize(("kind", "parts", "changes", "expected"), TWICE)
def test_two_mistakes_in_one_tensor(kind, parts, changes, expected):
    def forgotten(bias):
        return bias - np.array([[0.0], [1], [0], [0]])

    def swapped(array):
        return array[[1, 0, *range(2, len(array))]]

    known = [
        swapped,
        lambda array: array.swapaxes(1, 2),
        lambda array: 2 * array,
        forgotten,
        reshaped,
        lambda array: array.astype(np.float16),
    ]
    a = build(gw.Network.chain(kind(3, 4, return_state=False), gw.Dense(4, 2)), "keras", 32)
    b = gw.port(a, "torch")
    for part, which in zip(parts, changes, strict=True):
        change(b, with_part(part, known[which]), only=0)
        if part == "bias" and which == 0:
            change(b, with_part("recurrent_bias", known[which]), only=0)
    assert slugs(a, b) == expected


# ── what must not be accused ────────────────────────────────────────────────────────────────────────────────────


def test_the_innocent():
    for seed, cell in enumerate(SPECS):
        a = build(models(cell, seed), "keras", seed)
        assert gw.verify(a, gw.port(a, "torch")).diagnosis == ()
        assert gw.verify(a, gw.port(gw.port(a, "torch"), "keras")).diagnosis == ()


def test_a_mistake_without_effect_is_not_accused():
    a = build(gw.Network.chain(gw.LSTM(3, 4, return_state=False), gw.Dense(4, 2)), "keras", 10)
    change(a, lambda spec, parts: parts | {"kernel": 0 * parts["kernel"]}, only=1)
    b = change(gw.port(a, "torch"), reordered((0, 2, 1, 3)), only=0)
    assert gw.verify(a, b).verdict != "failed"
    change(b, lambda spec, parts: parts | {"bias": 2 * parts["bias"]}, only=1)
    assert slugs(a, b) == ["bias-doubled"]


def test_a_bias_that_lies_elsewhere_is_no_mistake():
    a = build(gw.LSTM(3, 4), "torch", 11)
    b = gw.port(a, "torch")
    with torch.no_grad():
        b.lstm.bias_ih_l0.add_(b.lstm.bias_hh_l0)
        b.lstm.bias_hh_l0.zero_()
        b.lstm.weight_ih_l0.copy_(b.lstm.weight_ih_l0.roll(4, 0))
    (each,) = found(a, b)
    assert each.mistake == "gates-exchanged"
    assert "the gates of the kernel of 'lstm' are taken to lie as o i f g, and not as i f g o" in each.text


# ── mistakes that the description tells ─────────────────────────────────────────────────────────────────────────


def same_weights(a, network, framework="torch"):
    """Another model with the weights of a."""
    b = gw.build(network, framework)
    weights = iter(units(side(a)))
    return change(b, lambda spec, parts: _half(next(weights), parts))


def _half(unit, parts):
    (start,) = halves(unit.spec)
    return {name: unit.weights.get(start + name, 0 * array) for name, array in parts.items()}


OPTIONS = [
    (gw.LSTM, {}, {"activation": "relu"}, "activation"),
    (gw.RNN, {}, {"activation": "relu"}, "activation"),
    (gw.GRU, {"activation": "softsign"}, {}, "activation"),
    (gw.LSTM, {}, {"recurrent_activation": "hard_sigmoid"}, "recurrent-activation"),
    (gw.GRU, {"return_sequences": False}, {"return_sequences": False, "go_backwards": True}, "direction"),
    (gw.LSTM, {"go_backwards": True}, {}, "direction"),
    (gw.GRU, {}, {"reset": "before"}, "reset"),
    (gw.GRU, {"reset": "before"}, {"reset": "after"}, "reset"),
    (gw.GRU, {}, {"return_sequences": False}, "option"),
]


@pytest.mark.parametrize(("kind", "here", "there", "slug"), OPTIONS)
def test_option(kind, here, there, slug):
    a = build(kind(3, 4, return_state=False, **here), "keras", 12)
    b = same_weights(a, gw.Network.chain(kind(3, 4, return_state=False, **there)))
    assert slugs(a, b) == [slug]


def test_activation_of_a_dense_layer():
    a = build(gw.Network.chain(gw.RNN(3, 4, return_state=False), gw.Dense(4, 2, activation="sigmoid")), "keras", 13)
    b = same_weights(a, gw.Network.chain(gw.RNN(3, 4, return_state=False), gw.Dense(4, 2)))
    (each,) = found(a, b)
    assert each.mistake == "activation"
    assert "activation of 'dense' is sigmoid, and not linear" in each.text


def test_merge():
    spec = gw.LSTM(3, 4, bidirectional=True, merge="sum", return_state=False)
    a = build(spec, "keras", 14)
    b = gw.port(a, "torch")
    other = gw.build(gw.Network.chain(spec.replace(merge="ave")), "torch")
    other.load_state_dict(b.state_dict())
    assert slugs(a, other) == ["merge"]


def test_mask_that_is_missing():
    layer = gw.LSTM(3, 4, return_state=False, return_sequences=False)
    a = build(gw.Network.chain(Input((None, 3)), Masking(), layer), "keras", 15)
    b = same_weights(a, gw.Network.chain(Input((None, 3)), layer))
    assert slugs(a, b) == ["mask-ignored"]
    assert slugs(b, a) == ["mask-ignored"]
    tokens = gw.Network.chain(gw.Embedding(4, 3, mask_zero=True), layer)
    a = build(tokens, "keras", 16)
    b = same_weights(a, gw.Network.chain(gw.Embedding(4, 3), layer))
    assert slugs(a, b) == ["mask-ignored"]


# ── mistakes that no description tells: a torch module that does something else ──────────────────────────────────


def ported(network, seed=20):
    a = build(network, "keras", seed)
    return a, gw.port(a, "torch")


def test_sequence_read_backwards():
    a, b = ported(gw.Network.chain(gw.LSTM(3, 4, return_state=False), gw.Dense(4, 2)))
    b.lstm.register_forward_pre_hook(lambda layer, given: (given[0].flip(1), *given[1:]))
    assert slugs(a, b) == ["direction"]


def test_backward_half_at_the_wrong_end():
    spec = gw.LSTM(3, 4, bidirectional=True, return_sequences=False, return_state=False)
    a, b = ported(gw.Network.chain(spec, gw.Dense(8, 2)))

    def last(layer, given, made):
        output, states = made
        return torch.cat([output[..., :4], output[:, -1:, 4:].expand_as(output[..., 4:])], -1), states

    b.lstm.register_forward_hook(last)
    (each,) = found(a, b)
    assert each.mistake == "backward-end"
    assert "the backward half of 'lstm' is taken where it ends, at the first step" in each.text


def test_backward_half_in_the_order_of_reading():
    a, b = ported(gw.GRU(3, 4, bidirectional=True, return_state=False))
    b.gru.register_forward_hook(
        lambda layer, given, made: (torch.cat([made[0][..., :4], made[0][..., 4:].flip(1)], -1), made[1])
    )
    assert slugs(a, b) == ["backward-not-flipped"]


def test_states_exchanged():
    a, b = ported(gw.LSTM(3, 4))
    b.lstm.register_forward_hook(lambda layer, given, made: (made[0], made[1][::-1]))
    (each,) = found(a, b)
    assert (each.mistake, each.layer) == ("states-exchanged", "lstm")


def test_first_states_exchanged():
    a = build(gw.LSTM(3, 4), "torch", 21)
    b = gw.port(a, "torch")
    b.lstm.register_forward_pre_hook(lambda layer, given: (given[0], given[1] and given[1][::-1]))
    (each,) = found(a, b)
    assert each.mistake == "states-exchanged"
    assert "first states" in each.text


def test_batch_and_time_exchanged():
    a, b = ported(gw.Network.chain(gw.GRU(3, 4, return_state=False), gw.Dense(4, 2)))
    b.gru.batch_first = False
    assert slugs(a, b) == ["batch-and-time-exchanged"]
    network = gw.Network.chain(gw.LSTM(3, 4, return_state=False), gw.GRU(4, 4, return_state=False))
    a, b = ported(network)
    b.lstm.batch_first = b.gru.batch_first = False
    assert slugs(a, b) == ["batch-and-time-exchanged"]


def test_version_of_hard_sigmoid():
    a, b = ported(gw.LSTM(3, 4, recurrent_activation="hard_sigmoid", return_state=False))
    b.lstm.recurrent_activation = "hard_sigmoid_02"
    b.lstm._resolve()
    b.network = side(a).network
    (each,) = found(a, b)
    assert each.mistake == "hard-sigmoid-version"


def test_mask_that_is_ignored():
    layer = gw.LSTM(3, 4, return_state=False)
    a, b = ported(gw.Network.chain(Input((None, 3)), Masking(), layer))
    b.lstm.register_forward_pre_hook(lambda layer, given, named: (given, named | {"mask": None}), with_kwargs=True)
    assert slugs(a, b) == ["mask-ignored"]


def test_dropout_left_on():
    a, b = ported(gw.Network.chain(gw.LSTM(3, 4, return_state=False), gw.Dense(4, 2)))
    b.dense.register_forward_pre_hook(lambda layer, given: (torch.nn.functional.dropout(given[0], 0.3, True),))
    (each,) = found(a, b)
    assert each.mistake == "dropout-left-on"
    assert "two runs on the same inputs differ" in each.text


def test_wiring_and_weights_together():
    a, b = ported(gw.Network.chain(gw.GRU(3, 4, return_state=False), gw.Dense(4, 2)))
    b.gru.register_forward_pre_hook(lambda layer, given: (given[0].flip(1), *given[1:]))
    change(b, reordered((1, 0, 2)), only=0)
    assert slugs(a, b) == ["gates-exchanged", "direction"]


def test_source_with_a_mistake():
    a, b = ported(gw.LSTM(3, 4))
    b.lstm.register_forward_hook(lambda layer, given, made: (made[0], made[1][::-1]))
    (each,) = found(b, a)
    assert each.mistake == "states-exchanged"
    assert "in the source" in each.text


def test_half_precision():
    a, b = ported(gw.Network.chain(gw.LSTM(3, 4, return_state=False), gw.Dense(4, 2)))
    told = found(a, b.half().float())
    assert {each.mistake for each in told} == {"rounded"}
    assert all("rounded to float16" in each.text for each in told)
    a, b = ported(gw.GRU(3, 4))
    assert set(slugs(a, b.bfloat16().float())) == {"rounded"}


def test_what_nothing_explains():
    a, b = ported(gw.Network.chain(gw.LSTM(3, 4, return_state=False), gw.Dense(4, 2)))
    b.dense.register_forward_hook(lambda layer, given, made: made + torch.sin(37 * made))
    [only] = gw.verify(a, b).diagnosis  # no mistake that is known, but the place is
    assert only.layer == "dense"
    assert "have the same input and weights, and give other outputs" in only.text
    assert np.isnan(only.after)


# ── the network that guesses run in ─────────────────────────────────────────────────────────────────────────────


def test_walk_agrees_with_keras():
    for seed in range(4):
        random = np.random.default_rng(seed)
        cells = random.choice(list(SPECS), 2)
        first = SPECS[cells[0]](3, 4, bidirectional=bool(seed % 2), return_state=False)
        second = SPECS[cells[1]](first.merged_directions * 4, 3, go_backwards=bool(seed // 2))
        a = build(gw.Network.chain(Input((None, 3)), Masking(), first, Activation("relu"), second), "keras", seed)
        one = side(a)
        inputs = random.normal(size=(3, 6, 3)).astype(np.float32)
        inputs[0, 4:] = inputs[1, 2] = 0
        flat, _ = unstacked(one.network)
        weights = {unit.name: unit.weights for unit in units(one)}
        for mine, theirs in zip(walk(flat, weights, [inputs]), one.adapter.call(a, [inputs]), strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_a_stack_is_a_chain():
    a = build(gw.LSTM(3, 4, layers=3, bidirectional=True), "torch", 22)
    one = side(a)
    inputs = np.random.default_rng(0).normal(size=(2, 5, 3))
    flat, places = unstacked(one.network)
    assert places["lstm.2"] == ("lstm", 2)
    made = walk(flat, {unit.name: unit.weights for unit in units(one)}, [inputs])
    for mine, theirs in zip(made, one.adapter.call(a, [inputs]), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)
    (first, *_) = flat.weighted
    assert plain(Call(first.spec, units(one)[0].weights, inputs))[0].shape == (2, 5, 8)


# ── a sweep ─────────────────────────────────────────────────────────────────────────────────────────────────────


def any_network(random):
    """A chain of one to three layers with random options, and now and then a Dense layer."""
    layers, width, depth = [], int(random.integers(2, 6)), int(random.integers(1, 4))
    for number in range(depth):
        kind, units_ = SPECS[random.choice(list(SPECS))], int(random.integers(2, 6))
        options = {"return_state": False, "return_sequences": number < depth - 1 or bool(random.integers(2))}
        if random.random() < 0.4:
            options |= {"bidirectional": True, "merge": str(random.choice(["concat", "sum", "mul", "ave"]))}
        if random.random() < 0.2:
            options["go_backwards"] = True
        if random.random() < 0.3:
            options["activation"] = str(random.choice(["relu", "softsign", "sigmoid", "elu"]))
        if kind is gw.GRU and random.random() < 0.4:
            options["reset"] = "before"
        if random.random() < 0.15:
            options["bias"] = False
        layers.append(kind(width, units_, **options))
        width = layers[-1].merged_directions * units_
    if random.random() < 0.6:
        layers.append(gw.Dense(width, int(random.integers(1, 4)), activation=str(random.choice(["linear", "tanh"]))))
    return gw.Network.chain(*layers)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(150))
def test_any_mistake_in_any_model(seed):
    random = np.random.default_rng(seed)
    network = any_network(random)
    a = build(network, "torch" if seed % 3 == 0 else "keras", seed)
    b = gw.port(a, "keras" if seed % 3 == 0 else "torch")
    innocent = gw.verify(a, b)
    assert innocent.verdict != "failed"
    assert innocent.diagnosis == ()
    place = int(random.integers(len(network.layers)))
    spec = network.layers[place].spec
    pool = [("bias-dropped", scaled_bias(0, 0))]
    if spec.cell in OWN:
        pool = [(slug, how) for table in (EVERYWHERE, OWN[spec.cell]) for slug, each in table.items() for how in each]
        if spec.cell != "rnn":
            pool += [("gates-exchanged", reordered(random.permutation(len(GATES[spec.cell]))))] * 3
    slug, how = pool[random.integers(len(pool))]
    if not spec.bias and "bias" in slug:
        return
    parity = gw.verify(a, change(b, how, only=place))
    if parity.verdict == "failed":
        # A square kernel of one gate is reshaped as it is transposed.
        same = {"kernel-transposed"} if slug == "kernel-reshaped" and spec.cell == "rnn" else set()
        (each,) = parity.diagnosis
        assert each.mistake in {slug, *same}
