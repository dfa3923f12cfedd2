"""The two frameworks of `make test`, imported once; the settings stand before any import of them."""

from __future__ import annotations

import os

import pytest

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
# On tiny tensors torch's threads wait for each other, long where other programs run: 0.2 s for one call of an LSTM.
os.environ.setdefault("OMP_NUM_THREADS", "1")


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
