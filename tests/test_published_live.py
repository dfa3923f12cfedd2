"""The published cases that need live objects: shapes, values, errors and training runs of the real frameworks."""

from __future__ import annotations

import numpy as np
import pytest
import random_models

import gatewise as gw
from gatewise.core.between import Input
from gatewise.core.network import Layer, Network
from gatewise.core.shapes import shapes
from gatewise.errors import GatewiseError, SpecError

FLAGS = {
    "A4 default": {},
    "A4 sequences": {"return_sequences": True},
    "A4 state": {"return_state": True},
    "A4 both": {"return_sequences": True, "return_state": True},
}
SHAPES = {
    "A4 default": [(None, 50)],
    "A4 sequences": [(None, 10, 50)],
    "A4 state": [(None, 50)] * 3,
    "A4 both": [(None, 10, 50), (None, 50), (None, 50)],
}


def flat(keras, made):
    return [np.asarray(keras.ops.convert_to_numpy(each)) for each in keras.tree.flatten(made)]


def of_torch(torch, module, inputs):
    with torch.no_grad():
        made = module(torch.tensor(inputs))
    return [each.numpy() for each in (made if isinstance(made, list) else [made])]


# ── A4: what comes out of the layer ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("case", FLAGS)
def test_a4_shapes_and_values(keras, torch, case):
    source = keras.Input((10, 3))
    model = keras.Model(source, keras.layers.LSTM(50, **FLAGS[case])(source))
    assert [tuple(output.shape) for output in model.outputs] == SHAPES[case]
    assert [*shapes(gw.describe(model)).values()][-1] == tuple(SHAPES[case])
    assert model.count_params() == 10_800
    random_models.fill(model, np.random.default_rng(0), 0.2)
    there = gw.port(model, to="torch")
    assert sum(parameter.numel() for parameter in there.parameters()) == 11_000
    inputs = np.random.default_rng(1).normal(size=(32, 10, 3)).astype("float32")
    ours, theirs = flat(keras, model(inputs)), of_torch(torch, there, inputs)
    assert [array.shape for array in theirs] == [(32, *shape[1:]) for shape in SHAPES[case]]
    for here, there_ in zip(ours, theirs, strict=True):
        assert np.abs(here - there_).max() < 1e-5
    for outputs in (ours, theirs):
        if case == "A4 state":
            assert np.array_equal(outputs[0], outputs[1])
        if case == "A4 both":
            assert np.array_equal(outputs[0][:, -1], outputs[1])
    parity = gw.verify(model, there)
    assert parity.verdict == "passed"
    assert len(parity.outputs) == len(SHAPES[case])


def test_a5_a_layer_called_on_a_random_tensor(keras, torch):
    layer, inputs = keras.layers.LSTM(50), np.random.default_rng(0).random((32, 10, 8)).astype("float32")
    ours = np.asarray(layer(inputs))
    [theirs] = of_torch(torch, gw.port(layer, to="torch"), inputs)
    assert ours.shape == theirs.shape == (32, 50)
    assert np.abs(ours - theirs).max() < 1e-5


# ── A6: TimeDistributed around an LSTM ──────────────────────────────────────────────────────────────────────────


WAYS_OUT = ("drop the timedistributed around", "feed 4 axes: (batch, outer steps, timesteps, features)")


def published_config():
    """The published model as Keras would write it: it cannot be built, so that its config is all that there is."""

    def distributed(kind, config):
        return {
            "class_name": "TimeDistributed",
            "module": "keras.layers",
            "registered_name": None,
            "config": {
                "layer": {"class_name": kind, "module": "keras.layers", "registered_name": None, "config": config}
            },
        }

    source = {
        "class_name": "InputLayer",
        "module": "keras.layers",
        "registered_name": None,
        "config": {"batch_shape": [None, 10, 32], "dtype": "float32", "name": "input"},
    }
    layers = [source, distributed("LSTM", {"units": 64, "return_sequences": True}), distributed("Dense", {"units": 10})]
    return {
        "class_name": "Sequential",
        "module": "keras",
        "registered_name": None,
        "config": {"name": "published", "layers": layers},
    }


def assert_says_both_ways_out(error):
    text = str(error)
    assert all(way.lower() in text.lower() for way in WAYS_OUT), text
    assert "LSTM" in text
    assert len(error.hint.rstrip(".").split(". ")) == 1, "one sentence"


def test_a6_keras_itself_refuses_to_build_it(keras):
    layers = keras.layers
    with pytest.raises(ValueError, match=r"TimeDistributed|ndim|shape"):
        keras.Sequential(
            [keras.Input((10, 32)), layers.TimeDistributed(layers.LSTM(64, return_sequences=True)), layers.Dense(10)]
        )


def test_a6_is_recognised_in_a_config(keras):
    with pytest.raises(SpecError) as caught:
        gw.describe(published_config())
    assert_says_both_ways_out(caught.value)


def test_a6_a_config_with_four_axes_is_described(keras):
    from gatewise_keras.adapter import describe

    config = published_config()
    config["config"]["layers"][0]["config"]["batch_shape"] = [None, 5, 10, 32]
    network = describe(config)
    lstm = network.layers[1]
    assert (type(lstm.spec), lstm.spec.units, lstm.distributed) == (gw.LSTM, 64, True)
    assert shapes(network)[lstm.name] == ((None, 5, 10, 64),)


def distributed_network(*shape):
    """The published model as a Network; LSTM and Dense run at each outer step."""
    return Network(
        (
            Layer("input", Input(shape)),
            Layer("lstm", gw.LSTM(32, 64, return_state=False), ("input",), distributed=True),
            Layer("dense", gw.Dense(64, 10), ("lstm",), distributed=True),
        )
    )


@pytest.mark.parametrize("framework", ["keras", "torch"])
def test_a6_is_recognised_before_anything_is_built(framework, monkeypatch):
    import gatewise_keras.adapter
    import gatewise_torch.adapter

    def never(*arguments, **options):
        raise AssertionError("something was built")

    for side in (gatewise_keras.adapter, gatewise_torch.adapter):
        monkeypatch.setattr(side, "assemble", never)
    wrong = distributed_network(10, 32)
    headless = Network((Layer("lstm", wrong["lstm"].spec, distributed=True),))
    for network in (wrong, headless):
        with pytest.raises(SpecError) as caught:
            gw.build(network, framework)
        assert_says_both_ways_out(caught.value)
        assert "'lstm'" in str(caught.value)
    with pytest.raises(SpecError) as caught:
        shapes(wrong)
    assert_says_both_ways_out(caught.value)


def test_a6_both_ways_out_work(keras, torch):
    inputs = np.random.default_rng(0).normal(size=(2, 5, 10, 32)).astype("float32")
    fed_more = distributed_network(5, 10, 32)
    made = [gw.build(fed_more, framework, seed=1) for framework in ("keras", "torch")]
    ours, [theirs] = np.asarray(made[0](inputs)), of_torch(torch, made[1], inputs)
    assert ours.shape == theirs.shape == (2, 5, 10, 10)
    assert np.abs(ours - theirs).max() < 1e-5
    assert gw.verify(made[0], made[1]).passed
    dropped = Network(tuple(Layer(each.name, each.spec, each.inputs) for each in distributed_network(10, 32).layers))
    made = [gw.build(dropped, framework, seed=1) for framework in ("keras", "torch")]
    assert np.asarray(made[0](inputs[:, 0])).shape == (2, 10, 10)
    assert gw.verify(made[0], made[1]).passed


# ── A7: training on Iris ────────────────────────────────────────────────────────────────────────────────────────

EPOCHS, BATCH = 10, 32


@pytest.fixture(scope="module")
def iris():
    """Iris as published: one timestep of four features, 80 % to train on, split with seed 42."""
    from sklearn.datasets import load_iris
    from sklearn.model_selection import train_test_split

    features, target = load_iris(return_X_y=True)
    sequences = features.astype(np.float32)[:, None, :]
    return train_test_split(sequences, target.astype(np.float32)[:, None], test_size=0.2, random_state=42)


def iris_model(keras, units):
    keras.utils.set_random_seed(7)
    layers = [keras.layers.LSTM(units, activation="relu", name="lstm"), keras.layers.Dense(1, name="head")]
    return keras.Sequential([keras.Input((1, 4)), *layers])


def train_keras(keras, model, inputs, target):
    """Return the loss of each epoch; batches come in the order of the data."""
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    told = model.fit(inputs, target, epochs=EPOCHS, batch_size=BATCH, shuffle=False, verbose=0)
    return np.array(told.history["loss"])


def train_torch(torch, model, inputs, target, *, as_keras=False):
    """The same with torch's Adam at the settings of Keras's, or with Keras's own rule.

    Keras adds epsilon before it divides the bias correction out, torch after; an epsilon that grows undoes that.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=1e-3, betas=(0.9, 0.999), eps=1e-7)
    inputs, target, losses, steps = torch.tensor(inputs), torch.tensor(target), [], 0
    for _ in range(EPOCHS):
        total = 0.0
        for start in range(0, len(inputs), BATCH):
            batch, steps = slice(start, start + BATCH), steps + 1
            if as_keras:
                optimiser.param_groups[0]["eps"] = 1e-7 / (1 - 0.999**steps) ** 0.5
            optimiser.zero_grad()
            loss = torch.nn.functional.mse_loss(model(inputs[batch]), target[batch])
            loss.backward()
            optimiser.step()
            total += loss.item() * len(inputs[batch])
        losses.append(total / len(inputs))
    return np.array(losses)


@pytest.mark.parametrize(
    ("units", "here", "there", "allowed"), [(50, 11_051, 11_251, 1e-4), (100, 42_101, 42_501, 5e-4)]
)
def test_a7_the_training_goes_on_alike_with_one_trainable_bias(keras, torch, iris, units, here, there, allowed):
    """The rest is where epsilon is added: 4e-5 to 3e-4 for 50 units over the draws of weights, 1e-4 to 4e-4 for 100."""
    train_x, test_x, train_y, _ = iris
    model = iris_model(keras, units)
    one, same, two = (gw.port(model, to="torch", second_bias=kind) for kind in ("frozen", "frozen", "trainable"))
    assert model.count_params() == here
    assert sum(parameter.numel() for parameter in one.parameters()) == there
    curve = train_keras(keras, model, train_x, train_y)
    curves = [train_torch(torch, each, train_x, train_y, as_keras=each is same) for each in (one, same, two)]
    alike, closest, drifted = (np.abs(other / curve - 1).max() for other in curves)
    print(
        f"LSTM({units}): off by {alike:.1e} with one trainable bias and torch's Adam, "
        f"by {closest:.1e} with Keras's rule, by {drifted:.1%} with two trainable biases"
    )
    assert curve[-1] < curve[0]
    assert alike < allowed
    assert closest < 2e-5
    assert drifted > max(1e-3, 50 * alike)
    assert not one.lstm.bias_hh_l0.any()
    assert two.lstm.bias_hh_l0.any()
    trained = gw.port(model, to="torch")
    [predicted] = of_torch(torch, trained, test_x)
    assert np.abs(predicted - np.asarray(model(test_x))).max() < 1e-5
    assert gw.verify(model, trained).passed
    assert gw.verify(one, gw.port(one, to="keras")).passed


# ── B5 and C ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("steps", [1, 10, 40, 400, None])
def test_b5_timesteps_and_batch_change_no_count(keras, steps):
    counts = set()
    for batch in (None, 1, 32):
        model = keras.Sequential([keras.Input((steps, 3), batch_size=batch), keras.layers.LSTM(2)])
        there = gw.port(model, to="torch")
        counts.add((model.count_params(), sum(parameter.numel() for parameter in there.parameters())))
        assert gw.count(gw.describe(model), "keras").total == 48
    assert counts == {(48, 56)}


def test_c1_and_c3_twelve_parameters_predict_four_steps(keras, torch, tmp_path):
    model = keras.Sequential([keras.Input((None, 1)), keras.layers.LSTM(1)])
    random_models.fill(model, np.random.default_rng(3))
    there = gw.port(model, to="torch")
    assert model.count_params() == 12
    assert sum(parameter.numel() for parameter in there.parameters()) == 16
    inputs = np.array([1, 2, 3, 4], np.float32).reshape(1, 4, 1)
    gw.save(there, tmp_path / "twelve.safetensors")
    predicted = model.predict(inputs, verbose=0)
    for module in (there, gw.load(tmp_path / "twelve.safetensors")):
        [made] = of_torch(torch, module, inputs)
        assert np.abs(made - predicted).max() < 1e-6
    assert gw.verify(model, there).passed


def test_c1_five_fixed_steps_take_no_four(keras):
    source = keras.Input((5, 1))
    model = keras.Model(source, keras.layers.LSTM(1)(source))
    with pytest.raises(ValueError, match="shape"):
        model(np.ones((1, 4, 1), "float32"))
    there = gw.port(model, to="torch")
    assert gw.verify(model, there).passed
    with pytest.raises(GatewiseError, match=r"\(1, 4, 1\)"):
        gw.verify(model, there, inputs=np.ones((1, 4, 1), "float32"))
