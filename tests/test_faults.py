"""Test faults: every kind has some, every option one or a reason, and verify sees what two sides do differently."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import random_models

import gatewise as gw
from gatewise.core.between import WEIGHTLESS
from gatewise.core.spec import KINDS
from gatewise.parity.fault_rows import ROWS, other_values, why_not
from gatewise.parity.faults import faults
from gatewise.parity.reference import Reference
from gatewise.parity.subject import Trial, side

ARGUMENTS = {
    **dict.fromkeys(("LSTM", "GRU", "RNN", "Dense", "Embedding"), (3, 4)),
    **dict.fromkeys(("BatchNorm", "LayerNorm", "AdditiveAttention"), (3,)),
    "Conv1D": (3, 4, 3),
    "Conv2D": (3, 4, 3, 3),
    "Input": ((None, 3),),
    "Constant": (((0.0, 1.0),),),
    "Dropout": (0.2,),
    "Noise": (0.1,),
    "Rescale": (0.5, 1.0),
    "Activation": ("relu(50.0)",),
    "Merge": ("concat",),
    "Operation": ("less", (None, 0)),
    "Dot": ((2, 2),),
    "Pool": ("max", 2),
    "Reshape": ((3, 2),),
    "Permute": ((2, 1),),
    "Repeat": (3,),
    "Pad": ((1, 2),),
    "Upsample": (2,),
}
SPECS = {name: kind(*ARGUMENTS.get(name, ())) for name, kind in (KINDS | WEIGHTLESS).items()}
"""One of each kind."""

WITHOUT = ("Input", "Dropout", "Noise")
"""Kinds that nothing can be wrong with at inference: what is fed, and what acts in training alone."""


@pytest.mark.parametrize("name", SPECS)
def test_each_option_has_another_value_or_a_reason(name):
    spec = SPECS[name]
    for field in dataclasses.fields(spec):
        told = why_not(type(spec), field.name)
        others = other_values(spec, field.name)
        assert told or others is not None, f"{name}.{field.name} is in no table"
        for other in others or () if not told else ():
            assert spec.replace(**{field.name: other}) != spec


@pytest.mark.parametrize("name", [name for name in SPECS if name not in WITHOUT])
def test_each_kind_has_faults(name):
    """Each changes what a layer of the kind computes, somewhere in the tables."""
    reads = ("a", "b") if name in ("Dot", "Merge", "Remask", "Attention", "AdditiveAttention") else ("a",)
    inputs = [gw.Layer(each, WEIGHTLESS["Input"]((None, 3))) for each in "ab"]
    network = gw.Network((*inputs, gw.Layer("it", SPECS[name], reads)))
    weights = {"it": {"table": np.arange(12.0).reshape(3, 4)}} if name == "Embedding" else {}
    made = faults(Reference(network, weights), ("it",), states=False)
    assert any(each.layer == "it" for each in made)


def test_no_row_is_for_a_kind_that_is_gone():
    for kinds, _ in ROWS:
        assert any(issubclass(kind, kinds) for kind in (KINDS | WEIGHTLESS).values())


# ── what two sides do differently ───────────────────────────────────────────────────────────────────────────────


def pair(keras, make, right, wrong):
    """Return two models that differ in one thing, with the same weights."""
    one, other = make(right), make(wrong)
    random_models.fill(one, np.random.default_rng(0))
    other.set_weights(one.get_weights())
    return one, other


def tokens(keras, zero):
    source = keras.Input((6,), dtype="int32")
    return keras.Model(source, keras.layers.GRU(3)(keras.layers.Embedding(1000, 4, mask_zero=zero)(source)))


def steps(keras, stateful):
    source = keras.Input((4, 3), batch_size=2)
    return keras.Model(source, keras.layers.LSTM(3, stateful=stateful)(source))


def bound(keras, largest):
    layers, source = keras.layers, keras.Input((6,))
    return keras.Model(source, layers.Dense(2)(layers.ReLU(largest)(layers.Dense(4)(source))))


def within(keras, masks):
    """A model on each step of an outer axis, which masks or does not."""
    layers, source = keras.layers, keras.Input((3, 5, 2))
    inner = keras.Sequential([keras.Input((5, 2)), *[layers.Masking()] * masks, layers.LSTM(3)])
    return keras.Model(source, layers.TimeDistributed(inner)(source))


DIFFERENT = {
    "mask": (tokens, True, False),
    "mask within": (within, True, False),
    "states": (steps, True, False),
    "bound": (bound, 50.0, None),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_two_sides_do_differently_is_seen(keras, torch, name):
    make, right, wrong = DIFFERENT[name]
    one, other = pair(keras, lambda option: make(keras, option), right, wrong)
    assert gw.verify(one, gw.port(other, to="torch")).verdict == "failed"
    assert gw.verify(other, gw.port(one, to="torch")).verdict == "failed"
    parity = gw.verify(one, gw.port(one, to="torch"))
    assert parity.passed, str(parity)


def test_a_row_of_a_large_table(keras, torch):
    one, other = pair(keras, lambda zero: tokens(keras, zero), False, False)
    table, *rest = other.get_weights()
    table[777] += 0.5
    other.set_weights([table, *rest])
    assert gw.verify(one, gw.port(other, to="torch")).verdict == "failed"
    parity = gw.verify(one, gw.port(one, to="torch"))
    assert parity.passed
    assert any("of the 1,000 rows" in word and "agree in every row" in word for word in parity.advice)


@pytest.mark.parametrize("what", ["kernel_regularizer", "activity_regularizer", "kernel_constraint", "dropout"])
def test_what_acts_in_training_alone_is_compared(keras, torch, what):
    option = {
        "kernel_regularizer": keras.regularizers.L2(10.0),
        "activity_regularizer": "l2",
        "kernel_constraint": keras.constraints.MaxNorm(0.1),
        "dropout": 0.3,
    }[what]

    def make(given):
        return keras.Sequential(
            [keras.Input((5, 3)), keras.layers.LSTM(3, **given, name="cell"), keras.layers.Dense(1)]
        )

    one, other = pair(keras, make, {what: option}, {})
    parity = gw.verify(one, gw.port(other, to="torch"))
    assert parity.passed
    assert any(word.startswith("'cell': ") and word.endswith("in training alone.") for word in parity.remarks)
    parity = gw.verify(one, gw.port(other, to="torch"), gradients=True)
    assert parity.verdict == "failed"
    assert any(word.startswith("The two train differently: 'cell'") for word in parity.advice)
    assert gw.verify(one, gw.port(one, to="torch"), gradients=True).passed


def test_strides_are_fed_enough_steps(keras, torch):
    """Twelve times twelve samples make one step; the copies that take any length read several."""
    layers, source = keras.layers, keras.Input((100, 1))
    x = layers.Conv1D(4, 12, strides=12, padding="same")(source)
    x = layers.LSTM(3, name="cell")(layers.Conv1D(4, 12, strides=12, padding="same")(x))
    model = random_models.fill(keras.Model(source, layers.Dense(1)(x)), np.random.default_rng(0), 0.3)
    parity = gw.verify(model, gw.port(model, to="torch"))
    assert parity.passed, str(parity)
    assert any(each.mistake == "recurrent kernel transposed" for each in parity.planted)


def test_one_step_beside_a_convolution(keras, torch):
    """The recurrent kernel plays no part, whatever its weights: that is said, and all else is seen."""
    layers, source = keras.layers, keras.Input((12, 1))
    pooled = layers.GlobalAveragePooling1D()(layers.Conv1D(3, 3)(source))
    cell = layers.LSTM(4, name="cell")(layers.Reshape((1, 12))(source))
    model = keras.Model(source, layers.Dense(1)(layers.Concatenate()([pooled, cell])))
    parity = gw.verify(random_models.fill(model, np.random.default_rng(0)), gw.port(model, to="torch"))
    assert parity.passed, str(parity)
    assert any("recurrent kernel transposed in 'cell'" in word for word in parity.advice)


def test_a_call_before(keras, torch):
    """The reference keeps states from call to call as Keras does."""
    model = random_models.fill(steps(keras, True), np.random.default_rng(0))
    drawn = np.random.default_rng(1).normal(size=(2, 2, 4, 3)).astype("float32")
    model.layers[-1].reset_state()
    model(drawn[0])
    expected = np.asarray(model(drawn[1]))
    trial = Trial([drawn[1]], before=[drawn[0]])
    for each in (side(model), side(gw.port(model, to="torch"))):
        np.testing.assert_allclose(each.run(trial)[0], expected, rtol=0, atol=1e-6)
        reference = Reference.of(each)
        np.testing.assert_allclose(reference.run(trial)[0], expected, rtol=0, atol=1e-6)
        assert np.abs(expected - reference.run(trial._replace(before=None))[0]).max() > 1e-3
