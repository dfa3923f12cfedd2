"""From torch into Keras: every option of torch.nn's layers and cells, and of the general ones; verdicts of the GRU."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest

import gatewise as gw
from gatewise.core.spec import ACTIVATIONS
from gatewise.errors import ImpossiblePlanError, SpecError, UnsupportedModelError
from gatewise.registry import owner

# Bare layers of torch return their states with the batch second, their ports with the batch first, and gw.port says so:
# tests/test_called_alike.py. Here the numbers count.
pytestmark = pytest.mark.filterwarnings("ignore::gatewise.PortWarning")

COMPUTED = [name for name in ACTIVATIONS if name not in ("threshold", "glu", "gelu", "leaky_relu")]
"""Without the two whose constants TensorFlow rounds to float32."""


def chance(rng, probability):
    return bool(rng.random() < probability)


def pick(rng, choices):
    return choices[int(rng.integers(len(choices)))]


def fill(torch, module, rng, scale=0.6):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.tensor(rng.normal(0, scale, parameter.shape)))
    return module.eval()


def assert_same(ours, theirs, tolerance=1e-10):
    assert [each.shape for each in ours] == [each.shape for each in theirs]
    for mine, yours in zip(ours, theirs, strict=True):
        finite = np.isfinite(mine)
        assert (finite == np.isfinite(yours)).all()
        if finite.any():
            largest = max(1.0, float(np.abs(mine[finite]).max()))
            assert float(np.abs(mine[finite] - yours[finite]).max()) <= tolerance * largest


def outputs(obj, arrays):
    _, adapter = owner(obj)
    with np.errstate(all="ignore"):
        return adapter.call(obj, arrays)


def assert_there_and_back(module, arrays):
    """Port to Keras and back, and compare every output and state of all three."""
    model = gw.port(module, to="keras")
    ours = outputs(module, arrays)
    assert_same(ours, outputs(model, arrays))
    assert_same(ours, outputs(gw.port(model, to="torch"), arrays))
    return model


def draw_plain(torch, rng):
    """Return a random layer or cell of torch.nn."""
    kind = pick(rng, ("LSTM", "LSTM", "GRU", "RNN"))
    units = int(rng.integers(2, 6))
    options = {"bias": chance(rng, 0.7), "dtype": torch.float64}
    if kind == "RNN":
        options["nonlinearity"] = pick(rng, ("tanh", "relu"))
    if chance(rng, 0.15):
        return getattr(torch.nn, f"{kind}Cell")(3, units, **options), True
    options |= {
        "num_layers": int(rng.integers(1, 4)),
        "bidirectional": chance(rng, 0.5),
        "batch_first": chance(rng, 0.5),
    }
    if options["num_layers"] > 1:
        options["dropout"] = pick(rng, (0.0, 0.3))
    if kind == "LSTM" and chance(rng, 0.4):
        options["proj_size"] = int(rng.integers(1, units))
    return getattr(torch.nn, kind)(3, units, **options), False


def draw_general(torch, rng):
    """Return a random layer of gatewise_torch."""
    import gatewise_torch

    kind = pick(rng, ("LSTM", "LSTM", "GRU", "RNN"))
    units = int(rng.integers(2, 6))
    options = {
        "bias": pick(rng, (True, False, "single", "dual", "none")),
        "dtype": torch.float64,
        "num_layers": int(rng.integers(1, 4)),
        "bidirectional": chance(rng, 0.5),
        "batch_first": chance(rng, 0.5),
        "activation": pick(rng, COMPUTED) if chance(rng, 0.5) else "tanh",
        "merge": pick(rng, ("concat", "sum", "mul", "ave", None)),
        "go_backwards": chance(rng, 0.3),
        "return_sequences": chance(rng, 0.6),
        "return_state": chance(rng, 0.7),
        "zero_output_for_mask": chance(rng, 0.3),
        "input_dropout": pick(rng, (0.0, 0.3)),
        "recurrent_dropout": pick(rng, (0.0, 0.3)),
        "dropout_masks": pick(rng, (None, "gate")),
    }
    if options["merge"] is None and options["bidirectional"]:
        options["num_layers"] = 1
    if kind != "RNN":
        options["recurrent_activation"] = pick(rng, COMPUTED) if chance(rng, 0.4) else "sigmoid"
    if kind == "GRU":
        options["reset"] = pick(rng, ("before", "after"))
    if kind == "LSTM":
        options["peepholes"] = pick(rng, (False, False, True, "full"))
        options["cell_clip"] = pick(rng, (None, None, 0.5))
        options["proj_size"] = pick(rng, (0, 0, 2, units))
        options["forget_bias"] = pick(rng, (0.0, 0.0, 1.0))
    return getattr(gatewise_torch, kind)(3, units, **options)


def check_plain(torch, seed):
    rng = np.random.default_rng(seed)
    module, cell = draw_plain(torch, rng)
    fill(torch, module, rng)
    shape = (2, 3) if cell else (2, int(rng.integers(1, 6)), 3)
    assert_there_and_back(module, [rng.normal(size=shape)])


def check_general(torch, seed):
    rng = np.random.default_rng(seed)
    module = fill(torch, draw_general(torch, rng), rng)
    assert_there_and_back(module, [rng.normal(size=(2, int(rng.integers(1, 6)), 3))])


@pytest.mark.parametrize("seed", range(20))
def test_random_torch_layer(keras, torch, seed):
    check_plain(torch, seed)


@pytest.mark.parametrize("seed", range(25))
def test_random_general_layer(keras, torch, seed):
    check_general(torch, seed)


def draw_chain(torch, rng):
    """Return a random ``nn.Sequential``, and what to feed it."""
    import gatewise_torch

    nn, size, sequence = torch.nn, 3, True
    given = rng.normal(size=(2, int(rng.integers(2, 6)), size))
    modules = []
    if chance(rng, 0.3):
        modules, given = [nn.Embedding(7, size)], rng.integers(0, 7, given.shape[:2])
    for _ in range(int(rng.integers(1, 5))):
        units = int(rng.integers(2, 6))
        kind = pick(rng, ("Linear", "LayerNorm", "Dropout", "activation", "nested", "LSTM", "GRU", "RNN"))
        if kind == "Linear":
            modules.append(nn.Linear(size, units, bias=chance(rng, 0.7)))
        elif kind == "nested":
            modules.append(nn.Sequential(nn.Linear(size, units), nn.Identity(), nn.Tanh()))
        elif kind == "LayerNorm":
            modules.append(nn.LayerNorm(size, elementwise_affine=chance(rng, 0.7)))
        elif kind == "Dropout":
            modules.append(nn.Dropout(0.4))
        elif kind == "activation":
            # TensorFlow rounds the slope to float32: this one is none the worse for it.
            kinds = (nn.ReLU, nn.Sigmoid, nn.SiLU, nn.Mish, lambda: nn.LeakyReLU(0.25), nn.ReLU6, nn.ELU)
            modules.append(pick(rng, kinds)())
        elif sequence:
            sequence = chance(rng, 0.7)
            options = {"batch_first": True, "return_state": False, "return_sequences": sequence}
            modules.append(getattr(gatewise_torch, kind)(size, units, bidirectional=chance(rng, 0.3), **options))
            size = units * modules[-1].directions
        if kind in ("Linear", "nested"):
            size = units
    if sequence and chance(rng, 0.5):
        modules.append(nn.LSTM(size, 3, batch_first=True, num_layers=2))
    if not any(True for module in modules for _ in module.parameters()):
        modules.append(nn.Linear(size, 2))
    module = nn.Sequential(*modules).double()
    if given.ndim > 1 + len(gw.describe(module).layers[0].spec.shape):
        given = given[
            :, 0
        ]  # a model of Keras says how many axes it reads, and without recurrent layers these may be two
    return module, given


def check_chain(torch, seed):
    rng = np.random.default_rng(seed)
    module, given = draw_chain(torch, rng)
    fill(torch, module, rng)
    model = gw.port(module, to="keras")
    again = gw.port(model, to="torch")
    ours = outputs(module, [given])
    assert_same(ours, outputs(model, [given]))
    assert_same(ours, outputs(again, [given]))


@pytest.mark.parametrize("seed", range(20))
def test_random_chain(keras, torch, seed):
    check_chain(torch, seed)


def test_a_module_that_stands_twice_in_a_chain_has_its_weights_once(keras, torch):
    one = torch.nn.Linear(3, 3)
    module = fill(torch, torch.nn.Sequential(one, torch.nn.Tanh(), one).double(), np.random.default_rng(0))
    model = assert_there_and_back(module, [np.random.default_rng(1).normal(size=(2, 3))])
    assert model.count_params() == 12


def test_a_stateful_module_that_stands_twice_goes_on_from_its_own_states(keras, torch):
    import gatewise_torch

    rng = np.random.default_rng(2)
    one = gatewise_torch.GRU(3, 3, batch_first=True, return_state=False, stateful=True)
    module = fill(torch, torch.nn.Sequential(one, torch.nn.Tanh(), one).double(), rng)
    given = rng.normal(size=(2, 4, 3))
    outputs(module, [given])  # it learns its batch size
    assert_there_and_back(module, [given])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda nn: [nn.Dropout(0.1)], "no module in it says how large its input is"),
        (lambda nn: [nn.LSTM(3, 4), nn.Tanh()], "module 0 of an nn.Sequential and not batch_first"),
        (lambda nn: [nn.LSTM(3, 4, batch_first=True), nn.Tanh()], "more than the next one can read"),
        (lambda nn: [nn.Linear(3, 4), nn.CELU(0.5)], "alpha=0.5, and celu in Keras is"),
        (lambda nn: [nn.Linear(3, 4), nn.Softmax(1)], "dim=1, and softmax in Keras is dim=-1"),
        (
            lambda nn: [nn.Linear(3, 4), nn.Sequential(nn.LSTMCell(4, 5))],
            "module 1.0 of an nn.Sequential, and one step",
        ),
    ],
)
def test_chains_refused_by_name(torch, make, words):
    with pytest.raises(UnsupportedModelError, match=re.escape(words)):
        gw.port(torch.nn.Sequential(*make(torch.nn)), to="keras")


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1000, 1400))
def test_random_layer_long(keras, torch, seed):
    check_plain(torch, seed)
    check_general(torch, seed)
    check_chain(torch, seed)


@pytest.mark.parametrize(
    "make",
    [
        lambda torch: torch.nn.LSTM(3, 5, num_layers=2, bidirectional=True, proj_size=2),
        lambda torch: torch.nn.GRU(3, 4, num_layers=2, batch_first=True, dropout=0.2),
        lambda torch: torch.nn.RNN(3, 4, nonlinearity="relu", bias=False),
        lambda torch: torch.nn.LSTMCell(3, 4),
        lambda torch: torch.nn.GRUCell(3, 4),
    ],
)
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_verified_both_ways(keras, torch, make):
    module = fill(torch, make(torch), np.random.default_rng(0))
    model = gw.port(module, to="keras")
    assert gw.verify(module, model).passed
    assert gw.verify(model, gw.port(model, to="torch")).passed


def test_dropout_between_layers_is_a_layer_of_keras(keras, torch):
    model = gw.port(torch.nn.LSTM(3, 4, num_layers=2, dropout=0.25), to="keras")
    assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [0.25]


def test_time_first_is_said(keras, torch):
    from gatewise.live import port

    assert "batch_first=False" in " ".join(port(torch.nn.LSTM(3, 4), to="keras").calls)
    assert "batch_first=False" not in " ".join(port(torch.nn.LSTM(3, 4, batch_first=True), to="keras").calls)


def test_gru_keeps_both_biases(keras, torch):
    """Keras's GRU has two, as torch's: every bit returns."""
    module = torch.nn.GRU(3, 4)
    back = gw.port(gw.port(module, to="keras"), to="torch", second_bias="trainable")
    for (name, here), (_, there) in zip(module.named_parameters(), back.named_parameters(), strict=True):
        assert torch.equal(here, there), name
    bias = next(each for each in gw.port(module, to="keras").weights if each.name == "bias")
    assert tuple(bias.shape) == (2, 12)


def test_refused_by_name(keras, torch):
    import gatewise_torch

    with pytest.raises(UnsupportedModelError, match=r"activation.* function"):
        gw.port(gatewise_torch.LSTM(3, 4, activation=lambda x: x), to="keras")


def test_what_is_around_a_module_is_refused_by_name(keras, torch):
    from torch.nn.utils import parametrizations, prune

    hooked = torch.nn.GRU(3, 4)
    hooked.register_forward_pre_hook(lambda module, given: given)
    pruned = prune.random_unstructured(torch.nn.Linear(3, 4), "weight", 0.3)
    normed = parametrizations.weight_norm(torch.nn.Linear(3, 4))
    for module, met, hint in (
        (hooked, r"A GRU has a hook, <lambda>", r"handle\.remove\(\)"),
        (torch.nn.Sequential(pruned), r"A Linear \(0\) has a hook, RandomUnstructured", r"prune\.remove"),
        (normed, "A ParametrizedLinear computes its weights from others", r"remove_parametrizations\(module, name\)"),
        (torch.nn.LSTM(3, 4, device="meta"), "A LSTM lies on the device 'meta'", "load_state_dict"),
        (torch.zeros(3), "A Tensor is no module", "Give the module"),
    ):
        with pytest.raises(UnsupportedModelError, match=rf"{met}(.|\n)*Hint: .*{hint}"):
            gw.port(module, to="keras")


def test_kept_states_are_left_behind_with_a_remark(keras, torch):
    import gatewise_torch

    from gatewise.live import port

    said = "begins with zeros, as after reset_state()"
    module = gatewise_torch.GRU(3, 4, stateful=True, batch_first=True)
    module(torch.ones(2, 5, 3))
    there = port(module, to="keras")
    assert said in " ".join(there.remarks)
    assert said not in " ".join(port(there.result, to="torch").remarks)
    there.result(np.ones((2, 5, 3), np.float32))
    assert said in " ".join(port(there.result, to="torch").remarks)


def test_stateful_in_two_directions_with_its_states(keras, torch):
    import gatewise_torch

    module = gatewise_torch.GRU(3, 4, stateful=True, batch_first=True, bidirectional=True)
    module(torch.ones(2, 5, 3))
    with pytest.raises(UnsupportedModelError, match=r"stateful in two directions(.|\n)*return_state=False"):
        gw.port(module, to="keras")
    module.return_state = False
    assert gw.verify(module, gw.port(module, to="keras")).passed


def test_stateful_needs_its_batch_size(keras, torch):
    import gatewise_torch

    module = gatewise_torch.GRU(3, 4, stateful=True, batch_first=True)
    with pytest.raises(UnsupportedModelError, match=r"stateful=True(.|\n)*batch size"):
        gw.port(module, to="keras")
    batches = np.random.default_rng(0).normal(size=(3, 2, 5, 3)).astype("float32")
    with torch.no_grad():
        module(torch.tensor(batches[0]))
        model = gw.port(module, to="keras")
        module.reset_state()
        for batch in batches:
            expected, state = module(torch.tensor(batch))
            output, last = model(batch)
            np.testing.assert_allclose(np.asarray(output), expected.numpy(), atol=1e-6)
            np.testing.assert_allclose(np.asarray(last)[:, 0], state[0].numpy(), atol=1e-6)


# ── the registered cell ─────────────────────────────────────────────────────────────────────────────────────────


def draw_cell(rng, units, dtype):
    from gatewise_keras.functions import activation

    return {
        "projection": pick(rng, (None, 2, units)),
        "peepholes": pick(rng, (False, True, "full")),
        "cell_clip": pick(rng, (None, 0.5)),
        "use_bias": chance(rng, 0.7),
        "activation": activation(pick(rng, COMPUTED)),
        "recurrent_activation": activation(pick(rng, ("sigmoid", "hard_sigmoid_02", "softmax"))),
        "dropout": pick(rng, (0.0, 0.3)),
        "recurrent_dropout": pick(rng, (0.0, 0.3)),
        "dtype": dtype,
    }


@pytest.mark.parametrize("seed", range(15))
def test_general_cell_against_torch(keras, torch, seed):
    """The cell in Keras's own loop, with masks, both directions and first states, against gatewise_torch."""
    from gatewise_keras.cells import GeneralLSTMCell

    rng = np.random.default_rng(seed)
    source = keras.Input((None, 3), dtype="float64")
    x = keras.layers.Masking(dtype="float64")(source)
    options = {"return_sequences": chance(rng, 0.5), "return_state": chance(rng, 0.5), "dtype": "float64"}
    layer = keras.layers.RNN(GeneralLSTMCell(4, **draw_cell(rng, 4, "float64")), **options)
    if chance(rng, 0.5):
        layer = keras.layers.Bidirectional(layer, merge_mode=pick(rng, ("concat", "sum", None)), dtype="float64")
    model = keras.Model(source, keras.tree.flatten(layer(x)))
    for weight in model.weights:
        weight.assign(rng.normal(0, 0.6, weight.shape))
    array = rng.normal(size=(3, 5, 3))
    array[0, 3:] = array[1, :2] = array[2] = 0.0
    assert_same(outputs(model, [array]), outputs(gw.port(model, to="torch"), [array]))


def test_general_cell_without_its_options_is_keras_own(keras):
    from gatewise_keras.cells import GeneralLSTMCell

    for options in ({}, {"use_bias": False}, {"recurrent_activation": "hard_sigmoid"}):
        cells = [GeneralLSTMCell(4, **options), keras.layers.LSTMCell(4, **options)]
        layers = [keras.layers.RNN(cell, return_sequences=True) for cell in cells]
        array = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
        for layer in layers:
            layer.build((None, None, 3))
        layers[1].set_weights(layers[0].get_weights())
        np.testing.assert_allclose(*(np.asarray(layer(array)) for layer in layers), atol=1e-6)
    ones = keras.layers.RNN(GeneralLSTMCell(4))
    ones.build((None, None, 3))
    assert ones.get_weights()[2].tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8


def test_general_cell_trains_with_dropout(keras):
    from gatewise_keras.cells import GeneralLSTMCell

    for options in ({"dropout": 0.5}, {"recurrent_dropout": 0.5}, {"dropout": 0.5, "recurrent_dropout": 0.5}):
        layer = keras.layers.RNN(GeneralLSTMCell(8, projection=3, peepholes=True, cell_clip=1.0, **options))
        array = np.ones((2, 4, 3), "float32")
        still, moving = np.asarray(layer(array)), np.asarray(layer(array, training=True))
        assert not np.allclose(still, moving)
        assert np.allclose(still, np.asarray(layer(array, training=False)))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"projection": 0}, "projection=0"),
        ({"peepholes": "half"}, "peepholes='half'"),
        ({"cell_clip": -1.0}, "cell_clip"),
    ],
)
def test_general_cell_refuses(keras, options, word):
    from gatewise_keras.cells import GeneralLSTMCell

    with pytest.raises(SpecError, match=word):
        GeneralLSTMCell(4, **options)


def run_fresh(code):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_files_load_in_a_fresh_process(keras, torch, tmp_path):
    """``gatewise.load`` knows our cell; of a class of somebody else's it names what has to be imported."""

    @keras.saving.register_keras_serializable(package="elsewhere")
    class Own(keras.layers.SimpleRNNCell):
        pass

    module = fill(torch, torch.nn.LSTM(3, 4, proj_size=2, bidirectional=True), np.random.default_rng(0))
    model = gw.port(module, to="keras")
    gw.save(model, path := tmp_path / "model.keras")
    gw.save(model, tmp_path / "model.safetensors")
    array = np.random.default_rng(1).normal(size=(2, 4, 3)).astype("float32")
    for name in ("model.keras", "model.safetensors"):
        assert_same(outputs(model, [array]), outputs(gw.load(tmp_path / name), [array]), 1e-6)
    source = keras.Input((None, 3))
    keras.Model(source, keras.layers.RNN(Own(4))(source)).save(tmp_path / "own.keras")
    code, said = run_fresh(
        "import gatewise as gw\n"
        f"print(type(gw.load({str(path)!r})).__name__)\n"
        f"try:\n    gw.load({str(tmp_path / 'own.keras')!r})\n"
        "except gw.errors.FileError as error:\n    print('FileError', error)\n"
    )
    assert code == 0, said
    for word in ("Functional", "FileError", "own.keras holds elsewhere>Own", "import the module"):
        assert word in said


def test_keras_itself_loads_it_after_the_import(keras, torch, tmp_path):
    gw.save(gw.port(torch.nn.LSTM(3, 4, proj_size=2), to="keras"), path := tmp_path / "model.keras")
    code, said = run_fresh(
        "import keras\n"
        f"try:\n    keras.saving.load_model({str(path)!r})\nexcept Exception:\n    print('refused')\n"
        "import gatewise_keras.cells\n"
        f"print(type(keras.saving.load_model({str(path)!r})).__name__)\n"
    )
    assert code == 0, said
    assert "refused" in said
    assert "Functional" in said


# ── verdicts where the functions differ ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("reset", "other"), [("before", "torch"), ("after", "haiku"), ("after", "tf1")])
def test_reset_before_and_after_are_two_functions(reset, other):
    plan = gw.mapping(gw.GRU(3, 4, reset=reset), "keras", other)
    assert plan.verdict == "impossible"
    assert not plan.unless
    assert "resets" in plan.reason
    assert "no weights agree" in plan.reason
    assert plan.way_out
    with pytest.raises(ImpossiblePlanError, match="resets"):
        plan.apply({})
    with pytest.raises(ImpossiblePlanError):
        plan.inverse()


def test_reset_before_goes_where_it_is_computed():
    assert gw.mapping(gw.GRU(3, 4, reset="before"), "keras", "haiku").verdict == "exact"
    assert gw.mapping(gw.GRU(3, 4, reset="before"), "keras", "torch:general.GRU").verdict == "exact"


def test_a_live_gru_that_resets_before_ports(keras, torch):
    """nn.GRU cannot compute it, and gatewise_torch.GRU does."""
    import gatewise_torch

    source = keras.Input((None, 3))
    model = keras.Model(source, keras.layers.GRU(4, reset_after=False, name="gru")(source))
    model.set_weights([np.random.default_rng(0).normal(size=each.shape) for each in model.get_weights()])
    module = gw.port(model, to="torch")
    assert isinstance(module.gru, gatewise_torch.GRU)
    assert module.gru.reset == "before"
    assert gw.verify(model, module).passed
    assert gw.mapping(gw.GRU(3, 4, reset="before"), "keras", "torch").verdict == "impossible"


@pytest.mark.parametrize("source", ["keras", "torch"])
def test_the_second_bias_of_the_candidate(source):
    """Flax nnx has none: possible only where it is zero."""
    spec = gw.GRU(3, 4)
    plan = gw.mapping(spec, source, "nnx")
    assert plan.verdict == "impossible"
    assert plan.unless == ("recurrent_bias = 0 for gate n",)
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape) for name, shape in plan.source_shapes.items()}
    with pytest.raises(ImpossiblePlanError, match="is not zero"):
        plan.apply(arrays)
    if source == "keras":
        arrays["bias"][1, 8:] = 0.0
    else:
        arrays["bias_hh_l0"][8:] = 0.0
    assert set(plan.apply(arrays)) == set(plan.target_shapes)
    assert gw.mapping(spec, "nnx", source).verdict == "exact"


def test_lstm_and_rnn_have_no_such_bias():
    for spec in (gw.LSTM(3, 4), gw.RNN(3, 4)):
        assert gw.mapping(spec, "torch", "nnx").verdict == "equivalent"
        assert gw.mapping(spec, "nnx", "torch").verdict == "exact"
