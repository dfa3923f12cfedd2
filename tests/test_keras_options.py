"""Every argument of Keras's recurrent layers: carried with the same effect, refused by name, or without one."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from gatewise_keras.arguments import ARGUMENTS, CLASSES
from gatewise_keras.layouts import LIMITS

import gatewise as gw
from gatewise.core.spec import ACTIVATIONS
from gatewise.errors import UnsupportedModelError
from gatewise.registry import owner

COMPUTED = [name for name in ACTIVATIONS if name not in ("threshold", "glu")]
CELLS = ("LSTM", "GRU", "SimpleRNN")
MERGES = ("concat", "sum", "mul", "ave", None)


def fill(model, rng, scale=0.6):
    """Give every weight a normal value, so that no bias is zero and no gate is like another."""
    for weight in model.weights:
        weight.assign(rng.normal(0, scale, weight.shape).astype(weight.dtype))
    return model


def chance(rng, probability):
    return bool(rng.random() < probability)


def pick(rng, choices):
    return choices[int(rng.integers(len(choices)))]


def outputs(obj, arrays):
    """Return all outputs of a Keras or torch object, from the first states."""
    _, adapter = owner(obj)
    with np.errstate(all="ignore"):
        return adapter.call(obj, arrays)


def distance(ours, theirs):
    """Return the largest difference over the largest output (at least 1); infinite where only one is finite."""
    assert [each.shape for each in ours] == [each.shape for each in theirs]
    worst = 0.0
    for mine, yours in zip(ours, theirs, strict=True):
        finite = np.isfinite(mine)
        if (finite != np.isfinite(yours)).any():
            return float("inf")
        if finite.any():
            apart = np.abs(mine[finite].astype(np.float64) - yours[finite].astype(np.float64)).max()
            worst = max(worst, float(apart) / max(1.0, float(np.abs(mine[finite]).max())))
    return worst


def double(model):
    """Return the tolerance of float64.

    TensorFlow's own constants of gelu and leaky_relu are of float32, and its squareplus loses digits below zero.
    """
    return 1e-5 if any(name in str(model.get_config()) for name in ("gelu", "leaky_relu", "squareplus")) else 1e-10


def assert_ported(model, arrays, dtype):
    """Port a Keras model and compare every output and state; in float64 where float32 cannot decide."""
    module = gw.port(model, to="torch")
    ours, theirs = outputs(model, arrays), outputs(module, arrays)
    if dtype == "float64":
        assert distance(ours, theirs) <= double(model)
        return module
    exact = outputs(gw.port(model, to="torch", dtype="float64"), arrays)
    noise = max(distance(exact, ours), distance(exact, theirs))
    if noise <= 1e-3:
        assert distance(ours, theirs) <= max(1e-5, 20 * noise)
        assert all(array.dtype == np.float32 for array in theirs)
    return module


# ── the table ───────────────────────────────────────────────────────────────────────────────────────────────────

HIDDEN = {"zero_output_for_mask", "implementation"}
"""Arguments that some classes take without naming them."""


def named_arguments(keras):
    found = set(HIDDEN)
    for name in CLASSES:
        kind = getattr(keras.layers, name)
        for function in (kind.__init__, kind.call, keras.layers.Layer.__init__):
            for parameter in inspect.signature(function).parameters.values():
                if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) and parameter.name != "self":
                    found.add(parameter.name)
    return found


def test_the_table_has_every_argument_of_keras_and_no_other(keras):
    assert named_arguments(keras) == set(ARGUMENTS)


def test_the_table_can_be_read():
    hows = {"carried", "training", "remark", "no effect", "refused"}
    assert {argument.how for argument in ARGUMENTS.values()} == hows
    assert all(argument.text.endswith(".") for argument in ARGUMENTS.values())
    assert {limit.whose for limit in LIMITS} == {"ours", "theirs", "impossible"}
    assert all(limit.why.endswith(".") for limit in LIMITS)


# ── each argument by itself ─────────────────────────────────────────────────────────────────────────────────────

STEPS, FEATURES = 5, 3


def one_layer(keras, make, *, masked=False, batch=None):
    source = keras.Input((STEPS, FEATURES), batch_size=batch)
    x = keras.layers.Masking()(source) if masked else source
    return keras.Model(source, keras.tree.flatten(make(x)))


def recurrent(kind="LSTM", masked=False, batch=None, **options):
    """Return a builder of a model of one recurrent layer, from one option's value."""

    def build(keras, option, value):
        layer = getattr(keras.layers, kind)(4, **{"return_sequences": True, **options, option: value})
        return one_layer(keras, layer, masked=masked, batch=batch)

    return build


def bidirectional(keras, option, value):
    return one_layer(keras, keras.layers.Bidirectional(keras.layers.GRU(4, return_sequences=True), **{option: value}))


def wrapped(keras, option, value):
    cells = {"LSTM": keras.layers.LSTMCell, "GRU": keras.layers.GRUCell}
    made = [cells[name](4) for name in value] if isinstance(value, tuple) else cells[value](4)
    return one_layer(keras, keras.layers.RNN(made, return_state=True))


def backward(keras, option, value):
    given = {"backward_layer": keras.layers.LSTM(4, return_sequences=True)} if value else {}
    layer = keras.layers.LSTM(4, return_sequences=True, go_backwards=value)
    return one_layer(keras, keras.layers.Bidirectional(layer, **given))


def started(keras, option, value):
    source, state = keras.Input((STEPS, FEATURES)), keras.Input((4,))
    given = {"initial_state": [state, state]} if value else {}
    first = keras.layers.Dense(4, name="state")(state)
    return keras.Model([source, state], [keras.layers.LSTM(4)(source, **given), first])


def embedded(keras, option, value):
    options = {"input_dim": 9, "output_dim": 3, option: value}
    source = keras.Input((STEPS,), dtype="int32")
    return keras.Model(source, keras.layers.GRU(4)(keras.layers.Embedding(**options)(source)))


def masking(keras, option, value):
    source = keras.Input((STEPS, FEATURES))
    return keras.Model(source, keras.layers.LSTM(4)(keras.layers.Masking(value)(source)))


def masks_or_not(keras, option, value):
    return one_layer(keras, keras.layers.LSTM(4), masked=value)


def distributed(keras, option, value):
    inner = keras.layers.LSTM(4, return_sequences=value == "sequences")
    source = keras.Input((2, STEPS, FEATURES))
    return keras.Model(source, keras.layers.TimeDistributed(inner)(source))


EFFECTS = {
    "units": (lambda keras, option, value: one_layer(keras, keras.layers.LSTM(value)), 4, 5),
    "activation": (recurrent(), "tanh", "softsign"),
    "recurrent_activation": (recurrent("GRU"), "sigmoid", "hard_sigmoid"),
    "use_bias": (recurrent("SimpleRNN"), True, False),
    "reset_after": (recurrent("GRU"), True, False),
    "input_dim": (embedded, 9, 12),
    "output_dim": (embedded, 3, 2),
    "weights": (lambda keras, option, value: one_layer(keras, keras.layers.LSTM(4, name=f"w{value}")), 1, 2),
    "return_sequences": (recurrent(return_state=True), True, False),
    "return_state": (recurrent(), True, False),
    "go_backwards": (recurrent(), True, False),
    "stateful": (recurrent(batch=3), True, False),
    "zero_output_for_mask": (recurrent(masked=True), True, False),
    "initial_state": (started, True, False),
    "states": (started, True, False),
    "mask": (masks_or_not, True, False),
    "layer": (distributed, "sequences", "last"),
    "backward_layer": (backward, True, False),
    "merge_mode": (bidirectional, "sum", "mul"),
    "cell": (wrapped, "LSTM", "GRU"),
    "cells": (wrapped, ("LSTM", "GRU"), ("GRU",)),
    "mask_value": (masking, 0.0, 2.0),
    "mask_zero": (embedded, True, False),
}
PLAIN = {"sequences", "sequence", "inputs", "name", "dtype"}
"""What every port shows: the input, the type of the numbers, the names."""


def some_inputs(model, rng, dtype="float32"):
    arrays = []
    for source in model.inputs:
        shape = tuple(3 if size is None else size for size in source.shape)
        if "int" in source.dtype:
            arrays.append(rng.integers(0, 3, shape).astype("int32"))
            continue
        array = rng.normal(size=shape).astype(dtype)
        if len(shape) > 2:
            array[0, ..., -2:, :] = 0.0
            array[1, ..., 1, :] = 2.0
        arrays.append(array)
    return arrays


def test_every_carried_argument_has_an_effect_that_is_tested():
    assert {name for name, argument in ARGUMENTS.items() if argument.how == "carried"} == set(EFFECTS) | PLAIN


@pytest.mark.parametrize("argument", EFFECTS)
def test_effect(keras, torch, argument):
    build, *values = EFFECTS[argument]
    seen = []
    for number, value in enumerate(values):
        model = fill(build(keras, argument, value), np.random.default_rng(number if argument == "weights" else 0))
        arrays = some_inputs(model, np.random.default_rng(1))
        module = assert_ported(model, arrays, "float32")
        if argument == "stateful":  # the first batch is the same; the second is not
            model(arrays[0])
            with torch.no_grad():
                module(torch.tensor(arrays[0]))
                again = module(torch.tensor(arrays[0]))
            np.testing.assert_allclose(again.numpy(), np.asarray(model(arrays[0])), atol=1e-6)
            seen.append([again.numpy()])
        else:
            seen.append(outputs(module, arrays))
    one, other = seen
    shapes = [[array.shape for array in each] for each in seen]
    assert shapes[0] != shapes[1] or distance(one, other) > 1e-3


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("unroll", (True, False)),
        ("use_cudnn", (False, "auto")),
        ("implementation", (1, 2)),
        ("seed", (1, 2)),
        ("autocast", (True, False)),
        ("trainable", (True, False)),
        ("unit_forget_bias", (True, False)),
        ("kernel_initializer", ("ones", "zeros")),
        ("recurrent_initializer", ("ones", "zeros")),
        ("bias_initializer", ("ones", "zeros")),
        ("dropout", (0.0, 0.5)),
        ("recurrent_dropout", (0.0, 0.5)),
        ("kernel_regularizer", (None, "l2")),
        ("kernel_constraint", (None, "non_neg")),
        ("activity_regularizer", (None, "l2")),
    ],
)
def test_without_effect_on_the_outputs(keras, torch, argument, values):
    if argument not in ("trainable",):
        assert ARGUMENTS[argument].how in ("no effect", "training", "remark")
    seen = []
    for value in values:
        model = one_layer(keras, keras.layers.LSTM(4, return_sequences=True, **{argument: value}))
        weights = np.random.default_rng(0)
        model.set_weights([weights.normal(size=each.shape).astype("float32") for each in model.get_weights()])
        seen.append(
            outputs(assert_ported(model, arrays := some_inputs(model, np.random.default_rng(1)), "float32"), arrays)
        )
    assert all(distance(seen[0], each) < 1e-6 for each in seen)


def test_frozen_stays_frozen(keras, torch):
    model = one_layer(keras, keras.layers.LSTM(4, trainable=False))
    assert not any(parameter.requires_grad for parameter in gw.port(model, to="torch").parameters())


# ── refused by name ─────────────────────────────────────────────────────────────────────────────────────────────


def mine(x):
    return x * 2.0


def custom_cell(keras):
    class Cell(keras.layers.SimpleRNNCell):
        pass

    return keras.layers.RNN(Cell(4))


def stack(keras, **options):
    return keras.layers.RNN([keras.layers.LSTMCell(4), keras.layers.LSTMCell(4)], **options)


def twice(keras):
    source, layer = keras.Input((STEPS, FEATURES)), keras.layers.LSTM(4)
    return keras.Model(source, [layer(source), layer(keras.layers.Dropout(0.1)(source))])


def mask_input(keras):
    source, mask = keras.Input((STEPS, FEATURES)), keras.Input((STEPS,), dtype="bool")
    return keras.Model([source, mask], keras.layers.LSTM(4)(source, mask=mask))


def constant_state(keras):
    source = keras.Input((STEPS, FEATURES), batch_size=2)
    zeros = np.zeros((2, 4), "float32")
    return keras.Model(source, keras.layers.GRU(4)(source, initial_state=zeros))


REFUSED = {
    "callable": (lambda keras: keras.layers.LSTM(4, activation=mine), ("activation='mine'", "by name")),
    "lambda": (
        lambda keras: keras.layers.LSTM(4, recurrent_activation=lambda x: x),
        ("recurrent_activation", "<lambda>"),
    ),
    "cell": (custom_cell, ("cell='Cell'", "LSTMCell, GRUCell")),
    "stateful stack": (lambda keras: stack(keras, stateful=True), ("stateful=True", "reset")),
    "stack in bidirectional": (
        lambda keras: keras.layers.Bidirectional(stack(keras)),
        ("StackedRNNCells", "Bidirectional"),
    ),
    "other backward": (
        lambda keras: keras.layers.Bidirectional(
            keras.layers.LSTM(4), backward_layer=keras.layers.LSTM(4, go_backwards=True, activation="relu")
        ),
        ("backward_layer", "The two directions differ"),
    ),
    "dropout 1": (lambda keras: keras.layers.SimpleRNN(4, dropout=1.0), ("dropout=1.0", "all is dropped")),
    "mixed": (lambda keras: keras.layers.LSTM(4, dtype="mixed_float16"), ("dtype='mixed_float16'", "float16")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(keras, case):
    make, words = REFUSED[case]
    model = one_layer(keras, make(keras), batch=2 if "stateful" in case else None)
    with pytest.raises(UnsupportedModelError) as met:
        gw.port(model, to="torch")
    assert met.value.hint
    for word in words:
        assert word in str(met.value)
    assert model.layers[-1].name in str(met.value) or case in ("other backward", "stack in bidirectional")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (twice, ("is used 2 times",)),
        (mask_input, ("a second input as mask", "Masking or Embedding")),
        (constant_state, ("a constant",)),
    ],
)
def test_models_refused_by_name(keras, make, words):
    with pytest.raises(UnsupportedModelError) as met:
        gw.port(make(keras), to="torch")
    for word in words:
        assert word in str(met.value)


def test_a_stack_read_backwards_under_a_mask_is_refused(keras):
    source = keras.Input((STEPS, FEATURES))
    model = keras.Model(source, stack(keras, go_backwards=True)(keras.layers.Masking()(source)))
    with pytest.raises(UnsupportedModelError, match="go_backwards=True"):
        gw.port(model, to="torch")


def test_stateful_within_time_distributed_is_refused(keras):
    source = keras.Input((2, STEPS, FEATURES), batch_size=2)
    model = keras.Model(source, keras.layers.TimeDistributed(keras.layers.LSTM(4, stateful=True))(source))
    with pytest.raises(UnsupportedModelError, match="stateful=True"):
        gw.port(model, to="torch")


def test_unrolled_backwards_under_a_mask_is_refused(keras):
    """Keras's unrolled loop zeroes the steps of the mask unturned; without a mask, or rolled up, all is well."""
    for unroll, masked in ((True, True), (True, False), (False, True)):
        layer = keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True, unroll=unroll))
        model = one_layer(keras, layer, masked=masked)
        if unroll and masked:
            with pytest.raises(UnsupportedModelError, match="unroll=True"):
                gw.port(model, to="torch")
        else:
            assert_ported(model, some_inputs(model, np.random.default_rng(0)), "float32")


def test_first_states_make_keras_forget_the_mask(keras, torch):
    """Called on two tensors, a layer of Keras is given no mask unless by hand; the port does the same."""
    source, state = keras.Input((STEPS, FEATURES)), keras.Input((4,))
    x = keras.layers.Masking()(source)
    by_itself = keras.layers.GRU(4)(x, initial_state=state)
    by_hand = keras.layers.GRU(4, name="by_hand")(x, initial_state=state, mask=x._keras_mask)
    model = fill(keras.Model([source, state], [by_itself, by_hand]), np.random.default_rng(0))
    model.layers[-1].set_weights(model.layers[-2].get_weights())
    arrays = some_inputs(model, np.random.default_rng(1))
    module = assert_ported(model, arrays, "float32")
    one, other = outputs(module, arrays)
    assert np.abs(one - other).max() > 1e-2
    network = gw.describe(model)
    assert [layer.masked for layer in network.weighted] == [False, True]
    again = gw.port(module, to="keras")
    assert distance(outputs(module, arrays), outputs(again, arrays)) < 1e-5


def test_lora_is_refused(keras):
    model = one_layer(keras, keras.layers.Dense(4))
    model.layers[-1].enable_lora(2)
    with pytest.raises(UnsupportedModelError, match="lora_rank=2"):
        gw.port(model, to="torch")


def test_a_cell_that_torch_has_none_for_is_refused(keras):
    cell = keras.layers.LSTMCell(4, activation="relu")
    cell.build((None, 3))
    with pytest.raises(UnsupportedModelError, match=r"activation='relu'(.|\n)*keras.layers.RNN"):
        gw.port(cell, to="torch")


def test_what_is_left_behind_is_said(keras):
    from gatewise.live import port

    layer = keras.layers.LSTM(4, activity_regularizer="l2", kernel_regularizer=mine, dropout=0.2, implementation=1)
    said = " ".join(port(one_layer(keras, layer), to="torch").remarks)
    for word in ("activity_regularizer=L2", "kernel_regularizer=mine", "implementation=1"):
        assert word in said


# ── the whole option space, by chance ───────────────────────────────────────────────────────────────────────────


def draw_cell_options(rng, kind, dtype, steps):
    options = {
        "activation": pick(rng, COMPUTED) if chance(rng, 0.6) else "tanh",
        "use_bias": chance(rng, 0.8),
        "dropout": pick(rng, (0.0, 0.0, 0.3)),
        "recurrent_dropout": pick(rng, (0.0, 0.0, 0.3)),
        "dtype": dtype,
    }
    if kind != "SimpleRNN":
        options["recurrent_activation"] = pick(rng, COMPUTED) if chance(rng, 0.5) else "sigmoid"
    if kind == "GRU":
        options["reset_after"] = chance(rng, 0.5)
    if kind == "LSTM":
        options["unit_forget_bias"] = chance(rng, 0.5)
    if chance(rng, 0.2) and kind != "SimpleRNN":
        options["implementation"] = pick(rng, (1, 2))
    return options


def draw_layer(keras, rng, dtype, steps, *, last, masked, stateful):
    """Return a random recurrent layer, and whether it gives sequences and several outputs."""
    kind, layers = pick(rng, CELLS), keras.layers
    form = pick(rng, ("layer", "layer", "layer", "rnn", "stack"))
    two = form != "stack" and chance(rng, 0.4)
    around = {
        "return_sequences": chance(rng, 0.5 if last else 0.85),
        "return_state": last and chance(rng, 0.5),
        "go_backwards": chance(rng, 0.3) and not (form == "stack" and masked),
        "stateful": stateful and form != "stack",
        "zero_output_for_mask": chance(rng, 0.4),
        "unroll": steps is not None and not masked and chance(rng, 0.15),
        "dtype": dtype,
    }
    if two:
        around["go_backwards"] = False
        # Keras's own Bidirectional.compute_mask fails where both are.
        around["return_state"] &= not around["stateful"]
    units = int(rng.integers(2, 5))
    if form == "layer":
        made = getattr(layers, kind)(units, **draw_cell_options(rng, kind, dtype, steps) | around)
    elif form == "rnn":
        cell = getattr(layers, f"{kind}Cell")(units, **draw_cell_options(rng, kind, dtype, steps))
        made = layers.RNN(cell, **around)
    else:
        kinds = [
            pick(rng, CELLS) for _ in range(int(rng.integers(2 if masked else 1, 4)))
        ]  # Keras masks no stack of one
        cells = [
            getattr(layers, f"{each}Cell")(int(rng.integers(2, 5)), **draw_cell_options(rng, each, dtype, steps))
            for each in kinds
        ]
        # Left to itself, RNN makes it in float32, and then Keras mixes types.
        made = layers.RNN(layers.StackedRNNCells(cells, dtype=dtype), **around)
    several = around["return_state"]
    if two:
        merge = pick(rng, MERGES if last else MERGES[:-1])
        other = {}
        if chance(rng, 0.2):  # the first direction reads from the end, and the second one from the start
            config = made.get_config()
            other["backward_layer"] = type(made).from_config(config | {"name": "other"})
            made = type(made).from_config(config | {"go_backwards": True})
        made = layers.Bidirectional(made, merge_mode=merge, dtype=dtype, **other)
        several |= merge is None
    return made, around["return_sequences"], several


def draw_model(keras, rng, dtype):
    """Return a random model, its inputs, and whether it keeps states."""
    layers = keras.layers
    stateful = chance(rng, 0.25)
    steps = pick(rng, (None, None, 5))
    batch = 3
    fixed = {"batch_size": batch} if stateful else {}
    begin = pick(rng, ("plain", "plain", "masked", "masked", "tokens", "distributed"))
    length = steps or int(rng.integers(1, 7))
    value = pick(rng, (0.0, 0.5))
    if begin == "tokens":
        source = keras.Input((steps,), dtype="int32", **fixed)
        x = layers.Embedding(6, 3, mask_zero=(masked := chance(rng, 0.7)), dtype=dtype)(source)
        array = rng.integers(0 if chance(rng, 0.5) else 1, 6, (batch, length)).astype("int32")
    elif begin == "distributed":
        stateful, fixed, masked = False, {}, False
        outer = 2
        source = x = keras.Input((outer, steps, 3), dtype=dtype)
        array = rng.normal(size=(batch, outer, length, 3)).astype(dtype)
    else:
        masked = begin == "masked"
        source = x = keras.Input((steps, 3), dtype=dtype, **fixed)
        x = layers.Masking(value, dtype=dtype)(source) if masked else source
        array = rng.normal(size=(batch, length, 3)).astype(dtype)
    if masked:
        array = hide(array, rng, value if begin == "masked" else 0)
    sources, arrays = [source], [array]
    if begin == "distributed":
        inner, sequences, _ = draw_layer(keras, rng, dtype, steps, last=False, masked=False, stateful=False)
        while not isinstance(inner, layers.Bidirectional) and isinstance(
            getattr(inner, "cell", None), layers.StackedRNNCells
        ):
            inner, sequences, _ = draw_layer(keras, rng, dtype, steps, last=False, masked=False, stateful=False)
        x = layers.TimeDistributed(inner, dtype=dtype)(x)
        if sequences:
            return fill(keras.Model(source, x), rng), arrays, False
        steps = 2
    depth = int(rng.integers(1, 4))
    made = [x]
    for place in range(depth):
        last = place == depth - 1
        layer, sequences, several = draw_layer(keras, rng, dtype, steps, last=last, masked=masked, stateful=stateful)
        given = {}
        if place == 0 and chance(rng, 0.25) and begin != "distributed":
            sizes = state_sizes(keras, layer)
            states = [keras.Input((size,), dtype=dtype, **fixed) for size in sizes]
            sources += states
            arrays += [rng.normal(size=(batch, size)).astype(dtype) for size in sizes]
            given = {"initial_state": structured(keras, layer, states)}
        made = keras.tree.flatten(layer(made[0], **given))
        if not sequences or several:
            break
        if chance(rng, 0.3) and not last:
            between = pick(
                rng,
                (
                    layers.TimeDistributed(layers.Dense(3, dtype=dtype), dtype=dtype),
                    layers.Dense(3, activation="relu", dtype=dtype),
                    layers.Dropout(0.2, dtype=dtype),
                    layers.Activation("softsign", dtype=dtype),
                ),
            )
            made = [between(made[0])]
    if chance(rng, 0.5):
        made = [layers.Dense(2, dtype=dtype)(made[0]), *made[1:]]
    return fill(keras.Model(sources[0] if len(sources) == 1 else sources, made), rng), arrays, stateful


def state_sizes(keras, layer):
    inner = layer.forward_layer if isinstance(layer, keras.layers.Bidirectional) else layer
    cells = inner.cell.cells if isinstance(inner.cell, keras.layers.StackedRNNCells) else [inner.cell]
    sizes = [cell.units for cell in cells for _ in range(2 if isinstance(cell, keras.layers.LSTMCell) else 1)]
    return sizes * (2 if inner is not layer else 1)


def structured(keras, layer, states):
    """Return first states as Keras wants them: nested where cells are stacked."""
    if isinstance(layer, keras.layers.Bidirectional) or not isinstance(layer.cell, keras.layers.StackedRNNCells):
        return states
    if len(layer.cell.cells) == 1:
        return [states] if isinstance(layer.cell.cells[0], keras.layers.LSTMCell) else states
    rest, nested = list(states), []
    for cell in layer.cell.cells:
        pair = isinstance(cell, keras.layers.LSTMCell)
        nested.append([rest.pop(0), rest.pop(0)] if pair else rest.pop(0))
    return nested


def hide(array, rng, value):
    """Mask steps at the start, at the end or between, and sometimes whole rows."""
    array = array.copy()
    time = array.shape[1]
    for row in range(len(array)):
        kind = pick(rng, ("left", "right", "middle", "random", "all", "none"))
        count = int(rng.integers(0, time + 1))
        hidden = {
            "left": np.arange(time) < count,
            "right": np.arange(time) >= count,
            "middle": (np.arange(time) > 0) & (np.arange(time) < time - 1),
            "random": rng.random(time) < 0.5,
            "all": np.ones(time, bool),
            "none": np.zeros(time, bool),
        }[kind]
        array[row, hidden] = value
    return array


def check_random_model(keras, torch, seed):
    rng = np.random.default_rng(seed)
    dtype = "float64" if seed % 3 else "float32"
    model, arrays, stateful = draw_model(keras, rng, dtype)
    module = assert_ported(model, arrays, dtype)
    if stateful and len(arrays) == 1:
        assert_same_over_batches(keras, torch, model, module, arrays[0], rng, dtype)


def assert_same_over_batches(keras, torch, model, module, array, rng, dtype):
    """Run three batches, forget, and run one more: Keras and torch must go on from the same states."""
    for layer in model._flatten_layers():
        if getattr(layer, "stateful", False) and getattr(layer, "states", None) is not None:
            layer.reset_state()
    module.reset_state()
    for number in range(4):
        if number == 3:
            for layer in model._flatten_layers():
                if getattr(layer, "stateful", False) and getattr(layer, "states", None) is not None:
                    layer.reset_state()
            module.reset_state()
        batch = array if array.dtype == np.int32 else rng.normal(size=array.shape).astype(dtype)
        with np.errstate(all="ignore"):
            ours = [np.asarray(each) for each in keras.tree.flatten(model(batch))]
        with torch.no_grad():
            made = module(torch.tensor(batch))
        theirs = [each.numpy() for each in (made if isinstance(made, list) else [made])]
        if all(np.isfinite(each).all() for each in ours):
            assert distance(ours, theirs) <= (double(model) if dtype == "float64" else 1e-2)


@pytest.mark.parametrize("seed", range(120))
def test_random_model(keras, torch, seed):
    check_random_model(keras, torch, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(120, 900))
def test_random_model_long(keras, torch, seed):
    check_random_model(keras, torch, seed)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("name", COMPUTED)
def test_every_activation(keras, torch, kind, name):
    options = {} if kind == "SimpleRNN" else {"recurrent_activation": name}
    source = keras.Input((None, 3), dtype="float64")
    layer = getattr(keras.layers, kind)(4, name, return_sequences=True, return_state=True, dtype="float64", **options)
    rng = np.random.default_rng(0)
    assert_ported(fill(keras.Model(source, layer(source)), rng), [rng.normal(size=(2, 4, 3))], "float64")


# ── training ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_dropout_keeps_one_mask_for_all_steps(keras, torch):
    """The kernel passes each feature on by itself, so that the outputs show the mask."""
    source = keras.Input((6, 50))
    layer = keras.layers.SimpleRNN(50, "linear", use_bias=False, return_sequences=True, dropout=0.5)
    model = keras.Model(source, layer(source))
    model.set_weights([np.eye(50, dtype="float32"), np.zeros((50, 50), "float32")])
    module = gw.port(model, to="torch").train()
    with torch.no_grad():
        out = module(torch.ones(8, 6, 50)).numpy()
    theirs = np.asarray(model(np.ones((8, 6, 50), "float32"), training=True))
    for made in (out, theirs):
        assert (made == made[:, :1]).all()  # all steps alike
        assert set(np.unique(made)) == {0.0, 2.0}
        assert (made[0] != made[1]).any()  # each sequence for itself
        assert abs(made.mean() - 1) < 0.2


def test_recurrent_dropout_acts_on_the_state_alone(keras, torch):
    source, state = keras.Input((4, 1)), keras.Input((50,))
    layer = keras.layers.SimpleRNN(50, "linear", use_bias=False, return_sequences=True, recurrent_dropout=0.5)
    model = keras.Model([source, state], layer(source, initial_state=state))
    model.set_weights([np.zeros((1, 50), "float32"), np.eye(50, dtype="float32")])
    module = gw.port(model, to="torch").train()
    arrays = [np.zeros((8, 4, 1), "float32"), np.ones((8, 50), "float32")]
    with torch.no_grad():
        out = module(*map(torch.tensor, arrays)).numpy()
    for made in (out, np.asarray(model(arrays, training=True))):
        # One mask for all steps: what survives doubles at each, and what is dropped stays so.
        alive = made[:, 0] != 0
        assert 0.3 < alive.mean() < 0.7
        for step in range(4):
            assert set(np.unique(made[:, step])) == {0.0, 2.0 ** (step + 1)}
            assert ((made[:, step] != 0) == alive).all()


REGULARIZERS = {
    "l1": ("L1", {"l1": 0.03}),
    "l2": ("L2", {"l2": 0.02}),
    "l1_l2": ("L1L2", {"l1": 0.01, "l2": 0.04}),
    "orthogonal": ("OrthogonalRegularizer", {"factor": 0.05}),
    "orthogonal columns": ("OrthogonalRegularizer", {"factor": 0.05, "mode": "columns"}),
}
CONSTRAINTS = {
    "max_norm": ("MaxNorm", {"max_value": 0.7}),
    "max_norm rows": ("MaxNorm", {"max_value": 0.7, "axis": 1}),
    "non_neg": ("NonNeg", {}),
    "unit_norm": ("UnitNorm", {"axis": 0}),
    "min_max_norm": ("MinMaxNorm", {"min_value": 0.4, "max_value": 0.8, "rate": 0.5}),
    "max_norm both": ("MaxNorm", {"max_value": 0.7, "axis": [0, 1]}),
}


def ruled(keras, kind, home, case, weights):
    """Return a model whose recurrent, dense and embedding layers all have one rule, where its shape allows it."""
    table = REGULARIZERS if home == "regularizer" else CONSTRAINTS
    name, settings = table[case]
    matrices = "orthogonal" in case or settings.get("axis") in (1, [0, 1])

    def made():
        return getattr(getattr(keras, f"{home}s"), name)(**settings)

    prefixes = ["kernel", "recurrent"] + ([] if matrices else ["bias"])
    options = {f"{prefix}_{home}": made() for prefix in prefixes}
    layers = keras.layers
    source = keras.Input((4,), dtype="int32")
    x = layers.Embedding(5, 3, **{f"embeddings_{home}": made()})(source)
    if kind == "Bidirectional":
        x = layers.Bidirectional(layers.LSTM(4, **options))(x)
    elif kind == "RNN":
        x = layers.RNN(layers.LSTMCell(4, **options))(x)
    elif kind == "stack":
        x = layers.RNN([layers.LSTMCell(4, **options), layers.GRUCell(3, **options)])(x)
    elif kind == "GRU before":
        x = layers.GRU(4, reset_after=False, **options)(x)
    else:
        x = getattr(layers, kind)(4, **options)(x)
    dense = {option: value for option, value in options.items() if "recurrent" not in option}
    return fill(keras.Model(source, layers.Dense(2, **dense)(x)), np.random.default_rng(0))


RULED = ("LSTM", "GRU", "GRU before", "SimpleRNN", "Bidirectional", "RNN", "stack")


@pytest.mark.parametrize("kind", RULED)
@pytest.mark.parametrize("case", REGULARIZERS)
def test_penalty_is_what_keras_adds_to_the_loss(keras, torch, kind, case):
    from gatewise_torch import penalty

    model = ruled(keras, kind, "regularizer", case, None)
    module = gw.port(model, to="torch")
    expected = sum(float(loss) for loss in model.losses)
    assert expected > 0
    assert penalty(module).item() == pytest.approx(expected, rel=1e-5)
    penalty(module).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in module.parameters() if parameter.grad is not None)
    # … and on the way back, as Keras's own again.
    again = gw.port(module, to="keras")
    assert float(sum(float(loss) for loss in again.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", RULED)
@pytest.mark.parametrize("case", CONSTRAINTS)
def test_constraints_are_those_of_keras(keras, torch, kind, case):
    from gatewise_torch import constrain

    model = ruled(keras, kind, "constraint", case, None)
    module = gw.port(model, to="torch")
    constrain(module)
    for variable in model.trainable_variables:
        if variable.constraint is not None:
            variable.assign(variable.constraint(variable))
    expected = gw.port(model, to="torch").state_dict()
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-5)


def test_rules_go_through_files(keras, torch, tmp_path):
    from gatewise_torch import penalty

    module = gw.port(ruled(keras, "LSTM", "regularizer", "l2", None), to="torch")
    gw.save(module, tmp_path / "model.safetensors")
    assert penalty(gw.load(tmp_path / "model.safetensors")).item() == pytest.approx(penalty(module).item())


def test_rules_of_a_module_that_is_no_port(torch):
    from gatewise_torch import penalty

    with pytest.raises(UnsupportedModelError, match="carries no regularisers"):
        penalty(torch.nn.LSTM(3, 4))
