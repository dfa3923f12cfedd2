"""Why two whole models hold different numbers of parameters: random ones of both frameworks, and files.

Expected totals are what Keras's own summary and torch's own lists say, never ours.
"""

import io
import random
import re

import numpy as np
import pytest

import gatewise as gw
from gatewise.core.explain import VIEWS
from gatewise.explaining import inventory

pytestmark = pytest.mark.filterwarnings("ignore:Protobuf gencode version")


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


# ── random models ───────────────────────────────────────────────────────────────────────────────────────────────


def draw(rng):
    """A list of layers, each a kind with its options, the width it reads and the width it gives."""
    width, layers = rng.randint(1, 5), []
    for _ in range(rng.randint(1, 6)):
        kind = rng.choice("LSTM LSTM GRU GRU SimpleRNN BatchNorm LayerNorm Dense Dropout Conv1D Custom".split())
        options = {}
        reads = width
        if kind in ("LSTM", "GRU", "SimpleRNN"):
            options["units"] = rng.randint(1, 5)
            options["both"] = rng.random() < 0.4
            options["bias"] = rng.random() < 0.8
            options["dropout"] = rng.choice([0.0, 0.5])
            if kind == "GRU":
                options["reset"] = rng.choice(["after", "before"])
            width = options["units"] * (2 if options["both"] else 1)
        elif kind in ("Dense", "Conv1D"):
            width = options["units"] = rng.randint(1, 5)
            options["bias"] = rng.random() < 0.8
        elif kind == "BatchNorm":
            options["affine"] = rng.random() < 0.8
        layers.append((kind, options | {"frozen": rng.random() < 0.2}, reads))
    return layers


def in_keras(keras, layers, *, name="model"):
    class Scale(keras.layers.Layer):
        """A layer of one's own, of which no description says anything."""

        def build(self, shape):
            self.scale = self.add_weight(shape=(shape[-1], 2), initializer="ones", name="scale")

        def call(self, x):
            return x * self.scale[:, 0]

    first = keras.Input((4, layers[0][2]))
    x = first
    for kind, options, _ in layers:
        if kind in ("LSTM", "GRU", "SimpleRNN"):
            more = {"reset_after": options["reset"] == "after"} if kind == "GRU" else {}
            made = getattr(keras.layers, kind)(
                options["units"],
                use_bias=options["bias"],
                dropout=options["dropout"],
                return_sequences=True,
                **more,
            )
            made = keras.layers.Bidirectional(made) if options["both"] else made
        elif kind == "BatchNorm":
            made = keras.layers.BatchNormalization(center=options["affine"], scale=options["affine"])
        elif kind == "LayerNorm":
            made = keras.layers.LayerNormalization()
        elif kind == "Dense":
            made = keras.layers.Dense(options["units"], use_bias=options["bias"])
        elif kind == "Conv1D":
            made = keras.layers.Conv1D(options["units"], 2, padding="same", use_bias=options["bias"])
        else:
            made = keras.layers.Dropout(0.5) if kind == "Dropout" else Scale()
        x = made(x)
        made.trainable = not options["frozen"]
    return keras.Model(first, x, name=name)


def in_torch(torch, layers, rng=None):
    """The same layers as a module; the order in which they are registered is that of ``rng``, if given."""
    import gatewise_torch
    from torch import nn

    class Scale(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(width, 2))

    made = []
    for kind, options, width in layers:
        if kind in ("LSTM", "GRU", "SimpleRNN"):
            if options.get("reset") == "before":
                layer = gatewise_torch.GRU(
                    width, options["units"], bias=options["bias"], bidirectional=options["both"], reset="before"
                )
            else:
                own = getattr(nn, {"SimpleRNN": "RNN"}.get(kind, kind))
                layer = own(width, options["units"], bias=options["bias"], bidirectional=options["both"])
        elif kind == "BatchNorm":
            layer = nn.BatchNorm1d(width, affine=options["affine"])
        elif kind == "LayerNorm":
            layer = nn.LayerNorm(width)
        elif kind == "Dense":
            layer = nn.Linear(width, options["units"], bias=options["bias"])
        elif kind == "Conv1D":
            layer = nn.Conv1d(width, options["units"], 2, bias=options["bias"])
        else:
            layer = nn.Dropout(0.5) if kind == "Dropout" else Scale(width)
        layer.requires_grad_(not options["frozen"])
        made.append((f"part_{len(made)}", layer))
    if rng is not None:
        rng.shuffle(made)
    module = nn.Module()
    for name, layer in made:
        module.add_module(name, layer)
    return module


def summary_total(model):
    """The total that Keras's own summary prints."""
    text = io.StringIO()
    model.summary(print_fn=lambda line: text.write(line + "\n"))
    return int(re.search(r"Total params: ([\d,]+)", text.getvalue()).group(1).replace(",", ""))


def sizes(tensors):
    return sum(int(np.prod(tuple(tensor.shape))) for tensor in tensors)


def own_totals(obj):
    """What the framework itself says, by view."""
    if hasattr(obj, "state_dict"):
        return {
            "parameters": sizes(obj.parameters()),
            "trainable": sizes(each for each in obj.parameters() if each.requires_grad),
            "stored": sizes(obj.state_dict().values()),
        }
    optimizer = obj.optimizer.variables if getattr(obj, "optimizer", None) is not None else []
    metrics = {id(variable) for variable in obj.metrics_variables}
    kept = [variable for variable in obj.variables if id(variable) not in metrics]
    return {
        "parameters": summary_total(obj),
        "trainable": sizes(obj.trainable_weights),
        "stored": sizes(kept) + sizes(optimizer),
    }


def check(first, second, expected_first=None, expected_second=None):
    """Causes add up exactly in every view, and the totals are those of the frameworks; return the explanations."""
    told = {}
    ours, theirs = expected_first or own_totals(first), expected_second or own_totals(second)
    for view in VIEWS:
        one = told[view] = gw.explain(first, second, of=view)
        assert sum(cause.parameters for cause in one.causes) == one.difference, f"{view}\n{one}"
        assert all(cause.parameters for cause in one.causes), f"{view}\n{one}"
        [tally] = [each for each in one.tallies if each.view == view]
        assert (one.first.total, one.second.total) == (tally.first, tally.second)
        if view in ours:
            assert (one.first.total, one.second.total) == (ours[view], theirs[view]), f"{view}\n{one}"
        assert (one.first.effective, one.second.effective) == (one.tallies[-1].first, one.tallies[-1].second)
        for cause in one.causes:
            assert "{" not in cause.why + cause.effect
            # The arithmetic is the number, up to the sign.
            assert abs(eval(cause.arithmetic.replace("·", "*"))) == abs(cause.parameters), cause
        back = gw.explain(second, first, of=view)
        assert back.difference == -one.difference
    return told


def names(explanation):
    return {cause.name for cause in explanation.causes}


@pytest.mark.parametrize("seed", range(60))
def test_the_same_layers_in_both_frameworks(keras, torch, seed):
    rng = random.Random(seed)
    layers = draw(rng)
    model, module = in_keras(keras, layers), in_torch(torch, layers)
    told = check(model, module)
    biased = [(kind, options) for kind, options, _ in layers if options.get("bias") and "both" in options]
    wanted = set()
    if any(kind != "GRU" or options["reset"] == "before" for kind, options in biased):
        wanted.add("second bias")
    if any(kind == "BatchNorm" for kind, _, _ in layers):
        wanted.add("moving statistics")
    assert names(told["parameters"]) == wanted
    assert told["effective"].difference == 0
    assert not told["effective"].causes
    dropping = any(kind in ("Dropout", "LSTM", "GRU", "SimpleRNN") for kind, _, _ in layers)
    counted = {"counters of steps"} if "moving statistics" in wanted else set()
    seeds = {"states of seed generators"} if dropping else set()
    assert names(told["stored"]) == counted | seeds | wanted - {"moving statistics"}


@pytest.mark.parametrize("seed", range(60, 100))
def test_other_layers_in_the_two(keras, torch, seed):
    """One side lacks layers, has others, or keeps them in another order: the causes add up all the same."""
    rng = random.Random(seed)
    layers = draw(rng)
    others = [layer for layer in layers if rng.random() < 0.8] or layers[:1]
    if rng.random() < 0.5:
        others = others + draw(rng)
    check(in_keras(keras, layers), in_torch(torch, others, rng))


@pytest.mark.parametrize("seed", range(100, 130))
def test_other_options_of_the_same_layers(keras, torch, seed):
    rng = random.Random(seed)
    layers = draw(rng)
    changed = []
    for kind, options, width in layers:
        more = dict(options)
        for name, values in {
            "units": range(1, 6),
            "both": (False, True),
            "bias": (False, True),
            "reset": ("after", "before"),
            "affine": (False, True),
            "frozen": (False, True),
        }.items():
            if name in more and rng.random() < 0.4:
                more[name] = rng.choice(list(values))
        changed.append((kind, more, width + rng.choice([0, 0, 1])))
    check(in_torch(torch, layers), in_torch(torch, changed))
    check(in_torch(torch, changed), in_torch(torch, layers))


def test_a_trained_model_has_the_variables_of_its_optimiser(keras, torch):
    layers = [("LSTM", {"units": 4, "both": False, "bias": True, "dropout": 0.0, "frozen": False}, 3)]
    model, module = in_keras(keras, layers), in_torch(torch, layers)
    model.compile("adam", "mse")
    model.fit(np.zeros((2, 4, 3)), np.zeros((2, 4, 4)), verbose=0)
    told = check(model, module)["parameters"]
    [cause] = [cause for cause in told.causes if cause.name == "optimiser variables"]
    assert (cause.parameters, cause.formula, cause.arithmetic) == (-258, "2·trainable + 2", "2·128 + 2")
    assert told.first.total == 128 + 258


def test_frozen_layers_differ_in_what_training_changes(keras, torch):
    layers = [("GRU", {"units": 4, "both": False, "bias": True, "dropout": 0.0, "reset": "after", "frozen": False}, 3)]
    model, module = in_keras(keras, layers), in_torch(torch, layers)
    module.requires_grad_(False)
    told = check(model, module)
    assert [(cause.name, cause.parameters) for cause in told["trainable"].causes] == [("frozen weights", -108)]
    assert not told["parameters"].causes


def test_a_second_bias_that_a_port_froze_is_no_difference_in_training(keras):
    model = keras.Sequential([keras.Input((4, 3)), keras.layers.LSTM(5), keras.layers.Dense(1)])
    told = check(model, gw.port(model, to="torch"))
    assert told["trainable"].difference == told["effective"].difference == 0
    assert [(cause.name, cause.parameters) for cause in told["parameters"].causes] == [("second bias", 20)]


def test_tied_weights_count_once(keras, torch):
    from torch import nn

    tied = nn.ModuleDict({"table": nn.Embedding(9, 5), "lstm": nn.LSTM(5, 5), "head": nn.Linear(5, 9, bias=False)})
    tied["head"].weight = tied["table"].weight
    free = nn.ModuleDict({"table": nn.Embedding(9, 5), "lstm": nn.LSTM(5, 5), "head": nn.Linear(5, 9, bias=False)})
    told = check(tied, free)
    assert [(cause.name, cause.parameters) for cause in told["parameters"].causes] == [("tied weights", 45)]
    assert not told["stored"].causes  # a state dict holds both names


def test_a_layer_that_keras_uses_twice_counts_once(keras, torch):
    from torch import nn

    shared = keras.layers.LSTM(5)
    left, right = keras.Input((4, 3)), keras.Input((4, 3))
    model = keras.Model([left, right], keras.layers.Concatenate()([shared(left), shared(right)]))
    module = nn.ModuleDict({"left": nn.LSTM(3, 5), "right": nn.LSTM(3, 5)})
    told = check(model, module)
    assert [(cause.name, cause.parameters) for cause in told["effective"].causes] == [("tied weights", 180)]


def test_stacks_nested_models_cells_and_a_model_of_ones_own(keras, torch):
    from torch import nn

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.lstm = keras.layers.LSTM(5, return_sequences=True)
            self.head = keras.layers.Dense(2)

        def build(self, shape):
            self.factor = self.add_weight(shape=(2,), initializer="ones", name="factor")
            super().build(shape)

        def call(self, x):
            return self.head(self.lstm(x)) * self.factor

    own = Own()
    own(np.zeros((1, 4, 3), "float32"))
    inner = keras.Sequential([keras.Input((4, 2)), keras.layers.LSTM(5, return_sequences=True)])
    nested = keras.Sequential([keras.Input((4, 3)), keras.layers.TimeDistributed(keras.layers.Dense(2)), inner])
    cells = keras.Sequential(
        [keras.Input((4, 3)), keras.layers.RNN([keras.layers.LSTMCell(5), keras.layers.GRUCell(2)])]
    )
    stack = nn.LSTM(3, 5, num_layers=3, bidirectional=True)
    for first in (own, nested, cells, stack):
        for second in (stack, nn.LSTMCell(3, 5), nn.Sequential(nn.LSTM(2, 5), nn.Linear(3, 2))):
            check(first, second)
    told = check(nested, nn.Sequential(nn.Linear(3, 2), nn.LSTM(2, 5)))
    assert names(told["parameters"]) == {"second bias"}


def test_files_of_models_and_of_arrays(keras, torch, tmp_path):
    from safetensors.torch import save_file

    rng = random.Random(5)
    layers = [layer for layer in draw(rng) if layer[0] != "Custom"]
    width = layers[-1][1].get("units", layers[-1][2]) * (2 if layers[-1][1].get("both") else 1)
    layers.append(("BatchNorm", {"affine": True, "frozen": False}, width))
    model, module = in_keras(keras, layers), in_torch(torch, layers)
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    save_file(module.state_dict(), tmp_path / "state.safetensors")
    told = check(
        str(tmp_path / "model.keras"), str(tmp_path / "state.safetensors"), own_totals(model) | {}, own_totals(module)
    )
    assert told["effective"].difference == 0
    live = gw.explain(model, module)
    assert [cause.parameters for cause in live.causes] == [cause.parameters for cause in told["parameters"].causes]
    assert told["parameters"].first.framework == "model.keras"


def test_arrays_are_recognised_by_their_names(tmp_path):
    arrays = {
        "a/lstm/kernel": np.zeros((3, 20)),
        "a/lstm/recurrent_kernel": np.zeros((5, 20)),
        "a/lstm/bias": np.zeros(20),
    }
    np.savez(tmp_path / "one.npz", **arrays, **{"a/dense/kernel": np.zeros((5, 2)), "odd": np.zeros((7,))})
    held = inventory(tmp_path / "one.npz")
    assert held.framework == "keras"
    assert [(item.name, str(item.spec)) for item in held.items] == [
        ("a/lstm", "LSTM(features=3, units=5)"),
        ("a/dense", "Dense(features=5, units=2, bias=False)"),
        ("odd", "None"),
    ]


def test_an_unknown_way_of_counting_is_named(torch):
    with pytest.raises(gw.SpecError, match="'trainable'"):
        gw.explain(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1), of="trainabel")


def test_a_layer_without_weights_yet_is_named(keras, torch):
    with pytest.raises(gw.UnsupportedModelError, match="no weights yet"):
        gw.explain(keras.layers.LSTM(3), torch.nn.LSTM(3, 3))
    with pytest.raises(gw.UnsupportedModelError, match="no weights yet"):
        gw.explain(torch.nn.LazyLinear(3), torch.nn.LSTM(3, 3))


# ── what a hostile reader found ─────────────────────────────────────────────────────────────────────────────────


def sequential(keras, *layers, shape=(4, 3)):
    return keras.Sequential([keras.Input(shape), *layers])


def told_by(explanation):
    return [(cause.name, cause.parameters) for cause in explanation.causes]


def test_a_layer_that_no_port_takes_is_known_by_its_class(keras, torch):
    for options in ({"dtype": "mixed_float16"}, {"activation": abs}):
        told = check(sequential(keras, keras.layers.LSTM(5, **options)), torch.nn.LSTM(3, 5))
        assert told_by(told["parameters"]) == [("second bias", 20)]
    both = keras.layers.Bidirectional(keras.layers.GRU(5, reset_after=False, dtype="mixed_float16"))
    told = check(sequential(keras, both), torch.nn.GRU(3, 5, bidirectional=True))
    assert told_by(told["parameters"]) == [("second bias", 20), ("candidate's recurrent bias", 10)]


def test_a_class_that_comes_from_a_known_one_is_known(torch):
    class Own(torch.nn.LSTM):
        """A layer of one's own with the weights of an LSTM."""

    assert told_by(check(torch.nn.LSTM(3, 5), Own(3, 5))["parameters"]) == []


def test_lora_and_weight_normalisation_are_factors_of_a_weight(keras, torch):
    from torch.nn.utils import parametrizations, weight_norm

    model = sequential(keras, keras.layers.Dense(8))
    model.layers[-1].enable_lora(2)
    told = check(model, torch.nn.Linear(3, 8))
    assert told_by(told["parameters"]) == [("factors of a weight", -22)]
    assert told_by(told["trainable"]) == [("frozen weights", 24), ("factors of a weight", -22)]
    assert not told["effective"].causes
    with pytest.warns(FutureWarning):
        renormed = weight_norm(torch.nn.Linear(3, 8))
    for normed in (parametrizations.weight_norm(torch.nn.Linear(3, 8)), renormed):
        told = check(torch.nn.Linear(3, 8), normed)
        assert told_by(told["parameters"]) == [("factors of a weight", 8)]
        assert not told["effective"].causes
    recurrent = parametrizations.weight_norm(torch.nn.LSTM(3, 5), "weight_hh_l0")
    assert told_by(check(torch.nn.LSTM(3, 5), recurrent)["parameters"]) == [("factors of a weight", 20)]


def test_what_stands_beside_the_weights_of_a_layer_leaves_it_known(keras, torch):
    more = torch.nn.Linear(3, 4)
    more.extra = torch.nn.Parameter(torch.zeros(7))
    more.register_buffer("mask", torch.zeros(3))
    told = check(more, torch.nn.Linear(3, 4))
    assert told_by(told["parameters"]) == [("tensor that only one has", -7)]
    assert told_by(told["stored"]) == [("tensor that only one has", -7), ("buffers", -3)]
    model = sequential(keras, keras.layers.Dense(8))
    model.layers[-1].quantize("int8")
    told = check(model, sequential(keras, keras.layers.Dense(8)))
    assert told_by(told["parameters"]) == [("tensor that only one has", -8)]


def test_moving_statistics_that_only_one_side_keeps(keras, torch):
    model = sequential(keras, keras.layers.TimeDistributed(keras.layers.BatchNormalization()))
    told = check(model, torch.nn.BatchNorm1d(3, track_running_stats=False))
    for view in ("parameters", "stored"):
        assert told_by(told[view]) == [("moving statistics that only one keeps", -6)]
    assert not told["effective"].causes
    assert told_by(check(model, torch.nn.BatchNorm1d(3))["parameters"]) == [("moving statistics", -6)]


def test_what_counts_nowhere_is_no_cause(keras, torch):
    told = check(sequential(keras, keras.layers.BatchNormalization()), torch.nn.BatchNorm1d(4))
    assert told_by(told["trainable"]) == [("other size of the input", 2)]
    first, second = torch.nn.GRU(3, 5), torch.nn.LSTM(3, 6)
    for module in (first, second):
        module.weight_hh_l0.requires_grad_(False)
    assert told_by(check(first, second)["trainable"]) == [("another kind of layer", 45)]


def test_the_two_resets_with_other_sizes_too(keras, torch):
    told = check(sequential(keras, keras.layers.GRU(5, reset_after=False)), torch.nn.GRU(3, 6))["parameters"]
    assert told_by(told) == [
        ("second bias", 10),
        ("candidate's recurrent bias", 5),
        ("other number of units", 48),
    ]
    assert "canonical" not in str(told)


def test_attention_is_one_layer(keras, torch):
    source = keras.Input((4, 8))
    model = keras.Model(source, keras.layers.MultiHeadAttention(2, 4)(source, source))
    told = check(model, torch.nn.MultiheadAttention(8, 2))
    assert not told["parameters"].causes
    told = check(model, torch.nn.MultiheadAttention(8, 2, bias=False))
    assert told_by(told["parameters"]) == [("other weights", -32)]


def test_a_model_within_two_others_counts_once(keras, torch):
    inner = sequential(keras, keras.layers.LSTM(3, return_sequences=True))
    outer = sequential(keras, inner, keras.layers.Dense(3))
    source = keras.Input((4, 3))
    check(keras.Model(source, outer(outer(inner(source)))), torch.nn.LSTM(3, 3))


def test_a_generator_of_a_model_of_ones_own_is_stored(keras, torch):
    class Noisy(keras.Model):
        def __init__(self):
            super().__init__()
            self.generator = keras.random.SeedGenerator(1)
            self.head = keras.layers.Dense(2)

        def call(self, x):
            return self.head(x) + keras.random.normal((2,), seed=self.generator)

    noisy = Noisy()
    noisy(np.zeros((1, 3), "float32"))
    told = check(noisy, torch.nn.Linear(3, 2))["stored"]
    assert [(cause.name, cause.formula) for cause in told.causes] == [("states of seed generators", "2·generators")]


def test_what_an_optimiser_keeps_is_said_as_it_is(keras, torch):
    def trained(optimizer):
        model = sequential(keras, keras.layers.LSTM(5), keras.layers.Dense(2))
        model.compile(optimizer, "mse")
        model.fit(np.zeros((2, 4, 3)), np.zeros((2, 2)), verbose=0)
        return model

    adam, momentum = trained("adam"), trained(keras.optimizers.SGD(momentum=0.9))
    [cause] = check(adam, momentum)["parameters"].causes
    assert cause.formula == "trainable"
    assert cause.why.endswith("keras (second) holds fewer.")
    adam.layers[0].trainable = False
    [cause] = [each for each in check(adam, torch.nn.LSTM(3, 5))["parameters"].causes if "optimiser" in each.name]
    assert cause.formula == "386"


def test_words_are_true_of_the_side_they_name(keras, torch):
    from torch import nn

    def why(first, second):
        return [cause.why for cause in check(first, second)["parameters"].causes]

    assert why(nn.LSTM(3, 5, proj_size=2), nn.LSTM(3, 5, proj_size=3)) == [
        "The output is projected to 2 numbers in torch (first), to 3 in torch (second)."
    ]
    assert why(nn.LSTM(3, 5), nn.LSTM(3, 5, bias=False)) == ["Only torch (first) has a bias in it."]
    assert why(nn.LSTM(3, 5), nn.LSTM(3, 5, bidirectional=True)) == [
        "Only torch (second) also reads the sequence from its end, with weights of its own."
    ]
    assert why(nn.GRU(3, 5), nn.LSTM(3, 5)) == [
        "In torch (first) this layer is of kind GRU, in torch (second) of kind LSTM."
    ]
    two, one = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3)), nn.BatchNorm1d(3)
    assert check(two, one)["stored"].causes[-1].why.endswith("torch (second) has fewer.")
    assert "0: layer that only one has" in str(check(two, one)["parameters"])


def test_a_table_of_embeddings_in_a_state_dict(keras, torch, tmp_path):
    from safetensors.torch import save_file
    from torch import nn

    model = keras.Sequential([keras.Input((4,)), keras.layers.Embedding(9, 5), keras.layers.LSTM(5)])
    for name in ("emb", "first"):
        module = nn.DataParallel(nn.ModuleDict({name: nn.Embedding(9, 5), "lstm": nn.LSTM(5, 5)}))
        save_file(module.state_dict(), tmp_path / "state.safetensors")
        told = check(model, str(tmp_path / "state.safetensors"), own_totals(model), own_totals(module))
        assert told_by(told["parameters"]) == [("second bias", 20)]


def test_the_names_of_keras_in_files_of_arrays(keras, tmp_path):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Embedding(9, 5), keras.layers.Bidirectional(keras.layers.LSTM(4))]
    )
    np.savez(tmp_path / "weights.npz", **{f"{each.path}:0": each.numpy() for each in model.weights})
    held = inventory(tmp_path / "weights.npz")
    assert [str(item.spec) for item in held.items] == [
        "Embedding(tokens=9, units=5)",
        "LSTM(features=5, units=4, bidirectional=True)",
    ]
    np.savez(
        tmp_path / "head.npz",
        **{"head.bias": np.zeros(7), "ids": np.arange(3), "out.weight": np.zeros((2, 3))},
        **{"emb.weight": np.zeros((9, 2))},
    )
    held = inventory(tmp_path / "head.npz")
    assert [(item.name, str(item.spec), item.tensors[0].role.value) for item in held.items] == [
        ("head.bias", "None", "weight"),
        ("ids", "None", "buffer"),
        ("out", "Dense(features=3, units=2, bias=False)", "weight"),
        ("emb", "Embedding(tokens=9, units=2)", "weight"),
    ]


def test_what_a_file_stores_is_what_is_in_it(keras, tmp_path):
    import h5py

    model = sequential(keras, keras.layers.LSTM(5, dropout=0.5), keras.layers.Dropout(0.5))
    model.save(tmp_path / "model.h5")
    gw.save(sequential(keras, keras.layers.LSTM(5)), tmp_path / "model.safetensors")
    found = []
    with h5py.File(tmp_path / "model.h5") as file:
        file.visititems(lambda _, entry: found.append(entry.size) if isinstance(entry, h5py.Dataset) else None)
    told = gw.explain(tmp_path / "model.h5", tmp_path / "model.safetensors", of="stored")
    assert (told.first.total, told.second.total) == (sum(found), 180) == (180, 180)


def test_wrong_arguments_are_one_readable_message(torch, tmp_path):
    module = torch.nn.LSTM(3, 5)
    (tmp_path / "model.keras").mkdir()
    (tmp_path / "some.weights.h5").write_bytes(b"")
    for first, second, options, words in (
        (module, tmp_path / "model.keras", {}, "is a folder"),
        (module, tmp_path / "some.weights.h5", {}, "weights without the model"),
        (module, tmp_path / "model.pt", {}, "No such file"),
        (module, torch.nn.Parameter(torch.zeros(3)), {}, "is no module"),
        (module, module, {"of": ["stored"]}, "Known: 'parameters'"),
    ):
        with pytest.raises(gw.GatewiseError, match=words):
            gw.explain(first, second, **options)
    with pytest.raises(gw.SpecError, match="of='stored'"):
        gw.explain(module, module, "stored")
    with pytest.raises(gw.SpecError, match="of='stored'"):
        gw.explain(gw.LSTM(3, 5), "keras", "torch", of="stored")


def test_layers_are_measured_once_each(torch, monkeypatch):
    """Two models of 300 layers each are compared in a second or two, not in a minute."""
    from torch import nn

    from gatewise.core import inventory as core

    measured = []
    sizes = core._Unit.sizes.fget
    monkeypatch.setattr(core._Unit, "sizes", property(lambda unit: measured.append(unit) or sizes(unit)))
    deep = nn.Sequential(*(nn.Sequential(nn.LSTM(2, 2), nn.LayerNorm(2)) for _ in range(30)))
    assert not gw.explain(deep, deep).causes
    assert len(measured) <= 4 * 60


def test_packed_weights_of_a_quantised_module_are_stored(torch):
    class Packed(torch.nn.Module):
        """A module that stores what is no parameter and no buffer, as those of torch.ao.quantization do."""

        def _save_to_state_dict(self, destination, prefix, keep_vars):
            super()._save_to_state_dict(destination, prefix, keep_vars)
            destination[prefix + "packed"] = (torch.zeros(3, 4), torch.zeros(4))

    told = gw.explain(Packed(), torch.nn.Sequential(), of="stored")
    assert [(cause.name, cause.parameters) for cause in told.causes] == [("buffers", -16)]
    assert told.tallies[0].first == 0


def test_of_belongs_to_files(torch):
    from click.testing import CliRunner

    from gatewise.cli import main

    done = CliRunner().invoke(main, ["explain", "keras", "torch", "-x", "3", "-u", "5", "--of", "stored"])
    assert done.exit_code == 2
    assert "--of says what to count of two files" in done.output


@pytest.mark.parametrize(
    "option", [("-x", "3"), ("--units", "5"), ("--bidirectional",), ("-t", "7")], ids=lambda x: x[0]
)
def test_options_of_a_layer_do_not_belong_to_files(torch, tmp_path, option):
    from click.testing import CliRunner

    from gatewise.cli import main

    files = [str(tmp_path / name) for name in ("a.safetensors", "b.safetensors")]
    for file in files:
        gw.save(torch.nn.LSTM(3, 5), file)
    assert CliRunner().invoke(main, ["explain", *files]).exit_code == 0
    done = CliRunner().invoke(main, ["explain", *files, *option])
    assert done.exit_code == 2
    assert "two files say what they are" in done.output
    assert "leave --" in done.output


def test_the_command_knows_every_way_of_counting():
    from gatewise.cli import main

    [option] = [each for each in main.get_command(None, "explain").params if each.name == "of"]
    assert list(option.type.choices) == list(VIEWS)
