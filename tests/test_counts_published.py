"""Counts of published frameworks at 3 features and 50 units: arithmetic on the layouts, no framework needed.

The numbers are written out as they follow from the definition of each class, not taken from what is tested.
"""

from __future__ import annotations

import pytest

from gatewise.core.count import count
from gatewise.core.spec import GRU, LSTM, RNN, Dense, Embedding
from gatewise.registry import layout

X, H, P = 3, 50, 20
WEIGHTS = 4 * (X * H + H * H)  # 10600: what every LSTM of these sizes has
GRU_WEIGHTS = 3 * (X * H + H * H)
RNN_WEIGHTS = X * H + H * H

ROWS = [
    # One bias, or two.
    ("keras:LSTM", LSTM(X, H), 10800),
    ("tf_keras:LSTM", LSTM(X, H), 10800),
    ("tf1:LSTMCell", LSTM(X, H), 10800),
    ("tf1:BasicLSTMCell", LSTM(X, H), 10800),
    ("openvino:LSTMSequence", LSTM(X, H), 10800),
    ("flax:LSTMCell", LSTM(X, H), 10800),
    ("nnx:LSTMCell", LSTM(X, H), 10800),
    ("nnx:OptimizedLSTMCell", LSTM(X, H), 10800),
    ("haiku:LSTM", LSTM(X, H), 10800),
    ("equinox:LSTMCell", LSTM(X, H), 10800),
    ("mlx:LSTM", LSTM(X, H), 10800),
    ("chainer:LSTM", LSTM(X, H), 10800),
    ("dl4j:LSTM", LSTM(X, H), 10800),
    ("torch:LSTM", LSTM(X, H), 11000),
    ("onnx:LSTM", LSTM(X, H), 11000),
    ("tf_keras:CuDNNLSTM", LSTM(X, H), 11000),
    ("cudnn:LSTM", LSTM(X, H), 11000),
    ("chainer:NStepLSTM", LSTM(X, H), 11000),
    # Without a bias: some store one nevertheless.
    ("keras", LSTM(X, H, bias=False), WEIGHTS),
    ("torch", LSTM(X, H, bias=False), WEIGHTS),
    ("onnx", LSTM(X, H, bias=False), WEIGHTS),
    ("cudnn", LSTM(X, H, bias=False), WEIGHTS),
    ("tf1", LSTM(X, H, bias=False), WEIGHTS + 4 * H),
    ("openvino", LSTM(X, H, bias=False), WEIGHTS + 4 * H),
    ("openvino", GRU(X, H, bias=False), GRU_WEIGHTS + 4 * H),
    ("chainer:NStepGRU", GRU(X, H, bias=False), GRU_WEIGHTS + 6 * H),
    # Peepholes: one weight a unit, full matrices, or always there.
    ("onnx", LSTM(X, H, peepholes=True), 11000 + 3 * H),
    ("tf1", LSTM(X, H, peepholes=True), 10950),
    ("dl4j:GravesLSTM", LSTM(X, H, peepholes=True), 10950),
    ("dl4j:GravesLSTM", LSTM(X, H), 10950),
    ("dl4j:GravesBidirectionalLSTM", LSTM(X, H, bidirectional=True, merge="sum"), 2 * 10950),
    ("chainer:StatefulPeepholeLSTM", LSTM(X, H, peepholes="full"), 18300),
    # A projection narrows the recurrent kernel and adds a matrix.
    ("torch", LSTM(X, H, projection=P), 6000),
    ("tf1", LSTM(X, H, projection=P, peepholes=True), 5950),
    ("tf1", LSTM(X, H, projection=P), 4 * (X * H + P * H + H) + H * P),
    # Layers and directions.
    ("torch", LSTM(X, H, layers=2), 31400),
    ("cudnn", LSTM(X, H, layers=2), 31400),
    ("chainer:NStepLSTM", LSTM(X, H, layers=2), 31400),
    ("keras", LSTM(X, H, layers=2), 31000),
    ("tf_keras", LSTM(X, H, layers=2), 31000),
    ("tf1", LSTM(X, H, layers=2), 31000),
    ("dl4j", LSTM(X, H, layers=2), 31000),
    ("keras", LSTM(X, H, bidirectional=True), 21600),
    ("onnx", LSTM(X, H, bidirectional=True), 22000),
    ("cudnn", LSTM(X, H, layers=2, bidirectional=True), 22000 + 2 * (4 * (2 * H * H + H * H) + 8 * H)),
    ("tf1", LSTM(X, H, layers=2, bidirectional=True), 21600 + 2 * (4 * (2 * H * H + H * H) + 4 * H)),
    # The GRU: one bias, two, or a second one for the candidate alone.
    ("keras", GRU(X, H), 8250),
    ("tf_keras", GRU(X, H), 8250),
    ("tf_keras:CuDNNGRU", GRU(X, H), 8250),
    ("torch", GRU(X, H), 8250),
    ("onnx", GRU(X, H), 8250),
    ("onnx", GRU(X, H, reset="before"), 8250),
    ("cudnn", GRU(X, H), 8250),
    ("chainer:NStepGRU", GRU(X, H), 8250),
    ("chainer:StatefulGRU", GRU(X, H, reset="before"), 8250),
    ("openvino", GRU(X, H), 8150),
    ("flax", GRU(X, H), 8150),
    ("equinox", GRU(X, H), 8150),
    ("mlx", GRU(X, H), 8150),
    ("keras", GRU(X, H, reset="before"), 8100),
    ("tf_keras", GRU(X, H, reset="before"), 8100),
    ("openvino", GRU(X, H, reset="before"), 8100),
    ("tf1", GRU(X, H, reset="before"), 8100),
    ("haiku", GRU(X, H, reset="before"), 8100),
    ("nnx", GRU(X, H), 8100),
    # The plain cell.
    ("keras", RNN(X, H), 2700),
    ("tf_keras", RNN(X, H), 2700),
    ("tf1", RNN(X, H), 2700),
    ("openvino", RNN(X, H), 2700),
    ("mlx", RNN(X, H), 2700),
    ("dl4j", RNN(X, H), 2700),
    ("torch", RNN(X, H), 2750),
    ("onnx", RNN(X, H), 2750),
    ("cudnn", RNN(X, H), 2750),
    ("chainer:NStepRNNTanh", RNN(X, H), 2750),
    ("chainer:NStepRNNReLU", RNN(X, H, activation="relu"), 2750),
    # What stands before and behind it.
    *((name, Dense(H, 1), H + 1) for name in ("keras", "torch", "tf_keras", "onnx", "chainer", "dl4j")),
    *((name, Embedding(1000, 64), 64000) for name in ("keras", "torch", "tf_keras", "onnx", "chainer")),
]


@pytest.mark.parametrize(("name", "spec", "total"), ROWS, ids=str)
def test_published_count(name, spec, total):
    counted = count(spec, layout(name, spec))
    assert counted.total == total
    assert sum(part.parameters for term in counted.terms for part in term.gates) == total


def test_the_difference_is_the_bias():
    assert WEIGHTS == 10600
    assert GRU_WEIGHTS + 3 * H == 8100
    assert RNN_WEIGHTS + H == 2700
    assert {total - WEIGHTS for _, spec, total in ROWS if spec == LSTM(X, H)} == {4 * H, 8 * H, 4 * H + 3 * H}
