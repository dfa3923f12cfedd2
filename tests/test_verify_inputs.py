"""Inputs of a person's own: what is taken, in which order, and what is refused, in Python and on the command line."""

from __future__ import annotations

import numpy as np
import pytest
import random_models
from click.testing import CliRunner

import gatewise as gw
from gatewise.cli import main
from gatewise.errors import FileError, GatewiseError, SpecError
from gatewise.parity.inputs import for_network, read_inputs


@pytest.fixture(scope="module")
def model(keras):
    """Two inputs of one shape, which play different parts."""
    layers = keras.layers
    left, right = keras.Input((None, 2), name="left"), keras.Input((None, 2), name="right")
    joined = layers.Concatenate()([layers.LSTM(3, name="l")(left), layers.GRU(3, name="r")(right)])
    return random_models.fill(keras.Model([left, right], layers.Dense(2)(joined)), np.random.default_rng(3))


@pytest.fixture(scope="module")
def arrays():
    random = np.random.default_rng(4)
    return {name: random.normal(size=(4, 5, 2)).astype("float32") for name in ("right", "left")}


def test_every_form_of_inputs_is_one(torch, model, arrays, tmp_path):
    network = gw.describe(model)
    np.savez(tmp_path / "named.npz", **arrays)
    np.savez(tmp_path / "ordered.npz", arrays["left"], arrays["right"])
    tensors = {name: torch.tensor(array, requires_grad=True) for name, array in arrays.items()}
    pair = arrays["left"], arrays["right"]
    lists = tuple(array.tolist() for array in pair)
    for inputs in (pair, list(pair), arrays, tensors, lists, tmp_path / "named.npz", str(tmp_path / "ordered.npz")):
        read = for_network(read_inputs(inputs), network)
        assert all(np.allclose(one, other) for one, other in zip(read, pair, strict=True)), type(inputs)
    parity = gw.verify(model, gw.port(model, "torch", pair), inputs=arrays)
    assert parity.verdict == "passed"
    assert parity.trials == ("(4, 5, 2), (4, 5, 2)", "(2, 5, 2), (2, 5, 2)")
    assert gw.describe(model, pair) == network


REFUSED = {
    "no samples": (lambda a: (a[:0], a), "0 samples"),
    "no steps": (lambda a: (a[:, :0], a), "0 time steps"),
    "text": (lambda a: (np.array(["x"]), a), "no array of numbers"),
    "objects": (lambda a: (np.array([None]), a), "no array of numbers"),
    "ragged": (lambda _: ([[1.0], [2.0, 3.0]], [[1.0], [2.0]]), "no array of numbers"),
    "anything": (lambda _: object(), "a object, no array of numbers"),
    "NaN": (lambda a: (np.where(a > 0, a, np.nan), a), "NaN or infinite"),
    "too few": (lambda a: a, "1 inputs for 2"),
    "too many": (lambda a: (a, a, a), "3 inputs for 2"),
    "no input": (lambda _: (), "no inputs"),
    "another width": (lambda a: (a[..., :1], a), r"shape \(4, 5, 1\) for input 'left'"),
    "an axis less": (lambda a: (a[0], a), "for input 'left'"),
    "another batch": (lambda a: (a[:2], a), "2 and 4 samples"),
    "another name": (lambda a: {"lefd": a, "right": a}, "Did you mean 'left'"),
    "a name that is none": (lambda a: {1: a, "right": a}, "no name of an input"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(model, arrays, case):
    make, text = REFUSED[case]
    inputs = make(arrays["left"])
    for call in (
        lambda: gw.verify(model, model, inputs=inputs),
        lambda: gw.port(model, "torch", inputs),
        lambda: gw.describe(model, inputs),
    ):
        with pytest.raises(SpecError, match=text):
            call()


def test_tokens_are_checked(keras):
    model = keras.Sequential([keras.Input((None,), dtype="int32"), keras.layers.Embedding(9, 4), keras.layers.GRU(3)])
    random_models.fill(model, np.random.default_rng(5))
    there = gw.port(model, to="torch")
    tokens = np.random.default_rng(6).integers(0, 9, (5, 6))
    assert gw.verify(model, there, inputs=tokens.astype("float64")).passed
    for wrong, text in ((tokens - 1, "token -1"), (tokens + 1, "token 9"), (tokens + 0.5, "whole numbers")):
        with pytest.raises(SpecError, match=text):
            gw.verify(model, there, inputs=wrong)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"seed": None}, {"seed": 0.5}, {"training_steps": -1}], ids=str)
def test_numbers_are_checked(model, wrong):
    [name] = wrong
    with pytest.raises(GatewiseError, match=f"{name}={wrong[name]}"):
        gw.verify(model, model, **wrong)
    with pytest.raises(GatewiseError, match="training_steps=True"):
        gw.verify(model, model, training_steps=True)


def test_command_line(model, arrays, tmp_path):
    def invoke(*arguments):
        return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)

    source, target, fed = tmp_path / "m.keras", tmp_path / "m.safetensors", tmp_path / "x.npz"
    gw.save(model, source)
    np.savez(fed, **arrays)
    done = invoke("port", source, target, "--inputs", fed)
    assert done.exit_code == 0, done.output
    assert "Fed: (4, 5, 2), (4, 5, 2)" in done.stdout
    done = invoke("verify", source, target, "--inputs", fed)
    assert done.exit_code == 0, done.output
    assert "Fed: (4, 5, 2), (4, 5, 2)" in done.stdout
    np.savez(fed, left=arrays["left"], right=np.array([object()]))
    with pytest.raises(FileError, match="cannot be read"):  # NumPy would have to unpickle it
        read_inputs(fed)
    for wrong in (tmp_path / "missing.npz", fed, source):
        done = invoke("verify", source, target, "--inputs", wrong)
        assert done.exit_code == 2, done.output
        assert wrong.name in done.stderr
        assert "Hint" in done.stderr
    with pytest.raises(FileError):
        gw.port_file(source, target, tmp_path / "missing.npz")
