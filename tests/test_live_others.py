"""ONNX Runtime, OpenVINO, the cells of TensorFlow 1 and tf_keras run with weights that a plan brought over.

Weights are drawn in Keras's own layout, unit-scale normal and with every bias other than zero; Keras runs them live,
the framework's own layer runs what the plan made of them, and the two agree at every step. What Keras cannot hold
(peepholes, a projection, a clipped memory) is drawn in canonical parts and compared with the float64 reference.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import gatewise_keras.layouts as keras_layouts
import gatewise_onnx.adapter
import gatewise_onnx.layouts
import gatewise_openvino.adapter
import gatewise_openvino.layouts
import gatewise_tf1.adapter
import gatewise_tf1.layouts
import gatewise_tf_keras.adapter
import gatewise_tf_keras.layouts

from gatewise.arrays.reference import run as run_reference
from gatewise.core.layout import CANONICAL, axis_length, gaps, store
from gatewise.core.plan import Verdict, plan
from gatewise.core.spec import ACTIVATIONS, GRU, LSTM, RNN, Dense, Embedding
from gatewise.errors import ImpossiblePlanError, ShapeError, UnsupportedSpecError, WeightsError

pytestmark = pytest.mark.frameworks

PACKAGES = {
    "onnx": gatewise_onnx,
    "openvino": gatewise_openvino,
    "tf1": gatewise_tf1,
    "tf_keras": gatewise_tf_keras,
}
LAYOUTS = [layout for package in PACKAGES.values() for layout in package.layouts.FRAMEWORK.layouts]
KINDS = {"lstm": LSTM, "gru": GRU, "rnn": RNN, "dense": Dense}
OPTIONS = [
    *({}, {}, {}),
    {"bias": False},
    {"bidirectional": True},
    {"bidirectional": True, "bias": False},
    *({"bidirectional": True, "merge": merge} for merge in ("sum", "mul", "ave")),
    {"go_backwards": True},
    {"bidirectional": True, "go_backwards": True},
    {"layers": 2},
    {"layers": 2, "bidirectional": True},
    {"layers": 2, "go_backwards": True},
]
TOLERANCE = 1e-5


def label(layout):
    return f"{layout}-{layout.reset}" if layout.cell == "gru" else str(layout)


def adapter_of(layout):
    return PACKAGES[layout.framework].adapter


def specs_of(layout):
    """Random sizes, features ≠ units, under every option that the class can hold, each GRU under each of its resets."""
    rng = np.random.default_rng([LAYOUTS.index(layout), 7])
    if layout.cell == "embedding":
        return [Embedding(*map(int, sizes)) for sizes in rng.choice(range(2, 9), (2, 2), replace=False)]
    if layout.cell == "dense":
        return [Dense(4, 3), Dense(3, 5, bias=False)]
    resets = [{"reset": reset} for reset in layout.reset.split()] if layout.cell == "gru" else [{}]
    specs = [
        KINDS[layout.cell](*map(int, rng.choice(range(2, 9), 2, replace=False)), **options, **reset)
        for options in OPTIONS
        for reset in resets
    ]
    return [spec for spec in specs if not gaps(layout, spec)]


CASES = [pytest.param(layout, spec, id=f"{layout}-{spec}") for layout in LAYOUTS for spec in specs_of(layout)]
GATED = [case for case in CASES if len(case.values[0].gates) > 1 and case.values[1].layers == 1]
EXTRAS = [
    (gatewise_onnx.layouts.LSTM, {"peepholes": True}),
    (gatewise_onnx.layouts.LSTM, {"peepholes": True, "bidirectional": True}),
    (gatewise_onnx.layouts.LSTM, {"peepholes": True, "bias": False}),
    (gatewise_tf1.layouts.LSTM_CELL, {"peepholes": True}),
    (gatewise_tf1.layouts.LSTM_CELL, {"projection": 3}),
    (gatewise_tf1.layouts.LSTM_CELL, {"cell_clip": 0.4}),
    (gatewise_tf1.layouts.LSTM_CELL, {"projection": 3, "layers": 2, "bidirectional": True}),
    (gatewise_tf1.layouts.LSTM_CELL, {"peepholes": True, "projection": 3, "cell_clip": 0.4}),
    (gatewise_tf1.layouts.LSTM_CELL, {"peepholes": True, "projection": 3, "cell_clip": 0.4, "bidirectional": True}),
]
CUDNN = [
    (gatewise_tf_keras.layouts.CUDNN_LSTM, gatewise_tf_keras.layouts.LSTM, LSTM(3, 5)),
    (gatewise_tf_keras.layouts.CUDNN_LSTM, gatewise_tf_keras.layouts.LSTM, LSTM(7, 4, bidirectional=True)),
    (gatewise_tf_keras.layouts.CUDNN_GRU, gatewise_tf_keras.layouts.GRU, GRU(3, 5)),
    (gatewise_tf_keras.layouts.CUDNN_GRU, gatewise_tf_keras.layouts.GRU, GRU(7, 4, layers=2)),
]


def keras_layout(spec):
    return next(each for each in keras_layouts.FRAMEWORK.layouts if each.cell == spec.cell and not gaps(each, spec))


def draw(spec, layout, scale=1.0):
    rng = np.random.default_rng(3)
    shapes = store(layout, spec).shapes
    return {name: rng.normal(scale=scale, size=shape).astype(np.float32) for name, shape in shapes.items()}


def draw_inputs(spec):
    rng = np.random.default_rng(5)
    if isinstance(spec, Embedding):
        return rng.integers(spec.tokens, size=(2, 6))
    return rng.normal(size=(3, 6, spec.features)).astype(np.float32)


def run_keras(spec, weights, inputs):
    """Keras's own outputs at every step."""
    import keras
    from gatewise_keras.functions import activation

    if getattr(spec, "bidirectional", False) and spec.go_backwards:  # Keras 3 cannot make this one.
        canonical = plan(spec, keras_layout(spec), CANONICAL[spec.cell]).apply(weights)
        return run_reference(spec, canonical, inputs).output
    if isinstance(spec, Embedding):
        layers = [keras.layers.Embedding(spec.tokens, spec.units)]
    elif isinstance(spec, Dense):
        layers = [keras.layers.Dense(spec.units, use_bias=spec.bias, activation=activation(spec.activation))]
    else:
        options = {"activation": activation(spec.activation), "use_bias": spec.bias, "go_backwards": spec.go_backwards}
        if isinstance(spec, GRU):
            options["reset_after"] = spec.reset == "after"
        if not isinstance(spec, RNN):
            options["recurrent_activation"] = activation(spec.recurrent_activation)
        kind = getattr(keras.layers, {LSTM: "LSTM", GRU: "GRU", RNN: "SimpleRNN"}[type(spec)])
        layers = [kind(spec.units, return_sequences=True, **options) for _ in range(spec.layers)]
        if spec.bidirectional:
            layers = [keras.layers.Bidirectional(layer, merge_mode=spec.merge) for layer in layers]
    model = keras.Sequential(layers)
    model.build(inputs.shape)
    model.set_weights(list(weights.values()))
    return np.asarray(model(inputs))


def assert_agree(outputs, expected):
    assert outputs.shape == expected.shape
    assert outputs.dtype == np.float32
    assert np.all(np.isfinite(expected))
    # Each step is measured by its own size: relu and linear let a state grow.
    worst = np.abs(outputs - expected).max(axis=(0, -1))
    assert np.all(worst <= TOLERANCE * np.maximum(1, np.abs(expected).max(axis=(0, -1)))), worst


def built_with(layout, spec, scale=1.0):
    """A layer of the framework with weights that were drawn for Keras, and what was written into it."""
    adapter, keras = adapter_of(layout), keras_layout(spec)
    arrays = plan(spec, keras, layout).apply(draw(spec, keras, scale))
    return adapter.write(adapter.build(spec, layout), arrays), arrays


# ──────────────────────────────────────────────────────────────────────────────────────────── the same as Keras


@pytest.mark.parametrize(("layout", "spec"), CASES)
def test_outputs_of_keras(layout, spec):
    obj, _ = built_with(layout, spec)
    inputs = draw_inputs(spec)
    assert_agree(adapter_of(layout).run(obj, inputs), run_keras(spec, draw(spec, keras_layout(spec)), inputs))


@pytest.mark.parametrize(("layout", "spec"), CASES)
def test_weights_come_back(layout, spec):
    """What was written is read, bit for bit, and where the plan is exact Keras's weights are too."""
    obj, arrays = built_with(layout, spec)
    read = adapter_of(layout).read(obj)
    assert list(read) == list(store(layout, spec).shapes)
    for name, array in arrays.items():
        assert np.array_equal(read[name], array), name
    there = plan(spec, keras_layout(spec), layout)
    if there.verdict is Verdict.EXACT:
        back = there.inverse().apply(read)
        for name, array in draw(spec, keras_layout(spec)).items():
            assert np.array_equal(back[name], array), name
    else:  # The forget gate's one is folded into an only bias; r and z of a GRU see one sum.
        assert layout.framework == "tf1" or layout is gatewise_openvino.layouts.GRU_AFTER


@pytest.mark.parametrize(("layout", "spec"), CASES)
def test_a_fresh_layer_has_the_shapes_of_the_layout(layout, spec):
    adapter = adapter_of(layout)
    obj = adapter.build(spec, layout)
    assert adapter.claims(obj)
    assert {name: array.shape for name, array in adapter.read(obj).items()} == store(layout, spec).shapes
    for other in PACKAGES.values():
        assert other.adapter.claims(obj) == (other.adapter is adapter)


# ────────────────────────────────────────────────────────────────────────────────────── what Keras does not have


@pytest.mark.parametrize(("layout", "options"), EXTRAS, ids=str)
def test_outputs_of_the_reference(layout, options):
    spec, canonical = LSTM(4, 6, **options), CANONICAL["lstm"]
    weights = draw(spec, canonical)
    adapter, inputs = adapter_of(layout), draw_inputs(spec)
    obj = adapter.write(adapter.build(spec, layout), plan(spec, canonical, layout).apply(weights))
    outputs, expected = adapter.run(obj, inputs), run_reference(spec, weights, inputs).output
    assert_agree(outputs, expected)
    # Each option is seen, or the comparison would prove nothing.
    if spec.peepholes:
        kept = {name: array for name, array in weights.items() if "peephole" not in name}
        assert np.abs(run_reference(spec, kept, inputs).output - expected).max() > 1e-3
    if spec.cell_clip:
        assert np.abs(run_reference(spec.replace(cell_clip=None), weights, inputs).output - expected).max() > 1e-3


@pytest.mark.parametrize(("layout", "options"), EXTRAS, ids=str)
def test_shapes_beyond_keras(layout, options):
    spec, adapter = LSTM(4, 6, **options), adapter_of(layout)
    read = adapter.read(adapter.build(spec, layout))
    assert {name: array.shape for name, array in read.items()} == store(layout, spec).shapes
    assert list(read) == list(store(layout, spec).shapes)


# ─────────────────────────────────────────────────────────────────────────────────────────────────── activations


def compared(layout, option):
    """Which activations an adapter builds: each is compared with Keras, each other one is refused by that name.

    Small weights keep exponential and the like in bounds.
    """
    names, reset = set(), {"reset": layout.reset.split()[0]} if layout.cell == "gru" else {}
    for name in [name for name in ACTIVATIONS if name not in ("threshold", "glu")]:
        spec = KINDS[layout.cell](3, 4, **{option: name}, **reset)
        try:
            obj, _ = built_with(layout, spec, scale=0.2)
        except (UnsupportedSpecError, ImpossiblePlanError):
            with pytest.raises(UnsupportedSpecError) as caught:
                adapter_of(layout).build(spec, layout)
            assert caught.value.option == option
        else:
            inputs = draw_inputs(spec)[:, :3]
            expected = run_keras(spec, draw(spec, keras_layout(spec), scale=0.2), inputs)
            assert_agree(adapter_of(layout).run(obj, inputs), expected)
            names.add(name)
    return names


COMMON = {"tanh", "sigmoid", "relu", "hard_sigmoid_02", "linear", "elu", "softplus", "softsign"}


@pytest.mark.parametrize("layout", [each for each in LAYOUTS if each.cell != "embedding"], ids=label)
def test_activations(layout):
    names = compared(layout, "activation")
    if "CuDNN" in layout.name:
        assert names == {"tanh"}
    elif layout.framework == "openvino":
        assert names == {"tanh", "sigmoid", "relu"}
    else:
        assert names >= COMMON
        assert ("hard_sigmoid" in names) == (layout.framework == "onnx")  # TensorFlow has another by that name


@pytest.mark.parametrize("layout", [each for each in LAYOUTS if each.cell in ("lstm", "gru")], ids=label)
def test_recurrent_activations(layout):
    names = compared(layout, "recurrent_activation")
    if "CuDNN" in layout.name or layout.framework == "tf1":
        assert names == {"sigmoid"}
    elif layout.framework == "openvino":
        assert names == {"tanh", "sigmoid", "relu"}
    else:
        assert names >= COMMON
        assert ("hard_sigmoid" in names) == (layout.framework == "onnx")  # TensorFlow has another by that name


# ──────────────────────────────────────────────────────────────────────────────────────── tests that can see red


def block(array, slot, spec, key):
    """A view of one canonical block."""
    start = sum(offset * stride for offset, stride in zip(slot.offsets, array.strides, strict=True))
    lengths = [axis_length(spec, axis, key.layer) for axis, _, _ in slot.strides]
    strides = [array.strides[dimension] * stride for _, dimension, stride in slot.strides]
    return np.ndarray(lengths, array.dtype, array.data, start, strides)


def with_gates_swapped(arrays, layout, spec, first, second):
    arrays = {name: np.array(array, order="C") for name, array in arrays.items()}
    slots, swapped = store(layout, spec).slots, 0
    for key, slot in slots.items():
        other = slots.get(key._replace(gate=second))
        if key.gate == first and other:
            here = block(arrays[slot.tensor], slot, spec, key)
            there = block(arrays[other.tensor], other, spec, key)
            here[...], there[...] = there.copy(), here.copy()
            swapped += 1
    assert swapped
    return arrays


@pytest.mark.parametrize(("layout", "spec"), GATED)
def test_every_gate_swap_moves_the_outputs(layout, spec):
    adapter = adapter_of(layout)
    obj, arrays = built_with(layout, spec)
    inputs = draw_inputs(spec)
    right = adapter.run(obj, inputs)
    for first, second in itertools.combinations(layout.gates, 2):
        wrong = adapter.write(adapter.build(spec, layout), with_gates_swapped(arrays, layout, spec, first, second))
        assert np.abs(adapter.run(wrong, inputs) - right).max() > 1e-3, (first, second)


def test_every_peephole_swap_moves_the_outputs():
    for layout in (gatewise_onnx.layouts.LSTM, gatewise_tf1.layouts.LSTM_CELL):
        spec, adapter = LSTM(3, 5, peepholes=True), adapter_of(layout)
        arrays, inputs = draw(spec, layout), draw_inputs(spec)
        right = adapter.run(adapter.write(adapter.build(spec, layout), arrays), inputs)
        for first, second in itertools.combinations("ifo", 2):
            swapped = with_gates_swapped(arrays, layout, spec, first, second)
            only = {name: array if name.startswith(("P", "w_")) else arrays[name] for name, array in swapped.items()}
            wrong = adapter.write(adapter.build(spec, layout), only)
            assert np.abs(adapter.run(wrong, inputs) - right).max() > 1e-3, (first, second)


# ───────────────────────────────────────────────────────────────────────────────────────────── cuDNN in tf_keras


@pytest.mark.parametrize(("fused", "plain", "spec"), CUDNN, ids=str)
def test_cudnn_arrays_are_what_the_loader_of_tf_keras_makes_of_them(fused, plain, spec):
    from tf_keras.src.saving.legacy.hdf5_format import preprocess_weights_for_loading

    layer = gatewise_tf_keras.adapter.build(spec, plain)
    given = draw(spec, fused)
    theirs = dict(
        zip(store(plain, spec).shapes, preprocess_weights_for_loading(layer, list(given.values())), strict=True)
    )
    ours = plan(spec, fused, plain).apply(given)
    for name, array in theirs.items():
        assert np.array_equal(ours[name], array), name
    # Back: the loader splits an LSTM's bias in two halves, we put it into one; the kernels are the same.
    layer = gatewise_tf_keras.adapter.build(spec, fused)
    theirs = dict(zip(given, preprocess_weights_for_loading(layer, list(ours.values())), strict=True))
    back = plan(spec, plain, fused).apply(ours)
    for name, array in theirs.items():
        if spec.cell == "gru" or not name.endswith("bias"):
            assert np.array_equal(back[name], array), name
            assert np.array_equal(back[name], given[name]), name


def test_a_kernel_that_is_merely_transposed_is_another_one():
    fused, plain, spec = CUDNN[0]
    given = draw(spec, fused)
    wrong = given["kernel"].reshape(3, 4, 5).transpose(1, 0, 2)  # gate by gate, features before units
    assert not np.allclose(plan(spec, fused, plain).apply(given)["kernel"], np.hstack(wrong))


# ──────────────────────────────────────────────────────────────────────────────────────────── refusals and errors


@pytest.mark.parametrize(
    ("layout", "spec", "option"),
    [
        (gatewise_onnx.layouts.LSTM, LSTM(3, 5, layers=2), "layers"),
        (gatewise_onnx.layouts.LSTM, LSTM(3, 5, projection=2), "projection"),
        (gatewise_onnx.layouts.LSTM, LSTM(3, 5, peepholes="full"), "peepholes"),
        (gatewise_onnx.layouts.LSTM, LSTM(3, 5, cell_clip=1.0), "cell_clip"),
        (gatewise_onnx.layouts.GRU, GRU(3, 5, activation="mish"), "activation"),
        (gatewise_onnx.layouts.GEMM, Dense(3, 5, activation="mish"), "activation"),
        (gatewise_openvino.layouts.LSTM, LSTM(3, 5, peepholes=True), "peepholes"),
        (gatewise_openvino.layouts.LSTM, LSTM(3, 5, recurrent_activation="hard_sigmoid"), "recurrent_activation"),
        (gatewise_openvino.layouts.GRU_AFTER, GRU(3, 5, reset="before"), "reset"),
        (gatewise_tf1.layouts.GRU_CELL, GRU(3, 5), "reset"),
        (gatewise_tf1.layouts.LSTM_CELL, LSTM(3, 5, recurrent_activation="hard_sigmoid"), "recurrent_activation"),
        (gatewise_tf1.layouts.BASIC_LSTM_CELL, LSTM(3, 5, cell_clip=1.0), "cell_clip"),
        (gatewise_tf_keras.layouts.LSTM, LSTM(3, 5, activation="sparsemax"), "activation"),
        (gatewise_tf_keras.layouts.LSTM, LSTM(3, 5, projection=2), "projection"),
        (gatewise_tf_keras.layouts.CUDNN_LSTM, LSTM(3, 5, activation="relu"), "activation"),
        (gatewise_tf_keras.layouts.CUDNN_GRU, GRU(3, 5, reset="before"), "reset"),
    ],
    ids=str,
)
def test_refusals_name_the_option(layout, spec, option):
    with pytest.raises(UnsupportedSpecError) as caught:
        adapter_of(layout).build(spec, layout)
    assert caught.value.option == option
    assert caught.value.hint


@pytest.mark.parametrize("layout", LAYOUTS, ids=label)
def test_wrong_weights_are_refused(layout):
    spec = specs_of(layout)[0]
    obj, arrays = built_with(layout, spec)
    adapter, name = adapter_of(layout), next(iter(arrays))
    before = adapter.read(obj)
    with pytest.raises(ShapeError):
        adapter.write(obj, {**arrays, name: arrays[name][..., None]})
    with pytest.raises(WeightsError):
        adapter.write(obj, {other: array for other, array in arrays.items() if other != name})
    assert all(np.array_equal(array, before[name]) for name, array in adapter.read(obj).items())


def test_nothing_is_imported_early():
    modules = ", ".join(f"gatewise_{name}.adapter" for name in PACKAGES)
    heavy = {"onnx", "onnxruntime", "openvino", "tensorflow", "tf_keras"}
    code = f"import sys, {modules}; print(sorted({heavy} & set(sys.modules)))"
    paths = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_onnx_weights_are_found_by_their_place():
    """A graph may call its initialisers as it likes: the operator's inputs say which is which."""
    layout, adapter = gatewise_onnx.layouts.LSTM, gatewise_onnx.adapter
    obj, arrays = built_with(layout, LSTM(3, 5))
    for tensor in obj.graph.initializer:
        tensor.name = {"W": "onnx::LSTM_7", "R": "onnx::LSTM_8", "B": "onnx::LSTM_9"}.get(tensor.name, tensor.name)
    for node in obj.graph.node:
        if node.op_type == "LSTM":
            node.input[1:4] = ["onnx::LSTM_7", "onnx::LSTM_8", "onnx::LSTM_9"]
    read = adapter.read(adapter.write(obj, arrays))
    assert all(np.array_equal(read[name], array) for name, array in arrays.items())


def test_tf1_runs_a_cell_of_its_own_making():
    """A bare cell, as a user has it, is claimed, read and run like one that was built here."""
    adapter, layout = gatewise_tf1.adapter, gatewise_tf1.layouts.GRU_CELL
    obj, arrays = built_with(layout, GRU(3, 5, reset="before"))
    (((cell,),),) = (obj.module,)
    assert adapter.claims(cell)
    assert all(np.array_equal(adapter.read(cell)[name], array) for name, array in arrays.items())
    inputs = draw_inputs(obj.spec)
    assert np.array_equal(adapter.run(cell, inputs), adapter.run(obj, inputs))
