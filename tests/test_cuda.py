"""On a GPU (`make test-gpu`): layers and models compute and learn what they do on a CPU, without a warning."""

from __future__ import annotations

import copy
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gatewise as gw
from gatewise.core import between
from gatewise.core import spec as specs
from gatewise.core.network import Layer, Network, Rule

torch = pytest.importorskip("torch")

import gatewise_torch  # noqa: E402
from gatewise_torch import kernels  # noqa: E402
from gatewise_torch.model import Model  # noqa: E402
from test_keras_backends import PORTS  # noqa: E402
from test_torch_layers import (  # noqa: E402
    COMPUTED,
    LAYERS,
    MASKS,
    NATIVE,
    call,
    draw_mask,
    draw_options,
    draw_states,
    flat,
    make,
    pair,
)
from torch.nn.utils.rnn import pack_padded_sequence  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU that torch can use"),
]


@pytest.fixture(autouse=True)
def all_digits():
    """Leave float32 its 24 bits, of which cuDNN keeps 11 otherwise."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def results(layer, x, state, mask, grad, **given):
    """Return output, states and, where wanted, the gradients of input, states and weights; on the CPU."""
    device = next(layer.parameters()).device
    x = torch.as_tensor(x, device=device).requires_grad_(grad)
    state = None if state is None else tuple(part.detach().to(device).requires_grad_(grad) for part in state)
    with torch.set_grad_enabled(grad):
        output, last = call(layer, x, state, mask, **given)
    made = [*(output if isinstance(output, tuple) else (output,)), *last]
    found = list(made)
    if grad:
        generator = np.random.default_rng(0)
        total = sum((torch.as_tensor(generator.normal(size=one.shape), device=device) * one).sum() for one in made)
        found += torch.autograd.grad(total, [x, *(state or ()), *layer.parameters()], allow_unused=True)
    return [None if one is None else one.detach().cpu() for one in found]


def of_weights(module):
    return [each.detach().cpu() for each in module.parameters()]


def distance(met, expected):
    there = expected.isfinite()
    assert torch.equal(met.isfinite(), there)
    return float((met[there] - expected[there]).abs().max()) if there.any() else 0.0


def assert_equal(met, expected, tolerance, nudged=None):
    """Compare tensors; ``nudged`` are those of an input that differs in its last digit, which some layers magnify."""
    assert len(met) == len(expected)
    for one, other, like in zip(met, expected, nudged or expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            scale = max(1.0, float(other[other.isfinite()].abs().max())) if other.isfinite().any() else 1.0
            assert distance(one, other) <= tolerance * scale + 1e3 * distance(like, other)


@pytest.mark.parametrize("seed", range(150))
@pytest.mark.parametrize("grad", [False, True])
def test_a_layer(seed, grad):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    cell, shared, own = draw_options(rng)
    # Far below zero, squareplus is the last digit of a hypotenuse, which a GPU rounds otherwise; it is tested below.
    shared = {name: "softplus" if value == "squareplus" else value for name, value in shared.items()}
    layer, _ = make(cell, shared, own)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(0.5)  # of what explodes no digit is alike
    batch, time = int(rng.integers(1, 5)), int(rng.integers(3, 7))
    x = rng.normal(size=(batch, time, 3))
    state = draw_states(layer, batch) if rng.random() < 0.6 else None
    mask = None
    if rng.random() < 0.5:
        mask = draw_mask(rng.choice(MASKS), batch, time, rng)
        layer.zero_output_for_mask = bool(rng.random() < 0.5)
    expected, nudged = (results(layer, given, state, mask, grad) for given in (x, np.nextafter(x, np.inf)))
    assert_equal(results(layer.cuda(), x, state, mask, grad), expected, 1e-10, nudged)


@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize("cell", LAYERS)
def test_an_activation(cell, name):
    for place in ("activation",) if cell == "rnn" else ("activation", "recurrent_activation"):
        layer, _ = make(cell, {place: name}, {"num_layers": 1, "batch_first": True})
        x = np.random.default_rng(1).normal(size=(3, 5, 3)) * 3
        for grad in (False, True):
            expected, nudged = (results(layer.cpu(), given, None, None, grad) for given in (x, np.nextafter(x, np.inf)))
            assert_equal(results(layer.cuda(), x, None, None, grad), expected, 1e-10, nudged)


@pytest.mark.parametrize("options", [{}, {"activation": "relu"}, {"recurrent_activation": "hard_sigmoid"}])
@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_types(cell, options, dtype):
    options = {} if cell == "rnn" and "recurrent_activation" in options else options
    layer, _ = make(cell, options, {"num_layers": 2, "batch_first": True}, 16, 32)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(0.3)  # a relu would let states grow
    x = np.random.default_rng(0).normal(size=(5, 20, 16))
    expected = results(layer, x, None, None, True)
    layer = copy.deepcopy(layer).to("cuda", dtype)
    given = torch.as_tensor(x, dtype=dtype, device="cuda")
    output, _ = layer(given)
    assert output.dtype == dtype
    output.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in layer.parameters())
    tolerance = {torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}[dtype]
    assert_equal([output.detach().cpu().double()], expected[:1], tolerance)
    with torch.no_grad():
        assert_equal([layer(given)[0].cpu().double()], expected[:1], tolerance)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("cell", LAYERS)
def test_autocast(cell, activation):
    layer = LAYERS[cell](16, 32, activation=activation).cuda()
    x = torch.randn(7, 5, 16, device="cuda", requires_grad=True)
    mask = torch.rand(7, 5, device="cuda") < 0.7
    for given in ({}, {"mask": mask}):
        expected = layer(x, **given)[0]
        with torch.autocast("cuda", torch.bfloat16):
            output = layer(x, **given)[0]
        assert output.dtype == torch.bfloat16
        assert_equal([output.detach().float().cpu()], [expected.detach().cpu()], 5e-2)
        output.float().sum().backward()
        assert x.grad.dtype == layer.weight_hh_l0.grad.dtype == torch.float32


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("proj_size", [0, 2])
def test_is_torch_nn(cell, bias, layers, bidirectional, proj_size):
    if proj_size and cell != "lstm":
        return
    options = {"num_layers": layers, "bias": bias, "bidirectional": bidirectional}
    options |= {"proj_size": proj_size} if proj_size else {}
    layer, native = (each.cuda() for each in pair(cell, torch.float32, **options))
    x = torch.randn(5, 4, 3, device="cuda")
    packed = pack_padded_sequence(x, [3, 5, 1, 2], enforce_sorted=False)
    for given in (x, packed):
        for met, expected in zip(flat(layer(given)), flat(native(given)), strict=True):
            assert torch.allclose(met, expected, rtol=0, atol=1e-6)
    for other in (copy.deepcopy(layer), copy.deepcopy(layer).double().float()):
        assert torch.allclose(other(x)[0], native(x)[0], rtol=0, atol=1e-6)
    met, expected = (torch.autograd.grad(one(x)[0].square().sum(), list(one.parameters())) for one in (layer, native))
    assert_equal([one.cpu() for one in met], [one.cpu() for one in expected], 1e-5)


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("rates", [{"recurrent_dropout": 0.4}, {"input_dropout": 0.4}])
@pytest.mark.parametrize("masks", ["gate", "layer"])
def test_dropout_is_differentiated_with_the_masks_that_were_drawn(monkeypatch, cell, rates, masks):
    layer = LAYERS[cell](3, 4, activation="softsign", dropout_masks=masks, dtype=torch.float64, **rates).cuda()
    x = torch.randn(6, 3, 3, dtype=torch.float64, device="cuda")

    def gradients():
        torch.manual_seed(0)
        return [one.cpu() for one in torch.autograd.grad(layer(x)[0].square().sum(), list(layer.parameters()))]

    met = gradients()
    monkeypatch.setattr(kernels.sequence, "can_train", lambda *_: False)
    assert_equal(met, gradients(), 1e-12)


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("activation", ["softsign", "tanh"])
def test_second_derivatives(cell, activation):
    layer = LAYERS[cell](2, 3, activation=activation, bias="single", dtype=torch.float64)
    x = torch.randn(4, 2, 2, dtype=torch.float64)

    def penalty(layer, x):
        x = x.clone().requires_grad_()
        with torch.backends.cudnn.flags(enabled=False):  # which has no second derivatives
            (slope,) = torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)
        return [
            one.cpu() for one in torch.autograd.grad(slope.square().sum(), [layer.weight_ih_l0, layer.weight_hh_l0])
        ]

    expected = penalty(layer, x)
    assert_equal(penalty(layer.cuda(), x.cuda()), expected, 1e-10)


@pytest.mark.filterwarnings("ignore:The AccumulateGrad node's stream does not match")  # torch's capture, of any module
@pytest.mark.parametrize("options", [{"activation": "softsign"}, {"bias": "single"}, {}])
@pytest.mark.parametrize("cell", LAYERS)
def test_in_a_cuda_graph(cell, options):
    """What the README advises: a call that was captured once gives what the layer gives, and its gradients."""
    layer = LAYERS[cell](3, 4, num_layers=2, **options).cuda()
    x, other = (torch.randn(6, 2, 3, device="cuda", requires_grad=True) for _ in range(2))

    def found(call):
        output, last = call(other)
        wanted = [other, *layer.parameters()]
        return [output, *last] if cell == "lstm" else [output, last], torch.autograd.grad(output.square().sum(), wanted)

    expected = found(layer)
    captured = torch.cuda.make_graphed_callables(copy.deepcopy(layer), (x,))
    output, last = captured(other)
    made = [output, *(last if cell == "lstm" else [last])]
    slopes = torch.autograd.grad(output.square().sum(), [other, *captured.parameters()])
    for met, wanted in ((made, expected[0]), (slopes, expected[1])):
        assert_equal([one.detach().cpu() for one in met], [one.detach().cpu() for one in wanted], 1e-5)


# --------------------------------------------------------------------------------------------------------- the product


def draw_network(rng):
    """Draw a model of tokens, in which masks reach layers of each kind, and statistics are kept."""
    pick = lambda *choices: choices[rng.integers(len(choices))]  # noqa: E731
    masks = bool(rng.random() < 0.5)
    wide = specs.LSTM(
        4, 5, bidirectional=True, merge=pick("sum", "ave", "mul"), activation=pick("tanh", "relu"), return_state=False
    )
    return Network.chain(
        between.Input((None,), integer=True),
        specs.Embedding(11, 4, mask_zero=masks),
        wide,
        specs.LayerNorm(5),
        specs.GRU(5, 6, reset=pick("before", "after"), go_backwards=bool(rng.random() < 0.5), return_state=False),
        specs.RNN(6, 4, return_sequences=False, return_state=False),
        specs.BatchNorm(4),
        specs.Dense(4, 2, activation=pick("linear", "gelu")),
    )


@pytest.mark.parametrize("seed", range(12))
def test_a_model(seed, tmp_path):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    model = Model(draw_network(rng)).eval()
    there = copy.deepcopy(model).cuda()
    tokens = torch.as_tensor(rng.integers(0, 11, (4, 6)))
    with torch.no_grad():
        assert_equal([there(tokens.cuda()).cpu()], [model(tokens)], 1e-5)
    parity = gw.verify(model, there, gradients=True, training_steps=3)
    assert parity.passed, str(parity)
    assert gw.verify(there, gw.port(there, to="torch")).passed
    assert next(gw.port(there, to="torch").parameters()).device.type == "cpu"
    gw.save(there, tmp_path / "model.safetensors")
    assert gw.verify(there, str(tmp_path / "model.safetensors")).passed
    assert gw.explain(model, there).difference == 0
    wrong = copy.deepcopy(model)
    with torch.no_grad():
        next(wrong.parameters()).mul_(-1.1)
    assert gw.verify(model, wrong.cuda()).verdict == "failed"


def test_training_as_keras_does():
    torch.manual_seed(0)
    layer = gatewise_torch.LSTM(3, 4, activation="relu")
    there, x = copy.deepcopy(layer).cuda(), torch.randn(5, 2, 3)
    for one in (layer, there):
        optimizer = gatewise_torch.KerasAdam(one.parameters(), lr=0.01, amsgrad=True, weight_decay=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            one(x.to(one.weight_ih_l0.device))[0].square().sum().backward()
            optimizer.step()
    assert_equal(of_weights(there), of_weights(layer), 1e-5)


def test_penalties_and_constraints():
    rules = (
        Rule("penalty", "kernel", "L1L2", (("l1", 0.1), ("l2", 0.2))),
        Rule("penalty", "recurrent_kernel", "OrthogonalRegularizer", (("factor", 0.5), ("mode", "columns"))),
        Rule("projection", "kernel", "MaxNorm", (("axis", 0), ("max_value", 0.1))),
        Rule("projection", "bias", "NonNeg"),
    )
    spec = specs.LSTM(3, 4, return_state=False)
    network = Network((Layer("input", between.Input((None, 3))), Layer("lstm", spec, ("input",), rules=rules)))
    torch.manual_seed(0)
    model = Model(network)
    there = copy.deepcopy(model).cuda()
    assert_equal([gatewise_torch.penalty(there).detach().cpu()], [gatewise_torch.penalty(model).detach()], 1e-5)
    for one in (model, there):
        gatewise_torch.constrain(one)
    assert_equal(of_weights(there), of_weights(model), 1e-6)


def test_keras_on_torch_which_puts_its_weights_on_the_gpu(tmp_path):
    if importlib.util.find_spec("keras") is None:
        pytest.skip("Keras is not installed here")
    command = [sys.executable, "-c", PORTS, "torch", str(Path(__file__).parent), str(tmp_path)]
    environment = os.environ | {"KERAS_BACKEND": "torch"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"


# --------------------------------------------------------------------------------------------------- cuDNN's own layout


@pytest.mark.parametrize("cell", [*LAYERS, "projected"])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_the_flat_buffer_of_cudnn(cell, layers, bidirectional, bias):
    """On a GPU ``torch.nn`` keeps its weights in the buffer that cuDNN reads; the plan makes the same one."""
    own, projection = ({"proj_size": 2}, {"projection": 2}) if cell == "projected" else ({}, {})
    kind = NATIVE.get(cell, torch.nn.LSTM)
    native = kind(3, 4, num_layers=layers, bidirectional=bidirectional, bias=bias, **own)
    weights = {name: weight.detach().numpy().copy() for name, weight in native.named_parameters()}
    spec = getattr(gw, kind.__name__)(3, 4, layers=layers, bidirectional=bidirectional, bias=bias, **projection)
    made = gw.mapping(spec, "torch", "cudnn").apply(weights)["weights"]
    storage = native.cuda().weight_ih_l0.untyped_storage()
    buffer = torch.tensor([], device="cuda").set_(storage).detach().cpu().numpy()
    assert np.array_equal(made, buffer[: made.size])
    assert bias == (buffer.size == made.size)
    assert not buffer[made.size :].any()  # the biases that are not there
