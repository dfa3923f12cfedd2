"""The oracle against live Keras and torch layers, and against loops over single numbers, in float64.

The weights are mapped by hand here, without the package's planner: what everything else is checked with must not
be checked with everything else.
"""

from __future__ import annotations

import itertools
import math
import os

import numpy as np
import pytest

from gatewise.arrays.reference import ACTIVATION_FUNCTIONS, Result, run
from gatewise.core.spec import ACTIVATIONS, GRU, LSTM, RNN, Dense, Embedding, Spec
from gatewise.errors import GatewiseError, ShapeError, SpecError, WeightsError

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
REFUSED = ("threshold", "glu")
COMPUTED = [name for name in ACTIVATIONS if name not in REFUSED]


@pytest.fixture(scope="module")
def keras():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("a float64 layer multiplies in float32 on the other backends of Keras")
    return keras


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    return torch


# ------------------------------------------------------------------------------------------------ drawing, comparing


def prefixes(spec):
    """Name prefix of each layer and direction, with the features it reads."""
    found = []
    for layer in range(spec.layers):
        for direction in ("forward/", "backward/") if spec.bidirectional else ("",):
            features = spec.features
            if layer:
                features = spec.state * (2 if spec.bidirectional and spec.merge == "concat" else 1)
            found.append(((f"layer_{layer}/" if spec.layers > 1 else "") + direction, features))
    return found


def draw_weights(spec, rng, scale=1.0, recurrent_bias=True):
    """Random canonical weights, locked, so that writing into them is an error."""
    gates, units = GATES[spec.cell], spec.units
    weights = {}
    for prefix, features in prefixes(spec):
        weights[prefix + "kernel"] = rng.normal(size=(gates, units, features))
        weights[prefix + "recurrent_kernel"] = rng.normal(size=(gates, units, spec.state))
        if spec.bias:
            weights[prefix + "bias"] = rng.normal(size=(gates, units))
            if recurrent_bias:
                weights[prefix + "recurrent_bias"] = rng.normal(size=(gates, units))
        if spec.cell == "lstm":
            if spec.peepholes is True:
                weights[prefix + "peephole"] = rng.normal(size=(3, units))
            if spec.peepholes == "full":
                weights[prefix + "peephole_kernel"] = rng.normal(size=(3, units, units))
            if spec.projection is not None:
                weights[prefix + "projection"] = rng.normal(size=(spec.projection, units))
    weights = {name: scale * array for name, array in weights.items()}
    for array in weights.values():
        array.setflags(write=False)
    return weights


def draw_state(spec, rng, batch):
    stacked = spec.layers * (2 if spec.bidirectional else 1)
    h = rng.normal(size=(stacked, batch, spec.state))
    return (h, rng.normal(size=(stacked, batch, spec.units))) if spec.cell == "lstm" else (h,)


def draw_mask(kind, batch, time, rng):
    mask = np.ones((batch, time), bool)
    if kind == "right":
        mask[:, time - 2 :] = False
        mask[0] = np.arange(time) < 1
    elif kind == "left":
        mask[:, :2] = False
        mask[0] = np.arange(time) == time - 1
    elif kind == "middle":
        mask[:, 1:-1] = False
        mask[0] = np.arange(time) % 2 == 1
    elif kind == "whole rows":
        mask[0] = mask[-1] = False
    elif kind == "random":
        mask = rng.random((batch, time)) < 0.5
    return mask


def assert_close(met, expected, tolerance=1e-12):
    expected = np.asarray(expected)
    assert met.dtype == np.float64
    assert met.shape == expected.shape
    assert np.abs(met - expected).max() <= tolerance * max(1.0, np.abs(expected).max())


def assert_same(result: Result, output, states, tolerance=1e-12):
    if isinstance(output, tuple):
        assert isinstance(result.output, tuple)
        for met, expected in zip(result.output, output, strict=True):
            assert_close(met, expected, tolerance)
    else:
        assert_close(result.output, output, tolerance)
    for met, expected in zip(result.states, states, strict=True):
        assert_close(met, expected, tolerance)


# ------------------------------------------------------------------------------------------------------------- Keras


def keras_arrays(spec, weights, prefix):
    """get_weights() of one layer and direction: gates side by side on the last axis, i f c o or z r h."""
    order = {"lstm": (0, 1, 2, 3), "gru": (1, 0, 2), "rnn": (0,)}[spec.cell]

    def side_by_side(part):
        return np.concatenate([weights[prefix + part][gate].T for gate in order], axis=-1)

    arrays = [side_by_side("kernel"), side_by_side("recurrent_kernel")]
    if spec.bias:
        bias, recurrent_bias = side_by_side("bias"), side_by_side("recurrent_bias")
        two_rows = spec.cell == "gru" and spec.reset == "after"
        arrays.append(np.stack([bias, recurrent_bias]) if two_rows else bias + recurrent_bias)
    return arrays


def keras_layers(keras, spec, weights, zero_output_for_mask=False):
    """One Keras layer for each layer of the spec, with these weights."""
    from gatewise_keras.functions import activation

    found = []
    for layer in range(spec.layers):
        sequences = spec.return_sequences or layer < spec.layers - 1

        def one(go_backwards, sequences=sequences):
            options = {
                "activation": activation(spec.activation),
                "use_bias": spec.bias,
                "return_sequences": sequences,
                "return_state": True,
                "go_backwards": go_backwards,
                "zero_output_for_mask": zero_output_for_mask,
                "dtype": "float64",
            }
            if spec.cell != "rnn":
                options["recurrent_activation"] = activation(spec.recurrent_activation)
            if spec.cell == "gru":
                options["reset_after"] = spec.reset == "after"
            kind = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}[spec.cell]
            return kind(spec.units, **options)

        built = one(spec.go_backwards)
        if spec.bidirectional:
            built = keras.layers.Bidirectional(
                built, merge_mode=spec.merge, backward_layer=one(not spec.go_backwards), dtype="float64"
            )
        directions = 2 if spec.bidirectional else 1
        own = prefixes(spec)[layer * directions : (layer + 1) * directions]
        built.build((None, None, own[0][1]))
        built.set_weights([array for prefix, _ in own for array in keras_arrays(spec, weights, prefix)])
        found.append(built)
    return found


def run_keras(keras, spec, weights, x, *, state=None, mask=None, zero_output_for_mask=False):
    """Output and states of a stack of live layers, in the form of Result."""
    parts, directions = (2 if spec.cell == "lstm" else 1), (2 if spec.bidirectional else 1)
    last, output = [], x
    for index, layer in enumerate(keras_layers(keras, spec, weights, zero_output_for_mask)):
        own = None
        if state is not None:
            own = [part[index * directions + d] for d in range(directions) for part in state]
        returned = layer(output, mask=mask, initial_state=own)
        output = returned[0]
        arrays = [np.asarray(keras.ops.convert_to_numpy(array)) for array in returned]
        count = len(arrays) - parts * directions
        last += [arrays[count + d * parts : count + (d + 1) * parts] for d in range(directions)]
    output = arrays[0] if count == 1 else tuple(arrays[:count])
    return output, [np.stack(part) for part in zip(*last, strict=True)]


def draw_spec(rng):
    cell = rng.choice([LSTM, GRU, RNN])
    options = {
        "layers": int(rng.choice([1, 1, 2])),
        "bidirectional": bool(rng.random() < 0.5),
        "merge": ["concat", "sum", "mul", "ave", None][rng.integers(5)],
        "bias": bool(rng.random() < 0.8),
        "go_backwards": bool(rng.random() < 0.4),
        "return_sequences": bool(rng.random() < 0.6),
        "activation": str(rng.choice(["tanh", "relu", "softsign", "hard_sigmoid"])),
    }
    if options["bidirectional"] and options["merge"] is None:
        options["layers"] = 1
    if cell is not RNN:
        options["recurrent_activation"] = str(rng.choice(["sigmoid", "hard_sigmoid", "tanh"]))
    if cell is GRU:
        options["reset"] = str(rng.choice(["after", "before"]))
    return cell(3, 4, **options)


@pytest.mark.parametrize("seed", range(60))
def test_keras(keras, seed):
    rng = np.random.default_rng(seed)
    spec = draw_spec(rng)
    if spec.bidirectional and spec.layers > 1 and not spec.return_sequences:
        # Keras then gives zeros under a mask in the lower layers only, and a reversed sequence shows them to the upper.
        spec = spec.replace(go_backwards=False)
    weights = draw_weights(spec, rng, scale=0.7)
    x, state, mask, zero = rng.normal(size=(3, 5, 3)), None, None, False
    if rng.random() < 0.6:
        state = draw_state(spec, rng, 3)
    if rng.random() < 0.7:
        mask = draw_mask(rng.choice(["right", "left", "middle", "whole rows", "random"]), 3, 5, rng)
        zero = bool(rng.random() < 0.5)
    expected = run_keras(keras, spec, weights, x, state=state, mask=mask, zero_output_for_mask=zero)
    if spec.bidirectional:
        zero = spec.return_sequences  # Bidirectional does so whatever it is given
    result = run(spec, weights, x, state=state, mask=mask, zero_output_for_mask=zero)
    assert_same(result, *expected)


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("backwards", [True, False])
@pytest.mark.parametrize("kind", ["right", "left", "middle", "whole rows"])
@pytest.mark.parametrize("cell", [LSTM, GRU, RNN])
def test_masks_of_keras(keras, cell, kind, backwards, zero, sequences):
    rng = np.random.default_rng(3)
    spec = cell(3, 4, go_backwards=backwards, return_sequences=sequences)
    weights, x, state = draw_weights(spec, rng), rng.normal(size=(3, 5, 3)), draw_state(spec, rng, 3)
    mask = draw_mask(kind, 3, 5, rng)
    expected = run_keras(keras, spec, weights, x, state=state, mask=mask, zero_output_for_mask=zero)
    assert_same(run(spec, weights, x, state=state, mask=mask, zero_output_for_mask=zero), *expected)
    assert_same(
        run(spec, weights, x, state=state, mask=mask.astype(int).tolist(), zero_output_for_mask=zero), *expected
    )


@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "ave", None])
@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("cell", [LSTM, GRU, RNN])
def test_merges_of_keras(keras, cell, sequences, merge):
    rng = np.random.default_rng(4)
    spec = cell(3, 4, bidirectional=True, merge=merge, return_sequences=sequences)
    weights, x, state = draw_weights(spec, rng), rng.normal(size=(2, 4, 3)), draw_state(spec, rng, 2)
    for mask in (None, draw_mask("right", 2, 4, rng)):
        expected = run_keras(keras, spec, weights, x, state=state, mask=mask)
        assert_same(run(spec, weights, x, state=state, mask=mask, zero_output_for_mask=sequences), *expected)


@pytest.mark.parametrize("backwards", [True, False])
@pytest.mark.parametrize("cell", [LSTM, GRU, RNN])
def test_mask_travels_through_a_model(keras, cell, backwards):
    """A model hands its mask from layer to layer, unflipped, though go_backwards flips what the mask belongs to."""
    rng = np.random.default_rng(5)
    spec = cell(3, 4, layers=3, go_backwards=backwards)
    weights, x = draw_weights(spec, rng), rng.normal(size=(3, 5, 3))
    mask = draw_mask("right", 3, 5, rng)
    x[~mask] = 9.0
    model = keras.Sequential([keras.Input((5, 3), dtype="float64"), keras.layers.Masking(9.0, dtype="float64")])
    for layer in keras_layers(keras, spec, weights):
        layer.return_state = False
        model.add(layer)
    output = np.asarray(keras.ops.convert_to_numpy(model(x)))
    assert_close(run(spec, weights, x, mask=mask).output, output)


def test_dense_and_embedding_of_keras(keras):
    rng = np.random.default_rng(6)
    kernel, bias, table = rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=(7, 3))
    tokens = rng.integers(7, size=(2, 5))
    embedding = keras.layers.Embedding(7, 3, dtype="float64")
    embedding.build((None, None))
    embedding.set_weights([table])
    x = run(Embedding(7, 3), {"table": table}, tokens)
    assert_same(x, keras.ops.convert_to_numpy(embedding(tokens)), ())
    for activation in ("linear", "softmax"):
        dense = keras.layers.Dense(4, activation=activation, dtype="float64")
        dense.build((None, 3))
        dense.set_weights([kernel.T, bias])
        spec = Dense(3, 4, activation=activation)
        result = run(spec, {"kernel": kernel, "bias": bias}, x.output)
        assert_same(result, keras.ops.convert_to_numpy(dense(x.output)), ())
    assert np.array_equal(run(Dense(3, 4), {"kernel": kernel}, np.ones(3)).output, kernel.sum(axis=1))


# ------------------------------------------------------------------------------------------------------- activations


def activation_tolerance(name):
    # TensorFlow holds the slope 0.2 and the root of 1/2 in single precision, for float64 inputs too.
    return 1e-7 if name in ("leaky_relu", "gelu") else 1e-12


def test_every_activation_has_a_function():
    assert list(ACTIVATION_FUNCTIONS) == list(ACTIVATIONS)


@pytest.mark.parametrize("name", COMPUTED)
def test_activation_of_keras(keras, name):
    from gatewise_keras.functions import activation

    rng = np.random.default_rng(7)
    edges = [-800.0, -40.0, -6.0, -3.0, -1.0, -0.5, -1e-9, 0.0, 1e-9, 0.5, 1.0, 3.0, 6.0, 40.0, 700.0]
    tolerance = activation_tolerance(name)
    function = activation(name)
    for x in (rng.normal(size=(6, 5)) * 2.0, np.array(edges).reshape(3, 5)):
        expected = keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(x, dtype="float64")))
        assert_close(np.asarray(ACTIVATION_FUNCTIONS[name](x)), expected, tolerance)


@pytest.mark.parametrize("name", COMPUTED)
def test_activation_within_layers_of_keras(keras, name):
    rng = np.random.default_rng(8)
    x = rng.normal(size=(2, 3, 3))
    specs: list[Spec] = [RNN(3, 4, activation=name)]
    for cell in (LSTM, GRU):
        specs += [cell(3, 4, activation=name), cell(3, 4, recurrent_activation=name)]
    for spec in specs:
        weights = draw_weights(spec, rng, scale=0.1 if name == "exponential" else 0.4)
        state = draw_state(spec, rng, 2)
        expected = run_keras(keras, spec, weights, x, state=state)
        assert_same(run(spec, weights, x, state=state), *expected, tolerance=activation_tolerance(name))


@pytest.mark.parametrize("name", COMPUTED)
def test_activation_far_from_zero_is_finite(name):
    """Without a warning, too: a warning is an error in this suite."""
    largest = 1e4 if name == "sparsemax" else 1e300  # where x - 1 is x, it has no support: 1 / 0, in Keras too
    x = np.array([[-largest, -1e4, -745.0, -1.0], [1.0, 745.0, 1e4, largest]])
    y = ACTIVATION_FUNCTIONS[name](x)
    if name == "exponential":
        expected = [[0.0, 0.0, math.exp(-745), math.exp(-1)], [math.e, math.inf, math.inf, math.inf]]
        np.testing.assert_allclose(y, expected, rtol=1e-15)
    else:
        assert np.isfinite(y).all()


@pytest.mark.parametrize("name", REFUSED)
def test_activation_refused_as_in_keras(keras, name):
    x, weights = np.ones((1, 2, 3)), {}
    for spec in (LSTM(3, 5, activation=name), GRU(3, 5, recurrent_activation=name), RNN(3, 5, activation=name)):
        with pytest.raises(SpecError, match=name):
            run(spec, weights, x)
    with pytest.raises(SpecError, match=name):
        run(Dense(3, 5, activation=name), weights, x)
    with pytest.raises(Exception, match=r"missing 2 required|must be even|divisible by 2"):
        keras.layers.LSTM(5, activation=name)(x)


# ------------------------------------------------------------------------------------------------------------- torch


def torch_layer(torch, spec, weights, **options):
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[spec.cell]
    if spec.cell == "rnn":
        options["nonlinearity"] = spec.activation
    if getattr(spec, "projection", None):
        options["proj_size"] = spec.projection
    layer = kind(
        spec.features,
        spec.units,
        num_layers=spec.layers,
        bias=spec.bias,
        bidirectional=spec.bidirectional,
        batch_first=True,
        dtype=torch.float64,
        **options,
    )
    names = {"kernel": "weight_ih", "recurrent_kernel": "weight_hh", "bias": "bias_ih", "recurrent_bias": "bias_hh"}
    directions = 2 if spec.bidirectional else 1
    arrays = {}
    for index, (prefix, _) in enumerate(prefixes(spec)):
        suffix = f"_l{index // directions}" + ("_reverse" if index % directions else "")
        for part, name in names.items():
            if prefix + part in weights:  # gates stacked on the first axis, in the canonical order
                array = weights[prefix + part]
                arrays[name + suffix] = array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])
        if prefix + "projection" in weights:
            arrays["weight_hr" + suffix] = weights[prefix + "projection"]
    layer.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    return layer.eval()


def draw_torch_spec(rng):
    cell = rng.choice([LSTM, GRU, RNN])
    options = {
        "layers": int(rng.integers(1, 4)),
        "bidirectional": bool(rng.random() < 0.5),
        "bias": bool(rng.random() < 0.8),
    }
    if cell is LSTM and rng.random() < 0.5:
        options["projection"] = 2
    if cell is RNN:
        options["activation"] = str(rng.choice(["tanh", "relu"]))
    return cell(3, 4, **options)


def run_torch(torch, layer, x, state):
    tensors = [torch.tensor(part) for part in state]
    with torch.no_grad():
        output, states = layer(x, tuple(tensors) if len(tensors) == 2 else tensors[0])
    return output, [part.numpy() for part in (states if isinstance(states, tuple) else (states,))]


@pytest.mark.parametrize("seed", range(40))
def test_torch(torch, seed):
    rng = np.random.default_rng(1000 + seed)
    spec = draw_torch_spec(rng)
    weights, x = draw_weights(spec, rng), rng.normal(size=(3, 5, 3))
    layer = torch_layer(torch, spec, weights)
    for state in (draw_state(spec, rng, 3), tuple(np.zeros_like(part) for part in draw_state(spec, rng, 3))):
        output, states = run_torch(torch, layer, torch.tensor(x), state)
        assert_same(run(spec, weights, x, state=state), output.numpy(), states)
    assert np.array_equal(run(spec, weights, x).output, run(spec, weights, x, state=state).output)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("cell", [LSTM, GRU, RNN])
def test_packed_sequences_of_torch(torch, cell, bidirectional):
    """A packed batch is a mask on the right with zeros for output."""
    rng = np.random.default_rng(9)
    spec = cell(3, 4, layers=2, bidirectional=bidirectional)
    weights, x, state = draw_weights(spec, rng), rng.normal(size=(3, 5, 3)), draw_state(spec, rng, 3)
    lengths = [5, 1, 3]
    rnn = torch.nn.utils.rnn
    packed = rnn.pack_padded_sequence(torch.tensor(x), torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    output, states = run_torch(torch, torch_layer(torch, spec, weights), packed, state)
    output, _ = rnn.pad_packed_sequence(output, batch_first=True)
    mask = np.arange(5) < np.array(lengths)[:, None]
    assert_same(run(spec, weights, x, state=state, mask=mask, zero_output_for_mask=True), output.numpy(), states)


# ------------------------------------------------------------------------------------------------ one number at a time


def dot(row, vector):
    return sum(float(a) * float(b) for a, b in zip(row, vector, strict=True))


def bounded(value, bound):
    return value if bound is None else max(-bound, min(bound, value))


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def scalar_lstm(spec, w, x, h, c, input_clip):
    """One step of one sample, unit by unit."""

    def into(gate, unit):
        total = dot(w["kernel"][gate][unit], x) + float(w["bias"][gate][unit])
        return total + dot(w["recurrent_kernel"][gate][unit], h) + float(w["recurrent_bias"][gate][unit])

    def seen(gate, unit, memory):
        if spec.peepholes is True:
            return float(w["peephole"][gate][unit]) * memory[unit]
        if spec.peepholes == "full":
            return dot(w["peephole_kernel"][gate][unit], memory)
        return 0.0

    new = []
    for unit in range(spec.units):
        i = sigmoid(bounded(into(0, unit) + seen(0, unit, c), input_clip))
        f = sigmoid(bounded(into(1, unit) + seen(1, unit, c), input_clip))
        g = math.tanh(bounded(into(2, unit), input_clip))
        new.append(bounded(f * c[unit] + i * g, spec.cell_clip))
    m = []
    for unit in range(spec.units):
        o = sigmoid(bounded(into(3, unit) + seen(2, unit, new), input_clip))
        m.append(o * math.tanh(new[unit]))
    if spec.projection is not None:
        m = [dot(row, m) for row in w["projection"]]
    return m, new


@pytest.mark.parametrize("input_clip", [None, 0.6])
@pytest.mark.parametrize("cell_clip", [None, 0.3])
@pytest.mark.parametrize("projection", [None, 2])
@pytest.mark.parametrize("peepholes", [False, True, "full"])
def test_lstm_by_numbers(peepholes, projection, cell_clip, input_clip):
    rng = np.random.default_rng(10)
    spec = LSTM(3, 4, peepholes=peepholes, projection=projection, cell_clip=cell_clip)
    w, x, state = draw_weights(spec, rng), rng.normal(size=(2, 4, 3)), draw_state(spec, rng, 2)
    result = run(spec, w, x, state=state, input_clip=input_clip)
    for sample in range(2):
        h, c = state[0][0, sample].tolist(), state[1][0, sample].tolist()
        for t in range(4):
            h, c = scalar_lstm(spec, w, x[sample, t], h, c, input_clip)
            assert_close(result.output[sample, t], h)
        assert_close(result.states[1][0, sample], c)
    # Each option must matter here, or agreeing would mean nothing.
    for option, without in (("peepholes", False), ("cell_clip", None)):
        if getattr(spec, option) != without:
            kept = {name: array for name, array in w.items() if option != "peepholes" or "peephole" not in name}
            other = run(spec.replace(**{option: without}), kept, x, state=state, input_clip=input_clip)
            assert np.abs(other.output - result.output).max() > 1e-3
    if input_clip is not None:
        assert np.abs(run(spec, w, x, state=state).output - result.output).max() > 1e-3


@pytest.mark.parametrize("input_clip", [None, 0.6])
@pytest.mark.parametrize("reset", ["after", "before"])
def test_gru_by_numbers(reset, input_clip):
    rng = np.random.default_rng(11)
    spec = GRU(3, 4, reset=reset)
    w, x, state = draw_weights(spec, rng), rng.normal(size=(2, 4, 3)), draw_state(spec, rng, 2)
    W, U, b, rb = (w[part].tolist() for part in ("kernel", "recurrent_kernel", "bias", "recurrent_bias"))
    result = run(spec, w, x, state=state, input_clip=input_clip)
    for sample in range(2):
        h = state[0][0, sample].tolist()
        for t in range(4):
            r, z = (
                [
                    sigmoid(bounded(dot(W[k][u], x[sample, t]) + b[k][u] + dot(U[k][u], h) + rb[k][u], input_clip))
                    for u in range(4)
                ]
                for k in range(2)
            )
            n = []
            for u in range(4):
                inner = dot(W[2][u], x[sample, t]) + b[2][u]
                if reset == "after":
                    inner += r[u] * (dot(U[2][u], h) + rb[2][u])
                else:
                    inner += rb[2][u] + sum(U[2][u][v] * r[v] * h[v] for v in range(4))
                n.append(math.tanh(bounded(inner, input_clip)))
            h = [z[u] * h[u] + (1 - z[u]) * n[u] for u in range(4)]
            assert_close(result.output[sample, t], h)
    other = "before" if reset == "after" else "after"
    assert np.abs(run(spec.replace(reset=other), w, x, state=state).output - result.output).max() > 1e-3


@pytest.mark.parametrize("input_clip", [None, 0.6])
def test_rnn_by_numbers(input_clip):
    rng = np.random.default_rng(12)
    spec = RNN(3, 4, activation="tanh")
    w, x, state = draw_weights(spec, rng), rng.normal(size=(1, 4, 3)), draw_state(spec, rng, 1)
    result = run(spec, w, x, state=state, input_clip=input_clip)
    h = state[0][0, 0].tolist()
    for t in range(4):
        both = [float(b) for b in w["bias"][0] + w["recurrent_bias"][0]]
        inner = [dot(w["kernel"][0][u], x[0, t]) + dot(w["recurrent_kernel"][0][u], h) + both[u] for u in range(4)]
        h = [math.tanh(bounded(value, input_clip)) for value in inner]
        assert_close(result.output[0, t], h)


def test_projection_bias():
    rng = np.random.default_rng(13)
    spec = LSTM(3, 4, projection=2)
    w, x = draw_weights(spec, rng), rng.normal(size=(2, 1, 3))
    shift = np.array([0.5, -0.25])
    assert_close(run(spec, w | {"projection_bias": shift}, x).output, run(spec, w, x).output + shift)


# ---------------------------------------------------------------------------------------------- tests that can fail


@pytest.mark.parametrize(
    "spec", [LSTM(3, 4), LSTM(3, 4, peepholes=True), GRU(3, 4), GRU(3, 4, reset="before")], ids=repr
)
def test_every_mistake_shows(spec):
    """Two gates exchanged, in all parts or in one, a dropped part, a transposed square: all move the output."""
    rng = np.random.default_rng(14)
    w, x, state = draw_weights(spec, rng), rng.normal(size=(2, 5, 3)), draw_state(spec, rng, 2)
    right = run(spec, w, x, state=state).output
    wrong = {}
    for a, b in itertools.combinations(range(GATES[spec.cell]), 2):
        order = list(range(GATES[spec.cell]))
        order[a], order[b] = b, a
        swapped = {name: array[order] for name, array in w.items() if name != "peephole"}
        wrong[f"gates {a} and {b}"] = w | swapped
        for name, array in swapped.items():
            wrong[f"gates {a} and {b} of {name}"] = w | {name: array}
    for a, b in itertools.combinations(range(3), 2):
        if "peephole" in w:
            order = [0, 1, 2]
            order[a], order[b] = b, a
            wrong[f"peepholes {a} and {b}"] = w | {"peephole": w["peephole"][order]}
    for name in w:
        wrong[f"without {name}"] = {other: array for other, array in w.items() if other != name}
    wrong["transposed"] = w | {"recurrent_kernel": w["recurrent_kernel"].transpose(0, 2, 1)}
    for mistake, weights in wrong.items():
        moved = np.abs(run(spec, weights, x, state=state).output - right).max()
        assert moved > 1e-3, mistake


def test_missing_parts_are_zero():
    rng = np.random.default_rng(15)
    for spec in (LSTM(3, 4, peepholes="full"), GRU(3, 4), RNN(3, 4)):
        w, x = draw_weights(spec, rng), rng.normal(size=(2, 3, 3))
        for name in w:
            without = {other: array for other, array in w.items() if other != name}
            zero = w | {name: np.zeros_like(w[name])}
            assert np.array_equal(run(spec, without, x).output, run(spec, zero, x).output)


def test_dropout_has_no_effect():
    rng = np.random.default_rng(16)
    spec = LSTM(3, 4, layers=2)
    w, x = draw_weights(spec, rng), rng.normal(size=(2, 3, 3))
    dropped = run(spec.replace(dropout=0.5, recurrent_dropout=0.5), w, x)
    assert np.array_equal(dropped.output, run(spec, w, x).output)


def test_what_is_not_finite_is_an_answer():
    one, x = np.ones((1, 1, 1)), np.full((1, 3, 1), 1e200)
    grown = run(RNN(1, 1, activation="linear"), {"kernel": one, "recurrent_kernel": 1e200 * one}, x)
    assert grown.output[0, :, 0].tolist() == [1e200, math.inf, math.inf]
    # A memory without bound: a layer without peepholes must not make NaN of it by 0 * inf.
    big = np.full((4, 1), 800.0)
    recurrent = np.ones((4, 1, 1))
    grown = run(LSTM(1, 1, activation="exponential"), {"bias": big, "recurrent_kernel": recurrent}, x)
    assert grown.states[1].item() == math.inf
    assert grown.output[0, :, 0].tolist() == [math.inf] * 3
    # What stands under a mask is never seen.
    x = np.array([[[1.0], [math.nan], [2.0], [math.inf]]])
    masked = run(RNN(1, 1, activation="linear"), {"kernel": one, "recurrent_kernel": one}, x, mask=[[1, 0, 1, 0]])
    assert masked.output[0, :, 0].tolist() == [1.0, 1.0, 3.0, 3.0]


# ------------------------------------------------------------------------------------------------------------ errors


def error_of(kind, *arguments, **options) -> GatewiseError:
    with pytest.raises(kind) as caught:
        run(*arguments, **options)
    assert type(caught.value) is kind
    assert caught.value.met
    assert caught.value.where
    assert caught.value.hint
    return caught.value


def test_errors_of_shapes():
    spec, x = LSTM(3, 4), np.ones((2, 5, 3))
    error = error_of(ShapeError, spec, {"kernel": np.ones((4, 3, 4))}, x)
    assert error.met == "'kernel' has shape (4, 3, 4), expected (gate, units, features) = (4, 4, 3)."
    assert "LSTM(features=3, units=4)" in error.where
    assert "transpose" in error.hint
    assert "packed" in error_of(ShapeError, spec, {"kernel": np.ones((16, 3))}, x).hint
    assert "another layer" in error_of(ShapeError, spec, {"bias": np.ones((4, 5))}, x).hint
    assert "ndarray" not in str(error_of(ShapeError, spec, {"bias": [[1.0], [1.0, 2.0]]}, x))
    assert "array of numbers" in error_of(ShapeError, spec, {"bias": "many"}, x).met
    assert "expected (batch, time, features) = (batch, time, 3)" in error_of(ShapeError, spec, {}, x[0]).met
    assert "(2, 5, 2)" in error_of(ShapeError, spec, {}, x[..., :2]).met
    assert "no steps" in error_of(ShapeError, spec, {}, x[:, :0]).met
    assert "(batch, time) = (2, 5)" in error_of(ShapeError, spec, {}, x, mask=np.ones((2, 4))).met
    assert "1 instead of 2" in error_of(ShapeError, spec, {}, x, state=(np.ones((1, 2, 4)),)).met
    wrong = (np.ones((1, 2, 4)), np.ones((2, 4)))
    assert "'state c'" in error_of(ShapeError, spec, {}, x, state=wrong).met
    assert "features" in error_of(ShapeError, Dense(3, 4), {}, np.ones(2)).met
    assert "features" in error_of(ShapeError, Dense(3, 4), {}, 1.0).met
    upper = LSTM(3, 4, layers=2, bidirectional=True)
    name = "layer_1/backward/kernel"
    assert "= (4, 4, 8)" in error_of(ShapeError, upper, {name: np.ones((4, 4, 4))}, x).met


@pytest.mark.parametrize("token", [7, -1, 1.5, math.nan])
def test_errors_of_tokens(token):
    assert "no row" in error_of(ShapeError, Embedding(7, 2), {"table": np.ones((7, 2))}, [[0, token]]).met


def test_errors_of_names_and_options():
    x = np.ones((2, 5, 3))
    error = error_of(WeightsError, LSTM(3, 4), {"recurent_kernel": np.ones((4, 4, 4))}, x)
    assert "Did you mean 'recurrent_kernel'?" in error.hint
    assert "prefix" in error_of(WeightsError, LSTM(3, 4, layers=2), {"kernel": np.ones((4, 4, 3))}, x).hint
    error_of(WeightsError, GRU(3, 4), {"peephole": np.ones((3, 4))}, x)
    assert "'projection' is missing" in error_of(WeightsError, LSTM(3, 4, projection=2), {}, x).met
    assert "input_clip" in error_of(SpecError, LSTM(3, 4), {}, x, input_clip=0.0).met
    assert "no reference" in error_of(SpecError, Spec(), {}, x).met
