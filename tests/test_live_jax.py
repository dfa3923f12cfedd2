"""Flax linen, Flax nnx, Haiku, Equinox and MLX run with weights that a plan brought over from Keras.

Weights are drawn in Keras's own layout, unit-scale normal and with every bias other than zero; Keras runs them live,
the framework's own layer runs what the plan made of them, and the two agree at every step.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import gatewise_equinox.adapter
import gatewise_equinox.layouts
import gatewise_flax.adapter
import gatewise_flax.layouts
import gatewise_haiku.adapter
import gatewise_haiku.layouts
import gatewise_keras.layouts as keras_layouts
import gatewise_mlx.adapter
import gatewise_mlx.layouts
import gatewise_nnx.adapter
import gatewise_nnx.layouts

from gatewise.arrays.native import COMMON
from gatewise.arrays.reference import ACTIVATION_FUNCTIONS
from gatewise.core.choices import choice
from gatewise.core.layout import CANONICAL, GATES, gaps, store
from gatewise.core.plan import Verdict, plan
from gatewise.core.spec import GRU, LSTM, RNN, Dense, Embedding
from gatewise.errors import ImpossiblePlanError, ShapeError, UnsupportedSpecError, WeightsError

pytestmark = pytest.mark.frameworks

PACKAGES = {
    "flax": gatewise_flax,
    "nnx": gatewise_nnx,
    "haiku": gatewise_haiku,
    "equinox": gatewise_equinox,
    "mlx": gatewise_mlx,
}
LAYOUTS = [layout for package in PACKAGES.values() for layout in package.layouts.FRAMEWORK.layouts]
RECURRENT = [layout for layout in LAYOUTS if layout.gates]
KINDS = {"lstm": LSTM, "gru": GRU, "rnn": RNN, "dense": Dense}
TOLERANCE = 1e-5

by_name = pytest.mark.parametrize("layout", LAYOUTS, ids=str)
recurrent_by_name = pytest.mark.parametrize("layout", RECURRENT, ids=str)
by_framework = pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES)


def adapter_of(layout):
    return PACKAGES[layout.framework].adapter


def fixed_options(layout):
    """What a class computes of itself: its reset, and activations that cannot be chosen."""
    rows = {option: choice(row) for option, row in layout.computes.items()}
    options = {option: row.default for option, row in rows.items() if not row.how}
    return options | ({"reset": layout.reset} if layout.cell == "gru" else {})


def specs_of(layout):
    """Random sizes, features ≠ units, under every option that the class can hold."""
    rng = np.random.default_rng([LAYOUTS.index(layout), 7])
    if layout.cell == "embedding":
        return [Embedding(*map(int, sizes)) for sizes in rng.choice(range(2, 9), (2, 2), replace=False)]
    kind, fixed = KINDS[layout.cell], fixed_options(layout)
    options = [{}, {}, {"bias": False}]
    if layout.has_axis("direction"):
        options += [{"bidirectional": True}, {"bidirectional": True, "merge": "sum"}, {"go_backwards": True}]
    if layout.gates and "activation" not in fixed:
        options += [{"activation": name} for name in ("relu", "linear", "hard_sigmoid", "hard_sigmoid_02")]
        if layout.cell != "rnn":
            options += [{"recurrent_activation": name} for name in ("hard_sigmoid", "tanh", "relu", "linear")]
    return [kind(*map(int, rng.choice(range(1, 9), 2, replace=False)), **fixed, **option) for option in options]


CASES = [pytest.param(layout, spec, id=f"{layout}-{spec}") for layout in LAYOUTS for spec in specs_of(layout)]
cases = pytest.mark.parametrize(("layout", "spec"), CASES)


def keras_layout(spec):
    return next(each for each in keras_layouts.FRAMEWORK.layouts if each.cell == spec.cell and not gaps(each, spec))


def draw(spec, layout):
    """Unit-scale normal weights in Keras's layout; a candidate's second bias is zero where the target has none."""
    rng, keras = np.random.default_rng(3), keras_layout(spec)
    stored = store(keras, spec)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in stored.shapes.items()}
    for key, slot in stored.slots.items():
        if key.part == "recurrent_bias" and key.gate == "n" and key not in store(layout, spec).slots:
            (row, start) = slot.offsets
            weights[slot.tensor][row, start : start + spec.units] = 0
    return weights


def draw_inputs(spec):
    rng = np.random.default_rng(5)
    if isinstance(spec, Embedding):
        return rng.integers(spec.tokens, size=(2, 6))
    # Gates beyond 0 … 1 make the state grow, and the rounding of float32 with it: few steps are enough for those.
    steps = 6 if getattr(spec, "recurrent_activation", "sigmoid").endswith("sigmoid") else 3
    return rng.normal(size=(3, steps, spec.features)).astype(np.float32)


def run_keras(spec, weights, inputs):
    """Keras's own outputs at every step."""
    import keras

    if isinstance(spec, Embedding):
        layer = keras.layers.Embedding(spec.tokens, spec.units)
    elif isinstance(spec, Dense):
        layer = keras.layers.Dense(spec.units, use_bias=spec.bias)
    else:
        options = {"activation": spec.activation, "use_bias": spec.bias, "go_backwards": spec.go_backwards}
        options |= {"return_sequences": True}
        if isinstance(spec, GRU):
            options["reset_after"] = spec.reset == "after"
        if not isinstance(spec, RNN):
            options["recurrent_activation"] = spec.recurrent_activation
        layer = getattr(keras.layers, {LSTM: "LSTM", GRU: "GRU", RNN: "SimpleRNN"}[type(spec)])(spec.units, **options)
        if spec.bidirectional:
            layer = keras.layers.Bidirectional(layer, merge_mode=spec.merge)
    layer.build(inputs.shape)
    layer.set_weights(list(weights.values()))
    return np.asarray(layer(inputs))


def assert_agree(outputs, expected):
    assert outputs.shape == expected.shape
    assert outputs.dtype == np.float32
    assert np.all(np.isfinite(expected))
    if expected.ndim == 3:  # at every step, each measured by its own size
        worst = np.abs(outputs - expected).max(axis=(0, 2))
        assert np.all(worst <= TOLERANCE * np.maximum(1, np.abs(expected).max(axis=(0, 2)))), worst
    else:
        assert np.abs(outputs - expected).max() <= TOLERANCE


class Trial(NamedTuple):
    """What came of one layer: as the framework made it, what was written, what was read, and what it computed."""

    fresh: dict[str, np.ndarray]
    count: int
    written: dict[str, np.ndarray]
    read: dict[str, np.ndarray]
    outputs: np.ndarray


def built_with(layout, spec):
    """Return a layer of the framework with weights that were drawn for Keras, and what was written into it."""
    adapter = adapter_of(layout)
    arrays = plan(spec, keras_layout(spec), layout).apply(draw(spec, layout))
    return adapter.write(adapter.build(spec, layout), arrays), arrays


@functools.cache
def trial(layout, spec):
    adapter = adapter_of(layout)
    obj = adapter.build(spec, layout)
    fresh, count = adapter.read(obj), own_count(layout, obj)
    written = plan(spec, keras_layout(spec), layout).apply(draw(spec, layout))
    obj = adapter.write(obj, written)
    return Trial(fresh, count, written, adapter.read(obj), adapter.run(obj, draw_inputs(spec)))


# ──────────────────────────────────────────────────────────────────────────────────────────── the same as Keras


@cases
def test_outputs_of_keras(layout, spec):
    assert_agree(trial(layout, spec).outputs, run_keras(spec, draw(spec, layout), draw_inputs(spec)))


@cases
def test_weights_come_back(layout, spec):
    """What was written is read, bit for bit, and where the plan is exact Keras's weights are too."""
    written, read = trial(layout, spec).written, trial(layout, spec).read
    assert read.keys() == written.keys()
    for name, array in written.items():
        assert np.array_equal(read[name], array), name
    there = plan(spec, keras_layout(spec), layout)
    if there.verdict is not Verdict.EXACT:  # a constant in the bias, or the second bias of r and z
        assert layout.name in ("haiku:LSTM", "flax:GRUCell", "equinox:GRUCell", "mlx:GRU", "nnx:GRUCell"), there.reason
        return
    back = there.inverse().apply(read)
    for name, array in draw(spec, layout).items():
        assert np.array_equal(back[name], array), name


@cases
def test_shapes_are_the_framework_s_own(layout, spec):
    """A fresh layer has the tensors that the layout says, name by name, and not one more."""
    fresh, shapes = trial(layout, spec).fresh, store(layout, spec).shapes
    assert {name: array.shape for name, array in fresh.items()} == shapes
    assert {array.dtype for array in fresh.values()} == {np.dtype(np.float32)}
    assert trial(layout, spec).count == sum(math.prod(shape) for shape in shapes.values())


def own_count(layout, obj):
    """How many parameters the framework itself finds in a layer."""
    import jax
    from flax import nnx

    if layout.framework in ("flax", "haiku"):
        leaves = jax.tree.leaves(obj.params)
    elif layout.framework == "nnx":
        leaves = jax.tree.leaves(nnx.state(obj, nnx.Param))
    elif layout.framework == "equinox":
        import equinox

        leaves = jax.tree.leaves(equinox.filter(obj, equinox.is_array))
    else:
        from mlx.utils import tree_flatten

        leaves = [array for _, array in tree_flatten(obj.trainable_parameters())]
    return sum(leaf.size for leaf in leaves)


@recurrent_by_name
def test_both_biases(layout):
    """From weights that have every bias twice: what a framework cannot hold apart is added."""
    spec, canonical, rng = (
        KINDS[layout.cell](3, 5, **fixed_options(layout)),
        CANONICAL[layout.cell],
        np.random.default_rng(4),
    )
    shapes = store(canonical, spec).shapes
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    if layout.name == "nnx:GRUCell":
        weights["recurrent_bias"][2] = 0
    adapter, inputs = adapter_of(layout), draw_inputs(spec)
    obj = adapter.write(adapter.build(spec, layout), plan(spec, canonical, layout).apply(weights))
    keras = plan(spec, canonical, keras_layout(spec)).apply(weights)
    assert_agree(adapter.run(obj, inputs), run_keras(spec, keras, inputs))


@pytest.mark.parametrize(
    ("name", "bias", "total"),
    [
        ("flax:LSTMCell", True, 10_800),
        ("flax:LSTMCell", False, 10_800),  # the class has no such option
        ("flax:OptimizedLSTMCell", True, 10_800),
        ("flax:GRUCell", True, 8_150),
        ("flax:SimpleCell", True, 2_700),
        ("nnx:LSTMCell", True, 10_800),
        ("nnx:OptimizedLSTMCell", True, 10_800),
        ("nnx:GRUCell", True, 8_100),
        ("nnx:SimpleCell", True, 2_700),
        ("haiku:LSTM", True, 10_800),
        ("haiku:LSTM", False, 10_800),
        ("haiku:GRU", True, 8_100),
        ("haiku:VanillaRNN", True, 2_750),
        ("haiku:VanillaRNN", False, 2_700),
        ("haiku:VanillaRNN(double_bias=False)", True, 2_700),
        ("equinox:LSTMCell", True, 10_800),
        ("equinox:LSTMCell", False, 10_600),
        ("equinox:GRUCell", True, 8_150),
        ("mlx:LSTM", True, 10_800),
        ("mlx:LSTM", False, 10_600),
        ("mlx:GRU", True, 8_150),
        ("mlx:RNN", True, 2_700),
    ],
)
def test_counts(name, bias, total):
    layout = next(each for each in LAYOUTS if each.name == name)
    spec = KINDS[layout.cell](3, 50, bias=bias, **fixed_options(layout))
    assert sum(math.prod(shape) for shape in store(layout, spec).shapes.values()) == total
    assert own_count(layout, adapter_of(layout).build(spec, layout)) == total


@by_name
def test_every_layout_is_run(layout):
    assert layout.verified == "live"
    assert layout.source
    assert any(case.values[0] is layout for case in CASES)


# ─────────────────────────────────────────────────────────────────────────────────────────── tests that can fail


def canonical_swap(spec, layout, arrays, first, second):
    """Exchange two gates in arrays of a layout: all parts of both that they have in common."""
    canonical = CANONICAL[spec.cell]
    parts = plan(spec, layout, canonical).apply(arrays)
    order = list(range(len(GATES[spec.cell])))
    order[first], order[second] = second, first
    return plan(spec, canonical, layout).apply({name: array[order] for name, array in parts.items()})


@pytest.mark.parametrize("layout", [layout for layout in RECURRENT if len(layout.gates) > 1], ids=str)
def test_every_gate_swap_shows(layout):
    adapter = adapter_of(layout)
    spec = KINDS[layout.cell](3, 5, **fixed_options(layout))
    obj, arrays = built_with(layout, spec)
    inputs = draw_inputs(spec)
    right = run_keras(spec, draw(spec, layout), inputs)
    for first, second in itertools.combinations(range(len(GATES[spec.cell])), 2):
        swapped = canonical_swap(spec, layout, arrays, first, second)
        assert any(not np.array_equal(swapped[name], arrays[name]) for name in arrays)
        wrong = adapter.run(adapter.write(obj, swapped), inputs)
        assert np.abs(wrong - right).max() > 1e-3, (first, second)


@recurrent_by_name
def test_every_other_mistake_shows(layout):
    """A dropped tensor, or a transposed square, moves the outputs."""
    adapter = adapter_of(layout)
    spec = KINDS[layout.cell](3, 5, **fixed_options(layout))
    obj, arrays = built_with(layout, spec)
    inputs = draw_inputs(spec)
    right = run_keras(spec, draw(spec, layout), inputs)
    mistakes = [(name, np.zeros_like(array)) for name, array in arrays.items()]
    mistakes += [(name, array.T) for name, array in arrays.items() if array.shape == (5, 5)]
    for name, wrong in mistakes:
        if not np.array_equal(wrong, arrays[name]):  # Keras's plain layer leaves a second bias zero
            outputs = adapter.run(adapter.write(obj, arrays | {name: wrong}), inputs)
            assert np.abs(outputs - right).max() > 1e-3, name


def test_haiku_needs_its_constant():
    """Left out, the port has the right shapes and the wrong memory."""
    layout = gatewise_haiku.layouts.LSTM
    spec = LSTM(3, 5)
    obj, arrays = built_with(layout, spec)
    forgot = arrays["linear/b"].copy()
    forgot[2 * 5 : 3 * 5] += 1
    inputs = draw_inputs(spec)
    outputs = gatewise_haiku.adapter.run(gatewise_haiku.adapter.write(obj, arrays | {"linear/b": forgot}), inputs)
    assert np.abs(outputs - run_keras(spec, draw(spec, layout), inputs)).max() > 1e-3
    without = plan(spec.replace(bias=False), keras_layout(spec), layout).apply(draw(spec.replace(bias=False), layout))
    assert np.array_equal(without["linear/b"], np.repeat([0, 0, -1, 0], 5))


# ───────────────────────────────────────────────────────────────────────────────────────────── what cannot be held


def test_nnx_gru_has_no_second_candidate_bias():
    layout, spec = gatewise_nnx.layouts.GRU_CELL, GRU(3, 5)
    there = plan(spec, keras_layout(spec), layout)
    assert there.verdict is Verdict.IMPOSSIBLE
    assert there.unless == ("recurrent_bias = 0 for gate n",)
    held_elsewhere = draw(spec, gatewise_flax.layouts.GRU_CELL)
    with pytest.raises(ImpossiblePlanError):
        there.apply(held_elsewhere)


def test_haiku_gru_resets_before():
    layout, spec = gatewise_haiku.layouts.GRU, GRU(3, 5)
    assert plan(spec, keras_layout(spec), layout).verdict is Verdict.IMPOSSIBLE
    with pytest.raises(UnsupportedSpecError) as caught:
        gatewise_haiku.adapter.build(spec, layout)
    assert caught.value.option == "reset"


REFUSED = {"layers": 2, "projection": 2, "peepholes": True, "cell_clip": 3.0, "activation": "gelu"}


@recurrent_by_name
def test_refusals_name_the_option(layout):
    kind = KINDS[layout.cell]
    for option, value in REFUSED.items():
        if option in kind(3, 5).options():
            spec = kind(3, 5, **(fixed_options(layout) | {option: value}))
            with pytest.raises(UnsupportedSpecError) as caught:
                adapter_of(layout).build(spec, layout)
            assert caught.value.option == option


@by_framework
def test_refusals_of_what_does_not_show_in_weights(package):
    layouts = package.layouts.FRAMEWORK.layouts
    dense = next(layout for layout in layouts if layout.cell == "dense")
    refused = [(dense, Dense(3, 5, activation="relu"), "activation")]
    for layout in layouts:
        if layout.gates:
            fixed = fixed_options(layout)
            twice = KINDS[layout.cell](3, 5, bidirectional=True, merge=None, **fixed)
            refused += [(layout, twice, "merge" if layout.has_axis("direction") else "bidirectional")]
            twice = KINDS[layout.cell](3, 5, bidirectional=True, go_backwards=True, **fixed)
            refused += [(layout, twice, "go_backwards" if layout.has_axis("direction") else "bidirectional")]
            if not layout.has_axis("direction"):
                refused += [(layout, KINDS[layout.cell](3, 5, go_backwards=True, **fixed), "go_backwards")]
    for layout, spec, option in refused:
        with pytest.raises(UnsupportedSpecError) as caught:
            package.adapter.build(spec, layout)
        assert caught.value.option == option, (layout, spec)


@by_framework
def test_arrays_that_do_not_belong(package):
    layout = package.layouts.FRAMEWORK.layouts[0]
    obj, arrays = built_with(layout, LSTM(3, 5))
    name = next(iter(arrays))
    before = package.adapter.read(obj)
    for wrong, error in [
        (arrays | {name: arrays[name][:-1]}, ShapeError),
        ({other: array for other, array in arrays.items() if other != name}, WeightsError),
        (arrays | {"more": arrays[name]}, WeightsError),
    ]:
        with pytest.raises(error):
            package.adapter.write(obj, wrong)
    for other, array in package.adapter.read(obj).items():
        assert np.array_equal(array, before[other])


# ───────────────────────────────────────────────────────────────────────────────────────────────────── manners


@by_name
def test_one_adapter_claims_a_layer(layout):
    obj = adapter_of(layout).build(specs_of(layout)[0], layout)
    assert [name for name, package in PACKAGES.items() if package.adapter.claims(obj)] == [layout.framework]
    assert not any(package.adapter.claims(other) for package in PACKAGES.values() for other in (None, "lstm", 3))


@by_framework
def test_weights_share_no_memory(package):
    layout = package.layouts.FRAMEWORK.layouts[0]
    obj, arrays = built_with(layout, LSTM(8, 16))
    given = {name: array.copy() for name, array in arrays.items()}
    obj = package.adapter.write(obj, given)
    for array in given.values():
        array.fill(7)
    for array in package.adapter.read(obj).values():
        array.fill(9)
    for name, array in package.adapter.read(obj).items():
        assert np.array_equal(array, arrays[name])


def test_bare_cells_of_nnx_run():
    from flax import nnx

    layout, spec = gatewise_nnx.layouts.LSTM_CELL, LSTM(3, 5)
    _, arrays = built_with(layout, spec)
    cell = gatewise_nnx.adapter.write(nnx.LSTMCell(3, 5, rngs=nnx.Rngs(1)), arrays)
    inputs = draw_inputs(spec)
    assert_agree(gatewise_nnx.adapter.run(cell, inputs), run_keras(spec, draw(spec, layout), inputs))


def test_functions_mean_the_same():
    """Every function that is taken by name is the one that the spec means."""
    import jax
    import mlx.core as mx
    from mlx import nn

    x = np.linspace(-8, 8, 101, dtype=np.float32).reshape(1, 101)
    for name in COMMON:
        expected = ACTIVATION_FUNCTIONS[name](x.astype(np.float64))
        assert np.allclose(np.array(getattr(jax.nn, name)(x)), expected, rtol=1e-5, atol=1e-6), name
        if hasattr(nn, name):
            assert np.allclose(np.array(getattr(nn, name)(mx.array(x))), expected, rtol=1e-5, atol=1e-6), name


def test_layouts_and_adapters_import_no_framework():
    code = (
        "import sys\n"
        f"for name in {list(PACKAGES)}:\n"
        "    __import__(f'gatewise_{name}.layouts')\n"
        "assert 'numpy' not in sys.modules, 'layouts'\n"
        f"for name in {list(PACKAGES)}:\n"
        "    assert not __import__(f'gatewise_{name}.adapter', fromlist=['x']).claims(object())\n"
        "loaded = {'jax', 'flax', 'haiku', 'equinox', 'mlx', 'keras', 'tensorflow'} & sys.modules.keys()\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )


def test_a_keras_layer_is_not_claimed():
    import keras

    layer = keras.layers.LSTM(5)
    assert not any(package.adapter.claims(layer) for package in PACKAGES.values())
