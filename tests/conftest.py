"""The two frameworks of `make test`, imported once; the settings stand before any import of them."""

from __future__ import annotations

import os

import pytest

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["KERAS_BACKEND"] = "tensorflow"
# On tiny tensors torch's threads wait for each other, long where other programs run: 0.2 s for one call of an LSTM.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tables are as wide as a terminal, which a test has none of.
os.environ.pop("COLUMNS", None)


def pytest_configure(config):
    """Leave a GPU alone, but for the tests that are of it: other numbers come out there, in fewer digits."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"


@pytest.fixture(scope="session")
def keras():
    """Keras on TensorFlow."""
    import keras

    assert keras.backend.backend() == "tensorflow"
    return keras


@pytest.fixture(scope="session")
def torch():
    """PyTorch on the CPU, with one thread."""
    import torch

    torch.set_num_threads(1)
    return torch
