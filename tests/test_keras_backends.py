"""Keras on its torch and JAX backends, each in a process of its own and without TensorFlow: still ported right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from gatewise_keras.layouts import backend

from gatewise.errors import GatewiseError
from gatewise.registry import adapter

PORTS = """
import sys
import warnings

warnings.simplefilter("error")
# What differs in how a port is called is another test's.
warnings.filterwarnings("ignore", "The source (is called|returns|takes)")
warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy", DeprecationWarning)
# On a GPU, where Keras puts its weights then, it gives them to cuDNN as they lie; and cuDNN would round to 11 bits.
warnings.filterwarnings("ignore", "(.|\\n)*RNN module weights are not part of single contiguous chunk of memory")
sys.path.insert(0, sys.argv[2])
sys.modules["tensorflow"] = None  # as where it is not installed
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import keras
    import torch

import numpy as np
import random_models

import gatewise as gw
from gatewise.registry import owner

assert keras.backend.backend() == sys.argv[1]
torch.set_num_threads(1)
torch.backends.cudnn.allow_tf32 = False
layers = keras.layers
rng = np.random.default_rng(0)


def model(*chain, shape=(None, 3), dtype="float32"):
    made = keras.Sequential([keras.Input(shape, dtype=dtype), *chain])
    return random_models.fill(made, rng)


def build(dtype):
    return {
        "lstm": model(layers.LSTM(4, dtype=dtype), layers.Dense(2, "relu", dtype=dtype), dtype=dtype),
        "stacked": model(
            layers.LSTM(4, return_sequences=True, dtype=dtype), layers.LSTM(3, use_bias=False, dtype=dtype), dtype=dtype
        ),
        "bidirectional": model(
            layers.Bidirectional(layers.LSTM(4, return_sequences=True, dtype=dtype), merge_mode="sum", dtype=dtype),
            layers.TimeDistributed(layers.Dense(2, dtype=dtype), dtype=dtype),
            dtype=dtype,
        ),
        "relu": model(layers.LSTM(6, activation="relu", dtype=dtype), dtype=dtype),
        "gru": model(layers.GRU(4, dtype=dtype), dtype=dtype),
        "rnn": model(layers.SimpleRNN(4, go_backwards=True, dtype=dtype), dtype=dtype),
        "tokens": model(layers.Embedding(7, 3, dtype=dtype), layers.LSTM(4, dtype=dtype), shape=(None,), dtype="int32"),
    }


def outputs(obj, inputs):
    return np.asarray(keras.ops.convert_to_numpy(obj(inputs)))


for dtype in ("float32", "float64") if sys.argv[1] == "torch" else ("float32",):
    for name, made in build(dtype).items():
        assert owner(made)[0] == "keras", name
        assert all(owner(layer)[0] == "keras" for layer in made.layers), name
        there = gw.port(made, to="torch")
        assert owner(there)[0] == "torch", name
        inputs = random_models.draw_inputs(made, rng)
        given = torch.tensor(inputs)
        with torch.no_grad():
            theirs = there(given.to(getattr(torch, dtype)) if given.is_floating_point() else given).numpy()
        # On torch, Keras rounds the products of a float64 Dense and SimpleRNN to float32.
        tolerance = 1e-6 if dtype == "float64" else 2e-5
        ours = outputs(made, inputs)
        assert np.abs(ours - theirs).max() <= tolerance * max(1, np.abs(ours).max()), name
        memory = there.state_dict()
        before = outputs(made, inputs)
        for value in memory.values():
            value.add_(1)
        assert np.array_equal(before, outputs(made, inputs)), "memory is shared"
        for value in memory.values():
            value.sub_(1)
        there = gw.port(made, to="torch")
        verdict = gw.verify(made, there)
        assert verdict.passed or (name == "relu" and verdict.verdict == "inconclusive"), f"{name}\\n{verdict}"
        assert verdict.dtype == "float32", str(verdict)
        assert {str(value.dtype) for value in there.state_dict().values()} == {f"torch.{dtype}"}, name
        back = gw.port(there, to="keras")
        assert np.abs(ours - outputs(back, inputs)).max() <= tolerance * max(1, np.abs(ours).max()), name
        wrong = gw.port(made, to="torch")
        for parameter in wrong.parameters():
            parameter.data.mul_(-1.1)
        assert gw.verify(made, wrong).verdict == "failed", name

layer = layers.LSTM(4, return_state=True)
layer.build((None, None, 3))
assert owner(layer)[0] == "keras"
assert type(gw.port(layer, to="torch").native(layer.name)) is torch.nn.LSTM
assert gw.verify(layer, gw.port(layer, to="torch")).passed
there = gw.port(torch.nn.LSTM(3, 4), to="keras")
assert owner(there)[0] == "keras"
gw.save(there, sys.argv[3] + "/m.safetensors")
gw.save(made, sys.argv[3] + "/m.keras")
assert gw.verify(made, sys.argv[3] + "/m.keras").passed
print("done")
"""


@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.frameworks)])
def test_a_keras_layer_is_keras_s_on_every_backend(backend, tmp_path):
    environment = os.environ | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", PORTS, backend, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"


@pytest.mark.parametrize(
    ("environment", "settings", "expected"),
    [
        ({}, None, "tensorflow"),
        ({}, '{"backend": "jax"}', "jax"),
        ({"KERAS_BACKEND": "torch"}, '{"backend": "jax"}', "torch"),
        ({}, "no JSON", "tensorflow"),
        ({"KERAS_BACKEND": ""}, "[]", "tensorflow"),
    ],
)
def test_what_keras_will_compute_with(tmp_path, monkeypatch, environment, settings, expected):
    """Before it is imported: where it looks itself."""
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.delenv("KERAS_BACKEND")
    for name, value in (environment | {"KERAS_HOME": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    if settings is not None:
        (tmp_path / "keras.json").write_text(settings)
    assert backend() == expected
    monkeypatch.setitem(sys.modules, expected, None)
    with pytest.raises(
        GatewiseError, match=f"{expected} is missing.*\\n.*keras, {expected}.*\\n.*pip install keras {expected}"
    ):
        adapter("keras")
