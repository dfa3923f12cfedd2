"""verify where the two sides do not give the same outputs, or are called in another order of axes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import random_models

import gatewise as gw


def torch_layer(torch, kind, **options):
    torch.manual_seed(1)
    layer = getattr(torch.nn, kind)(3, 4, batch_first=True, **options)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    return layer


def keras_layer(keras, source, kind, **options):
    """Return a Keras layer with the weights of a torch layer, transposed by hand; GRU: the gates r z n become z r n."""
    name = {"RNN": "SimpleRNN"}.get(kind, kind)
    layer = getattr(keras.layers, name)(4, **options)
    bidirectional = source.bidirectional
    layer = keras.layers.Bidirectional(layer) if bidirectional else layer
    layer.build((None, None, 3))
    arrays = []
    for suffix in ("", "_reverse") if bidirectional else ("",):
        kernel, recurrent, bias, second = (
            getattr(source, f"{part}_l0{suffix}").detach().numpy()
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        if kind == "GRU":
            order = np.r_[4:8, 0:4, 8:12]
            arrays += [kernel[order].T, recurrent[order].T, np.stack([bias[order], second[order]])]
        else:
            arrays += [kernel.T, recurrent.T, bias + second]
    layer.set_weights(arrays)
    return layer


@pytest.mark.parametrize(
    ("kind", "options", "bidirectional"),
    [
        ("LSTM", {"return_sequences": True}, False),
        ("LSTM", {}, False),
        ("LSTM", {}, True),
        ("GRU", {"return_state": True}, False),
        ("RNN", {"return_sequences": True}, True),
    ],
    ids=str,
)
def test_what_both_give_is_compared(keras, torch, kind, options, bidirectional):
    there = torch_layer(torch, kind, bidirectional=bidirectional)
    here = keras_layer(keras, there, kind, **options)
    for first, second in ((here, there), (there, here)):
        parity = gw.verify(first, second)
        assert parity.verdict == "passed", str(parity)
        assert 0 < max(output.max_abs for output in parity.outputs) < 1e-6
    words = " ".join(parity.remarks)
    state = "backward_state_h" if bidirectional else "state_h"
    if kind == "LSTM" and not options.get("return_state"):
        assert "Only the source gives" in words
        assert "state_c" in words
    if options.get("return_sequences"):
        assert f"{state} is compared with what the target gives as the" in words  # the last step, or the first
        assert all(word in str(parity) for word in parity.remarks[0].split())
    else:
        assert "output is compared with what the source gives as the last step of" in words
    there.weight_hh_l0.data[:2] *= -1
    parity = gw.verify(here, there)
    assert parity.verdict == "failed"
    assert parity.outputs[0].max_abs > 1e-3
    assert [found.layer for found in parity.diagnosis] == [gw.describe(there).layers[-1].name]


@pytest.mark.filterwarnings("ignore:The source returns states:gatewise.PortWarning")
def test_a_stack_against_the_last_output_of_a_chain(keras, torch):
    there = torch_layer(torch, "GRU", num_layers=2)
    ported = gw.port(there, to="keras")
    here = keras.Sequential(
        [keras.Input((None, 3)), keras.layers.GRU(4, return_sequences=True), keras.layers.GRU(4, name="upper")]
    )
    here.set_weights(ported.get_weights())
    parity = gw.verify(here, there)
    assert parity.verdict == "passed", str(parity)
    assert {output.name for output in parity.outputs} == {"upper.output", "gru.layer_1_state_h"}
    there.weight_hh_l1.data.mul_(1.1)
    assert gw.verify(here, there).verdict == "failed"


def test_one_output_more(keras):
    layers = keras.layers
    source = keras.Input((None, 3))
    steps = layers.LSTM(4, return_sequences=True, name="steps")(source)
    wanted, other = layers.Dense(2, name="wanted")(steps), layers.Dense(2, name="other")(steps)
    whole = random_models.fill(keras.Model(source, [other, wanted]), np.random.default_rng(2))
    part = keras.Model(source, wanted)
    for first, second, side in ((part, gw.port(whole, to="torch"), "target"), (whole, part, "source")):
        parity = gw.verify(first, second)
        assert parity.verdict == "passed", str(parity)
        assert [output.name for output in parity.outputs] == ["wanted.output"]
        assert f"Only the {side} gives other.output, which is not compared." in parity.remarks
    wrong = gw.port(whole, to="torch")
    wrong.wanted.weight.data.mul_(1.2)
    assert gw.verify(part, wrong).verdict == "failed"


def test_nothing_in_common_is_said(keras):
    layers = keras.layers
    one, other = (keras.Sequential([keras.Input((None, 3)), layers.LSTM(4), layers.Dense(size)]) for size in (2, 5))
    parity = gw.verify(one, other)
    assert parity.verdict == "failed"
    assert parity.outputs == ()
    assert "differ in shape, so that none can be compared: (3, 2) here, (3, 5) there." in " ".join(str(parity).split())
    assert "inf" not in str(parity)


def test_a_lost_batch_first_is_said(torch):
    one = torch_layer(torch, "GRU")
    other = torch.nn.GRU(3, 4)
    other.load_state_dict(one.state_dict())
    inputs = torch.randn(5, 5, 3)
    assert (one(inputs)[0] - other(inputs)[0]).abs().max() > 0.1
    for first, second in ((one, other), (other, one)):
        parity = gw.verify(first, second)
        assert parity.verdict == "passed"
        [remark] = parity.remarks
        assert "axes differ" in remark
        assert "time first (batch_first=False)" in remark
        assert " ".join(remark.split()[:8]) in " ".join(str(parity).split())
    assert gw.verify(one, copy.deepcopy(one)).remarks == ()
