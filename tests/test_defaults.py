"""What frameworks do unless told otherwise: the table, and Keras's and torch's rows against the live frameworks."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from click.testing import CliRunner

import gatewise as gw
from gatewise.cli import main
from gatewise.core.layout import TOPICS
from gatewise.report.reports import defaulting, lacking

TOLD = "keras tf_keras tf1 torch flax nnx haiku equinox mlx onnx openvino".split()


def said(framework, topic):
    [record] = [record for record in gw.frameworks() if record.name == framework]
    [text] = [default.text for default in record.defaults if default.topic == topic]
    return text


@pytest.mark.parametrize("name", TOLD)
def test_every_topic_has_a_sentence_and_a_source(name):
    [record] = [record for record in gw.frameworks() if record.name == name]
    assert [default.topic for default in record.defaults] == list(TOPICS)
    for default in record.defaults:
        assert default.text.endswith(".")
        assert len(default.text) < 140
        assert "/" in default.source


def test_the_other_frameworks_are_named_as_unknown():
    assert "Nothing is known of chainer, cudnn, dl4j." in defaulting(gw.frameworks()).notes


# ── Keras ───────────────────────────────────────────────────────────────────────────────────────────────────────


def signature(function):
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not each.empty}


def test_keras_initialisation(keras):
    usual = signature(keras.layers.LSTM.__init__)
    text = said("keras", "initialisation")
    assert f"Kernel {usual['kernel_initializer']}" in text
    assert f"recurrent kernel {usual['recurrent_initializer']}" in text
    assert f"bias {usual['bias_initializer']}" in text
    layer = keras.layers.LSTM(50)
    layer.build((None, None, 30))
    kernel, recurrent, bias = layer.get_weights()
    bound = np.sqrt(6 / (30 + 200))  # over all gates at once
    assert 0.95 * bound < np.abs(kernel).max() <= bound
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(50), atol=1e-5)
    assert bias.tolist() == [0.0] * 50 + [1.0] * 50 + [0.0] * 100
    assert said("keras", "forget bias").startswith("Ones in the stored bias at the start")
    assert usual["unit_forget_bias"] is True


def test_keras_activations(keras):
    assert said("keras", "activations").startswith("LSTM and GRU: tanh, gates sigmoid; SimpleRNN: tanh.")
    for kind in (keras.layers.LSTM, keras.layers.GRU):
        usual = signature(kind.__init__)
        assert (usual["activation"], usual["recurrent_activation"]) == ("tanh", "sigmoid")
    assert signature(keras.layers.SimpleRNN.__init__)["activation"] == "tanh"
    x = np.linspace(-4, 4, 33, dtype="float32")
    hard = np.asarray(keras.activations.hard_sigmoid(keras.ops.convert_to_tensor(x)))
    np.testing.assert_allclose(hard, np.clip(x / 6 + 0.5, 0, 1), atol=1e-6)
    assert "hard_sigmoid is x/6 + 0.5" in said("keras", "activations")


def test_keras_dropout_masks_and_axes(keras):
    usual = signature(keras.layers.LSTM.__init__)
    assert (usual["dropout"], usual["recurrent_dropout"]) == (0.0, 0.0)
    assert said("keras", "dropout").startswith("None.")
    assert keras.layers.LSTM(2).supports_masking
    layer = keras.layers.LSTM(2, return_sequences=True, return_state=True)
    x = np.ones((3, 5, 4), "float32")
    mask = np.array([[True, True, False, False, True]] * 3)
    output, h, c = layer(x, mask=mask)
    assert tuple(output.shape) == (3, 5, 2)
    assert said("keras", "time axis").startswith("Second")
    np.testing.assert_array_equal(np.asarray(output)[:, 2], np.asarray(output)[:, 1])  # repeats the output before it
    np.testing.assert_array_equal(np.asarray(output)[:, -1], np.asarray(h))
    assert said("keras", "state order").startswith("h, c")
    assert np.abs(np.asarray(c)).max() > np.abs(np.asarray(h)).max()  # h is o * tanh(c)


def test_keras_directions(keras):
    assert signature(keras.layers.Bidirectional.__init__)["merge_mode"] == "concat"
    assert "merge_mode='concat'" in said("keras", "directions")
    layer = keras.layers.Bidirectional(keras.layers.GRU(2, return_sequences=True, return_state=True))
    x = np.random.default_rng(0).normal(size=(1, 5, 3)).astype("float32")
    output, forward, backward = map(np.asarray, layer(x))
    np.testing.assert_allclose(output[:, -1, :2], forward, atol=1e-6)
    np.testing.assert_allclose(output[:, 0, 2:], backward, atol=1e-6)  # turned back: it ends at the first step


# ── torch ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_torch_initialisation(torch, kind):
    torch.manual_seed(0)
    layer = getattr(torch.nn, kind)(30, 25)
    for name, parameter in layer.named_parameters():
        largest = parameter.abs().max().item()
        assert 0.8 / 5 < largest <= 1 / 5, name  # 1/sqrt(25)
    assert "uniform within 1/sqrt(hidden_size)" in said("torch", "initialisation")
    if kind == "LSTM":
        bias = layer.bias_ih_l0 + layer.bias_hh_l0
        assert bias[25:50].mean().abs().item() < 0.1  # no forget bias
        assert said("torch", "forget bias").startswith("None")


def test_torch_axes_states_and_directions(torch):
    layer = torch.nn.LSTM(3, 4, bidirectional=True)
    assert layer.batch_first is False
    assert layer.dropout == 0.0
    x = torch.randn(5, 2, 3)
    with torch.no_grad():
        output, (h, c) = layer(x)
    assert tuple(output.shape) == (5, 2, 8)
    assert tuple(h.shape) == tuple(c.shape) == (2, 2, 4)
    assert said("torch", "time axis").startswith("First")
    torch.testing.assert_close(output[-1, :, :4], h[0])
    torch.testing.assert_close(output[0, :, 4:], h[1])  # in the order of time
    assert said("torch", "state order").startswith("h, c")
    assert "mask" not in inspect.signature(layer.forward).parameters
    assert said("torch", "masks").startswith("No masks")


def test_torch_activations(torch):
    assert torch.nn.RNN(3, 4).nonlinearity == "tanh"
    with pytest.raises(ValueError, match="tanh"):
        torch.nn.RNN(3, 4, nonlinearity="elu")
    assert "activation" not in inspect.signature(torch.nn.LSTM.__init__).parameters
    assert said("torch", "activations").endswith("RNN: tanh, or relu.")


def test_torch_dropout_is_between_layers_with_a_new_mask_at_each_step(torch):
    torch.manual_seed(0)
    layer = torch.nn.RNN(8, 8, num_layers=2, dropout=0.5, nonlinearity="relu", bias=False)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.copy_(torch.eye(8) if "ih" in name else torch.zeros(8, 8))
        output, _ = layer.train()(torch.ones(20, 1, 8))
    assert set(output.unique().tolist()) == {0.0, 2.0}
    assert (output != output[:1]).any()
    assert "between stacked layers, with a new mask at each step" in said("torch", "dropout")


# ── the commands ────────────────────────────────────────────────────────────────────────────────────────────────


def test_defaults_command():
    done = CliRunner().invoke(main, ["frameworks", "keras", "torch", "--defaults", "--format", "github"])
    assert done.exit_code == 0, done.output
    for topic in TOPICS:
        assert done.output.count(f"| {topic} ") == 2
    assert "haiku" not in done.output


def test_gaps_command():
    done = CliRunner().invoke(main, ["frameworks", "--gaps", "--format", "github"])
    assert done.exit_code == 0, done.output
    for word in ("ours", "theirs", "impossible", "a callable of your own", "haiku:GRU", "keras:LSTM"):
        assert word in done.output


def test_an_unknown_framework_is_named():
    done = CliRunner().invoke(main, ["frameworks", "kears", "--defaults"])
    assert done.exit_code == 2
    assert "keras" in done.output


def test_gaps_come_from_the_layouts():
    [_, table] = lacking(gw.frameworks()).tables
    rows = [tuple(map(str, row)) for row in table.rows]
    assert ("torch:GRU", "reset", "before") in rows
    assert ("haiku:GRU", "reset", "after") in rows
    assert not [row for row in rows if row[0] == "keras:GRU" and row[1] == "reset"]  # it has both
    assert ("keras:LSTM", "projection", "2") in rows
    assert not [row for row in rows if row[:2] == ("torch:LSTM", "projection")]
    for name, option, value in rows:
        if option in ("projection", "peepholes") and value in ("2", "True"):
            spec = gw.LSTM(3, 5, **{option: 2 if option == "projection" else True})
            if not name.endswith("Cell"):
                with pytest.raises(gw.errors.UnsupportedSpecError, match=option):
                    gw.count(spec, name)
