"""The general torch layers: against the float64 oracle, against torch.nn, and their fast paths against the plain loop."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest

from gatewise.arrays.reference import run
from gatewise.core.spec import ACTIVATIONS
from gatewise.core.spec import GRU as GRUSpec
from gatewise.core.spec import LSTM as LSTMSpec
from gatewise.core.spec import RNN as RNNSpec
from gatewise.errors import ShapeError, SpecError

torch = pytest.importorskip("torch")
nn = torch.nn

from gatewise_torch import GRU, LSTM, RNN, activations, kernels, loops  # noqa: E402
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence  # noqa: E402

LAYERS = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
SPECS = {"lstm": LSTMSpec, "gru": GRUSpec, "rnn": RNNSpec}
COMPUTED = [name for name in ACTIVATIONS if name not in ("threshold", "glu")]
MASKS = ("left", "right", "middle", "whole rows", "random", "all")


@pytest.fixture(autouse=True)
def one_thread():
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---------------------------------------------------------------------------------------------- against the oracle


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


def draw_options(rng, cell=None):
    """Draw options of a layer: those it shares with the spec, and those that the spec says in other words."""
    cell = cell or str(rng.choice(["lstm", "lstm", "gru", "rnn"]))
    ordinary = rng.random() < 0.4
    shared = {
        "bidirectional": bool(rng.random() < 0.5),
        "merge": ["concat", "sum", "mul", "ave", None][rng.integers(5)],
        "go_backwards": bool(rng.random() < 0.4),
        "return_sequences": bool(rng.random() < 0.6),
        "activation": "tanh" if ordinary else str(rng.choice(COMPUTED)),
    }
    own = {
        "num_layers": int(rng.choice([1, 1, 2, 3])),
        "bias": [True, False, "single", "dual", "none"][rng.integers(5)],
        "batch_first": bool(rng.random() < 0.5),
    }
    if shared["bidirectional"] and shared["merge"] is None:
        own["num_layers"] = 1
    if cell != "rnn":
        shared["recurrent_activation"] = "sigmoid" if ordinary else str(rng.choice(COMPUTED))
    if cell == "gru":
        shared["reset"] = str(rng.choice(["after", "before"]))
    if cell == "lstm":
        shared["peepholes"] = [False, False, True, "full"][rng.integers(4)]
        shared["cell_clip"] = [None, None, 0.5][rng.integers(3)]
        own["proj_size"] = int(rng.choice([0, 0, 2, 5]))
        own["forget_bias"] = float(rng.choice([0.0, 0.0, 1.0]))
    return cell, shared, own


def canonical(layer):
    """The weights of a layer by their canonical names, gates apart."""
    gates, found = loops.GATES[layer.cell], {}
    for number in range(layer.num_layers):
        for suffix in ("", "_reverse")[: layer.directions]:
            prefix = f"layer_{number}/" if layer.num_layers > 1 else ""
            if layer.bidirectional:
                prefix += "backward/" if suffix else "forward/"

            def get(name, end=f"_l{number}{suffix}"):
                parameter = getattr(layer, name + end, None)
                return None if parameter is None else parameter.detach().numpy().copy()

            for part, name, count in (
                ("kernel", "weight_ih", gates),
                ("recurrent_kernel", "weight_hh", gates),
                ("bias", "bias_ih", gates),
                ("recurrent_bias", "bias_hh", gates),
                ("peephole_kernel" if layer.peepholes == "full" else "peephole", "weight_ch", 3),
                ("projection", "weight_hr", None),
            ):
                array = get(name)
                if array is not None:
                    found[prefix + part] = array if count is None else array.reshape(count, -1, *array.shape[1:])
            if layer.forget_bias:
                bias = found.setdefault(prefix + "bias", np.zeros((4, layer.hidden_size)))
                bias[1] += layer.forget_bias
    return found


def make(cell, shared, own, features=3, units=4):
    layer = LAYERS[cell](features, units, dtype=torch.float64, **shared, **own).eval()
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -0.6, 0.6)
    spec_options = dict(shared)
    if own.get("proj_size"):
        spec_options["projection"] = own["proj_size"]
    return layer, SPECS[cell](features, units, layers=own["num_layers"], **spec_options)


def draw_states(layer, batch):
    stacked = layer.num_layers * layer.directions
    h = torch.randn(stacked, batch, layer.proj_size or layer.hidden_size, dtype=torch.float64)
    return (h, torch.randn(stacked, batch, layer.hidden_size, dtype=torch.float64)) if layer.cell == "lstm" else (h,)


def numpy(tensor):
    return tensor.detach().numpy()


def assert_close(met, expected, tolerance=1e-10):
    met = numpy(met)
    assert met.dtype == np.float64
    assert met.shape == expected.shape
    finite = np.isfinite(expected)
    assert (finite == np.isfinite(met)).all()
    assert (met[~finite] == expected[~finite])[~np.isnan(expected[~finite])].all()
    if finite.any():
        scale = max(1.0, np.abs(expected[finite]).max())
        assert np.abs(met[finite] - expected[finite]).max() <= tolerance * scale


def assert_same(layer, result, output, states):
    """Compare a call's returns with the oracle's; outputs batch first."""
    if layer.merge is None and layer.bidirectional:
        for met, expected in zip(output, result.output, strict=True):
            assert_close(met, expected)
    else:
        assert_close(output, result.output)
    for met, expected in zip(states, result.states, strict=True):
        assert_close(met, expected)


def call(layer, x, state=None, mask=None, **others):
    """Call a layer with the batch first, whatever it wants; return output batch first and states as a tuple."""
    x = torch.as_tensor(x)
    first = layer.batch_first
    hx = state if state is None or layer.cell == "lstm" else state[0]
    if mask is not None:
        mask = torch.as_tensor(mask) if first else torch.as_tensor(mask).T
    output, last = layer(x if first else x.transpose(0, 1), hx, mask=mask, **others)
    if layer.return_sequences and not first:
        output = tuple(o.transpose(0, 1) for o in output) if isinstance(output, tuple) else output.transpose(0, 1)
    return output, (last if layer.cell == "lstm" else (last,))


@pytest.mark.parametrize("seed", range(400))
@pytest.mark.parametrize("grad", [False, True])
def test_oracle(seed, grad):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    cell, shared, own = draw_options(rng)
    layer, spec = make(cell, shared, own)
    batch, time = int(rng.integers(1, 5)), int(rng.integers(1, 7))
    time = max(time, 3)
    x = rng.normal(size=(batch, time, 3))
    state = draw_states(layer, batch) if rng.random() < 0.6 else None
    mask, zero = None, False
    if rng.random() < 0.5:
        mask = draw_mask(rng.choice(MASKS), batch, time, rng)
        layer.zero_output_for_mask = zero = bool(rng.random() < 0.5)
    with torch.set_grad_enabled(grad):
        output, states = call(layer, x, state, mask)
    first = None if state is None else [numpy(part) for part in state]
    result = run(spec, canonical(layer), x, state=first, mask=mask, zero_output_for_mask=zero)
    assert_same(layer, result, output, states)


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize("grad", [False, True])
def test_every_activation(cell, name, grad):
    rng = np.random.default_rng(1)
    for place in ("activation",) if cell == "rnn" else ("activation", "recurrent_activation"):
        layer, spec = make(cell, {place: name}, {"num_layers": 1, "batch_first": True})
        x = rng.normal(size=(3, 5, 3)) * 3
        with torch.set_grad_enabled(grad):
            output, states = call(layer, x)
        assert_same(layer, run(spec, canonical(layer), x), output, states)
