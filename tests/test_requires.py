"""What a plan requires beside the weights: the right values are those of the frameworks, run here."""

from __future__ import annotations

import json

import numpy as np
import pytest

import gatewise as gw
from gatewise.core.choices import PLACED, choice
from gatewise.core.layout import gaps, lacking
from gatewise.core.plan import plan
from gatewise.core.spec import ACTIVATIONS, GRU, LSTM, RNN, BatchNorm, Conv1D, Dense
from gatewise.errors import ImpossiblePlanError
from gatewise.registry import frameworks, live_layout

LAYOUTS = [layout for record in frameworks() for layout in record.layouts]


def required(spec, source, target):
    return [each.text for each in gw.mapping(spec, source, target).requires]


HARD = LSTM(1, 2, recurrent_activation="hard_sigmoid")
CASES = {
    "torch has no such gates": (HARD, "torch", ["gatewise_torch.LSTM", "recurrent_activation='hard_sigmoid'"]),
    "nor relu": (LSTM(1, 2, activation="relu"), "torch", ["gatewise_torch.LSTM", "activation='relu'"]),
    "but in nn.RNN": (RNN(1, 2, activation="relu"), "torch", ["nonlinearity='relu'"]),
    "nor others there": (RNN(1, 2, activation="elu"), "torch", ["gatewise_torch.RNN", "activation='elu'"]),
    "dropout within": (
        GRU(1, 2, dropout=0.1, recurrent_dropout=0.2),
        "torch",
        ["gatewise_torch.GRU", "input_dropout=0.1", "recurrent_dropout=0.2"],
    ),
    "another merge": (LSTM(1, 2, bidirectional=True, merge="sum"), "torch", ["gatewise_torch.LSTM", "merge='sum'"]),
    "a merge of one direction": (LSTM(1, 2, merge="sum"), "torch", []),
    "backwards": (GRU(1, 2, go_backwards=True), "torch", ["gatewise_torch.GRU", "go_backwards=True"]),
    "a dense layer": (Dense(1, 2, activation="relu"), "torch", ["torch.nn.ReLU"]),
    "a convolution": (Conv1D(1, 2, 3, activation="softmax"), "torch", ["torch.nn.Softmax(dim=-1)"]),
    "a number": (Dense(1, 2, activation="leaky_relu(0.1)"), "torch", ["torch.nn.LeakyReLU(0.1)"]),
    "a number in keras": (RNN(1, 2, activation="elu(0.5)"), "keras", ["activation='keras.layers.ELU(0.5)'"]),
    "epsilon": (BatchNorm(3), "torch", ["eps=0.001"]),
    "ordinary": (LSTM(1, 2), "torch", []),
    "keras by name": (LSTM(1, 2, activation="relu"), "keras", ["activation='relu'"]),
    "keras by function": (
        HARD.replace(recurrent_activation="hard_sigmoid_02"),
        "keras",
        ["recurrent_activation='gatewise_keras.functions.hard_sigmoid_02'"],
    ),
    "keras resets after": (GRU(1, 2), "keras", []),
    "keras resets before": (GRU(1, 2, reset="before"), "keras", ["reset_after=False"]),
    "keras projects": (LSTM(1, 2, projection=1), "keras:RNN(GeneralLSTMCell)", ["keras:RNN(GeneralLSTMCell)"]),
    "tf_keras's own": (
        HARD.replace(recurrent_activation="hard_sigmoid_02"),
        "tf_keras",
        ["recurrent_activation='hard_sigmoid'"],
    ),
    "onnx": (
        HARD,
        "onnx",
        ["activations=['HardSigmoid', 'Tanh', 'Tanh']", f"activation_alpha=[{1 / 6}]", "activation_beta=[0.5]"],
    ),
    "onnx in both directions": (
        GRU(1, 2, recurrent_activation="hard_sigmoid_02", activation="leaky_relu", bidirectional=True),
        "onnx",
        [
            "linear_before_reset=1",
            "activations=['HardSigmoid', 'LeakyRelu', 'HardSigmoid', 'LeakyRelu']",
            "activation_alpha=[0.2, 0.2, 0.2, 0.2]",
            "activation_beta=[0.5, 0.5]",
        ],
    ),
    "onnx resets before": (GRU(1, 2, reset="before"), "onnx", []),
    "onnx of itself": (LSTM(1, 2), "onnx", []),
    "openvino": (
        GRU(1, 2, activation="relu"),
        "openvino",
        ["linear_before_reset=True", "activations=['sigmoid', 'relu']"],
    ),
    "mlx's first step": (GRU(1, 2), "mlx", ["mlx>=0.32.4"]),
    "mlx without bias": (GRU(1, 2, bias=False), "mlx", []),
    "flax": (HARD, "flax", ["gate_fn='hard_sigmoid'"]),
    "chainer's other class": (RNN(1, 2, activation="relu"), "chainer", ["chainer:NStepRNNReLU"]),
    "dl4j's default": (RNN(1, 2), "dl4j", ["activation='TANH'"]),
    "cudnn": (RNN(1, 2, activation="relu"), "cudnn", ["cellMode='CUDNN_RNN_RELU'"]),
}


@pytest.mark.parametrize("name", CASES)
def test_required_of_the_target(name):
    spec, target, expected = CASES[name]
    source = {"keras resets before": "onnx", "onnx resets before": "keras", "keras projects": "torch"}.get(
        name, "canonical"
    )
    from gatewise.core.layout import CANONICAL
    from gatewise.registry import layout

    made = plan(spec, CANONICAL[spec.cell] if source == "canonical" else layout(source, spec), layout(target, spec))
    assert [each.text for each in made.requires] == expected
    assert json.loads(made.to_json())["requires"] == [
        {"kind": each.kind, "name": each.name, "value": each.value, "why": each.why} for each in made.requires
    ]
    for text in expected:
        assert text in str(made)


def test_the_inverse_has_its_own():
    there = gw.mapping(GRU(3, 5), "torch", "onnx")
    assert [each.text for each in there.requires] == ["linear_before_reset=1"]
    assert there.inverse().requires == ()
    assert [each.text for each in there.inverse().assumes] == ["linear_before_reset=1"]
    assert "assumes linear_before_reset=1" in str(there.inverse())


IMPOSSIBLE = {
    "another function of that name": (HARD, "tf_keras", "keras", "recurrent_activation='hard_sigmoid_02'"),
    "and to it": (Dense(3, 5, activation="hard_sigmoid"), "keras", "tf_keras", "activation='hard_sigmoid_02'"),
    "in TensorFlow 1": (LSTM(1, 2, activation="hard_sigmoid"), "tf1", "keras", "activation='hard_sigmoid_02'"),
    "fixed": (LSTM(1, 2, activation="relu"), "keras", "equinox", "a framework that computes it"),
    "dl4j": (HARD, "keras", "dl4j", "a framework that computes it"),
    "a wider class": (LSTM(1, 2, projection=1), "torch", "keras", "keras:RNN(GeneralLSTMCell)"),
    "peepholes": (LSTM(1, 2, peepholes="full"), "torch:general.LSTM", "keras", "keras:RNN(GeneralLSTMCell)"),
    "the other reset": (GRU(1, 2, reset="before"), "keras", "torch", "gatewise_torch.GRU"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_with_a_way_out(name):
    spec, source, target, way_out = IMPOSSIBLE[name]
    made = gw.mapping(spec, source, target)
    assert made.verdict == "impossible"
    assert made.requires == ()
    assert way_out in made.way_out
    if not made.unless:
        with pytest.raises(ImpossiblePlanError):
            made.require_possible()


@pytest.mark.parametrize("layout", [each for each in LAYOUTS if "activation" in gw.LSTM.fields or each.gates], ids=str)
def test_every_class_says_what_it_computes(layout):
    """A row for each activation, whose first word is what the class does by itself and can do."""
    kinds = {"lstm": ("activation", "recurrent_activation"), "gru": ("activation", "recurrent_activation")}
    kinds |= dict.fromkeys(("rnn", "dense", "conv1d", "conv2d"), ("activation",))
    for option in kinds.get(layout.cell, ()):
        assert option in layout.computes, option
    for row in layout.computes.values():
        read = choice(row)
        assert read.allows(read.default)
        assert read.how in (*PLACED, "")
        assert (read.how == "by") == bool(read.attribute)
    for option in ("activation", "recurrent_activation"):
        row = layout.computes.get(option)
        assert row is None or set(map(str, choice(row).natives)) <= set(ACTIVATIONS)


# ── the numbers ─────────────────────────────────────────────────────────────────────────────────────────────────


def keras_layer(spec, seed=0):
    layer = gw.build(spec, "keras", seed=seed)
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(0, 0.8, each.shape) for each in layer.get_weights()])
    return layer


def gap(spec, outputs):
    """How far the outputs of the framework's own class, unset, are from those of the Keras layer."""
    layer = keras_layer(spec)
    x = np.random.default_rng(1).normal(size=(4, 6, spec.features)).astype("float32")
    return float(np.abs(np.asarray(layer(x)[0]) - outputs(layer.get_weights(), x)).max())


@pytest.mark.parametrize("options", [{"activation": "relu"}, {"recurrent_activation": "hard_sigmoid"}])
def test_the_own_class_of_torch_computes_another_function(keras, torch, options):
    import gatewise_torch

    spec = LSTM(3, 4, **options)
    made = gw.mapping(spec, "keras", "torch")

    def run(kind, **given):
        def outputs(weights, x):
            module = kind(3, 4, batch_first=True, **given)
            arrays = made.apply(weights)
            module.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
            return module(torch.tensor(x))[0].detach().numpy()

        return outputs

    named = {each.name: each.value for each in made.requires if each.kind == "attribute"}
    assert gap(spec, run(torch.nn.LSTM)) > 0.03
    assert gap(spec, run(getattr(gatewise_torch, made.requires[0].name.rpartition(".")[2]), **named)) < 1e-6


@pytest.mark.frameworks
@pytest.mark.parametrize("spec", [HARD.replace(features=3), Dense(3, 4, activation="hard_sigmoid")])
def test_hard_sigmoid_of_tf_keras_is_another_function(keras, spec):
    tf_keras = pytest.importorskip("tf_keras")
    named = spec.replace(
        **{option: "hard_sigmoid_02" for option, value in spec.options().items() if value == "hard_sigmoid"}
    )
    layer = gw.build(named, "keras")
    rng = np.random.default_rng(0)
    layer.set_weights([rng.normal(0, 0.8, each.shape) for each in layer.get_weights()])
    kind = tf_keras.layers.LSTM if spec.cell == "lstm" else tf_keras.layers.Dense
    made = gw.mapping(named, "keras", "tf_keras")
    other = kind(spec.units, **{each.name: each.value for each in made.requires})
    x = rng.normal(size=(4, 6, 3)).astype("float32")
    other.build(x.shape)
    other.set_weights(list(made.apply(layer.get_weights()).values()))
    old, new = gw.build(spec, "keras"), np.asarray(keras.tree.flatten(layer(x))[0])
    old.set_weights(layer.get_weights())
    theirs = other(x).numpy()
    theirs_last = new[:, -1] if spec.cell == "lstm" else new
    np.testing.assert_allclose(theirs, theirs_last, atol=1e-6)
    wrong = np.asarray(keras.tree.flatten(old(x))[0])
    assert np.abs(theirs - (wrong[:, -1] if spec.cell == "lstm" else wrong)).max() > 0.01


@pytest.mark.frameworks
@pytest.mark.parametrize(
    "spec",
    [GRU(3, 4), LSTM(3, 4, recurrent_activation="hard_sigmoid"), LSTM(3, 4, activation="relu", bidirectional=True)],
)
def test_an_operator_of_onnx_by_what_is_required(keras, spec):
    """An operator with the required attributes, and no others, computes the layer; without them it does not."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    made = gw.mapping(spec, "keras", "onnx")

    def run(attributes):
        def outputs(weights, x):
            arrays = {name: np.asarray(array, np.float32) for name, array in made.apply(weights).items()}
            extra = {"direction": "bidirectional"} if spec.bidirectional else {}
            node = helper.make_node(spec.cell.upper(), ["x", *arrays], ["y"], hidden_size=4, **extra, **attributes)
            info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
            held = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
            graph = helper.make_graph([node], "g", info[:1], info[1:], held)
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
            session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
            y = session.run(None, {"x": x.swapaxes(0, 1)})[0]
            return y.transpose(2, 0, 1, 3).reshape(len(x), x.shape[1], -1)

        return outputs

    assert onnx is not None
    assert gap(spec, run({each.name: each.value for each in made.requires})) < 2e-6
    assert gap(spec, run({})) > 0.03


# ── ports ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_port_uses_what_its_plan_requires(keras, torch):
    from gatewise.live import port
    from gatewise.report.reports import porting
    from gatewise.report.tables import render

    layer = keras_layer(LSTM(3, 4, activation="relu", return_sequences=False, return_state=False))
    done = port(layer, "torch")
    ((name, made),) = done.plans.items()
    assert [each.text for each in made.requires][:2] == ["gatewise_torch.LSTM", "activation='relu'"]
    assert type(done.result.get_submodule(name)).__module__ == "gatewise_torch.modules"
    assert "gatewise_torch.LSTM" in render(porting(done), "plain")


def test_a_layer_that_goes_by_a_wider_layout_says_so():
    there = live_layout("keras", LSTM(3, 4, projection=2))
    assert there.supplied == "keras:RNN(GeneralLSTMCell)"
    assert not gaps(there, LSTM(3, 4, projection=2))
    assert not lacking(there, LSTM(3, 4, projection=2))


# ── what count and explain say of it ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("spec", "first", "second", "words"),
    [
        (HARD, "keras", "tf_keras", ("Two different functions", "hard_sigmoid_02")),
        (
            LSTM(1, 2, activation="relu"),
            "haiku",
            "keras",
            ("Two different functions", "haiku:LSTM computes activation=tanh"),
        ),
        (LSTM(1, 2, activation="relu"), "keras", "torch", ("gatewise_torch.LSTM computes it, with the same tensors",)),
        (GRU(1, 2), "tf1", "torch", ("Two different functions", "resets before")),
        (GRU(1, 2, reset="before"), "torch", "tf1", ("Two different functions", "resets after")),
    ],
)
def test_explain_is_about_functions(spec, first, second, words):
    told = gw.explain(spec, first, second)
    assert told.second.total - told.first.total == sum(cause.parameters for cause in told.causes)
    for word in words:
        assert word in told.notes[0]


def test_explain_is_silent_where_functions_agree():
    assert not any("function" in note for note in gw.explain(LSTM(1, 2), "keras", "torch").notes)
    with pytest.raises(gw.UnsupportedSpecError, match=r"Use .keras:RNN\(GeneralLSTMCell\)"):
        gw.explain(LSTM(1, 2, projection=1), "keras", "torch")
    with pytest.raises(gw.UnsupportedSpecError):  # neither has it
        gw.explain(LSTM(1, 2, activation="relu"), "haiku", "equinox")


def test_count_shows_those_that_can():
    from click.testing import CliRunner

    from gatewise.cli import main

    sizes = ["--cell", "gru", "--reset", "before", "-x", "3", "-u", "5"]
    done = CliRunner().invoke(main, ["count", "keras", "torch", "tf_keras", *sizes])
    assert done.exit_code == 0
    assert done.output.count("135") == 2
    assert "torch:GRU does not support reset='before'. Use 'torch:general.GRU'" in done.output
    assert CliRunner().invoke(main, ["count", "torch", *sizes]).exit_code == 2
