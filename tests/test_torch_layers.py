"""The general torch layers: against the float64 oracle, against torch.nn; the fast paths against the plain loop."""

from __future__ import annotations

import copy
import io
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gatewise as gw
from gatewise.arrays.reference import run
from gatewise.core import spec as specs
from gatewise.errors import ShapeError, SpecError

torch = pytest.importorskip("torch")
nn = torch.nn

from gatewise_torch import GRU, LSTM, RNN, activations, arithmetic, kernels, loops, products  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

LAYERS = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
SPECS = {"lstm": specs.LSTM, "gru": specs.GRU, "rnn": specs.RNN}
COMPUTED = [name for name in specs.ACTIVATIONS if name not in ("threshold", "glu")]
MASKS = ("left", "right", "middle", "whole rows", "random", "all")


@pytest.fixture(autouse=True)
def one_thread():
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["numpy", "torch"])
def arithmetic_in_use(request, monkeypatch):
    """Run a test with either arithmetic, whatever the size of its layers."""
    if request.param == "torch":
        monkeypatch.setattr(arithmetic, "SHARED_FROM", 0)
    return request.param


@pytest.fixture(params=["few numbers", "many numbers", "tensors"])
def size(request, monkeypatch):
    """T, B, F and H with which a fast path goes by NumPy alone, by NumPy with torch's products, by torch alone."""
    monkeypatch.setattr(kernels.fast, "CHUNK_BYTES", 0)  # chunks of four steps, to see their seams
    monkeypatch.setattr(products, "_onednn_leads", lambda: True)  # in float32 the large products are oneDNN's
    if request.param == "tensors":
        monkeypatch.setattr(arithmetic, "SHARED_FROM", 0)
    return (7, 3, 5, 4) if request.param == "few numbers" else (9, 64, 16, 96)


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


@pytest.mark.parametrize("seed", range(40))
def test_stateful(seed):
    """Several batches in a row are one long sequence; reset_state starts again."""
    rng = np.random.default_rng(seed)
    cell, shared, own = draw_options(rng)
    shared |= {"bidirectional": False, "go_backwards": False, "merge": "concat"}
    layer, spec = make(cell, shared, own)
    layer.stateful = True
    x, states = rng.normal(size=(2, 9, 3)), None
    for start in (0, 3, 6, 0):
        if start == 0 and states is not None:
            layer.reset_state()
            states = None
        part = x[:, start : start + 3]
        output, last = call(layer, part)
        result = run(spec, canonical(layer), part, state=states)
        assert_same(layer, result, output, last)
        assert not any(kept.requires_grad for kept in layer._kept)
        states = result.states
    with pytest.raises(ShapeError, match=r"batch of 3.*\n.*\n.*reset_state\(\)"):
        call(layer, rng.normal(size=(3, 3, 3)))
    copied = pickle.loads(pickle.dumps(layer))
    assert torch.equal(copied._kept[0], layer._kept[0])
    given = draw_states(layer, 2)
    output, last = call(layer, x[:, :3], given)
    assert_same(layer, run(spec, canonical(layer), x[:, :3], state=[numpy(part) for part in given]), output, last)


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("activation", ["tanh", "softsign"])
def test_stateful_on_packed_sequences_of_any_order(cell, activation):
    layer = LAYERS[cell](3, 4, activation=activation, stateful=True)
    packed = pack_padded_sequence(torch.randn(4, 3, 3), [2, 4, 3], enforce_sorted=False)
    _, first = layer(packed)
    met = layer(packed)
    layer.reset_state()
    for one, other in zip(flat(met), flat(layer(packed, first)), strict=True):
        assert torch.equal(one, other)


def test_states_kept_in_inference_mode_can_be_trained_on():
    layer = LSTM(3, 4, activation="relu", stateful=True)
    with torch.inference_mode():
        layer(torch.ones(5, 2, 3))
    layer(torch.ones(5, 2, 3))[0].sum().backward()
    layer(torch.ones(5, 2, 3))[0].sum().backward()
    assert layer.weight_hh_l0.grad is not None


@pytest.mark.parametrize("cell", LAYERS)
def test_one_sequence_lengths_and_returns(cell):
    layer, _ = make(cell, {"activation": "relu"}, {"num_layers": 2})
    x = torch.randn(5, 3, 3, dtype=torch.float64)
    output, last = layer(x)
    single, last_of_one = layer(x[:, 1])
    assert torch.allclose(single, output[:, 1])
    for met, expected in zip(last_of_one, last, strict=True) if cell == "lstm" else ((last_of_one, last),):
        assert torch.allclose(met, expected[:, 1])
    lengths = torch.tensor([5, 0, 2])
    by_length = layer(x, lengths=lengths)[0]
    by_mask = layer(x, mask=torch.arange(5)[:, None] < lengths)[0]
    assert torch.equal(by_length, by_mask)
    assert torch.equal(layer(x[:, 2], mask=[True, True, False, False, False])[0], by_mask[:, 2])
    assert not by_mask[:, 1].any()
    layer.return_state = False
    assert torch.equal(layer(x), output)
    layer.return_sequences = False
    assert torch.equal(layer(x), output[-1])
    assert torch.allclose(layer(x[:, 0]), output[-1, 0])


@pytest.mark.parametrize("cell", LAYERS)
def test_masked_nan_padding_has_no_effect(cell):
    layer, _ = make(cell, {"activation": "relu"}, {"num_layers": 1})
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    padded = x.clone()
    padded[3:] = torch.nan
    mask = torch.arange(5)[:, None].expand(5, 2) < 3
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            assert torch.equal(layer(padded, mask=mask)[0], layer(x, mask=mask)[0])
    layer(padded, mask=mask)[0].sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in layer.parameters())


# ----------------------------------------------------------------------------------------------- against torch.nn


NATIVE = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def pair(cell, dtype=torch.float64, **options):
    native = NATIVE[cell](3, 4, dtype=dtype, **options)
    layer = LAYERS[cell](3, 4, dtype=dtype, **options)
    assert list(layer.state_dict()) == list(native.state_dict())
    layer.load_state_dict(native.state_dict())
    native.load_state_dict(layer.state_dict())
    return layer, native


def flat(returned):
    output, last = returned
    return [
        output.data if isinstance(output, PackedSequence) else output,
        *(last if isinstance(last, tuple) else [last]),
    ]


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_is_torch_nn(cell, bias, layers, bidirectional, batch_first):
    options = {"num_layers": layers, "bias": bias, "bidirectional": bidirectional, "batch_first": batch_first}
    if cell == "lstm" and not bias:
        options["proj_size"] = 2
    if cell == "rnn" and not bias:
        options["nonlinearity"] = "relu"
    layer, native = pair(cell, **options)
    assert layer._has_kernel
    assert layer._is_ordinary
    x = torch.randn(5, 5, 3, dtype=torch.float64, requires_grad=True)
    states = draw_states(layer, 5)
    hx = states if cell == "lstm" else states[0]
    for arguments in ((x,), (x, hx), (x[0],)):
        for met, expected in zip(flat(layer(*arguments)), flat(native(*arguments)), strict=True):
            assert torch.allclose(met, expected, rtol=0, atol=1e-15 if cell == "lstm" else 1e-12)
        with torch.no_grad():  # small as they are, all go to torch.nn's kernels
            for met, expected in zip(flat(layer(*arguments)), flat(native(*arguments)), strict=True):
                assert torch.allclose(met, expected, rtol=0, atol=1e-15)
    for packed in (
        pack_padded_sequence(x, [3, 5, 1, 2, 5], enforce_sorted=False),
        pack_padded_sequence(x, [5, 4, 4, 2, 1]),
    ):
        for arguments in ((packed,), (packed, hx)):
            met, expected = layer(*arguments), native(*arguments)
            assert torch.equal(met[0].batch_sizes, expected[0].batch_sizes)
            for one, other in zip(flat(met), flat(expected), strict=True):
                assert torch.equal(one, other)
            # The same the long way, by mask.
            layer._has_kernel, layer._kernel = False, None
            for one, other in zip(flat(layer(*arguments)), flat(expected), strict=True):
                assert torch.allclose(one, other, atol=1e-12)
            layer._resolve()
    met, expected = (
        torch.autograd.grad(flat(one(x))[0].square().sum(), [x, *one.parameters()]) for one in (layer, native)
    )
    for one, other in zip(met, expected, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=0 if cell == "lstm" else 1e-12)


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_nn_is_left_where_it_takes_longer(monkeypatch, cell, dtype):
    """On a CPU: in training for all but the LSTM, in inference from some size on; never within a transform."""
    layer, native = pair(cell, batch_first=True)
    layer, native = layer.to(dtype), native.to(dtype)
    ran = []

    def seen(name, function):
        def call(*arguments, **keywords):
            ran.append(name)
            return function(*arguments, **keywords)

        return call

    monkeypatch.setattr(kernels.sequence, "train", seen("train", kernels.sequence.train))
    monkeypatch.setattr(kernels.sequence, "infer", seen("infer", kernels.sequence.infer))
    monkeypatch.setitem(kernels.AHEAD_FROM, "gru", 40)
    monkeypatch.setitem(kernels.AHEAD_FROM, "rnn", 40)
    small, large = torch.randn(5, 4, 3, dtype=dtype), torch.randn(40, 4, 3, dtype=dtype)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    own = cell != "lstm"
    for x, training, expected in ((large, True, "train"), (small, False, ""), (large, False, "infer")):
        ran.clear()
        with torch.set_grad_enabled(training):
            for met, other in zip(flat(layer(x)), flat(native(x)), strict=True):
                assert torch.allclose(met, other, rtol=0, atol=tolerance)
        assert ran == ([expected] if own and expected else [])
    ran.clear()
    with FlopCounterMode(display=False):  # sees single operations, as every transform does
        assert torch.allclose(layer(large)[0], native(large)[0], rtol=0, atol=tolerance)
    assert ran == []


@pytest.mark.parametrize("cell", LAYERS)
def test_weights_of_unlike_types(cell):
    layer = LAYERS[cell](3, 4)
    expected = layer(X)[0]
    layer.weight_hh_l0 = nn.Parameter(layer.weight_hh_l0.detach().double())
    assert torch.allclose(layer(X)[0], expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own jvp uses it
@pytest.mark.parametrize("activation", ["tanh", "softsign"])
@pytest.mark.parametrize("cell", LAYERS)
def test_transforms_that_torch_nn_has_no_rule_for(cell, activation):
    layer, several = LAYERS[cell](3, 4, activation=activation), torch.randn(6, 5, 2, 3)

    def run(x):
        return layer(x)[0]

    expected = torch.stack([run(x) for x in several])
    assert torch.allclose(torch.func.vmap(run)(several), expected, atol=1e-6)
    _, slope = torch.func.jvp(run, (several[0],), (several[1],))
    jacobian = torch.autograd.functional.jacobian(run, several[0])
    assert torch.allclose(slope, torch.tensordot(jacobian, several[1], 3), atol=1e-5)
    assert torch.allclose(torch.func.jacrev(run)(several[0]), jacobian, atol=1e-5)


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("options", [{}, {"num_layers": 3, "bidirectional": True}, {"proj_size": 2}])
def test_weights_are_joined_as_cudnn_lays_them(cell, bias, options):
    """The buffer is that of the plan, with room for biases that are not there; see test_cuda.py."""
    if cell != "lstm" and "proj_size" in options:
        return
    native = NATIVE[cell](3, 4, bias=bias, **options)
    weights, names = list(native.parameters()), [name for name, _ in native.named_parameters()]
    made = kernels.joined(weights)
    assert all(torch.equal(one, other) for one, other in zip(made, weights, strict=True))
    named = {"num_layers": "layers", "proj_size": "projection"}
    spec = SPECS[cell](3, 4, bias=bias, **{named.get(name, name): value for name, value in options.items()})
    arrays = {name: numpy(weight) for name, weight in zip(names, weights, strict=True)}
    [expected] = gw.mapping(spec, "torch", "cudnn").apply(arrays).values()
    buffer = torch.tensor([]).set_(made[0].untyped_storage()).detach().numpy()
    missing = 0 if bias else 2 * 4 * loops.GATES[cell] * spec.layers * spec.directions
    assert np.array_equal(buffer, np.concatenate([expected, np.zeros(missing, np.float32)]))
    assert kernels.joined(made) is made
    # Those of one direction, in front of others, cuDNN would read on for biases.
    part = made[: len(made) // (spec.layers * spec.directions)]
    again = kernels.joined(part)
    assert (again is part) == (len(part) == len(made))
    sum((one * one).sum() for one in made).backward()
    assert all(torch.allclose(weight.grad, 2 * weight) for weight in weights)


@pytest.mark.parametrize("cell", LAYERS)
def test_same_seed_same_weights(cell):
    torch.manual_seed(5)
    native = NATIVE[cell](3, 4, num_layers=2, bidirectional=True)
    torch.manual_seed(5)
    layer = LAYERS[cell](3, 4, num_layers=2, bidirectional=True)
    for met, expected in zip(layer.parameters(), native.parameters(), strict=True):
        assert torch.equal(met, expected)


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("options", [{}, {"go_backwards": True}, {"bidirectional": True, "merge": "sum"}])
def test_packed_is_each_sequence_by_itself(cell, batch_first, options):
    layer, _ = make(cell, {"activation": "softsign", **options}, {"num_layers": 2, "batch_first": batch_first})
    lengths = [2, 5, 3]
    sequences = [torch.randn(length, 3, dtype=torch.float64) for length in lengths]
    padded = nn.utils.rnn.pad_sequence(sequences)
    packed = pack_padded_sequence(padded, lengths, enforce_sorted=False)
    states = draw_states(layer, 3)
    output, last = layer(packed, states if cell == "lstm" else states[0])
    unpacked, _ = pad_packed_sequence(output)
    for number, sequence in enumerate(sequences):
        own = tuple(part[:, number] for part in states)
        expected, states_of_one = layer(sequence, own if cell == "lstm" else own[0])
        assert torch.allclose(unpacked[: len(sequence), number], expected)
        pairs = zip(last, states_of_one, strict=True) if cell == "lstm" else ((last, states_of_one),)
        for met, other in pairs:
            assert torch.allclose(met[:, number], other)
    layer.return_sequences = False
    final = layer(packed)[0]
    for number, sequence in enumerate(sequences):
        assert torch.allclose(final[number], layer(sequence)[0])


def test_dropout_between_layers_is_that_of_torch_nn():
    layer, native = pair("lstm", num_layers=3, dropout=0.5)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    torch.manual_seed(1)
    expected = native(x)[0]
    torch.manual_seed(1)
    assert torch.equal(layer(x)[0], expected)
    assert torch.equal(layer.eval()(x)[0], native.eval()(x)[0])
    other = LSTM(3, 4, num_layers=2, dropout=1.0, activation="relu", bias=False)
    assert not other(x.float())[0].any()
    assert other.eval()(x.float())[0].any()
    with pytest.warns(UserWarning, match="dropout=0.5 acts between layers"):
        LSTM(3, 4, dropout=0.5)


# ------------------------------------------------------------------------------------------- the fast paths' gradients

NUMBERED = ["elu(0.5)", "leaky_relu(0.1)", "relu(2.0)"]
ELEMENTWISE = [name for name in activations.NAMED if activations.NAMED[name].slope is not None] + NUMBERED
SMOOTH = ["tanh", "sigmoid", "softplus", "softsign", "silu", "gelu", "mish", "log_sigmoid", "squareplus", "softmax"]


def plainly(monkeypatch):
    monkeypatch.setattr(kernels.sequence, "can_train", lambda *_: False)
    monkeypatch.setattr(kernels.sequence, "can_infer", lambda *_: False)


def gradients(layer, x, hx, weigh, **given):
    torch.manual_seed(0)  # for dropout
    x = x.clone().requires_grad_()
    hx = tuple(part.clone().requires_grad_() for part in hx)
    output, last = layer(x, hx if layer.cell == "lstm" else hx[0], **given)
    results = [output, *(last if layer.cell == "lstm" else [last])]
    total = sum((weigh[: result.numel()].view(result.shape) * result).sum() for result in results)
    return torch.autograd.grad(total, [x, *hx, *layer.parameters()])


PLACES = [
    (cell, place) for cell in LAYERS for place in ("activation", "recurrent_activation") if cell + place[0] != "rnnr"
]


TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-4}


def assert_fast_training_is_the_plain_loop(monkeypatch, layer, x, hx, **given):
    tolerance = TOLERANCES[x.dtype]
    layer._has_kernel, layer._kernel = False, None  # torch.nn could do the usual ones
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(0.5)
    weigh = torch.randn(x.shape[0] * x.shape[1] * max(layer.hidden_size, layer.proj_size), dtype=x.dtype)
    assert fast_runs(layer, x)
    met = gradients(layer, x, hx, weigh, **given)
    with monkeypatch.context() as patch:
        plainly(patch)
        expected = gradients(layer, x, hx, weigh, **given)
    for one, other in zip(met, expected, strict=True):
        assert (one - other).abs().max() <= tolerance * max(1.0, float(other.abs().max()))


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("cell", "place"), PLACES)
def test_fast_training_is_the_plain_loop(monkeypatch, cell, name, place, backwards, size):
    time, batch, features, units = size
    for dtype in (torch.float64, torch.float32):
        bias = "dual" if cell == "gru" else "single"
        layer = LAYERS[cell](features, units, bias=bias, **{place: name}, go_backwards=backwards, dtype=dtype)
        x = 0.5 * torch.randn(4 if name == "exponential" else time, batch, features, dtype=dtype)  # it soon overflows
        hx = tuple(0.1 * torch.randn(1, batch, units, dtype=dtype) for _ in range(1 + (cell == "lstm")))
        assert_fast_training_is_the_plain_loop(monkeypatch, layer, x, hx)


@pytest.mark.parametrize(
    "options",
    [
        {"activation": "relu"},
        {"activation": "linear"},
        {"recurrent_activation": "exponential"},
        {"recurrent_activation": "relu6", "activation": "relu"},
    ],
    ids=str,
)
@pytest.mark.parametrize("reset", ["before", "after"])
@pytest.mark.usefixtures("arithmetic_in_use")
def test_what_overflows_is_infinite_at_the_same_places(monkeypatch, options, reset):
    layer = LAYERS["gru"](3, 8, reset=reset, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 30)
        # Each unit hears itself alone: where the sum of a product overflows depends on the order of its terms.
        layer.weight_hh_l0.mul_(torch.eye(8).repeat(3, 1))
    x = 10 * torch.randn(60, 4, 3)
    for context in (torch.no_grad, torch.enable_grad):
        with context():
            fast = layer(x)[0].detach()
            with monkeypatch.context() as patch:
                plainly(patch)
                plain = layer(x)[0].detach()
        assert not torch.isfinite(plain).all()
        assert torch.equal(torch.isnan(fast), torch.isnan(plain))
        assert torch.equal(torch.isposinf(fast), torch.isposinf(plain))


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(
    ("cell", "options"),
    [
        ("lstm", {"activation": "relu"}),
        ("lstm", {"cell_clip": 0.3}),
        ("lstm", {"proj_size": 2}),
        ("gru", {"activation": "softsign"}),
        ("gru", {"reset": "before"}),
        ("rnn", {"activation": "hard_sigmoid"}),
    ],
)
@pytest.mark.parametrize("kind", ["none", "left", "right", "random", "empty row", "empty step"])
def test_fast_training_with_a_mask(monkeypatch, cell, options, kind, size, backwards, zero):
    time, batch, features, units = size
    lengths = torch.arange(batch) % time + 1
    mask = {
        "none": None,
        "right": torch.arange(time).unsqueeze(1) < lengths,
        "left": torch.arange(time).unsqueeze(1) >= time - lengths,
    }.get(kind, torch.rand(time, batch) < 0.6)
    if kind == "empty row":
        mask[:, 0] = False
    if kind == "empty step":
        mask[::4] = False
    for dtype in (torch.float64, torch.float32):
        layer = LAYERS[cell](
            features, units, **options, go_backwards=backwards, zero_output_for_mask=zero, dtype=dtype, bias="single"
        )
        x = 0.5 * torch.randn(time, batch, features, dtype=dtype)
        sizes = (layer.proj_size or units, units)[: 1 + (cell == "lstm")]
        hx = tuple(torch.randn(1, batch, size, dtype=dtype) for size in sizes)
        assert_fast_training_is_the_plain_loop(monkeypatch, layer, x, hx, mask=mask)
        with torch.no_grad():
            met = flat(layer(x, hx if cell == "lstm" else hx[0], mask=mask))
        expected = flat(layer(x, hx if cell == "lstm" else hx[0], mask=mask))
        for one, other in zip(met, expected, strict=True):
            assert torch.allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("arithmetic_in_use")
def test_a_memory_that_meets_its_bound_is_not_cut_off(monkeypatch):
    """A memory at the bound that is only kept stays there, and its gradient passes; a larger one's does not."""
    layer = LSTM(3, 4, activation="relu", recurrent_activation="hard_sigmoid", cell_clip=0.5, bias="single")
    layer.double()
    with torch.no_grad():
        layer.bias_ih_l0.copy_(torch.tensor([-40.0, 40.0, 1.0, 0.0]).repeat_interleave(4))  # i is 0, f is 1
    c = torch.tensor([[[0.5, 0.4, 0.6, -0.5]]], dtype=torch.float64)
    x = torch.randn(6, 1, 3, dtype=torch.float64)
    assert_fast_training_is_the_plain_loop(monkeypatch, layer, x, (torch.zeros_like(c), c))
    c.requires_grad_()
    last = layer(x, (torch.zeros_like(c), c))[1][1]
    assert torch.equal(torch.autograd.grad(last.sum(), c)[0], torch.tensor([[[1.0, 1.0, 0.0, 1.0]]]).double())


@pytest.mark.parametrize("masks", ["layer", "gate"])
@pytest.mark.parametrize("rates", [(0.0, 0.4), (0.3, 0.4), (0.3, 0.0)], ids=["state", "both", "input"])
@pytest.mark.parametrize("masked_backwards", [False, True])
@pytest.mark.parametrize(
    ("cell", "options"),
    [
        ("lstm", {"activation": "softsign"}),
        ("gru", {"activation": "softsign"}),
        ("gru", {"reset": "before", "bias": "none"}),
        ("rnn", {}),
    ],
)
def test_fast_training_with_dropout(monkeypatch, cell, options, masked_backwards, rates, masks, size):
    monkeypatch.setattr(products, "ONEDNN_FROM", 100_000)  # so that it makes the products of single gates, too
    time, batch, features, units = size
    options = {**options, "input_dropout": rates[0], "recurrent_dropout": rates[1], "dropout_masks": masks}
    mask = torch.rand(time, batch) < 0.6 if masked_backwards else None
    for dtype in (torch.float64, torch.float32):
        layer = LAYERS[cell](features, units, **options, go_backwards=masked_backwards, dtype=dtype)
        x = 0.5 * torch.randn(time, batch, features, dtype=dtype)
        hx = tuple(torch.randn(1, batch, units, dtype=dtype) for _ in range(1 + (cell == "lstm")))
        assert_fast_training_is_the_plain_loop(monkeypatch, layer, x, hx, mask=mask)
        results = []
        for grad in (False, True):
            torch.manual_seed(1)
            with torch.set_grad_enabled(grad):
                results.append(flat(layer(x, hx if cell == "lstm" else hx[0], mask=mask)))
        assert_all_close(*results)


def fast_runs(layer, x):
    output = layer(x)[0]
    names, node = [], output.grad_fn
    while node is not None:
        names.append(node.name())
        node = node.next_functions[0][0] if node.next_functions else None
        if "_SequenceBackward" in names:
            return True
    return False


@pytest.mark.parametrize("use", ["output", "h", "c", "last output"])
@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.usefixtures("arithmetic_in_use")
def test_fast_training_from_each_result_alone(monkeypatch, cell, use):
    layer = LAYERS[cell](3, 4, activation="softsign", return_sequences=use != "last output", dtype=torch.float64)
    x = torch.randn(6, 2, 3, dtype=torch.float64)

    def once():
        output, h, *c = flat(layer(x))
        chosen = {"output": output, "h": h, "c": c[0] if c else h, "last output": output}[use]
        layer.zero_grad()
        chosen.square().sum().backward()
        return [parameter.grad.clone() for parameter in layer.parameters()]

    met = once()
    plainly(monkeypatch)
    for one, other in zip(met, once(), strict=True):
        assert torch.allclose(one, other, atol=1e-12)


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        ("lstm", {"activation": "relu"}),
        ("lstm", {"recurrent_activation": "hard_sigmoid", "go_backwards": True}),
        ("lstm", {"activation": "softsign", "bidirectional": True, "num_layers": 2, "bias": "single"}),
        ("lstm", {"activation": "softplus", "peepholes": True, "proj_size": 2, "cell_clip": 0.3, "forget_bias": 1.0}),
        ("lstm", {"peepholes": "full", "merge": "mul", "bidirectional": True}),
        ("gru", {"activation": "softsign"}),
        ("gru", {"activation": "elu", "bias": "single", "go_backwards": True}),
        ("gru", {"recurrent_activation": "hard_sigmoid", "num_layers": 2, "bidirectional": True}),
        ("gru", {"reset": "before", "recurrent_activation": "hard_sigmoid_02"}),
        ("rnn", {"activation": "gelu"}),
        ("lstm", {"activation": "relu", "cell_clip": 0.3, "go_backwards": True}),
        ("lstm", {"activation": "softplus", "input_dropout": 0.3, "recurrent_dropout": 0.5, "proj_size": 5}),
        ("gru", {"input_dropout": 0.3, "recurrent_dropout": 0.5, "dropout_masks": "layer"}),
        ("gru", {"reset": "before", "recurrent_dropout": 0.5, "go_backwards": True}),
        ("rnn", {"recurrent_dropout": 0.5}),
        *(("lstm", {"activation": name, "recurrent_activation": "sigmoid"}) for name in SMOOTH),
        *(("lstm", {"recurrent_activation": name}) for name in ("hard_sigmoid", "sparse_sigmoid", "hard_sigmoid_02")),
    ],
)
@pytest.mark.parametrize("masked", [False, True])
def test_gradcheck(cell, options, masked):
    layer = LAYERS[cell](2, 3, dtype=torch.float64, **options)
    mask = torch.tensor([[1, 0], [0, 1], [1, 1]]) if masked else None
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    states = tuple(part.requires_grad_() for part in draw_states(layer, 2))
    names = [name for name, _ in layer.named_parameters()]

    def function(x, *tensors):
        torch.manual_seed(0)  # for dropout
        hx, weights = tensors[: len(states)], dict(zip(names, tensors[len(states) :], strict=True))
        hx = hx if cell == "lstm" else hx[0]
        output, last = torch.func.functional_call(layer, weights, (x, hx), {"mask": mask})
        return output, *(last if cell == "lstm" else (last,))

    inputs = (x, *states, *layer.parameters())
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)
    total = sum(result.square().sum() for result in function(*inputs))
    fast, replayed = (torch.autograd.grad(total, inputs, retain_graph=True, create_graph=way) for way in (False, True))
    for one, other in zip(fast, replayed, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "name", [name for name in [*activations.NAMED, *NUMBERED] if name not in ("hard_shrink", "sparsemax")]
)
def test_every_activation_can_be_differentiated_twice(name):
    x = torch.linspace(-2.9, 3.1, 12, dtype=torch.float64).view(3, 4).requires_grad_()
    function = activations.activation(name, "LSTM", "activation").function
    assert torch.autograd.gradcheck(function, (x,))
    assert torch.autograd.gradgradcheck(function, (x,))


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_slopes(name):
    one = activations.activation(name, "LSTM", "activation")
    x = torch.linspace(-7.93, 7.87, 60, dtype=torch.float64, requires_grad=True)
    y = one.function(x)
    grad = torch.randn(60, dtype=torch.float64)
    kept = grad.clone()
    (expected,) = torch.autograd.grad(y, x, grad)
    with torch.no_grad():
        assert torch.allclose(one.slope(grad, y), expected, rtol=1e-7, atol=1e-9)
        assert torch.equal(grad, kept)
        if one.slope_into is not None:
            whole = torch.empty(60, 2, dtype=torch.float64)  # a part of the columns, as in the loops
            one.slope_into(grad, y, whole[:, 0])
            assert torch.allclose(whole[:, 0], expected, rtol=1e-7, atol=1e-9)
            assert torch.equal(grad, kept)
        if one.in_place is not None:
            in_place = x.clone()
            one.in_place(in_place)
            assert torch.allclose(in_place, y, atol=1e-15)


def test_gradient_penalty():
    """The second derivative of a weight that enters by the recurrent product only must not go missing."""
    layer = LSTM(3, 4, activation="relu", dtype=torch.float64)
    reference = copy.deepcopy(layer)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    found = []
    for one, transform in ((layer, False), (reference, True)):
        z = x.clone().requires_grad_()
        output = one(z)[0] if not transform else plain_output(one, z)
        (slope,) = torch.autograd.grad(output.sum(), z, create_graph=True)
        slope.square().sum().backward()
        found.append([parameter.grad for parameter in one.parameters()])
    for met, expected in zip(*found, strict=True):
        assert met is not None
        assert torch.allclose(met, expected, atol=1e-12)


def plain_output(layer, x):
    zeros = torch.zeros(x.shape[1], layer.hidden_size, dtype=x.dtype)
    return loops.plain(layer._cell, x, (zeros, zeros), layer._weights(0, x.dtype), loops.Run())[0]


def test_tied_weights_are_counted_once():
    layer = LSTM(4, 4, num_layers=2, activation="relu", bias=False, dtype=torch.float64)
    layer.weight_ih_l1, layer.weight_hh_l1 = layer.weight_ih_l0, layer.weight_hh_l0
    x = torch.randn(4, 2, 4, dtype=torch.float64)
    once = torch.autograd.grad(layer(x)[0].sum(), [layer.weight_hh_l0])[0]
    twice = torch.autograd.grad(layer(x)[0].sum(), [layer.weight_hh_l0], create_graph=True)[0]
    assert torch.allclose(once, twice, atol=1e-12)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own, in forward mode
def test_function_transforms_and_retained_graphs():
    layer = LSTM(3, 4, activation="relu")
    x = torch.randn(5, 2, 3)

    def loss(weights, one):
        return torch.func.functional_call(layer, weights, (one,))[0].square().sum()

    weights = {name: parameter.detach() for name, parameter in layer.named_parameters()}
    transformed = torch.func.grad(loss)(weights, x)
    total = layer(x)[0].square().sum()
    total.backward(retain_graph=True)
    first = {name: parameter.grad.clone() for name, parameter in layer.named_parameters()}
    total.backward()
    for name, parameter in layer.named_parameters():
        assert torch.allclose(transformed[name], first[name], atol=1e-5)
        assert torch.allclose(parameter.grad, 2 * first[name])
    each = torch.func.vmap(lambda one: layer(one)[0])(x.transpose(0, 1))
    assert torch.allclose(each.transpose(0, 1), layer(x)[0], atol=1e-6)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        assert torch.autograd.forward_ad.unpack_dual(layer(dual)[0]).tangent is not None


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.usefixtures("arithmetic_in_use")
def test_frozen_parts(cell):
    layer = LAYERS[cell](3, 4, activation="softsign", dtype=torch.float64)
    full = torch.autograd.grad(layer(torch.ones(5, 2, 3, dtype=torch.float64))[0].sum(), list(layer.parameters()))
    for frozen, parameter in enumerate(layer.parameters()):
        parameter.requires_grad_(False)
        layer.zero_grad()
        layer(torch.ones(5, 2, 3, dtype=torch.float64))[0].sum().backward()
        for number, (one, expected) in enumerate(zip(layer.parameters(), full, strict=True)):
            assert one.grad is None if number == frozen else torch.allclose(one.grad, expected)
        parameter.requires_grad_(True)


@pytest.mark.parametrize("steps", [6, 20])
@pytest.mark.parametrize("rows", [1, 64])
def test_without_onednn_and_the_private_guard(monkeypatch, rows, steps):
    layer = LSTM(16, 128, activation="relu")
    x = torch.randn(steps, rows, 16)

    def results():
        layer.zero_grad()
        with torch.no_grad():
            inferred = layer(x)[0]
        output = layer(x)[0]
        output.square().sum().backward()
        return [inferred, output, *(parameter.grad for parameter in layer.parameters())]

    before = results()
    monkeypatch.setattr(products, "_linear", None)
    monkeypatch.setattr(kernels.fast, "quiet", torch.no_grad)
    for met, expected in zip(results(), before, strict=True):
        assert torch.allclose(met, expected, rtol=1e-4, atol=1e-4)
        assert not met.is_inference()


# --------------------------------------------------------------------------------- what a fast path must not be seen by

GENERAL = [
    ("lstm", {"activation": "relu"}),
    ("gru", {"activation": "softsign"}),
    ("gru", {"reset": "before"}),
    ("rnn", {"activation": "softsign"}),
]


@pytest.fixture(params=GENERAL, ids=lambda one: "-".join([one[0], *one[1].values()]))
def general(request, arithmetic_in_use):
    """A layer that torch.nn does not have."""
    cell, options = request.param
    return LAYERS[cell](3, 4, **options)


def of_weights(layer, x, **given):
    return torch.autograd.grad(layer(x, **given)[0].square().sum(), list(layer.parameters()))


def assert_all_close(met, expected):
    for one, other in zip(met, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", LAYERS)
def test_each_arithmetic_is_met(monkeypatch, cell, arithmetic_in_use):
    used = []
    for name in ("ByNumPy", "ByTorch"):
        kind = getattr(arithmetic, name)
        monkeypatch.setattr(kind, "empty", lambda *a, name=name, empty=kind.empty: used.append(name) or empty(*a))
    of_weights(LAYERS[cell](3, 4, activation="softsign"), X)
    by_numpy = arithmetic_in_use == "numpy" and cell != "rnn"
    assert used.count("ByTorch") == (0 if by_numpy else len(used))
    assert used


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_an_empty_batch(general, rate):
    general.input_dropout = general.recurrent_dropout = rate
    x = torch.zeros(5, 0, 3, requires_grad=True)
    for dtype in (torch.float32, torch.float16):
        with torch.no_grad():
            assert general.to(dtype)(x.to(dtype))[0].shape == (5, 0, 4)
        output, last = general(x.to(dtype))
        assert flat((output, last))[1].shape == (1, 0, 4)
        assert not any(grad.any() for grad in torch.autograd.grad(output.sum(), list(general.parameters())))


@pytest.mark.parametrize("zero", [False, True])
def test_a_mask_changed_before_the_way_back_is_an_error(general, zero):
    general.zero_output_for_mask = zero
    mask = torch.arange(5)[:, None] < torch.tensor([5, 2])
    output = general(X + 1, mask=mask)[0]
    mask.logical_not_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()
    array = np.arange(5)[:, None] < np.array([5, 2])
    expected = of_weights(general, X + 1, mask=array)
    output = general(X + 1, mask=array)[0]
    array[:] = True
    assert_all_close(torch.autograd.grad(output.square().sum(), list(general.parameters())), expected)


def test_what_the_way_back_needs_must_not_change(general):
    state = torch.zeros(1, 2, 4)
    hx = (state, state.clone()) if general.cell == "lstm" else state
    x = X.clone()
    for change in (lambda _: x.add_(1), lambda _: state.add_(1), lambda output: output.add_(1)):
        output = general(x, hx)[0]
        change(output)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.sum().backward()


@pytest.mark.parametrize("grad", [False, True])
def test_results_may_be_written_into(general, grad):
    x = torch.randn(5, 2, 3)
    expected = of_weights(general, x)
    with torch.set_grad_enabled(grad):
        output, last = general(x)
        before = output.detach().clone()
        for part in last if general.cell == "lstm" else [last]:
            part.data.zero_()
        assert torch.equal(output, before)
        if grad:
            assert_all_close(torch.autograd.grad(output.square().sum(), list(general.parameters())), expected)
        general.return_sequences = False
        output, last = general(x)
        before = flat((output, last))[1].detach().clone()
        output.data.zero_()
        assert torch.equal(flat((output, last))[1], before)


@pytest.mark.parametrize("sequences", [False, True])
def test_kept_states_are_the_layers_own(general, sequences):
    general.stateful, general.return_sequences = True, sequences
    x = torch.randn(5, 2, 3)
    general(x)
    expected = general(x)[0]
    general.reset_state()
    for part in flat(general(x)):
        part.data.zero_()
    assert torch.equal(general(x)[0], expected)


def test_no_two_gradients_share_memory(general):
    x = torch.randn(5, 2, 3, requires_grad=True)
    state = tuple(torch.randn(1, 2, 4, requires_grad=True) for _ in range(1 + (general.cell == "lstm")))
    results = flat(general(x, state if general.cell == "lstm" else state[0]))
    given = [torch.ones_like(result) for result in results]
    grads = torch.autograd.grad(results, [x, *state, *general.parameters()], given)
    assert len({grad.untyped_storage().data_ptr() for grad in grads}) == len(grads)
    assert all((grad == 1).all() for grad in given)


def test_numbers_that_torch_holds_in_another_form(general):
    """What is negative by a note, or zero without memory, NumPy cannot see as it is."""
    x, states = torch.randn(5, 2, 3), torch.randn(1, 2, 4)

    def noted(tensor):
        return torch.complex(torch.zeros_like(tensor), -tensor).conj().imag

    def both(state):
        return (state, state) if general.cell == "lstm" else state

    assert noted(x).is_neg()
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            output = general(noted(x), both(noted(states)))[0]
            assert torch.allclose(output, general(x, both(states))[0], atol=1e-6)
    weights = list(general.parameters())
    expected = torch.autograd.grad(output, weights, torch.ones_like(output), retain_graph=True)
    assert_all_close(torch.autograd.grad(output, weights, noted(torch.ones_like(output)), retain_graph=True), expected)
    zeros = torch.autograd.grad(output, weights, torch._efficientzerotensor(output.shape))
    assert not any(grad.any() for grad in zeros)


class Wrapped(torch.Tensor):
    """A tensor without memory of its own, as those of other libraries may be."""

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype, requires_grad=held.requires_grad)

    def __init__(self, held):
        self.held = held.detach()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        args, kwargs = torch.utils._pytree.tree_map(unwrapped, (args, kwargs or {}))
        wrap = lambda one: Wrapped(one) if isinstance(one, torch.Tensor) else one  # noqa: E731
        return torch.utils._pytree.tree_map(wrap, function(*args, **kwargs))


def unwrapped(value):
    return value.held if isinstance(value, Wrapped) else value


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("where", ["input", "state", "weight_hh_l0", "bias_ih_l0", "gradient"])
def test_other_kinds_of_tensors(general, where, grad):
    x, state = torch.randn(5, 2, 3), torch.randn(1, 2, 4)
    expected = general(x, (state, state) if general.cell == "lstm" else state)[0]
    weights = list(general.parameters())
    slopes = torch.autograd.grad(expected.sum(), weights)
    if hasattr(general, where):
        setattr(general, where, nn.Parameter(Wrapped(getattr(general, where).detach())))
    x, state = (Wrapped(x) if where == "input" else x), (Wrapped(state) if where == "state" else state)
    with torch.set_grad_enabled(grad):
        output = general(x, (state, state) if general.cell == "lstm" else state)[0]
    assert torch.allclose(unwrapped(output.detach()), expected, atol=1e-6)
    if grad and where == "gradient":
        found = torch.autograd.grad(output, weights, Wrapped(torch.ones_like(expected)))
        assert_all_close(map(unwrapped, found), slopes)


def test_gradients_by_the_batch(general):
    """vmap over the way back alone, as ``torch.autograd.functional.jacobian`` does."""
    x = torch.randn(5, 2, 3, requires_grad=True)
    output = general(x)[0]
    many = torch.randn(3, *output.shape)
    (met,) = torch.autograd.grad(output, x, many, is_grads_batched=True, retain_graph=True)
    for one, grad in zip(met, many, strict=True):
        assert torch.allclose(one, torch.autograd.grad(output, x, grad, retain_graph=True)[0], atol=1e-6)


def test_operations_that_are_counted_on_the_way_back_alone(general):
    output = general(X)[0]
    with FlopCounterMode(display=False) as counted:
        output.sum().backward()
    assert counted.get_total_flops() > 0


@pytest.mark.parametrize("sequences", [True, False])
def test_a_jacobian_of_all_at_once(general, sequences):
    general.return_sequences, general.return_state = sequences, False
    x = torch.randn(4, 2, 3)
    met, expected = (torch.autograd.functional.jacobian(general, x, vectorize=vectorize) for vectorize in (True, False))
    assert torch.allclose(met, expected, atol=1e-6)


def test_a_mask_under_vmap_and_without_numbers(general):
    x, mask = torch.randn(5, 2, 3), torch.arange(5)[:, None] < torch.tensor([5, 2])
    each = torch.func.vmap(lambda one, counts: general(one, mask=counts)[0], in_dims=1, out_dims=1)(x, mask)
    assert torch.allclose(each, general(x, mask=mask)[0], atol=1e-6)
    with FakeTensorMode(allow_non_fake_inputs=True):
        zeros = torch.zeros(5, 2, 3)
        assert general(zeros, mask=zeros[..., 0] == 0)[0].shape == (5, 2, 4)
        assert general(zeros, lengths=torch.ones(2, dtype=torch.int64))[0].shape == (5, 2, 4)
    general.to("meta")
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            assert general(x.to("meta"), mask=mask.to("meta"))[0].is_meta


def test_read_only_masks_and_lengths(general):
    mask = np.broadcast_to(np.arange(5)[:, None] < 3, (5, 2))
    lengths = np.broadcast_to(np.array([3]), (2,))
    assert torch.equal(general(X, mask=mask)[0], general(X, lengths=lengths)[0])


def test_autocast_around_the_way_back(general):
    x = torch.randn(5, 2, 3, requires_grad=True)
    expected = of_weights(general, x)
    for create in (False, True):
        total = general(x)[0].square().sum()
        with torch.autocast("cpu", torch.bfloat16):
            met = torch.autograd.grad(total, list(general.parameters()), create_graph=create)
        assert_all_close(met, expected)


def test_numbers_out_of_range_make_no_noise(general):
    for number in (torch.nan, torch.inf, -torch.inf, 3e38, 1e-42):
        x = torch.randn(5, 2, 3)
        x[2, 0, 0] = number
        with np.errstate(all="raise"):
            of_weights(general, x)
            of_weights(general, x, mask=torch.arange(5)[:, None] < torch.tensor([5, 2]))
            with torch.no_grad():
                general(x)


@pytest.mark.usefixtures("arithmetic_in_use")
@pytest.mark.parametrize(
    "options", [{"cell_clip": 0.1}, {"proj_size": 2}, {"proj_size": 2, "recurrent_dropout": 0.5}], ids=str
)
def test_options_of_fast_inference(options):
    layer = LSTM(3, 4, activation="relu", **options)
    x = torch.randn(5, 2, 3)
    results = []
    for grad in (False, True):
        torch.manual_seed(1)
        with torch.set_grad_enabled(grad):
            results.append(flat(layer(x)))
    assert_all_close(*results)


def test_several_threads_in_one_layer(general):
    many = [torch.randn(5, 2, 3) for _ in range(8)]
    expected = [of_weights(general, x) for x in many]
    with ThreadPoolExecutor(4) as pool:
        for met, other in zip(pool.map(lambda x: of_weights(general, x), many * 5), expected * 5, strict=True):
            assert_all_close(met, other)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_and_tensors_saved_elsewhere(general, reentrant):
    x = torch.randn(5, 2, 3, requires_grad=True)
    expected = of_weights(general, x)
    checkpoint(lambda one: general(one)[0], x, use_reentrant=reentrant).square().sum().backward()
    assert_all_close([parameter.grad for parameter in general.parameters()], expected)
    turned = (lambda tensor: tensor.double().mT.contiguous(), lambda tensor: tensor.float().mT)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: turned[0](tensor) if tensor.ndim > 1 else tensor,
        lambda tensor: turned[1](tensor) if tensor.ndim > 1 else tensor,
    ):
        total = general(x)[0].square().sum()
    assert_all_close(torch.autograd.grad(total, list(general.parameters())), expected)


# ------------------------------------------------------------------------------------------------------ low precision


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"activation": "relu"}, {"activation": "softmax", "bidirectional": True}])
def test_low_precision(cell, dtype, options):
    layer = LAYERS[cell](3, 4, **options)
    x = torch.randn(6, 2, 3)
    expected = layer(x)[0]
    low = copy.deepcopy(layer).to(dtype)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            output, _ = low(x.to(dtype))
        assert output.dtype == dtype
        assert torch.allclose(output.float(), expected, atol=0.05)
    output.sum().backward()
    assert all(parameter.grad.dtype == dtype for parameter in low.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                output = layer(x)[0]
            assert output.dtype == torch.bfloat16
            assert torch.allclose(output.float(), expected, atol=0.05)
        output.float().sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in layer.parameters())


# ------------------------------------------------------------------------------------------------------------ dropout


@pytest.mark.parametrize("cell", LAYERS)
def test_a_seed_gives_the_same_masks_between_layers_however_it_is_run(cell):
    layer = LAYERS[cell](3, 4, 2, dropout=0.5, batch_first=True, zero_output_for_mask=True)
    x, mask, found = torch.randn(2, 4, 3), torch.tensor([[1, 1, 0, 1], [1, 0, 1, 1]]), []
    for grad in (True, False):
        torch.manual_seed(0)
        with torch.set_grad_enabled(grad):
            found.append(layer(x, mask=mask)[0])
    assert torch.allclose(*found, atol=1e-6)


@pytest.mark.parametrize("cell", LAYERS)
def test_dropout_masks_last_for_the_sequence(cell):
    layer = LAYERS[cell](8, 16, input_dropout=0.5, recurrent_dropout=0.25)
    x = torch.zeros(1, 300, 8)
    one, two = layer._draw_dropout(x)
    gates = loops.GATES[cell]
    assert one.shape == (gates, 300, 8)
    assert two.shape == (gates, 300, 16)
    assert sorted(one.unique().tolist()) == [0.0, 2.0]
    assert sorted(two.unique().tolist()) == pytest.approx([0.0, 4 / 3])
    assert abs(float(two.mean()) - 1) < 0.05
    layer.eval()
    assert layer._draw_dropout(x) == (None, None)
    assert torch.equal(layer(x)[0], layer(x)[0])


def test_one_mask_for_all_gates_without_recurrent_dropout():
    x = torch.zeros(1, 2, 8)
    assert len(LSTM(8, 4, input_dropout=0.5)._draw_dropout(x)[0]) == 1
    assert len(LSTM(8, 4, input_dropout=0.5, dropout_masks="gate")._draw_dropout(x)[0]) == 4
    assert len(LSTM(8, 4, recurrent_dropout=0.5, dropout_masks="layer")._draw_dropout(x)[1]) == 1


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_input_dropout_is_the_same_at_every_step(activation):
    """With identity weights and a constant input, what comes out of a linear layer is 0 or 2 at all steps."""
    layer = RNN(6, 6, bias=False, activation="linear", input_dropout=0.5)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.eye(6))
        layer.weight_hh_l0.zero_()
    output = layer(torch.ones(9, 20, 6))[0]
    assert (output == output[:1]).all()
    assert sorted(output.unique().tolist()) == [0.0, 2.0]
    general = LSTM(6, 4, activation=activation, input_dropout=0.5)
    torch.manual_seed(3)
    met = general(torch.ones(5, 2, 6))[0]
    torch.manual_seed(3)
    mask = nn.functional.dropout(torch.ones(1, 2, 6), 0.5)
    expected = general.eval()(torch.ones(5, 2, 6) * mask)[0]
    assert torch.allclose(met, expected, atol=1e-6)


@pytest.mark.parametrize("reset", ["after", "before"])
def test_recurrent_dropout_against_numbers(reset):
    layer = GRU(2, 3, recurrent_dropout=0.5, reset=reset, bias="single", dtype=torch.float64)
    x = torch.randn(4, 2, 2, dtype=torch.float64)
    torch.manual_seed(7)
    output = layer(x)[0]
    torch.manual_seed(7)
    masks = layer._draw_dropout(x)[1]
    kernels_, recurrent = layer.weight_ih_l0.view(3, 3, 2), layer.weight_hh_l0.view(3, 3, 3)
    bias, h = layer.bias_ih_l0.view(3, 3), torch.zeros(2, 3, dtype=torch.float64)
    for t in range(4):
        wx = [x[t] @ kernels_[gate].T + bias[gate] for gate in range(3)]
        r, z = (torch.sigmoid(wx[gate] + (h * masks[gate]) @ recurrent[gate].T) for gate in range(2))
        kept = h * masks[2]
        n = torch.tanh(wx[2] + ((r * kept) @ recurrent[2].T if reset == "before" else r * (kept @ recurrent[2].T)))
        h = z * h + (1 - z) * n
        assert torch.allclose(output[t], h)


# ------------------------------------------------------------------------------------------- life of a module


@pytest.mark.parametrize("cell", LAYERS)
def test_copies_pickles_and_moves(cell):
    layer = LAYERS[cell](3, 4, num_layers=2, activation="relu", bias="single", bidirectional=True, merge="ave")
    x = torch.randn(5, 2, 3)
    expected = layer(x)[0]
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    for other in (
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(buffer, weights_only=False),
        layer.double().float(),
    ):
        assert torch.equal(other(x)[0], expected)
        assert repr(other) == repr(layer)
    double = copy.deepcopy(layer).to(torch.float64)
    assert torch.allclose(double(x.double())[0].float(), expected, atol=1e-5)
    assert "activation='relu'" in repr(layer)
    assert "merge='ave'" in repr(layer)
    state = torch.nn.utils.parametrizations.weight_norm(copy.deepcopy(layer), "weight_hh_l0")
    assert torch.allclose(state(x)[0], expected, atol=1e-6)


def test_peephole_and_bias_names():
    full = LSTM(3, 4, peepholes="full", bias="single", bidirectional=True, proj_size=2)
    shapes = {name: tuple(parameter.shape) for name, parameter in full.named_parameters()}
    assert shapes["weight_ch_l0"] == (12, 4)
    assert shapes["weight_hr_l0_reverse"] == (2, 4)
    assert "bias_hh_l0" not in shapes
    assert LSTM(3, 4, peepholes=True).weight_ch_l0.shape == (12,)
    assert LSTM(3, 4, bias="none").bias is False
    assert LSTM(3, 4, bias="dual").bias is True


def test_a_module_as_activation_is_a_child():
    layer = RNN(3, 4, activation=nn.PReLU())
    assert "activation.weight" in layer.state_dict()
    layer(torch.randn(5, 2, 3))[0].sum().backward()
    assert layer.activation.weight.grad is not None
    assert torch.equal(copy.deepcopy(layer)(torch.ones(5, 2, 3))[0], layer(torch.ones(5, 2, 3))[0])
    assert RNN(3, 4, activation=torch.tanh)._has_kernel


@pytest.mark.parametrize("cell", LAYERS)
def test_export(cell):
    layer = LAYERS[cell](3, 4, activation="softsign").eval()
    x = torch.randn(5, 2, 3)
    exported = torch.export.export(layer, (x,)).module()
    assert torch.allclose(exported(x)[0], layer(x)[0], atol=1e-6)


def test_importing_the_package_loads_no_torch():
    import subprocess
    import sys

    code = "import gatewise_torch, sys; print('torch' in sys.modules, gatewise_torch.LSTM, 'torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.startswith("False <class 'gatewise_torch.modules.LSTM'> True")
    import gatewise_torch

    assert {"LSTM", "GRU", "RNN"} <= set(dir(gatewise_torch))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        gatewise_torch.nothing  # noqa: B018


# --------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "met", "where", "hint"),
    [
        ({"activation": "rleu"}, "activation='rleu' is unknown.", "LSTM: activation is", "Did you mean 'relu'?"),
        ({"recurrent_activation": "glu"}, "'glu' cannot be computed", "LSTM: recurrent", "halves the last axis"),
        ({"activation": "threshold"}, "'threshold' cannot", "LSTM: activation is", "no default"),
        ({"activation": 3}, "activation=3 is neither", "LSTM: activation", "callable"),
        ({"merge": "add"}, "merge='add' is unknown.", "LSTM: merge is one of 'concat'", "Use one"),
        ({"bias": "twice"}, "bias='twice' is unknown.", "LSTM: bias is one of", "Use one"),
        ({"peepholes": "half"}, "peepholes='half'", "LSTM: peepholes is one of False, True, 'full'.", "Use one"),
        ({"hidden_size": 0}, "hidden_size=0 is no size.", "LSTM: hidden_size is a whole number from 1.", "integer"),
        ({"cell_clip": -1.0}, "cell_clip=-1.0", "None or a number above 0", "Change cell_clip"),
        ({"recurrent_dropout": 1.5}, "recurrent_dropout=1.5", "from 0 to 1", "Change"),
        ({"stateful": 1}, "stateful=1", "LSTM: stateful is one of False, True.", "Use one"),
        ({"dtype": "float32"}, "dtype='float32' is no type", "LSTM: its weights are torch.float32", "one of these"),
        ({"dtype": torch.int64}, "dtype=torch.int64 is no type", "LSTM: its weights", "leave it out"),
        ({"device": "nowhere"}, "device='nowhere' is none", "LSTM: device", "'cuda:0'"),
        ({"activation": nn.Tanh}, "activation=Tanh is a class.", "LSTM: activation", "Give an object of it: Tanh()."),
        ({"return_sequence": True}, "LSTM has no option 'return_sequence'.", "LSTM: its", "mean 'return_sequences'?"),
        (
            {"merge": None, "bidirectional": True, "num_layers": 2},
            "merge=None with num_layers=2.",
            "LSTM: a second layer reads one output",
            "Choose a merge",
        ),
    ],
)
def test_wrong_options(options, met, where, hint):
    with pytest.raises(SpecError) as caught:
        LSTM(**{"input_size": 3, "hidden_size": 4, **options})
    assert met in caught.value.met
    assert where in caught.value.where
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "value"), [("recurrent_dropout", 2.0), ("dropout", -1), ("dropout_masks", "bad"), ("return_state", 3)]
)
def test_what_may_be_changed_later_is_checked_then(name, value):
    layer = LSTM(3, 4)
    with pytest.raises(SpecError, match=f"{name}=.*\n.*LSTM: {name} is"):
        setattr(layer, name, value)
    assert getattr(layer, name) == getattr(LSTM(3, 4), name)


X = torch.zeros(5, 2, 3)


@pytest.mark.parametrize(
    ("arguments", "met", "where", "hint"),
    [
        (((X[..., :2]),), "input has shape (5, 2, 2).", "LSTM(3, 4", "built for other inputs"),
        (((torch.zeros(2, 3, 5)),), "input has shape (2, 3, 5).", "with 3 features", "another order"),
        (((X[None]),), "input has shape (1, 5, 2, 3).", "(time, batch, features)", "4 axes"),
        (((X[:0]),), "input has shape (0, 2, 3).", "at least one step", "leave it out"),
        (((X.double()),), "input is torch.float64, the weights are torch.float32.", "one type", "layer.to"),
        ((X.numpy(),), "input is a ndarray.", "LSTM(3, 4", "Give a tensor"),
        ((X, X), "hx is a Tensor.", "a pair (h, c)", "the form in which"),
        ((X, (X,)), "hx is a tuple of 1.", "a pair (h, c)", "the form in which"),
        (
            (X, (torch.zeros(1, 3, 4), torch.zeros(1, 2, 4))),
            "hx (h) has shape (1, 3, 4).",
            "= (1, 2, 4)",
            "batch_first",
        ),
        ((X, (torch.zeros(1, 2, 4), torch.zeros(2, 4))), "hx (c) has shape (2, 4).", "= (1, 2, 4)", "batch_first"),
        ((X, (torch.zeros(1, 2, 4).double(),) * 2), "hx (h) is torch.float64", "one type", "h.to(torch.float32)"),
        (({"mask": torch.ones(2, 5)}), "mask has shape (2, 5).", "(time, batch) = (5, 2)", "transpose"),
        (({"mask": torch.ones(5, 3)}), "mask has shape (5, 3).", "(time, batch) = (5, 2)", "one entry for each step"),
        (({"lengths": [1, 2, 3]}), "lengths has shape (3,)", "(batch,) = (2,)", "one a sequence"),
        (((X.to("meta")),), "input is on meta, the weights are on cpu.", "one device", "input.to('cpu')"),
        ((X, (torch.zeros(1, 2, 4, device="meta"),) * 2), "hx (h) is on meta", "one device", "h.to('cpu')"),
        ((X.to_sparse(),), "input is a tensor in torch.sparse_coo.", "LSTM(3, 4", "to_dense()"),
        (
            (PackedSequence(X[0], torch.tensor([3])),),
            "input has 2 rows, its batch_sizes add up to 3",
            "rows",
            "pack",
        ),
        (({"mask": "abc"}), "mask is a str that makes no tensor", "each step", "a list of numbers"),
        (({"mask": [[1, 0], [1]]}), "mask is a list that makes no tensor", "each step", "a list of numbers"),
        (({"mask": torch.ones(5, 2) * 1j}), "mask is complex.", "not 0", "0"),
        (({"mask": torch.full((5, 2), torch.nan)}), "mask holds NaN.", "not 0", "divided by 0"),
        (({"lengths": [1, None]}), "lengths is a list that makes no tensor", "(batch,) = (2,)", "a list of numbers"),
        (({"lengths": [1, 10**30]}), "lengths is a list that makes no tensor", "(batch,) = (2,)", "a list of numbers"),
        (({"lengths": torch.ones(2) * 1j}), "torch.complex64", "whole numbers", "one a sequence"),
        (({"lengths": [6, 2]}), "lengths holds 6, the input has 5 steps.", "from 0 to 5", "another batch"),
        (({"lengths": [2, 2], "mask": torch.ones(5, 2)}), "both given", "lengths are a mask", "Give one"),
    ],
)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_wrong_arguments(activation, arguments, met, where, hint):
    layer = LSTM(3, 4, activation=activation)
    given, named = ((X,), arguments) if isinstance(arguments, dict) else (arguments, {})
    given = given if isinstance(given, tuple) else (given,)
    with pytest.raises(ShapeError) as caught:
        layer(*given, **named)
    assert met in caught.value.met
    assert where in caught.value.where
    assert hint in caught.value.hint


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_a_nested_tensor(activation, layout):
    nested = torch.nested.nested_tensor([X[:, 0], X[:2, 0]], layout=layout)
    with pytest.raises(ShapeError, match=r"input is nested\.\n.*\n.*pad and give lengths"):
        LSTM(3, 4, activation=activation)(nested)


def test_a_mask_beside_a_packed_sequence():
    with pytest.raises(ShapeError, match=r"mask was given beside a PackedSequence.*\n.*\n.*Give only one"):
        LSTM(3, 4)(pack_padded_sequence(X, [5, 2]), mask=torch.ones(5, 2))


@pytest.mark.parametrize(
    ("function", "met", "hint"),
    [
        (lambda x: x.detach(), "has no gradient", "no_grad"),
        (lambda x: torch.tensor(np.tanh(x.numpy())), "failed: RuntimeError", "torch operations"),
        (lambda x: x[:, :1], "made shape (2, 1) of shape (2, 4)", "keeps the shape"),
        (lambda x: x.double(), "made torch.float64 of torch.float32", "y.to(x.dtype)"),
    ],
)
@pytest.mark.parametrize("option", ["activation", "recurrent_activation"])
def test_callables_that_cannot_be(option, function, met, hint):
    layer = LSTM(3, 4, **{option: function})
    with pytest.raises(SpecError) as caught:
        layer(X)
    assert f"{option}=<function" in caught.value.met
    assert met in caught.value.met
    assert "LSTM: " + option in caught.value.where
    assert hint in caught.value.hint
    if "no_grad" in hint or "torch operations" in hint:  # what fails with gradients alone
        with torch.no_grad():
            assert layer(X)[0].shape == (5, 2, 4)


@pytest.mark.parametrize("function", [nn.ELU(inplace=True), torch.tanh_])
@pytest.mark.parametrize(("cell", "options"), [("lstm", {}), ("gru", {"reset": "before"}), ("gru", {}), ("rnn", {})])
@pytest.mark.parametrize("grad", [False, True])
def test_a_callable_may_write_into_its_argument(cell, options, function, grad):
    layer = LAYERS[cell](3, 4, activation=function, **options)
    known = LAYERS[cell](3, 4, activation="tanh" if function is torch.tanh_ else "elu", **options)
    known.load_state_dict(layer.state_dict())
    x = torch.randn(5, 2, 3)
    with torch.set_grad_enabled(grad):
        for met, expected in zip(flat(layer(x)), flat(known(x)), strict=True):
            assert torch.allclose(met, expected, atol=1e-6)


def test_a_callable_is_called_gate_by_gate():
    seen = []

    def look(x):
        seen.append(x.shape)
        return torch.sigmoid(x)

    _, native = pair("lstm", dtype=torch.float32)
    other = LSTM(3, 4, recurrent_activation=look)
    other.load_state_dict(native.state_dict())
    assert torch.allclose(other(X + 1)[0], native(X + 1)[0], atol=1e-6)
    assert set(seen) == {(2, 4)}
