"""Named initialisation rules and fingerprints: what is drawn, and what every number says."""

from __future__ import annotations

import numpy as np
import pytest

import gatewise as gw
from gatewise.arrays.fingerprint import decode, fingerprint
from gatewise.arrays.initial import RULES, draw
from gatewise.core.layout import CANONICAL, store
from gatewise.core.plan import plan
from gatewise.core.proof import Reader
from gatewise.errors import SpecError
from gatewise.registry import layout

SPECS = [
    gw.LSTM(7, 20),
    gw.LSTM(7, 20, projection=5, layers=2, bidirectional=True),
    gw.LSTM(7, 20, peepholes=True, bias=False),
    gw.GRU(7, 20),
    gw.RNN(7, 20),
    gw.Dense(7, 20),
    gw.Embedding(30, 8),
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_a_draw_has_the_canonical_shapes_and_depends_on_the_seed_alone(spec, rule):
    first, again, other = (draw(spec, seed, rule) for seed in (3, 3, 4))
    assert {name: array.shape for name, array in first.items()} == store(CANONICAL[spec.cell], spec).shapes
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)
    assert {array.dtype for array in first.values()} == {np.dtype(np.float64)}


def largest(arrays):
    return max(float(np.abs(array).max()) for array in arrays)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN", "Dense", "Embedding"])
def test_keras_rule_draws_as_keras_does(keras, kind):
    """Bounds and structure of our draw against what Keras itself draws for the same sizes."""
    x, h = 40, 60
    spec = {"LSTM": gw.LSTM, "GRU": gw.GRU, "SimpleRNN": gw.RNN, "Dense": gw.Dense, "Embedding": gw.Embedding}[kind](
        x, h
    )
    arguments = (x, h) if kind == "Embedding" else (h,)
    layer = getattr(keras.layers, kind)(*arguments)
    layer.build((None, None) if kind == "Embedding" else (None, None, x))
    theirs = dict(zip(store(layout("keras", spec), spec).shapes, layer.get_weights(), strict=True))
    ours = plan(spec, CANONICAL[spec.cell], layout("keras", spec)).apply(draw(spec, 0, "keras"))
    for name, array in ours.items():
        assert array.shape == theirs[name].shape
        if name == "recurrent_kernel":
            for each in (array, theirs[name]):
                np.testing.assert_allclose(each @ each.T, np.eye(h), atol=2e-6)
        elif "bias" in name:
            np.testing.assert_array_equal(array, theirs[name])
        else:
            # Both are uniform: with thousands of draws the largest lies within a percent of the bound.
            assert largest([array]) == pytest.approx(largest([theirs[name]]), rel=0.01)
            assert array.std() == pytest.approx(theirs[name].std(), rel=0.05)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", "Linear", "Embedding"])
def test_torch_rule_draws_as_torch_does(torch, kind):
    x, h = 40, 60
    spec = {"LSTM": gw.LSTM, "GRU": gw.GRU, "RNN": gw.RNN, "Linear": gw.Dense, "Embedding": gw.Embedding}[kind](x, h)
    theirs = {name: value.detach().numpy() for name, value in getattr(torch.nn, kind)(x, h).named_parameters()}
    ours = plan(spec, CANONICAL[spec.cell], layout("torch", spec)).apply(draw(spec, 0, "torch"))
    for name, array in ours.items():
        assert array.shape == theirs[name].shape
        many = array.size > 1000
        if kind != "Embedding":
            assert largest([array]) == pytest.approx(largest([theirs[name]]), rel=0.01 if many else 0.2)
        if many:
            assert array.std() == pytest.approx(theirs[name].std(), rel=0.06)


def test_one_seed_is_one_function_in_every_framework(keras, torch):
    spec = gw.LSTM(3, 5)
    x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
    for rule in RULES:
        mine = np.array(gw.build(spec, "keras", seed=7, initial=rule)(x)[0])
        yours = gw.build(spec, "torch", seed=7, initial=rule)(torch.tensor(x))[0].detach().numpy()
        np.testing.assert_allclose(mine, yours, atol=1e-6)
        other = gw.build(spec, "torch", seed=8, initial=rule)(torch.tensor(x))[0].detach().numpy()
        assert np.abs(mine - other).max() > 1e-2


def test_an_unknown_rule_and_a_seed_that_is_none_are_said():
    with pytest.raises(SpecError, match="Did you mean 'keras'"):
        draw(gw.LSTM(3, 5), 0, "kears")
    for seed in (-1, 1.5, "0", True):
        with pytest.raises(SpecError, match="is not a seed"):
            draw(gw.LSTM(3, 5), seed)


@pytest.mark.parametrize("framework", ["keras", "torch", "onnx", "cudnn", "chainer", "tf_keras:CuDNNLSTM", "haiku"])
def test_every_fingerprint_names_its_own_place(framework):
    spec = gw.LSTM(3, 5)
    there = layout(framework, spec)
    read = Reader(there, spec)
    seen = set()
    for name, array in fingerprint(spec, there).items():
        for index in np.ndindex(*array.shape):
            assert decode(spec, array[index]) == read(name, index)
            seen.add(float(array[index]))
    assert len(seen) == sum(int(np.prod(shape)) for shape in store(there, spec).shapes.values())


def test_fingerprints_that_would_not_fit_are_refused():
    with pytest.raises(SpecError, match="too large for fingerprints"):
        fingerprint(gw.Dense(1001, 2), layout("keras", gw.Dense(1001, 2)))
