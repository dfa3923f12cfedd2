"""Layers and cells of Keras that are used several times, and masks that its operations make."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import random_models
from test_keras_options import assert_reference, distance, fill, outputs, some_inputs

import gatewise as gw
from gatewise.core.between import TESTS, Input, Operation
from gatewise.core.network import Layer, Network
from gatewise.core.spec import LSTM, RUN
from gatewise.errors import SpecError, UnsupportedModelError
from gatewise.parity.fault_rows import TAKEN_FOR
from gatewise.parity.subject import side

STEPS, FEATURES, BATCH = 5, 3, 3
CELLS = ("LSTM", "GRU", "SimpleRNN")


def forget(obj):
    """Make a Keras or torch model forget its states."""
    if hasattr(obj, "native"):
        obj.reset_state()
        return
    for layer in obj._flatten_layers():
        if getattr(layer, "stateful", False) and layer.states is not None:
            layer.reset_state()


def several_batches(torch, obj, batches):
    """Return the outputs of several batches one after the other; before the last, the states are forgotten."""
    forget(obj)
    made = []
    for number, arrays in enumerate(batches):
        if number == len(batches) - 1:
            forget(obj)
        if hasattr(obj, "native"):
            with torch.no_grad():
                given = obj(*map(torch.tensor, arrays))
            made += [each.numpy() for each in (given if isinstance(given, list) else [given])]
        else:
            given = obj(arrays if len(arrays) > 1 else arrays[0])
            made += [np.asarray(each) for each in (given if isinstance(given, list) else [given])]
    return made


def draw_batches(model, count=4, seed=1):
    rng = np.random.default_rng(seed)
    return [some_inputs(model, rng, model.inputs[0].dtype) for _ in range(count)]


def assert_alike(torch, model, tolerance=1e-10):
    """Compare a model with its port, the port's way back and both from files, over several batches."""
    batches = draw_batches(model)
    module = gw.port(model, to="torch")
    expected = several_batches(torch, model, batches)
    again = gw.port(module, to="keras")
    for other in (module, again, gw.port(again, to="torch")):
        assert distance(expected, several_batches(torch, other, batches)) <= tolerance
    if model.inputs[0].dtype == "float64":
        forget(model)
        assert_reference(model, module, batches[0])
    return module, again


# ── a stateful layer used twice ─────────────────────────────────────────────────────────────────────────────────


def twice(keras, layer, source, later):
    return [layer(source), layer(source)]


def exchanged(keras, layer, source, later):
    first, second = layer(source), layer(source)
    return [second, first]


def early(keras, layer, source, later):
    return [later(later(layer(source))), layer(source)]


def late(keras, layer, source, later):
    return [layer(source), later(later(layer(source)))]


def chained(keras, layer, source, later):
    return [layer(layer(later(layer(source))))]


def one_masked(keras, layer, source, later):
    return [layer(source), layer(keras.layers.Masking(dtype=source.dtype)(source))]


def within_a_model(keras, layer, source, later):
    """Keras runs the inner model whole, at its place; without it the uses have other distances from the end."""
    inside = keras.Input(source.shape[1:], batch_size=source.shape[0], dtype=source.dtype)
    model = keras.Model(inside, [layer(inside), later(later(later(layer(inside))))])
    return [*model(source), layer(source)]


USES = (twice, exchanged, early, late, chained, one_masked, within_a_model)


def stateful(keras, use, kind="LSTM", dtype="float64", **options):
    source = keras.Input((STEPS, FEATURES), batch_size=BATCH, dtype=dtype)
    if kind == "Bidirectional":
        inner = keras.layers.GRU(FEATURES, return_sequences=True, stateful=True, dtype=dtype)
        layer = keras.layers.Bidirectional(inner, merge_mode="sum", dtype=dtype)
    elif kind == "directions":
        inner = keras.layers.GRU(FEATURES, return_sequences=True, stateful=True, dtype=dtype)
        other = keras.layers.LSTM(FEATURES, return_sequences=True, stateful=True, go_backwards=True, dtype=dtype)
        layer = keras.layers.Bidirectional(inner, merge_mode="ave", backward_layer=other, dtype=dtype)
    else:
        layer = getattr(keras.layers, kind)(FEATURES, return_sequences=True, stateful=True, dtype=dtype, **options)

    def later(tensor):
        return keras.layers.Dense(FEATURES, "tanh", dtype=dtype)(tensor)

    return fill(keras.Model(source, use(keras, layer, source, later)), np.random.default_rng(0))


OTHERS = [(kind, use) for kind in (*CELLS[1:], "Bidirectional", "directions") for use in (late, within_a_model)]


@pytest.mark.parametrize(("kind", "use"), [*(("LSTM", use) for use in USES), *OTHERS])
def test_states_go_on_from_use_to_use(keras, torch, kind, use):
    model = stateful(keras, use, kind)
    module, _ = assert_alike(torch, model)
    assert len(list(module.parameters())) == len({id(each) for each in module.parameters()})
    assert gw.count(module.network, "keras").total == model.count_params()


@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
def test_states_go_on_in_float32(keras, torch, use):
    assert_alike(torch, stateful(keras, use, "GRU", "float32", go_backwards=True), 1e-5)


@pytest.mark.parametrize("use", [twice, early, within_a_model], ids=lambda use: use.__name__)
def test_states_that_do_not_go_on_are_seen(keras, torch, use):
    """Seen red: each use from states of its own, and each batch from zeros."""
    from gatewise_torch.model import Model

    model = stateful(keras, use)
    module = gw.port(model, to="torch")
    batches, network = draw_batches(model), module.network
    expected = several_batches(torch, model, batches)

    def wrong(layers):
        other = Model(Network(tuple(layers), network.outputs), torch.float64)
        other.load_state_dict(module.state_dict(), strict=False)
        return distance(expected, several_batches(torch, other, batches))

    assert wrong(network.layers) < 1e-10
    assert wrong(dataclasses.replace(layer, resumes="") for layer in network.layers) > 1e-3
    # … and the states of the batch before.
    alone = [several_batches(torch, module, [batch, batch])[: len(model.outputs)] for batch in batches]
    assert distance(expected, [each for batch in alone for each in batch]) > 1e-3


def test_the_order_is_that_of_keras(keras, torch):
    """A use that is called last runs first; the port says so, and in the order of calls the outputs would differ."""
    model = stateful(keras, late)
    uses = [layer for layer in gw.describe(model).layers if layer.spec.cell == "lstm"]
    assert [bool(layer.resumes) for layer in uses] == [False, True]
    assert gw.describe(model).outputs[0] == uses[1].name


def test_first_states_are_kept_as_well(keras, torch):
    source = keras.Input((STEPS, FEATURES), batch_size=BATCH, dtype="float64")
    layer = keras.layers.LSTM(4, stateful=True, return_state=True, dtype="float64")
    one = layer(source)
    other = layer(source, initial_state=[one[2], one[1]])
    model = fill(keras.Model(source, [*one, *other, *layer(source)]), np.random.default_rng(0))
    assert_alike(torch, model)


def test_within_time_distributed(keras, torch):
    source = keras.Input((2, STEPS, FEATURES), batch_size=BATCH, dtype="float64")
    inner = keras.layers.GRU(FEATURES, stateful=True, return_sequences=True, dtype="float64")
    layer = keras.layers.TimeDistributed(inner, dtype="float64")
    assert_alike(torch, fill(keras.Model(source, [layer(source), layer(layer(source))]), np.random.default_rng(0)))


def on_each_step(keras, use, kind="LSTM", axes=1, masked=False, dtype="float64"):
    """A model that uses a stateful layer several times, on each step of one or two more time axes."""
    shape = (STEPS, FEATURES)
    inside = keras.Input(shape, batch_size=BATCH, dtype=dtype)
    layer = getattr(keras.layers, kind)(FEATURES, return_sequences=True, stateful=True, dtype=dtype)

    def later(tensor):
        return keras.layers.Dense(FEATURES, "tanh", dtype=dtype)(tensor)

    entry = keras.layers.Masking(0.5, dtype=dtype)(inside) if masked else inside
    made = keras.layers.Concatenate(dtype=dtype)(use(keras, layer, entry, later))
    model = keras.Model(inside, made)
    for number in range(axes):
        shape = (2 + number, *shape)
        source = keras.Input(shape, batch_size=BATCH, dtype=dtype)
        result = keras.layers.TimeDistributed(model, dtype=dtype)(source)
        if number < axes - 1:  # the layer is used around the inner axis, too
            result = keras.layers.Concatenate(dtype=dtype)(
                [result, keras.layers.TimeDistributed(layer, dtype=dtype)(source)]
            )
        model = keras.Model(source, result)
    return fill(model, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("use", "kind", "axes", "masked"),
    [
        *((use, "GRU", 1, False) for use in (exchanged, chained)),
        *(pytest.param(use, "GRU", 1, False, marks=pytest.mark.long) for use in (twice, early, late, one_masked)),
        (late, "LSTM", 1, True),
        (twice, "SimpleRNN", 2, False),
    ],
)
def test_used_several_times_on_each_step(keras, torch, use, kind, axes, masked):
    model = on_each_step(keras, use, kind, axes, masked)
    module, _ = assert_alike(torch, model)
    assert gw.count(module.network, "keras").total == model.count_params()


def test_uses_on_each_step_are_not_one_use_after_the_other(keras, torch):
    """Seen red: all steps by the first use, then all by the second."""
    from gatewise_torch.model import Model

    model = on_each_step(keras, chained)
    module, batches = gw.port(model, to="torch"), draw_batches(model)
    expected = several_batches(torch, model, batches)
    apart = Model(module.network, torch.float64)
    apart.load_state_dict(module.state_dict())
    assert distance(expected, several_batches(torch, apart, batches)) < 1e-10
    apart._interleaved = {}
    assert distance(expected, several_batches(torch, apart, batches)) > 1e-3


@pytest.mark.parametrize("axes", [pytest.param(1, marks=pytest.mark.long), 2])
def test_statistics_go_on_from_use_to_use_on_each_step(keras, torch, axes):
    inside = keras.Input((STEPS, FEATURES), batch_size=BATCH, dtype="float64")
    layer = keras.layers.BatchNormalization(momentum=0.6, dtype="float64")
    gru = keras.layers.GRU(FEATURES, return_sequences=True, dtype="float64")
    model, shape = keras.Model(inside, layer(gru(layer(inside)))), (STEPS, FEATURES)
    for number in range(axes):
        shape = (2 + number, *shape)
        source = keras.Input(shape, batch_size=BATCH, dtype="float64")
        model = keras.Model(source, keras.layers.TimeDistributed(model, dtype="float64")(source))
    model = fill(model, np.random.default_rng(0))
    layer.moving_variance.assign(abs(layer.moving_variance))
    module, _ = assert_alike(torch, model)
    parity = gw.verify(model, module, gradients=True, training_steps=2)
    assert parity.passed, str(parity)


@pytest.mark.parametrize("use", [late, within_a_model], ids=lambda use: use.__name__)
def test_verified_with_gradients_and_from_files(keras, torch, tmp_path, use):
    import gatewise_keras.cells  # noqa: F401  (a .keras file may hold its After)

    model = stateful(keras, use, "GRU")
    module, again = assert_alike(torch, model)
    parity = gw.verify(model, module, gradients=True, training_steps=2)
    assert parity.passed, str(parity)
    gw.save(module, tmp_path / "m.safetensors")
    again.save(tmp_path / "m.keras")
    batches = draw_batches(model)
    expected = several_batches(torch, model, batches)
    for other in (gw.load(tmp_path / "m.safetensors"), gw.load(tmp_path / "m.keras", to="torch")):
        assert distance(expected, several_batches(torch, other, batches)) < 1e-10


# ── a cell used twice ───────────────────────────────────────────────────────────────────────────────────────────

WAYS = {
    "backwards": ({}, {"go_backwards": True}),
    "sequences": ({"return_sequences": True, "return_state": True}, {}),
    "zeros": ({"return_sequences": True}, {"return_sequences": True, "zero_output_for_mask": True}),
    "stateful": ({"return_sequences": True}, {"stateful": True}),
    "all": ({"stateful": True, "return_sequences": True}, {"stateful": True, "go_backwards": True}),
    "states of their own": ({"stateful": True}, {"stateful": True}),
}


def one_cell(keras, kind, ways, dtype="float64", masked=True, **options):
    source = keras.Input((STEPS, FEATURES), batch_size=BATCH, dtype=dtype)
    cell = getattr(keras.layers, f"{kind}Cell")(4, dtype=dtype, **options)
    made = []
    for number, way in enumerate(ways):
        x = keras.layers.Masking(dtype=dtype)(source) if masked and number else source
        made += keras.tree.flatten(keras.layers.RNN(cell, dtype=dtype, **way)(x))
    return fill(keras.Model(source, made), np.random.default_rng(0))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("kind", "way"), [*(("LSTM", way) for way in WAYS), *((kind, "all") for kind in CELLS[1:]), ("GRU", "zeros")]
)
def test_one_cell_in_two_layers(keras, torch, kind, way, masked):
    model = one_cell(keras, kind, WAYS[way], masked=masked)
    module, again = assert_alike(torch, model)
    assert len(again.weights) == len(model.weights)
    assert gw.count(module.network, "keras").total == model.count_params()
    assert [bool(layer.shares) for layer in module.network.layers if layer.spec.cell] == [False, True]


def test_one_cell_in_float32_and_with_another_activation(keras, torch):
    assert_alike(torch, one_cell(keras, "LSTM", WAYS["all"], "float32", activation="relu"), 1e-5)
    assert_alike(torch, one_cell(keras, "GRU", WAYS["backwards"], reset_after=False))


@pytest.mark.parametrize("option", RUN[:2] + RUN[4:])
def test_each_way_to_run_a_cell_has_an_effect(keras, torch, option):
    """Seen red: a use that took the options of the first would compute something else."""
    from gatewise_torch.model import Model

    ways = {"return_sequences": True}, {"return_sequences": True}
    ways[1][option] = not ways[1].get(option, False)
    model = one_cell(keras, "LSTM", ways)
    module, batches = assert_alike(torch, model)[0], draw_batches(model)
    layers = list(module.network.layers)
    place = next(number for number, layer in enumerate(layers) if layer.shares)
    layers[place] = dataclasses.replace(layers[place], spec=module.network[layers[place].shares].spec)
    other = Model(Network(tuple(layers), module.network.outputs), torch.float64)
    other.load_state_dict(module.state_dict(), strict=False)
    expected, wrong = (several_batches(torch, each, batches) for each in (model, other))
    if [each.shape for each in expected] == [each.shape for each in wrong]:
        assert distance(expected, wrong) > 1e-3


def test_one_cell_learns_from_all_its_uses(keras, torch, tmp_path):
    model = one_cell(keras, "GRU", WAYS["backwards"])
    module = gw.port(model, to="torch")
    parity = gw.verify(model, module, gradients=True, training_steps=3)
    assert parity.passed, str(parity)
    gw.save(module, tmp_path / "m.safetensors")
    arrays = some_inputs(model, np.random.default_rng(1), "float64")
    for other in (gw.load(tmp_path / "m.safetensors"), gw.load(tmp_path / "m.safetensors", to="keras")):
        assert distance(outputs(model, arrays), outputs(other, arrays)) < 1e-10
    one, other = (layer.name for layer in module.network.layers if layer.spec.cell)
    owned = dict(module.named_parameters(remove_duplicate=False))
    assert owned[f"{one}.weight_ih_l0"] is owned[f"{other}.weight_ih_l0"]
    assert module.double().get_submodule(one).weight_ih_l0 is module.get_submodule(other).weight_ih_l0


def test_a_cell_of_a_stack_and_twice_in_one(keras, torch):
    source, layers = keras.Input((STEPS, 4), dtype="float64"), keras.layers
    cell, other = layers.GRUCell(4, dtype="float64"), layers.LSTMCell(3, dtype="float64")
    stacks = [layers.StackedRNNCells(cells, dtype="float64") for cells in ([cell, other], [cell, cell])]
    made = [layers.RNN(one, dtype="float64")(source) for one in (*stacks, cell)]
    model = fill(keras.Model(source, made), np.random.default_rng(0))
    arrays = [np.random.default_rng(1).normal(size=(2, STEPS, 4))]
    module = gw.port(model, to="torch")
    assert distance(outputs(model, arrays), outputs(module, arrays)) < 1e-10
    assert_reference(model, module, arrays)
    assert gw.count(module.network, "keras").total == model.count_params()


def test_one_cell_does_not_go_into_a_file_of_keras(keras, tmp_path):
    """Keras writes such a file, and cannot read it."""
    model = one_cell(keras, "LSTM", WAYS["backwards"])
    with pytest.raises(UnsupportedModelError, match=r"cell 'lstm_cell(.|\n)*safetensors"):
        gw.save(model, tmp_path / "m.keras")
    model.save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match="could not be loaded"):
        keras.saving.load_model(tmp_path / "m.keras")


@pytest.mark.parametrize("kind", ["first", "last", "another two", "itself", "both"])
def test_one_direction_of_two_alike(keras, torch, kind):
    """Directions that are alike are two layers where a cell of theirs runs elsewhere, too."""
    layers, options = keras.layers, {"return_sequences": True, "dtype": "float64"}
    source = keras.Input((STEPS, FEATURES), dtype="float64")
    x, cell = layers.Masking(dtype="float64")(source), layers.LSTMCell(4, dtype="float64")

    def two(first, last, name=None):
        backward = layers.RNN(last, go_backwards=True, **options)
        made = layers.Bidirectional(layers.RNN(first, **options), backward_layer=backward, name=name, dtype="float64")
        made.forward_layer.cell = first  # it is a copy
        return made

    other = layers.LSTMCell(4, dtype="float64")
    # Made before any of them is built: a built cell would stay in the layer that held its copy.
    alone, both, same = layers.RNN(cell, **options), two(other, cell), two(other, cell)
    made = {
        "first": lambda: [both(x), alone(source)],
        "last": lambda: [alone(source), both(x)],
        "another two": lambda: [both(x), two(layers.LSTMCell(4, dtype="float64"), cell)(source)],
        "itself": lambda: [two(cell, cell)(x)],
        "both": lambda: [both(x), same(source)],
    }[kind]()
    model = fill(keras.Model(source, made), np.random.default_rng(0))
    module, again = assert_alike(torch, model)
    assert len(again.weights) == len(model.weights)
    assert gw.count(module.network, "keras").total == model.count_params()
    assert gw.verify(model, module, gradients=True).passed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shares": "none"}, "no such layer"),
        ({"spec": LSTM(3, 4, bias=False, stateful=True)}, "no such layer"),
        ({"resumes": "none"}, "no use of it"),
        ({"spec": LSTM(3, 4), "resumes": "one"}, "no use of it"),
        ({"spec": LSTM(3, 4, stateful=True, go_backwards=True)}, "no use of it"),
    ],
)
def test_a_network_says_what_cannot_be(change, words):
    spec = LSTM(3, 4, stateful=True)
    source, one = Layer("input", Input((5, 3), batch=2)), Layer("one", spec, ("input",))
    two = Layer("two", spec, ("input",), shares="one", resumes="one")
    network = Network((source, one, two))
    assert Network.from_dict(network.to_dict()) == network
    with pytest.raises(SpecError, match=words):
        Network((source, one, dataclasses.replace(two, **change)))


# ── masks that operations make ──────────────────────────────────────────────────────────────────────────────────


def masks(keras):
    """Return name → a function of numbers (x), tokens (t) and booleans (m) that makes a mask."""
    ops, layers = keras.ops, keras.layers
    values = dict.fromkeys(TESTS[:2], 0.0) | dict.fromkeys(TESTS[2:4], -0.5) | dict.fromkeys(TESTS[4:], 0.9)

    def compared(test):
        return lambda x, t, m: ops.all(getattr(ops, test)(x, values[test]), axis=-1)

    return {test: compared(test) for test in TESTS} | {
        "tokens": lambda x, t, m: ops.not_equal(t, 0),
        "any": lambda x, t, m: ops.any(ops.not_equal(x, 0.0), axis=-1),
        "any of numbers": lambda x, t, m: ops.any(x, axis=2),
        "not": lambda x, t, m: ops.logical_not(m),
        "and": lambda x, t, m: ops.logical_and(m, t >= 1),
        "or": lambda x, t, m: ops.logical_or(t, m),
        "cast": lambda x, t, m: ops.cast(t, "bool"),
        "cast of booleans": lambda x, t, m: ops.cast(m, "bool"),
        "number first": lambda x, t, m: ops.logical_and(ops.less(0, t), t <= 2.5),
        "is it false": lambda x, t, m: ops.equal(m, False),
        "part": lambda x, t, m: x[:, :, 0] > 0,
        "two tensors": lambda x, t, m: ops.equal(t, ops.cast(m, "int32")),
        "other axis": lambda x, t, m: ops.any(layers.Reshape((FEATURES, STEPS))(x) > 0, axis=1),
        "xor": lambda x, t, m: ops.logical_xor(m, t > 1),
        "of an embedding": lambda x, t, m: layers.Embedding(4, 2, mask_zero=True).compute_mask(t),
        "of another layer": lambda x, t, m: layers.Masking(dtype=x.dtype)(x)._keras_mask,
        "of what a layer gives": lambda x, t, m: ops.all(layers.Dense(2, dtype=x.dtype)(x) > 0.3, axis=-1),
    }


NAMES = (
    *TESTS,
    *("tokens", "any", "any of numbers", "not", "and", "or", "cast", "cast of booleans", "number first", "is it false"),
    *("part", "two tensors", "other axis", "xor", "of an embedding", "of another layer", "of what a layer gives"),
)


def masked(keras, make, dtype="float64"):
    layers = keras.layers
    sources = [
        keras.Input((STEPS, FEATURES), dtype=dtype),
        keras.Input((STEPS,), dtype="int32"),
        keras.Input((STEPS,), dtype="bool"),
    ]
    x, mask = sources[0], make(*sources)
    stack = layers.StackedRNNCells([layers.LSTMCell(3, dtype=dtype), layers.GRUCell(2, dtype=dtype)], dtype=dtype)
    both = layers.Bidirectional(layers.GRU(3, return_sequences=True, dtype=dtype), dtype=dtype)
    ends = [
        layers.LSTM(4, return_sequences=True, dtype=dtype)(x, mask=mask),
        layers.SimpleRNN(2, dtype=dtype)(both(x, mask=mask)),  # the mask goes on
        layers.RNN(stack, go_backwards=True, dtype=dtype)(x, mask=mask),
    ]
    return fill(keras.Model(sources, ends), np.random.default_rng(0))


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("greater", "any", "tokens", "number first", "part", *NAMES[-3:])
        else pytest.param(name, marks=pytest.mark.long)  # each operation by itself has tests of its own
        for name in NAMES
    ],
)
def test_masks_that_operations_make(keras, torch, tmp_path, name):
    """From the model, from its file, there and back; taken for another operation, or left out, it shows."""
    from gatewise_torch.model import Model

    model = masked(keras, masks(keras)[name])
    arrays = some_inputs(model, np.random.default_rng(1), "float64")
    module = gw.port(model, to="torch")
    again, expected = gw.port(module, to="keras"), outputs(model, arrays)
    model.save(tmp_path / "m.keras")
    again.save(tmp_path / "again.keras")
    gw.save(module, tmp_path / "m.safetensors")
    for other in (module, again, *(gw.load(tmp_path / file) for file in ("m.keras", "again.keras", "m.safetensors"))):
        assert distance(expected, outputs(other, arrays)) < 1e-10
        assert distance(expected, outputs(gw.port(other, to="torch"), arrays)) < 1e-10
    assert_reference(model, module, arrays)
    for place, layer in enumerate(module.network.layers):
        if isinstance(layer.spec, Operation) and layer.spec.function in TAKEN_FOR:
            layers, wrong = list(module.network.layers), TAKEN_FOR[layer.spec.function]
            layers[place] = dataclasses.replace(layer, spec=layer.spec.replace(function=wrong))
            other = Model(Network(tuple(layers), module.network.outputs), torch.float64)
            other.load_state_dict(module.state_dict())
            assert distance(expected, outputs(other, arrays)) > 1e-3
    bare = [dataclasses.replace(layer, mask="") for layer in module.network.layers]
    ignored = Model(Network(tuple(bare), module.network.outputs), torch.float64)
    ignored.load_state_dict(module.state_dict())
    assert distance(expected, outputs(ignored, arrays)) > 1e-3


@pytest.mark.parametrize("name", ["any", "number first", "or"])
def test_masks_in_float32_are_verified(keras, torch, name):
    model = masked(keras, masks(keras)[name], "float32")
    module = gw.port(model, to="torch")
    arrays = some_inputs(model, np.random.default_rng(1))
    assert distance(outputs(model, arrays), outputs(module, arrays)) < 1e-5
    parity = gw.verify(model, module)
    assert parity.passed, str(parity)
    assert any(planted.mistake.partition(" for ")[0] in TAKEN_FOR for planted in parity.planted)


def refused(keras, name):
    ops, layers = keras.ops, keras.layers
    return {
        "lambda": lambda x, t, m: layers.Lambda(lambda z: z > 0, name="own")(t),
        "array": lambda x, t, m: np.ones((1, STEPS), bool),
        "axes": lambda x, t, m: ops.not_equal(x, 0.0)[:, :, :1],
    }[name]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lambda", ("'own' is of class Lambda", "code of its own")),
        ("array", ("no tensor of the model",)),
        ("axes", ("a number for each step",)),
    ],
)
def test_masks_refused_by_name(keras, name, words):
    source, tokens = keras.Input((STEPS, FEATURES)), keras.Input((STEPS,), dtype="int32")
    flags = keras.Input((STEPS,), dtype="bool")
    mask = refused(keras, name)(source, tokens, flags)
    model = keras.Model([source, tokens, flags], keras.layers.LSTM(4)(source, mask=mask))
    with pytest.raises(UnsupportedModelError) as met:
        gw.port(model, to="torch")
    for word in words:
        assert word in str(met.value)


def read_by_hand(keras, kind):
    """Return a model in which a mask is given by hand to what is no recurrent layer."""
    layers, source, flags = keras.layers, keras.Input((STEPS, FEATURES)), keras.Input((STEPS,), dtype="bool")
    inner = {
        "distributed": [layers.TimeDistributed(layers.Dense(2))],
        "distributed model": [
            layers.TimeDistributed(keras.Sequential([keras.Input((FEATURES,)), layers.Dense(2, activation="relu")]))
        ],
        "norm": [layers.BatchNormalization()],
        "pool": [layers.GlobalAveragePooling1D(keepdims=True)],
        "model": [keras.Sequential([keras.Input((STEPS, FEATURES)), layers.GRU(3, return_sequences=True)])],
        "two axes": [layers.TimeDistributed(layers.LSTM(2)), layers.Reshape((1, -1))],
    }[kind]
    if kind == "two axes":
        source, flags = keras.Input((2, STEPS, FEATURES)), keras.Input((2, STEPS), dtype="bool")
    made = inner[0](source, mask=flags)
    for layer in inner[1:]:
        made = layer(made)
    return keras.Model([source, flags], layers.LSTM(4)(made))


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning")
@pytest.mark.parametrize("kind", ["distributed", "distributed model", "norm", "pool", "model", "two axes"])
def test_masks_by_hand_beside_recurrent_layers(keras, torch, kind):
    rng = np.random.default_rng(0)
    model = fill(read_by_hand(keras, kind), rng)
    shapes = [tuple(each.shape[1:]) for each in model.inputs]
    arrays = [rng.normal(size=(3, *shapes[0])).astype("float32"), rng.random((3, *shapes[1])) < 0.6]
    arrays[1][:, 0] = True  # Keras's mean over no step is no number
    module = gw.port(model, to="torch")
    for other in (module, gw.port(module, to="keras")):
        assert distance(outputs(model, arrays), outputs(other, arrays)) < 1e-6
    arrays[1] = ~arrays[1] | np.eye(*arrays[1].shape[-2:], dtype=bool)
    assert distance(outputs(model, arrays), outputs(module, arrays)) < 1e-6


# ── all of it, by chance ────────────────────────────────────────────────────────────────────────────────────────


def check_random_reuse(keras, torch, seed, draw=random_models.draw_reuse):
    model = draw(keras, np.random.default_rng(seed), "float64")
    batches = draw_batches(model, 3, seed)
    module = gw.port(model, to="torch")
    expected = several_batches(torch, model, batches)
    back = gw.port(module, to="keras")
    for other in (module, back):
        assert distance(expected, several_batches(torch, other, batches)) < 1e-9
    assert gw.count(module.network, "keras").total == gw.count(gw.describe(back), "keras").total
    assert gw.count(module.network, "keras").total == model.count_params()
    if seed % 4 == 0:
        forget(model)
        assert_reference(model, module, batches[0])
        assert side(module).network == Network.from_dict(module.network.to_dict())


@pytest.mark.parametrize("seed", range(12))
def test_random_reuse(keras, torch, seed):
    check_random_reuse(keras, torch, seed)


@pytest.mark.parametrize("seed", range(400, 402))
def test_random_reuse_on_steps(keras, torch, seed):
    check_random_reuse(keras, torch, seed, random_models.draw_reuse_on_steps)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(12, 400))
def test_random_reuse_long(keras, torch, seed):
    check_random_reuse(keras, torch, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(402, 500))
def test_random_reuse_on_steps_long(keras, torch, seed):
    check_random_reuse(keras, torch, seed, random_models.draw_reuse_on_steps)
