"""Training: gradients agree through the mapping, a ported model learns as its source does, and where not it is said."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import numpy as np
import pytest

import gatewise as gw
from gatewise.arrays.network import unstacked
from gatewise.errors import GatewiseError, SpecError
from gatewise.parity.subject import side
from gatewise.parity.training import GRADIENT
from gatewise.parity.units import units

torch = pytest.importorskip("torch")
pytest.importorskip("keras")

from gatewise_torch import KerasAdam  # noqa: E402


@pytest.fixture(autouse=True)
def _frameworks(keras, torch):
    """Both frameworks, set up as the whole suite sets them up."""


def build(network, framework="keras", seed=0, dtype="float32"):
    """A model with random weights, no bias of which is zero."""
    network = network if isinstance(network, gw.Network) else gw.Network.chain(network)
    made = gw.build(network, framework, seed)
    if dtype != "float32":
        made = side(made).twin(dtype).obj
    random = np.random.default_rng(seed)
    one = side(made)
    for native in one.adapter.natives(made).values():
        arrays = one.adapter.read(native)
        if arrays:
            one.adapter.write(
                native, {name: random.normal(scale=0.5, size=array.shape) for name, array in arrays.items()}
            )
    return made


# ── Keras's Adam ────────────────────────────────────────────────────────────────────────────────────────────────


def keras_steps(keras, start, gradients, **settings):
    """The values of one weight after each step of Keras's own optimiser."""
    variable = keras.Variable(start)
    optimizer = keras.optimizers.Adam(**settings)
    values = []
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        values.append(np.array(keras.ops.convert_to_numpy(variable)))
    return np.stack(values)


def torch_steps(start, gradients, kind=KerasAdam, **settings):
    weight = torch.nn.Parameter(torch.tensor(start))
    optimizer = kind([weight], **settings)
    values = []
    for gradient in gradients:
        weight.grad = torch.tensor(gradient)
        optimizer.step()
        values.append(weight.detach().numpy().copy())
    return np.stack(values)


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ({}, {}),
        (
            {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3},
            {"learning_rate": 0.02, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3},
        ),
        ({"amsgrad": True}, {"amsgrad": True}),
        ({"weight_decay": 0.1}, {"weight_decay": 0.1}),
    ],
)
def test_keras_adam_moves_as_keras_does(keras, here, there):
    random = np.random.default_rng(0)
    start = random.normal(size=(4, 3)).astype(np.float32)
    # Gradients from 1 down to the size of epsilon, where the two rules differ.
    gradients = (random.normal(size=(12, 4, 3)) * 10.0 ** random.uniform(-8, 0, (12, 4, 3))).astype(np.float32)
    np.testing.assert_allclose(
        torch_steps(start, gradients, **here), keras_steps(keras, start, gradients, **there), rtol=2e-6, atol=2e-7
    )


def test_torch_adam_moves_otherwise(keras):
    gradients = np.full((5, 3), 3e-7, np.float32)
    theirs = keras_steps(keras, np.zeros(3, np.float32), gradients)
    assert np.abs(torch_steps(np.zeros(3, np.float32), gradients) - theirs).max() < 1e-8
    assert np.abs(torch_steps(np.zeros(3, np.float32), gradients, torch.optim.Adam, eps=1e-7) - theirs).max() > 1e-4


def test_keras_adam_goes_on_from_its_state():
    random = np.random.default_rng(1)
    start, gradients = random.normal(size=3), random.normal(size=(6, 3))
    whole = torch_steps(start, gradients, amsgrad=True)
    weight = torch.nn.Parameter(torch.tensor(start))
    optimizer = KerasAdam([weight], amsgrad=True)
    for step, gradient in enumerate(gradients):
        if step == 3:
            file = io.BytesIO()
            torch.save(optimizer.state_dict(), file)
            file.seek(0)
            optimizer = KerasAdam([weight], lr=7.0)
            optimizer.load_state_dict(torch.load(file, weights_only=True))
        weight.grad = torch.tensor(gradient)
        optimizer.step()
    np.testing.assert_array_equal(weight.detach().numpy(), whole[-1])


def test_keras_adam_as_a_torch_optimizer():
    weight = torch.nn.Parameter(torch.ones(2))
    still = torch.nn.Parameter(torch.ones(2))
    optimizer = KerasAdam([{"params": [weight], "lr": 0.1}, {"params": [still]}])
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    def closure():
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 2
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == 0.05
    torch.testing.assert_close(weight.detach(), torch.full((2,), 0.9), atol=1e-5, rtol=0)
    assert torch.equal(still.detach(), torch.ones(2))
    table = torch.nn.Embedding(4, 2, sparse=True)
    before = table.weight.detach().clone()
    table(torch.tensor([1])).sum().backward()
    KerasAdam(table.parameters()).step()
    assert (before != table.weight.detach()).any(1).tolist() == [False, True, False, False]
    for wrong in ({"lr": -1}, {"betas": (1.0, 0.9)}, {"eps": -1}, {"weight_decay": -1}):
        with pytest.raises(SpecError, match=next(iter(wrong))):
            KerasAdam([weight], **wrong)


# ── the published case: ten epochs on 120 flowers ───────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def flowers(keras):
    """A model of case A7, its data, and its losses over ten epochs in Keras."""
    random = np.random.default_rng(42)
    kind = random.integers(0, 3, 120)
    x = (
        random.normal(size=(120, 4)) * 0.4 + np.array([5.8, 3.0, 3.7, 1.2]) + kind[:, None] * [0.8, 0.0, 2.0, 0.9]
    ).astype(np.float32)
    x, y = x[:, None], kind.astype(np.float32)[:, None]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((1, 4)), keras.layers.LSTM(50, activation="relu"), keras.layers.Dense(1)])
    start = model.get_weights()
    model.compile("adam", "mse")
    losses = model.fit(x, y, epochs=10, batch_size=32, shuffle=False, verbose=0).history["loss"]
    trained = model.get_weights()
    model.set_weights(start)
    return model, x, y, np.array(losses), trained


def fit(model, x, y, optimizer):
    """Ten epochs in torch, as ``fit`` does them; returns the loss of each."""
    x, y = torch.tensor(x), torch.tensor(y)
    losses = []
    for _ in range(10):
        total = 0.0
        for rows in torch.arange(len(x)).split(32):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        losses.append(total / len(x))
    return np.array(losses)


def drift(losses, model, data, second_bias="frozen", kind=KerasAdam, **settings):
    model, x, y = gw.port(model, "torch", second_bias=second_bias), *data
    made = fit(model, x, y, kind([each for each in model.parameters() if each.requires_grad], **settings))
    return np.abs(made / losses - 1).max(), model


def test_a_ported_model_learns_as_in_keras(flowers):
    model, x, y, losses, trained = flowers
    assert losses[-1] < losses[0]
    apart, made = drift(losses, model, (x, y))
    assert apart < 1e-5
    # … and the trained one predicts what Keras's trained one predicts.
    before = model.get_weights()
    model.set_weights(trained)
    np.testing.assert_allclose(made(torch.tensor(x)).detach().numpy(), model.predict(x, verbose=0), atol=1e-3)
    model.set_weights(before)
    apart, _ = drift(losses, model, (x, y), kind=torch.optim.Adam, eps=1e-7)
    assert apart < 1e-4


def test_two_trainable_biases_drift(flowers):
    model, x, y, losses, _ = flowers
    apart, _ = drift(losses, model, (x, y), second_bias="trainable")
    assert apart > 1e-3


# ── gradients ───────────────────────────────────────────────────────────────────────────────────────────────────

NETWORKS = {
    "lstm": gw.LSTM(3, 4),
    "gru": gw.GRU(3, 4, bidirectional=True),
    "gru before": gw.GRU(3, 4, reset="before"),
    "rnn": gw.RNN(3, 4, bidirectional=True, merge="sum", return_sequences=False),
    "no bias": gw.LSTM(3, 4, bias=False),
    "backwards": gw.LSTM(3, 4, go_backwards=True, recurrent_activation="hard_sigmoid"),
    "relu": gw.Network.chain(gw.LSTM(3, 4, activation="relu", return_state=False), gw.Dense(4, 2, activation="tanh")),
    "tokens": gw.Network.chain(gw.Embedding(6, 3, mask_zero=True), gw.GRU(3, 4, return_state=False), gw.Dense(4, 2)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_agree(name, dtype):
    a = build(NETWORKS[name], dtype=dtype)
    parity = gw.verify(a, gw.port(a, "torch"), gradients=True)
    assert parity.passed
    for each in parity.gradients:
        assert each.passed
        assert each.max_abs <= GRADIENT[dtype] * each.largest
    tensors = {each.tensor for each in parity.gradients}
    assert ("" in tensors) == (name != "tokens")
    assert any(tensor.endswith("kernel") for tensor in tensors)
    assert ("bias" in {tensor.rpartition("/")[2] for tensor in tensors}) == (name != "no bias")
    assert "Gradients" in str(parity)


def test_gradients_of_a_stack():
    a = build(gw.LSTM(3, 4, layers=2, bidirectional=True), "torch")
    for to in ("keras", "torch"):
        parity = gw.verify(a, gw.port(a, to), gradients=True)
        assert parity.passed
        assert {each.layer for each in parity.gradients} == {"lstm.0", "lstm.1", "input"}


def test_each_of_two_biases_has_the_gradient_of_their_sum():
    a = build(gw.LSTM(3, 4))
    b = gw.port(a, "torch", second_bias="trainable")
    parity = gw.verify(a, b, gradients=True)
    assert parity.passed
    one = side(b)
    (given,) = [each for each in parity.gradients if each.tensor == "bias"]
    x = np.random.default_rng(0).normal(size=(2, 3, 3)).astype(np.float32)
    _, found, _ = one.adapter.gradients(b, [x], [np.zeros_like(each) for each in one.adapter.call(b, [x])])
    np.testing.assert_array_equal(found["lstm"]["bias_ih_l0"], found["lstm"]["bias_hh_l0"])
    assert given.largest > 0


def test_a_wrong_gradient_is_seen():
    a = build(gw.Network.chain(gw.LSTM(3, 4, return_state=False), gw.Dense(4, 2)))
    b = gw.port(a, "torch")
    b.lstm.register_full_backward_hook(
        lambda layer, given, out: tuple(None if each is None else 2 * each for each in given)
    )
    parity = gw.verify(a, b, gradients=True)
    assert all(each.passed for each in parity.outputs)
    assert parity.verdict == "failed"
    assert [each.layer for each in parity.gradients if not each.passed] == ["input"]
    # The outputs of a detached layer are the same, and it learns nothing.
    b = gw.port(a, "torch")
    b.lstm.register_forward_hook(lambda layer, given, made: (made[0].detach(), made[1]))
    parity = gw.verify(a, b, gradients=True)
    assert {each.layer for each in parity.gradients if not each.passed} >= {"lstm"}


def test_gradients_that_overflow_are_inconclusive_on_both_sides_and_a_failure_on_one():
    a = build(gw.Network.chain(gw.LSTM(3, 4, return_state=False), gw.Dense(4, 2)))
    b = gw.port(a, "torch")

    def spoil(layer, given, made):
        if made[0].requires_grad:
            made[0].register_hook(lambda gradient: gradient * float("nan"))

    b.lstm.register_forward_hook(spoil)
    parity = gw.verify(a, b, gradients=True)
    assert parity.verdict == "failed"
    assert ("lstm", "kernel") in [(each.layer, each.tensor) for each in parity.gradients if not each.passed]
    a = build(gw.Network.chain(gw.LSTM(3, 4, return_state=False), gw.Dense(4, 2)))
    a = gw.port(a, "keras", dtype="float64")
    kernel, bias = a.layers[-1].get_weights()
    a.layers[-1].set_weights([kernel * 1e200, bias])
    parity = gw.verify(a, gw.port(a, "torch"), gradients=True, training_steps=1)
    assert all(each.passed for each in parity.outputs)
    assert parity.verdict == "inconclusive"
    assert not np.isfinite(parity.training.losses).all()
    assert "overflow" in " ".join(parity.advice)


@pytest.mark.parametrize("steps", [-1, 1.5, True, "2"])
def test_steps_are_a_whole_number(steps):
    a = build(gw.Network.chain(gw.LSTM(3, 4, return_state=False)))
    with pytest.raises(gw.GatewiseError, match="training_steps="):
        gw.verify(a, gw.port(a, "torch"), training_steps=steps)


def test_frozen_tensors_are_left_out():
    a = build(gw.Network.chain(gw.LSTM(3, 4, return_state=False), gw.Dense(4, 2)))
    b = gw.port(a, "torch")
    b.dense.weight.requires_grad_(False)
    parity = gw.verify(a, b, gradients=True)
    assert parity.verdict == "failed"  # It trains otherwise.
    assert ("dense", "kernel") not in {(each.layer, each.tensor) for each in parity.gradients}
    assert all(each.passed for each in parity.gradients)
    assert "dense: kernel is frozen in the target alone, and left out." in parity.advice
    a.layers[1].trainable = False
    parity = gw.verify(a, gw.port(a, "torch"), gradients=True, training_steps=2)
    assert parity.passed
    assert {each.layer for each in parity.gradients} == {"dense", "input"}


def test_nothing_is_changed_by_a_comparison():
    a = build(gw.GRU(3, 4))
    b = gw.port(a, "torch").train()
    before = [each.copy() for each in a.get_weights()], {name: each.clone() for name, each in b.state_dict().items()}
    gw.verify(a, b, gradients=True, training_steps=2)
    assert all(map(np.array_equal, a.get_weights(), before[0]))
    assert all(torch.equal(each, before[1][name]) for name, each in b.state_dict().items())
    assert b.training
    assert all(each.grad is None for each in b.parameters())


def test_failed_outputs_come_first():
    a = build(gw.GRU(3, 4))
    parity = gw.verify(a, build(gw.GRU(3, 4), seed=1), gradients=True, training_steps=3)
    assert parity.verdict == "failed"
    assert parity.gradients == ()
    assert parity.training is None
    assert any("outputs differ already" in each for each in parity.advice)


# ── steps ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_steps_agree(dtype):
    network = gw.Network.chain(gw.LSTM(3, 4, bidirectional=True, return_state=False), gw.GRU(8, 3, dropout=0.4))
    a = build(network, dtype=dtype)
    parity = gw.verify(a, gw.port(a, "torch"), training_steps=5)
    training = parity.training
    assert parity.passed
    assert training.passed
    assert training.dtype == dtype
    assert len(training.losses) == training.steps == 5
    assert training.max_rel <= (1e-5 if dtype == "float32" else 1e-6)
    assert all(each.passed for each in training.weights)
    assert any("masks are random" in word for word in training.words)
    assert any("torch.optim.Adam adds epsilon" in word for word in training.words)
    assert "Training passed" in str(parity)


def test_training_between_objects_of_one_framework():
    a = build(gw.LSTM(3, 4), "torch")
    parity = gw.verify(a, gw.port(a, "torch"), training_steps=3)
    assert parity.passed
    assert parity.training.max_rel == 0
    assert parity.training.words[0].startswith("3 steps of torch.optim.Adam")
    a = build(gw.GRU(3, 4))
    assert gw.verify(a, gw.port(a, "keras"), training_steps=3).passed


def test_the_report_predicts_the_drift():
    a = build(gw.Network.chain(gw.LSTM(3, 4, return_state=False), gw.Dense(4, 2)))
    parity = gw.verify(a, gw.port(a, "torch", second_bias="trainable"), training_steps=6)
    assert parity.verdict == "failed"
    assert parity.training.max_rel > 1e-3
    told = " ".join(parity.training.words)
    assert "In the target, lstm has two trainable biases, in the source one." in told
    assert "their sum twice as far" in told
    word = next(word for word in parity.training.words if word.startswith("With one of the two frozen"))
    assert float(word.partition("differ by ")[2].partition(",")[0]) < 1e-5
    # The other way round: nn.LSTM has two, and what it is ported to has one.
    a = build(gw.LSTM(3, 4), "torch")
    parity = gw.verify(a, gw.port(a, "keras"), training_steps=6)
    assert parity.verdict == "failed"
    assert any(word.startswith("In the source, lstm has two trainable biases") for word in parity.training.words)
    # A GRU that resets behind the product needs both, here and there.
    a = build(gw.GRU(3, 4), "torch")
    parity = gw.verify(a, gw.port(a, "keras"), training_steps=6)
    assert parity.passed
    assert not any("two trainable" in word for word in parity.training.words)


def test_gradients_of_a_side_that_has_none(monkeypatch):
    a = build(gw.RNN(3, 4))
    b = gw.port(a, "torch")
    import gatewise_torch.adapter

    monkeypatch.delattr(gatewise_torch.adapter, "gradients")
    with pytest.raises(GatewiseError, match="not compared with torch"):
        gw.verify(a, b, gradients=True)


def test_units_of_gradients_have_no_constants():
    a = build(gw.LSTM(3, 4, layers=2), "torch")
    one = side(a)
    zeros = {layer.name: {} for layer in one.network.weighted}
    assert all(not array.any() for unit in units(one, zeros) for array in unit.weights.values())
    assert [unit.name for unit in units(one)] == [layer.name for layer in unstacked(one.network)[0].weighted]


@pytest.mark.long
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_other_backends(backend):
    pytest.importorskip(backend)
    code = (
        "import numpy as np, gatewise as gw\n"
        "from gatewise.core.spec import BatchNorm\n"
        "random = np.random.default_rng(0)\n"
        "network = gw.Network.chain(gw.Embedding(6, 3), gw.LSTM(3, 4, return_state=False), gw.Dense(4, 2))\n"
        "normalised = gw.Network.chain(gw.Dense(3, 4), BatchNorm(4), gw.RNN(4, 3, return_state=False))\n"
        "for each in (network, normalised, gw.Network.chain(gw.GRU(3, 4, bidirectional=True))):\n"
        "    a = gw.build(each, 'keras')\n"
        "    for weight in a.weights:\n"
        "        weight.assign(random.normal(size=weight.shape) + 4 * ('variance' in weight.name))\n"
        "    parity = gw.verify(a, gw.port(a, 'torch'), gradients=True, training_steps=3)\n"
        "    assert parity.verdict == 'passed', str(parity)\n"
        "    assert parity.training.passed and all(one.passed for one in parity.gradients)\n"
    )
    there = os.environ | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=there, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
