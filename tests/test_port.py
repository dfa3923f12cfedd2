"""Ports between Keras and torch: every output of hundreds of random models, and what a port promises besides."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import random_models

import gatewise as gw
from gatewise.core.between import Pool
from gatewise.errors import FileError, GatewiseError, UnsupportedModelError, WeightsError
from gatewise.live import METADATA
from gatewise.live import port as port_and_tell
from gatewise.registry import owner

TOLERANCE = {"float32": 2e-5, "float64": 1e-11}
BLOCK = 20


def flat(keras, made):
    return [np.asarray(keras.ops.convert_to_numpy(each)) for each in keras.tree.flatten(made)]


def of_torch(torch, made):
    """Return the outputs of a torch module, whatever they lie in, one by one."""
    if isinstance(made, tuple | list):
        return [output for each in made for output in of_torch(torch, each)]
    return [made.detach().numpy()]


def run_torch(torch, module, array):
    """Call a torch module as a user would: with a tensor of its own type."""
    kind = next((parameter.dtype for parameter in module.parameters()), torch.float32)
    given = torch.tensor(array)
    with torch.no_grad():
        return of_torch(torch, module(given.to(kind) if given.is_floating_point() else given))


def assert_close(ours, theirs, tolerance, what=""):
    assert [array.shape for array in ours] == [array.shape for array in theirs], what
    for here, there in zip(ours, theirs, strict=True):
        assert np.isfinite(here).all(), what
        assert np.abs(here - there).max() <= tolerance * max(1, np.abs(here).max()), what


def with_weights(layer, shape, seed=0):
    """Build a bare Keras layer with weights that hide nothing."""
    layer.build(shape)
    return random_models.fill(layer, np.random.default_rng(seed))


def randomised(torch, module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) / 2)
    return module


# ── random models ───────────────────────────────────────────────────────────────────────────────────────────────


def expected_type(torch, layer):
    """Return the torch class that a layer of a network must become, by a rule of our own."""
    options = layer.spec.options()
    own = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}
    if layer.spec.cell in own:
        fits = options["activation"] == "tanh" or layer.spec.cell == "rnn"
        return own[layer.spec.cell] if fits else None
    kinds = {"Dense": torch.nn.Linear, "Embedding": torch.nn.Embedding, "Dropout": torch.nn.Dropout}
    kinds |= {"LayerNorm": torch.nn.LayerNorm, "Conv1D": torch.nn.Conv1d}
    return kinds.get(type(layer.spec).__name__)


def check_model(keras, torch, model, rng, dtype, *, verify):
    before = [array.copy() for array in model.get_weights()]
    there = gw.port(model, to="torch")
    back = gw.port(there, to="keras")
    what = repr(gw.describe(model))
    _, adapter = owner(model)
    assert not there.training, what
    assert {str(parameter.dtype) for parameter in there.parameters()} <= {f"torch.{dtype}"}, what
    assert {parameter.device.type for parameter in there.parameters()} <= {"cpu"}, what
    for layer in gw.describe(model).weighted:
        module = getattr(there, layer.name)
        wanted = expected_type(torch, layer)
        assert type(module) is wanted if wanted else type(module).__module__.startswith("gatewise_torch"), what
        own, returned = (adapter.read(adapter.natives(each)[layer.name]) for each in (model, back))
        same = own.keys() == returned.keys() and all(np.array_equal(own[name], returned[name]) for name in own)
        assert same, f"{layer.name} of {what} did not come back bit for bit"
    for batch, steps in ((3, 5), (1, 2)):
        inputs = random_models.draw_inputs(model, rng, batch, steps)
        ours = flat(keras, model(inputs))
        assert_close(ours, run_torch(torch, there, inputs), TOLERANCE[dtype], what)
        assert_close(ours, flat(keras, back(inputs)), TOLERANCE[dtype], what)
    assert all(map(np.array_equal, before, model.get_weights())), what
    if verify:
        parity = gw.verify(model, there)
        assert parity.verdict != "failed", f"{what}\n{parity}"
        if parity.verdict == "inconclusive":
            # What is dead hides a mistake, and so do outputs far below 1, against which differences are measured, and
            # a pool over all steps the recurrent kernel behind it.
            specs = [layer.spec for layer in gw.describe(model).layers]
            hidden = "relu" in [spec.options().get("activation") for spec in specs] or any(
                isinstance(spec, Pool) and spec.size is None and spec.keep for spec in specs
            )
            assert hidden or max(np.abs(each).max() for each in ours) < 0.01, f"{what}\n{parity}"
        return parity.verdict
    return None


def sweep(keras, torch, seeds, every=3):
    verdicts = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        dtype = "float64" if seed % 3 == 0 else "float32"
        model = random_models.draw_model(keras, rng, dtype)
        verdicts.append(check_model(keras, torch, model, rng, dtype, verify=seed % every == 0 or seed % every == 1))
        keras.utils.clear_session(free_memory=False)
    decided = [verdict for verdict in verdicts if verdict]
    assert decided.count("passed") >= 0.7 * len(decided)


@pytest.mark.parametrize("block", range(1))
def test_random_models_go_to_torch_and_back(keras, torch, block):
    sweep(keras, torch, range(block * BLOCK, (block + 1) * BLOCK), every=10)


@pytest.mark.long
@pytest.mark.parametrize("block", [*range(1, 12), *range(100, 160)])
def test_many_more_random_models(keras, torch, block):
    sweep(keras, torch, range(block * BLOCK, (block + 1) * BLOCK), every=2)


def test_the_draw_covers_what_the_issue_names(keras):
    seen = set()
    for seed in range(4 * BLOCK):
        rng = np.random.default_rng(seed)
        model = random_models.draw_model(keras, rng, "float32")
        seen.add(type(model).__name__)
        for layer in model.layers:
            seen.add(type(layer).__name__)
            inner = getattr(layer, "forward_layer", layer)
            if hasattr(inner, "cell"):
                seen |= {inner.cell.activation.__name__, f"bias {inner.cell.use_bias}"}
                seen |= {f"sequences {inner.return_sequences}", f"states {inner.return_state}"}
            if hasattr(layer, "merge_mode"):
                seen.add(f"merge {layer.merge_mode}")
    assert seen >= {"Sequential", "Functional", "LSTM", "Bidirectional", "Dense", "Embedding", "Dropout", "Activation"}
    assert seen >= {"TimeDistributed", "tanh", "relu", *(f"merge {merge}" for merge in random_models.MERGES)}
    assert seen >= {"BatchNormalization", "LayerNormalization", "Conv1D", "SpatialDropout1D"}
    assert seen >= {"MaxPooling1D", "AveragePooling1D", "GlobalMaxPooling1D", "GlobalAveragePooling1D"}
    assert seen >= {f"{what} {flag}" for what in ("bias", "sequences", "states") for flag in (True, False)}
    keras.utils.clear_session(free_memory=False)


# ── what a port promises ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def model(keras):
    layers = keras.layers
    made = keras.Sequential(
        [
            keras.Input((None, 3)),
            layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="both"),
            layers.LSTM(5, activation="relu", name="general"),
            layers.Dense(2, "softmax", name="head"),
        ]
    )
    return random_models.fill(made, np.random.default_rng(5))


def test_submodules_are_torchs_own_under_the_names_of_the_layers(torch, model):
    import gatewise_torch

    there = gw.port(model, to="torch")
    assert type(there.both) is torch.nn.LSTM
    assert type(there.general) is gatewise_torch.LSTM
    assert type(there.head) is torch.nn.Linear
    assert set(there.general.state_dict()) == {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"}
    assert set(torch.nn.LSTM(8, 5).state_dict()) == set(there.general.state_dict())
    assert "(both): LSTM(3, 4, batch_first=True, bidirectional=True)" in repr(there)


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("plain", "plain"),
        ("my-lstm", "my_lstm"),
        ("1st", "layer_1st"),
        ("forward", "forward_"),
        ("network", "network_"),
        ("class", "class_"),
        ("a.b", "a_b"),
        ("two words", "two_words"),
    ],
)
def test_attribute_names_are_fit_for_python(keras, torch, name, attribute):
    model = keras.Sequential([keras.Input((None, 2)), keras.layers.LSTM(3, name=name)])
    there = gw.port(model, to="torch")
    assert type(getattr(there, attribute)) is torch.nn.LSTM
    assert all(parameter.startswith(f"{attribute}.") for parameter in there.state_dict())
    assert gw.port(there, to="keras").layers[-1].name == name


def test_it_shares_no_memory_and_leaves_the_source_alone(keras, torch, model):
    before = [array.copy() for array in model.get_weights()]
    trainable = [layer.trainable for layer in model.layers]
    there = gw.port(model, to="torch")
    back = gw.port(there, to="keras")
    with torch.no_grad():
        for parameter in there.parameters():
            parameter.add_(1)
    back.set_weights([array + 2 for array in back.get_weights()])
    assert all(map(np.array_equal, before, model.get_weights()))
    assert [layer.trainable for layer in model.layers] == trainable
    for module in there.modules():
        assert not module.training


@pytest.mark.filterwarnings("ignore::gatewise.PortWarning")
def test_a_torch_source_keeps_its_mode_and_its_gradients(torch):
    source = torch.nn.LSTM(3, 4).train()
    gw.port(source, to="keras")
    gw.verify(source, gw.port(source, to="keras"))
    assert source.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in source.parameters())


def test_the_second_bias_is_zero_and_frozen_until_it_is_freed(torch, model):
    there = gw.port(model, to="torch")
    free = gw.port(model, to="torch", second_bias="trainable")
    for name, parameter in there.named_parameters():
        assert parameter.requires_grad == ("bias_hh" not in name)
        assert "bias_hh" not in name or not parameter.any()
    assert all(parameter.requires_grad for parameter in free.parameters())
    done = port_and_tell(model, "torch")
    assert done.frozen == {"both": ("bias_hh_l0", "bias_hh_l0_reverse"), "general": ("bias_hh_l0",)}
    assert "second_bias='trainable'" in " ".join(done.remarks)
    with pytest.raises(GatewiseError, match="second_bias='thawed'"):
        gw.port(model, to="torch", second_bias="thawed")


@pytest.mark.parametrize("second_bias", ["frozen", "trainable"])
def test_what_is_frozen_stays_frozen(keras, torch, second_bias):
    layers = keras.layers
    names = ("table", "first", "both", "head")
    for held in (("first",), ("table", "both"), ("head",), names):
        made = keras.Sequential(
            [
                keras.Input((None,)),
                layers.Embedding(5, 3, name="table"),
                layers.LSTM(4, return_sequences=True, name="first"),
                layers.Bidirectional(layers.LSTM(4), name="both"),
                layers.Dense(2, name="head"),
            ]
        )
        for name in held:
            made.get_layer(name).trainable = False
        there = gw.port(made, to="torch", second_bias=second_bias)
        for name in names:
            for label, parameter in getattr(there, name).named_parameters():
                zero = second_bias == "frozen" and "bias_hh" in label
                assert parameter.requires_grad == (name not in held and not zero), (name, label)
        back = gw.port(there, to="keras")
        assert {name: back.get_layer(name).trainable for name in names} == {name: name not in held for name in names}


def test_one_direction_may_be_frozen_alone(keras):
    made = keras.Sequential([keras.Input((None, 3)), keras.layers.Bidirectional(keras.layers.LSTM(4), name="both")])
    made.get_layer("both").forward_layer.trainable = False
    there = gw.port(made, to="torch", second_bias="trainable")
    frozen = {name for name, parameter in there.both.named_parameters() if not parameter.requires_grad}
    assert frozen == {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("asked", [None, "float32", "float64"])
def test_the_type_of_numbers_is_kept_unless_another_is_asked_for(keras, torch, dtype, asked):
    layers = keras.layers
    made = keras.Sequential(
        [keras.Input((None, 2), dtype=dtype), layers.LSTM(3, dtype=dtype), layers.Dense(1, dtype=dtype)]
    )
    random_models.fill(made, np.random.default_rng(0))
    there = gw.port(made, to="torch", dtype=asked)
    wanted = asked or dtype
    assert {str(parameter.dtype) for parameter in there.parameters()} == {f"torch.{wanted}"}
    back = gw.port(there, to="keras")
    assert {weight.dtype.name for weight in back.get_weights()} == {wanted}
    assert gw.verify(made, there).passed
    assert gw.verify(there, back).passed


def test_outputs_keep_their_order_and_a_layer_may_read_a_state(keras, torch):
    source = keras.Input((None, 3))
    output, hidden, memory = keras.layers.LSTM(4, return_sequences=True, return_state=True, name="lstm")(source)
    late = keras.layers.Dense(2, name="late")(memory)
    made = random_models.fill(keras.Model(source, [hidden, late, output]), np.random.default_rng(0))
    there = gw.port(made, to="torch")
    inputs = np.random.default_rng(1).normal(size=(2, 5, 3)).astype("float32")
    ours = flat(keras, made(inputs))
    assert_close(ours, run_torch(torch, there, inputs), 2e-5)
    assert_close(ours, flat(keras, gw.port(there, to="keras")(inputs)), 2e-5)
    parity = gw.verify(made, there)
    assert parity.passed
    assert [each.name for each in parity.outputs] == ["lstm.state_h", "late.output", "lstm.output"]


def test_the_same_layer_may_stand_in_two_models_and_twice_in_one(keras):
    layer = keras.layers.LSTM(3, return_sequences=True, name="shared")
    one = keras.Model(source := keras.Input((None, 3)), layer(source))
    other = keras.Model(source := keras.Input((None, 3)), layer(source))
    assert gw.verify(one, gw.port(one, to="torch")).passed
    assert gw.verify(other, gw.port(other, to="torch")).passed
    twice = keras.Model(source := keras.Input((None, 3)), layer(layer(source)))
    module = gw.port(twice, to="torch")
    assert gw.verify(twice, module).passed
    assert [layer.shares for layer in module.network.layers] == ["", "", "shared"]
    assert sum(weight.numel() for weight in module.parameters() if weight.requires_grad) == twice.count_params()


# ── bare layers ─────────────────────────────────────────────────────────────────────────────────────────────────


def bare_keras():
    """Name → a bare Keras layer and the shape it reads."""
    return {
        "lstm": (lambda layers: layers.LSTM(4), (None, None, 3)),
        "lstm, sequences and states": (
            lambda layers: layers.LSTM(4, return_sequences=True, return_state=True),
            (None, None, 3),
        ),
        "lstm, relu, no bias": (lambda layers: layers.LSTM(4, activation="relu", use_bias=False), (None, None, 3)),
        "lstm, backwards": (lambda layers: layers.LSTM(4, go_backwards=True, return_sequences=True), (None, None, 3)),
        "gru": (lambda layers: layers.GRU(4, return_state=True), (None, None, 3)),
        "gru, reset before": (lambda layers: layers.GRU(4, reset_after=False), (None, None, 3)),
        "rnn": (lambda layers: layers.SimpleRNN(4, return_sequences=True), (None, None, 3)),
        "rnn, relu": (lambda layers: layers.SimpleRNN(4, activation="relu"), (None, None, 3)),
        **{
            f"bidirectional, {merge}": (
                lambda layers, merge=merge: layers.Bidirectional(
                    layers.LSTM(4, return_sequences=merge != "sum", return_state=merge == "ave"), merge_mode=merge
                ),
                (None, None, 3),
            )
            for merge in random_models.MERGES
        },
        "dense": (lambda layers: layers.Dense(4), (None, 3)),
        "dense, relu": (lambda layers: layers.Dense(4, "relu"), (None, 3)),
        "embedding": (lambda layers: layers.Embedding(6, 4), (None, None)),
    }


@pytest.mark.parametrize("case", bare_keras())
def test_bare_keras_layers(keras, torch, case):
    make, shape = bare_keras()[case]
    layer = with_weights(make(keras.layers), shape)
    there = gw.port(layer, to="torch")
    rng = np.random.default_rng(3)
    for sizes in ((2, 6), (1, 3)):
        axes = [size or next(left) for left in [iter(sizes)] for size in shape]
        inputs = rng.integers(0, 6, axes) if case == "embedding" else rng.normal(size=axes).astype("float32")
        ours = flat(keras, layer(inputs))
        assert_close(ours, run_torch(torch, there, inputs), 2e-5)
    back = gw.port(there, to="keras")
    assert_close(ours, flat(keras, back(inputs)), 2e-5)
    parity = gw.verify(layer, there)
    assert parity.verdict in ("passed", "inconclusive" if "relu" in case else "passed")
    recurrent = len(shape) == 3
    assert any("random initial states" in trial for trial in parity.trials) == recurrent


def test_an_unbuilt_layer_is_said_to_be_unbuilt(keras):
    layers = keras.layers
    for layer in (layers.LSTM(3), layers.Dense(3), layers.Embedding(3, 2), layers.Bidirectional(layers.LSTM(3))):
        with pytest.raises(UnsupportedModelError, match="is not built"):
            gw.port(layer, to="torch")
    with pytest.raises(UnsupportedModelError, match="it is not built"):
        gw.port(keras.Sequential([layers.LSTM(3)]), to="torch")


STACKS = [
    (kind, options)
    for kind in ("LSTM", "GRU", "RNN")
    for options in (
        {},
        {"batch_first": True},
        {"bias": False},
        {"num_layers": 2},
        {"bidirectional": True, "batch_first": True},
        {"num_layers": 3, "bidirectional": True, "bias": False},
        {"num_layers": 2, "dropout": 0.3, "dtype": "float64"},
    )
] + [("RNN", {"nonlinearity": "relu", "num_layers": 2})]


@pytest.mark.filterwarnings("ignore::gatewise.PortWarning")
@pytest.mark.parametrize(("kind", "options"), STACKS, ids=str)
def test_bare_torch_layers_come_out_batch_first_with_their_states(keras, torch, kind, options):
    options = {**options, **({"dtype": getattr(torch, options["dtype"])} if "dtype" in options else {})}
    source = randomised(torch, getattr(torch.nn, kind)(3, 4, **options))
    there = gw.port(source, to="keras")
    tolerance = 1e-11 if "dtype" in options else 2e-5
    dtype = "float64" if "dtype" in options else "float32"
    for batch, steps in ((2, 5), (1, 3)):
        inputs = np.random.default_rng(batch).normal(size=(batch, steps, 3)).astype(dtype)
        given = torch.tensor(inputs)
        with torch.no_grad():
            output, state = source.eval()(given if source.batch_first else given.transpose(0, 1))
        states = state if isinstance(state, tuple) else (state,)
        wanted = [output if source.batch_first else output.transpose(0, 1), *(each.transpose(0, 1) for each in states)]
        made_output, made_state = there(inputs)
        assert isinstance(made_state, tuple) == (kind == "LSTM")
        assert_close([each.numpy() for each in wanted], flat(keras, (made_output, made_state)), tolerance)
    if not options:  # predict traces the model, which takes its time
        predicted = there.predict(inputs, verbose=0)
        # predict rounds its inputs to float32, whatever the model computes in.
        assert_close(flat(keras, (made_output, made_state)), keras.tree.flatten(predicted), max(tolerance, 1e-6))
    back = gw.port(there, to="torch")
    assert_close([wanted[0].numpy()], of_torch(torch, back.eval()(given))[:1], tolerance)
    if source.num_layers == 1:
        assert type(back) is getattr(torch.nn, kind)
        assert_close([each.numpy() for each in (wanted[0], *states)], of_torch(torch, back(given)), tolerance)
    else:
        kinds = {type(module) for module in back.children()}
        assert kinds - {torch.nn.Dropout} == {getattr(torch.nn, kind)}
    parity = gw.verify(source, there)
    assert parity.verdict == "passed" or "nonlinearity" in options, str(parity)


@pytest.mark.parametrize("bias", [True, False])
def test_linear_and_embedding(keras, torch, bias):
    source = randomised(torch, torch.nn.Linear(3, 4, bias=bias))
    there = gw.port(source, to="keras")
    inputs = np.random.default_rng(0).normal(size=(2, 3)).astype("float32")
    assert_close(run_torch(torch, source, inputs), flat(keras, there(inputs)), 1e-5)
    assert type(gw.port(there, to="torch")) is torch.nn.Linear
    source = randomised(torch, torch.nn.Embedding(6, 4))
    there = gw.port(source, to="keras")
    tokens = np.array([[0, 5, 3]])
    assert_close(run_torch(torch, source, tokens), flat(keras, there(tokens)), 0)
    assert type(gw.port(there, to="torch")) is torch.nn.Embedding


def test_other_torch_modules_are_refused_with_what_is_supported(torch):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(3, 4)

        def forward(self, given):
            return self.lstm(given)[0]

    class Mine(torch.nn.LSTM):
        pass

    refused = (
        Net(),
        Mine(3, 4),
        torch.nn.Bilinear(2, 2, 2),
        torch.nn.Conv1d(1, 1, 1),
        torch.nn.Embedding(3, 2, max_norm=1.0),
    )
    for module in refused:
        with pytest.raises(UnsupportedModelError) as caught:
            gw.port(module, to="keras")
        assert type(module).__name__ in str(caught.value)
        assert "nn.LSTM" in str(caught.value)
    with pytest.raises(UnsupportedModelError, match="belongs to no framework"):
        gw.port({"a": 1}, to="keras")


def test_weights_that_are_not_finite_are_refused_by_name(keras, torch, model):
    source = torch.nn.LSTM(2, 3)
    with torch.no_grad():
        source.weight_hh_l0[0, 0] = float("nan")
    with pytest.raises(WeightsError, match="'weight_hh_l0' of layer 'lstm' holds 1 values"):
        gw.port(source, to="keras")
    made = keras.models.clone_model(model)
    weights = made.get_weights()
    weights[-1][0] = np.inf
    made.set_weights(weights)
    with pytest.raises(WeightsError, match="'bias' of layer 'head'"):
        gw.port(made, to="torch")


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────


ALONE = """
import sys
for name in ("tensorflow", "keras", "h5py"):
    sys.modules[name] = None
import numpy as np, torch
import gatewise as gw
folder = sys.argv[1]
model = gw.load(folder + "/model.safetensors")
with torch.no_grad():
    np.save(folder + "/outputs.npy", model(torch.tensor(np.load(folder + "/inputs.npy"))).numpy())
print(sorted(name for name, parameter in model.named_parameters() if not parameter.requires_grad))
assert not model.training and not any(name.partition(".")[0] in ("tensorflow", "keras") for name in sys.modules
                                      if sys.modules[name] is not None)
"""


def test_a_saved_port_loads_where_there_is_no_keras(keras, torch, model, tmp_path):
    there = gw.port(model, to="torch")
    gw.save(there, tmp_path / "model.safetensors")
    inputs = np.random.default_rng(0).normal(size=(3, 6, 3)).astype("float32")
    np.save(tmp_path / "inputs.npy", inputs)
    done = subprocess.run([sys.executable, "-c", ALONE, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "outputs.npy"), run_torch(torch, there, inputs)[0])
    assert "both.bias_hh_l0_reverse" in done.stdout
    assert_close(flat(keras, model(inputs)), [np.load(tmp_path / "outputs.npy")], 2e-5)


def test_the_metadata_is_json_that_says_what_the_model_is(torch, model, tmp_path):
    from safetensors import safe_open

    there = gw.port(model, to="torch")
    gw.save(there, tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", "np") as file:
        said = json.loads(file.metadata()[METADATA])
        assert set(file.keys()) == {name for name, _ in there.named_parameters()}, (
            "the names of a state dict, so that torch alone reads the arrays"
        )
    assert said["framework"] == "torch"
    assert gw.Network.from_dict(said["network"]) == gw.describe(there)
    assert said["network"]["layers"][1]["options"]["bidirectional"] is True


@pytest.mark.parametrize("suffix", [".safetensors", ".keras"])
def test_keras_models_return_from_files(keras, model, tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    gw.save(model, path)
    again = gw.load(path)
    inputs = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    assert isinstance(again, keras.Model)
    assert_close(flat(keras, model(inputs)), flat(keras, again(inputs)), 0)
    assert gw.verify(model, path).passed
    there = gw.load(path, to="torch")
    assert gw.verify(model, there).passed
    assert not there.both.bias_hh_l0.requires_grad
    assert there.both.bias_ih_l0.requires_grad
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bare_layers_return_from_files(keras, torch, tmp_path, dtype):
    for number, layer in enumerate(
        (
            torch.nn.LSTM(3, 4, num_layers=2, bidirectional=True, dtype=getattr(torch, dtype)),
            torch.nn.GRU(3, 4, bias=False, dtype=getattr(torch, dtype)),
            torch.nn.Linear(3, 4, dtype=getattr(torch, dtype)),
            torch.nn.Embedding(3, 4, dtype=getattr(torch, dtype)),
        )
    ):
        path = tmp_path / f"{number}.safetensors"
        gw.save(layer, path)
        again = gw.load(path)
        assert type(again) is type(layer)
        state = again.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in layer.state_dict().items())
        assert {str(value.dtype) for value in state.values()} == {f"torch.{dtype}"}
    layer = with_weights(keras.layers.LSTM(4, dtype=dtype), (None, None, 3))
    for suffix in (".safetensors", ".keras"):
        gw.save(layer, tmp_path / f"layer{suffix}")
        assert gw.verify(layer, tmp_path / f"layer{suffix}").passed


def test_frozen_tensors_stay_frozen_in_a_file(torch, model, tmp_path):
    free = gw.port(model, to="torch", second_bias="trainable")
    free.head.weight.requires_grad_(False)
    gw.save(free, tmp_path / "free.safetensors")
    again = gw.load(tmp_path / "free.safetensors")
    assert [name for name, parameter in again.named_parameters() if not parameter.requires_grad] == ["head.weight"]


def test_one_layers_name_may_begin_with_anothers(keras, tmp_path):
    layers = keras.layers
    made = keras.Sequential(
        [
            keras.Input((None, 2)),
            layers.LSTM(3, return_sequences=True, name="a"),
            layers.LSTM(3, return_sequences=True, name="a.b"),
            layers.LSTM(3, name="a_b"),
        ]
    )
    random_models.fill(made, np.random.default_rng(0))
    there = gw.port(made, to="torch")
    assert gw.verify(made, there).passed
    gw.save(there, tmp_path / "m.safetensors")
    assert gw.verify(made, tmp_path / "m.safetensors").passed


def spoil_network(about, **changes):
    said = json.loads(about[METADATA])
    said["network"]["layers"][1]["options"].update(changes)
    return {METADATA: json.dumps(said)}


def changed(about, **changes):
    return {METADATA: json.dumps(json.loads(about[METADATA]) | changes)}


SPOILED = {
    "no metadata": lambda arrays, about: (arrays, {}),
    "no JSON": lambda arrays, about: (arrays, {METADATA: "{"}),
    "a list": lambda arrays, about: (arrays, {METADATA: "[]"}),
    "no network": lambda arrays, about: (arrays, {METADATA: '{"framework": "torch"}'}),
    "an empty network": lambda arrays, about: (arrays, changed(about, network={"layers": [], "outputs": []})),
    "an unknown framework": lambda arrays, about: (arrays, changed(about, framework="theano")),
    "a framework without models": lambda arrays, about: (arrays, changed(about, framework="dl4j")),
    "an unknown form": lambda arrays, about: (arrays, changed(about, form="sphere")),
    "frozen is no list": lambda arrays, about: (arrays, changed(about, frozen=3)),
    "an unknown option": lambda arrays, about: (arrays, spoil_network(about, colour="red")),
    "other units": lambda arrays, about: (arrays, spoil_network(about, units=7)),
    "other features": lambda arrays, about: (arrays, spoil_network(about, features=7)),
    "units of none": lambda arrays, about: (arrays, spoil_network(about, units=0)),
    "an array is missing": lambda arrays, about: ({name: arrays[name] for name in list(arrays)[1:]}, about),
    "whole numbers": lambda arrays, about: (arrays | {"head.bias": arrays["head.bias"].astype("int32")}, about),
    "an array too many": lambda arrays, about: (arrays | {"lstm.more": np.zeros(3, "float32")}, about),
    "another shape": lambda arrays, about: (arrays | {"head.bias": np.zeros(3, "float32")}, about),
    "nothing at all": lambda arrays, about: ({}, about),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_file_that_does_not_hold_what_it_says_is_refused(keras, torch, model, tmp_path, case):
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    gw.save(gw.port(model, to="torch"), path := tmp_path / "m.safetensors")
    with safe_open(path, "np") as file:
        about = file.metadata()
    arrays, about = SPOILED[case](load_file(path), about)
    save_file(arrays, path, about or None)
    for to in (None, "torch", "keras"):
        with pytest.raises(FileError) as caught:
            gw.load(path, to=to)
        assert "m.safetensors" in str(caught.value)
        assert "Hint: " in str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".keras"])
def test_damaged_files_are_refused(keras, model, tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    gw.save(gw.port(model, to="torch") if suffix == ".safetensors" else model, path)
    whole = path.read_bytes()
    damaged = [b"", b"hello", whole[: len(whole) // 2], whole[:20], whole[:-7]]
    if suffix == ".safetensors":
        damaged += [bytes(64) + whole, whole[40:]]  # A zip file is read from its end.
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(FileError, match=path.name):
            gw.load(path)
    path.unlink()
    with pytest.raises(FileError, match="No such file"):
        gw.load(path)
    (tmp_path / "m.txt").write_bytes(b"")
    with pytest.raises(FileError, match=r"unsupported file type \.txt"):
        gw.load(tmp_path / "m.txt")


def test_saving_says_what_does_not_go_where(torch, model, tmp_path):
    for obj, name, met in (
        (torch.nn.LSTM(2, 3), "m.keras", "A torch object does not go into m.keras"),
        (model, "m.pt", "unsupported file type .pt"),
        (model, "missing/m.safetensors", "cannot be written"),
        (model, "missing/m.keras", "cannot be written"),
    ):
        with pytest.raises(FileError, match=met):
            gw.save(obj, tmp_path / name)
    assert not list(tmp_path.iterdir())
