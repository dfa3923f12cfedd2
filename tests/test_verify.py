"""verify: passes true ports, and sees every mistake that ports are known for, or says that it could not."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import random_models

import gatewise as gw
from gatewise.errors import SpecError
from gatewise.parity.compare import DOUBLE, FLOOR, LOUD, NOISES

GATES = {"LSTM": "ifgo", "GRU": "rzn"}
"""The gates of torch's layers, in the order in which they lie in its tensors."""


# ── mistakes, planted by hand in a torch port ───────────────────────────────────────────────────────────────────


def recurrent_modules(there):
    return [module for module in there.modules() if hasattr(module, "weight_hh_l0")]


def blocks(module, tensor):
    """Return a tensor of a recurrent module as (gate, units, …), sharing its memory."""
    gates = len(GATES.get(type(module).__name__, "h"))
    return tensor.data.view(gates, -1, *tensor.shape[1:])


def exchange(module, one, other):
    for parameter in module.parameters():
        parts = blocks(module, parameter)
        parts[[one, other]] = parts[[other, one]].clone()


def scale_bias(module, factor):
    for name, parameter in module.named_parameters():
        if "bias" in name:
            parameter.data.mul_(factor)


def transpose(module, part):
    for name, parameter in module.named_parameters():
        if part in name:
            parts = blocks(module, parameter)
            parts.copy_(parts.transpose(1, 2).clone())


def mistakes_of(module):
    """Return name → what plants it, for every mistake in weights that a module can have."""
    gates = GATES.get(type(module).__name__, "h")
    found = {
        f"{gates[one]} and {gates[other]} exchanged": lambda module, one=one, other=other: exchange(module, one, other)
        for one, other in itertools.combinations(range(len(gates)), 2)
    }
    if any("bias" in name and parameter.any() for name, parameter in module.named_parameters()):
        found["bias dropped"] = lambda module: scale_bias(module, 0)
        found["bias doubled"] = lambda module: scale_bias(module, 2)
    if module.hidden_size > 1:
        found["recurrent kernel transposed"] = lambda module: transpose(module, "weight_hh")
        if module.input_size == module.hidden_size:
            found["square kernel transposed"] = lambda module: transpose(module, "weight_ih")
    return found


def unflipped(torch, kind, lstm, sequences):
    """Return a module that runs a bidirectional LSTM wrongly: the backward half is not turned, before or after."""

    class Unflipped(torch.nn.LSTM):
        def forward(self, value, start=None, mask=None):
            half = torch.nn.LSTM(self.input_size, self.hidden_size, batch_first=True, dtype=value.dtype)
            halves, states = [], []
            for suffix in ("", "_reverse"):
                own = {f"{name}_l0": getattr(self, f"{name}_l0{suffix}") for name in self.parts}
                half.load_state_dict(own)
                turned = value.flip(1) if suffix and kind == "output not turned" else value
                output, state = half(turned)
                halves.append(output if sequences else output[:, -1])
                states.append(state)
            return torch.cat(halves, -1), tuple(map(torch.cat, zip(*states, strict=True)))

    wrong = Unflipped(
        lstm.input_size, lstm.hidden_size, batch_first=True, bidirectional=True, dtype=lstm.weight_ih_l0.dtype
    )
    wrong.parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    wrong.load_state_dict(lstm.state_dict())
    return wrong


CHAINS = {
    "stacked": lambda layers: [layers.LSTM(3, return_sequences=True), layers.LSTM(3)],
    "both directions": lambda layers: [layers.Bidirectional(layers.LSTM(3, return_sequences=True), merge_mode="ave")],
    "no bias": lambda layers: [layers.Bidirectional(layers.LSTM(3, use_bias=False))],
    "relu": lambda layers: [layers.LSTM(3, activation="relu", return_sequences=True)],
    "gru": lambda layers: [layers.GRU(3)],
    "rnn": lambda layers: [layers.SimpleRNN(3)],
}
"""Small models, every kernel of which is square where it can be."""


@pytest.fixture(scope="module")
def chains(keras):
    def model(name):
        made = keras.Sequential(
            [keras.Input((None, 3)), *CHAINS[name](keras.layers), keras.layers.Dense(3, name="head")]
        )
        return random_models.fill(made, np.random.default_rng(4))

    return {name: model(name) for name in CHAINS}


@pytest.fixture(scope="module")
def square(chains):
    return chains["stacked"]


@pytest.mark.parametrize("name", CHAINS)
def test_true_ports_pass(keras, chains, name):
    model = chains[name]
    there = gw.port(model, to="torch")
    assert gw.verify(model, there).verdict == "passed"
    assert gw.verify(there, model).verdict == "passed"
    assert gw.verify(there, copy.deepcopy(there)).verdict == "passed"


@pytest.mark.parametrize("name", CHAINS)
def test_each_mistake_in_each_layer_is_seen(chains, name):
    model = chains[name]
    there = gw.port(model, to="torch")
    for place, module in enumerate(recurrent_modules(there)):
        for mistake, plant in mistakes_of(module).items():
            wrong = gw.port(model, to="torch")
            plant(recurrent_modules(wrong)[place])
            parity = gw.verify(model, wrong)
            assert parity.verdict == "failed", (place, mistake, str(parity))
    square = there.head.weight.shape[0] == there.head.weight.shape[1]
    for plant in (
        lambda module: module.weight.data.copy_(module.weight.data.T.clone() if square else -module.weight.data),
        lambda module: module.bias.data.zero_(),
        lambda module: module.bias.data.mul_(2),
    ):
        wrong = gw.port(model, to="torch")
        plant(wrong.head)
        assert gw.verify(model, wrong).verdict == "failed"


def test_the_mistakes_are_those_that_the_issue_names(chains):
    planted = {
        mistake
        for model in chains.values()
        for module in recurrent_modules(gw.port(model, to="torch"))
        for mistake in mistakes_of(module)
    }
    assert planted >= {f"{one} and {other} exchanged" for one, other in itertools.combinations("ifgo", 2)}
    assert planted >= {f"{one} and {other} exchanged" for one, other in itertools.combinations("rzn", 2)}
    assert planted >= {"bias dropped", "bias doubled", "recurrent kernel transposed", "square kernel transposed"}


@pytest.mark.parametrize("kind", ["input not turned", "output not turned"])
@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_direction_that_is_not_turned_is_seen(keras, torch, kind, sequences, dtype):
    layers = keras.layers
    both = layers.Bidirectional(layers.LSTM(3, return_sequences=sequences, dtype=dtype), name="both", dtype=dtype)
    source = keras.Input((None, 2), dtype=dtype)
    model = keras.Model(source, layers.Dense(2, name="head", dtype=dtype)(both(source)))
    random_models.fill(model, np.random.default_rng(2))
    wrong = gw.port(model, to="torch")
    assert gw.verify(model, wrong).verdict == "passed"
    wrong.both = unflipped(torch, kind, wrong.both, sequences)
    # Turned back or not, what comes last is the same where it is all that comes out, if the input was turned.
    harmless = kind == "output not turned" and not sequences
    assert gw.verify(model, wrong).verdict == ("passed" if harmless else "failed")


@pytest.mark.parametrize(("right", "wrong"), [("tanh", "relu"), ("relu", "tanh")])
def test_another_activation_is_seen(keras, torch, right, wrong):
    import gatewise_torch

    layers = keras.layers
    for kind in ("LSTM", "GRU", "SimpleRNN"):
        model = keras.Sequential([keras.Input((None, 2)), getattr(layers, kind)(3, activation=right, name="cell")])
        random_models.fill(model, np.random.default_rng(2))
        there = gw.port(model, to="torch")
        general = getattr(gatewise_torch, {"SimpleRNN": "RNN"}.get(kind, kind))
        other = general(2, 3, batch_first=True, activation=wrong, return_sequences=False)
        other.load_state_dict(there.cell.state_dict())
        assert gw.verify(model, there).verdict == "passed"
        there.cell = other
        assert gw.verify(model, there).verdict == "failed"


def plant_in_random_models(keras, seeds, most):
    """Plant some mistakes in each of some random models, and compare each with the right port and one with Keras."""
    verdicts = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        model = random_models.draw_model(keras, rng, "float64" if seed % 4 == 0 else "float32")
        there = gw.port(model, to="torch")
        sites = [(place, name) for place, module in enumerate(recurrent_modules(there)) for name in mistakes_of(module)]
        for number, choice in enumerate(rng.permutation(len(sites))[:most]):
            place, name = sites[choice]
            wrong = copy.deepcopy(there)
            module = recurrent_modules(wrong)[place]
            mistakes_of(module)[name](module)
            parity = gw.verify(model if number == 0 else there, wrong)
            assert parity.verdict != "passed", f"{seed}: {name} in {place} of {gw.describe(model)}\n{parity}"
            verdicts.append(parity.verdict)
        keras.utils.clear_session(free_memory=False)
    assert verdicts.count("failed") > 0.8 * len(verdicts)


@pytest.mark.parametrize("block", range(1))
def test_no_mistake_passes_in_random_models(keras, torch, block):
    plant_in_random_models(keras, range(1000 + 10 * block, 1010 + 10 * block), 5)


@pytest.mark.long
@pytest.mark.parametrize("block", [1, 2, 103, 104, *range(200, 230)])
def test_no_mistake_passes_in_many_more(keras, torch, block):
    plant_in_random_models(keras, range(10 * block, 10 * block + 10), 40)


# ── inconclusive ────────────────────────────────────────────────────────────────────────────────────────────────


def test_dead_relus_are_inconclusive(keras):
    model = keras.Sequential(
        [keras.Input((None, 2)), keras.layers.LSTM(3, activation="relu", name="dead"), keras.layers.Dense(1)]
    )
    random_models.fill(model, np.random.default_rng(0))
    kernel, recurrent, bias = model.get_layer("dead").get_weights()
    bias[6:9] = -1000
    model.get_layer("dead").set_weights([kernel, recurrent, bias])
    there = gw.port(model, to="torch")
    parity = gw.verify(model, there)
    assert parity.verdict == "inconclusive"
    assert not parity.passed
    assert "would not have been seen" in " ".join(parity.advice)
    exchange(there.dead, 0, 1)
    assert gw.verify(model, there).verdict == "inconclusive"


def test_a_relu_that_ends_a_model_may_hide_what_is_before_it(keras):
    model = keras.Sequential([keras.Input((None, 2)), keras.layers.LSTM(3), keras.layers.Dense(2, "relu", name="end")])
    random_models.fill(model, np.random.default_rng(0))
    weights, _ = model.get_layer("end").get_weights()
    model.get_layer("end").set_weights([weights, np.array([-50, -60], "float32")])
    assert gw.verify(model, gw.port(model, to="torch")).verdict == "inconclusive"


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis:UserWarning")
def test_a_softmax_over_one_unit_is_inconclusive(keras):
    model = keras.Sequential([keras.Input((None, 2)), keras.layers.LSTM(3), keras.layers.Dense(1, "softmax")])
    random_models.fill(model, np.random.default_rng(0))
    there = gw.port(model, to="torch")
    assert gw.verify(model, there).verdict == "inconclusive"
    scale_bias(recurrent_modules(there)[0], 0)
    assert gw.verify(model, there).verdict == "inconclusive"


def test_one_step_given_by_hand_is_inconclusive_and_more_steps_decide(keras, torch):
    model = keras.Sequential([keras.Input((None, 2)), keras.layers.LSTM(3), keras.layers.Dense(2)])
    random_models.fill(model, np.random.default_rng(0))
    there = gw.port(model, to="torch")
    step = np.random.default_rng(0).normal(size=(4, 1, 2)).astype("float32")
    parity = gw.verify(model, there, inputs=step)
    assert parity.verdict == "inconclusive"
    assert "recurrent kernel transposed" in {each.mistake for each in parity.planted if each.moved < 100}
    assert "more than one step" in " ".join(parity.advice)
    transpose(recurrent_modules(there)[0], "weight_hh")
    assert gw.verify(model, there, inputs=step).verdict == "inconclusive"
    steps = np.random.default_rng(0).normal(size=(4, 5, 2)).astype("float32")
    assert gw.verify(model, there, inputs=steps).verdict == "failed"
    transpose(recurrent_modules(there)[0], "weight_hh")
    assert gw.verify(model, there, inputs=[steps]).verdict == "passed"


def test_a_sequence_that_reads_the_same_both_ways_does_not_show_a_direction(keras, torch):
    layers = keras.layers
    model = keras.Sequential([keras.Input((None, 2)), layers.Bidirectional(layers.LSTM(3), name="both")])
    random_models.fill(model, np.random.default_rng(0))
    there = gw.port(model, to="torch")
    alike = np.tile(np.random.default_rng(0).normal(size=(4, 1, 2)), (1, 5, 1)).astype("float32")
    there.both = unflipped(torch, "input not turned", there.both, sequences=False)
    assert gw.verify(model, there, inputs=alike).verdict == "inconclusive"
    assert gw.verify(model, there).verdict == "failed"


def test_inputs_of_one_length_are_compared_at_other_lengths_too(keras, torch):
    model = keras.Sequential([keras.Input((1, 4)), keras.layers.LSTM(3), keras.layers.Dense(1)])
    random_models.fill(model, np.random.default_rng(0))
    there = gw.port(model, to="torch")
    parity = gw.verify(model, there)
    assert parity.verdict == "passed"
    assert "copies that take any length" in " ".join(parity.trials)
    transpose(recurrent_modules(there)[0], "weight_hh")
    assert gw.verify(model, there).verdict == "failed"


def test_a_batch_that_is_fixed_is_freed_with_that_of_first_states(keras):
    source, first = keras.Input((5, 2), batch_size=2), keras.Input((3,), batch_size=2)
    model = keras.Model([source, first], keras.layers.GRU(3, reset_after=False)(source, initial_state=first))
    random_models.fill(model, np.random.default_rng(0))
    assert gw.verify(model, gw.port(model, to="torch")).passed


def test_a_mistake_that_the_cell_cannot_tell_is_none(keras):
    """Gates i and g are multiplied: where their activations are one, they may be exchanged."""
    model = keras.Sequential([keras.Input((None, 2)), keras.layers.LSTM(3, activation="sigmoid")])
    random_models.fill(model, np.random.default_rng(0))
    assert gw.verify(model, gw.port(model, to="torch")).passed


def test_what_only_stronger_inputs_show_is_compared_on_them(keras):
    """A mistake counts as seen on inputs on which both sides were compared, and on no others."""
    layers = keras.layers
    model = keras.Sequential([keras.Input((None, 3)), layers.Dense(3, "relu", name="late"), layers.Dense(2)])
    random_models.fill(model, np.random.default_rng(0))
    kernel, bias = model.get_layer("late").get_weights()
    model.get_layer("late").set_weights([kernel, bias - 9])
    there = gw.port(model, to="torch")
    calm = np.random.default_rng(0).normal(size=(3, 7, 3)).astype("float32")
    assert gw.verify(model, there, inputs=calm).verdict == "inconclusive"
    parity = gw.verify(model, there)
    assert parity.verdict == "passed"
    assert "(8, 7, 3)" in parity.trials
    there.late.weight.data.copy_(there.late.weight.data.T.clone())
    assert gw.verify(model, there, inputs=calm).verdict == "inconclusive"
    assert gw.verify(model, there).verdict == "failed"


# ── numbers ─────────────────────────────────────────────────────────────────────────────────────────────────────


def simple_rnn(keras, steps, activation, weight, units=16):
    """A recurrence that magnifies differences at every step."""
    rnn = keras.layers.SimpleRNN(units, activation=activation, name="rnn")
    model = keras.Sequential([keras.Input((steps, 3)), rnn])
    rng = np.random.default_rng(0)
    model.set_weights([weight * rng.normal(size=array.shape) for array in model.get_weights()])
    return model


def own_noise(keras, model, inputs):
    """Return how far the float32 model is from itself in float64, relative to its largest output."""
    exact = gw.port(model, to="keras", dtype="float64")
    here, there = (np.asarray(each(inputs)) for each in (model, exact))
    return np.abs(here - there).max() / max(1, np.abs(there).max())


def test_the_tolerance_is_twenty_times_the_noise_and_no_less_than_the_floor(keras):
    calm = keras.Sequential([keras.Input((None, 3)), keras.layers.LSTM(4)])
    random_models.fill(calm, np.random.default_rng(0))
    inputs = np.random.default_rng(1).normal(size=(2, 5, 3)).astype("float32")
    parity = gw.verify(calm, gw.port(calm, to="torch"), inputs=inputs)
    assert parity.tolerance == FLOOR == 1e-5
    assert NOISES * own_noise(keras, calm, inputs) < FLOOR
    loud = simple_rnn(keras, None, "tanh", 1.5)
    inputs = np.random.default_rng(1).normal(size=(2, 20, 3)).astype("float32")
    noise = own_noise(keras, loud, inputs)
    parity = gw.verify(loud, gw.port(loud, to="torch"), inputs=inputs)
    assert FLOOR / NOISES < noise < LOUD
    assert parity.tolerance == pytest.approx(NOISES * noise, rel=1e-6)
    assert f"{noise:.1e}" in parity.why
    assert "the source's own rounding" in parity.why
    assert parity.dtype == "float32"
    size = max(1, np.abs(loud(inputs)).max())
    assert parity.outputs[0].tolerance == pytest.approx(parity.tolerance * size, rel=1e-6)


@pytest.mark.parametrize(("steps", "activation", "rounds"), [(50, "tanh", "e-0"), (80, "linear", "inf")])
def test_where_float32_is_too_loud_float64_decides(keras, steps, activation, rounds):
    """The one is chaotic: fifty steps magnify the last bit to hundredths; the other overflows in float32 alone."""
    model = simple_rnn(keras, steps, activation, 1.0)
    there = gw.port(model, to="torch")
    parity = gw.verify(model, there)
    assert parity.verdict == "passed", str(parity)
    assert parity.dtype == "float64"
    assert parity.tolerance == DOUBLE if activation == "linear" else DOUBLE < parity.tolerance < 1e-6
    assert "cannot decide" in parity.why
    assert rounds in parity.why
    for plant in (lambda module: scale_bias(module, 2), lambda module: transpose(module, "weight_hh")):
        wrong = gw.port(model, to="torch")
        plant(wrong.rnn)
        assert gw.verify(model, wrong).verdict == "failed"


def test_float64_is_held_to_its_own_tolerance(keras, torch):
    model = keras.Sequential([keras.Input((None, 3), dtype="float64"), keras.layers.LSTM(4, dtype="float64")])
    random_models.fill(model, np.random.default_rng(0))
    there = gw.port(model, to="torch")
    parity = gw.verify(model, there)
    assert (parity.verdict, parity.dtype, parity.tolerance) == ("passed", "float64", DOUBLE)
    with torch.no_grad():
        recurrent_modules(there)[0].bias_ih_l0[0] += 1e-8
    assert gw.verify(model, there).verdict == "failed"


def test_a_port_into_float32_is_compared_in_float32(keras):
    model = keras.Sequential([keras.Input((None, 3), dtype="float64"), keras.layers.LSTM(4, dtype="float64")])
    random_models.fill(model, np.random.default_rng(0))
    there = gw.port(model, to="torch", dtype="float32")
    parity = gw.verify(model, there)
    assert (parity.verdict, parity.dtype, parity.tolerance) == ("passed", "float32", FLOOR)
    assert gw.verify(gw.port(model, to="keras", dtype="float32"), gw.port(model, to="torch")).verdict == "passed"


def exponential(torch, factor):
    """A float64 model that overflows: exp(factor · x)."""
    made = gw.build(gw.Network.chain(gw.Dense(2, 2, activation="exponential")), "torch").double()
    with torch.no_grad():
        made.dense.weight.copy_(factor * torch.eye(2))
        made.dense.bias.fill_(1e-3)
    return made


def test_values_that_are_not_finite_must_stand_at_the_same_places(torch):
    one, same, other = exponential(torch, 1.0), exponential(torch, 1.0), exponential(torch, 1.001)
    inputs = np.array([[[1.0, 709.5], [-3.0, 800.0]]])
    parity = gw.verify(one, other, inputs=inputs)
    assert parity.verdict == "failed"
    calm = np.array([[[1.0, 800.0], [-3.0, 900.0]]])
    parity = gw.verify(one, same, inputs=calm)
    assert parity.verdict != "failed"
    assert np.isfinite(parity.outputs[0].max_abs)


# ── what is said ────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_fact_is_there_and_printed(keras, square):
    source = keras.Input((None, 3))
    output, hidden, memory = keras.layers.LSTM(4, return_sequences=True, return_state=True, name="lstm")(source)
    model = random_models.fill(keras.Model(source, [output, hidden, memory]), np.random.default_rng(0))
    there = gw.port(model, to="torch")
    parity = gw.verify(model, there, seed=3)
    assert [each.name for each in parity.outputs] == ["lstm.output", "lstm.state_h", "lstm.state_c"]
    assert [each.shape for each in parity.outputs] == [(3, 7, 4), (3, 4), (3, 4)]
    assert (parity.seed, parity.dtype) == (3, "float32")
    for each in parity.outputs:
        assert 0 <= each.max_abs <= each.tolerance
        assert len(each.where) == len(each.shape)
        assert each.passed
    text = str(parity)
    for fact in ("Parity passed", "3 outputs", "float32", "seed 3", "lstm.state_c", "(3, 7, 4)", "max |Δ|", "relative"):
        assert fact in text, fact
    for fact in ("tolerance", "1.0e-05", "(1, 4, 3)", "test faults were tried", "Initial states were not tried"):
        assert fact in " ".join(text.split()), fact


def test_the_place_and_size_of_a_difference_are_right(keras, torch):
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.Dense(4, name="head")])
    random_models.fill(model, np.random.default_rng(0))
    there = gw.port(model, to="torch")
    with torch.no_grad():
        there.head.bias[2] += 0.25
    inputs = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    [output] = gw.verify(model, there, inputs=inputs).outputs
    assert output.max_abs == pytest.approx(0.25, rel=1e-5)
    assert output.where[-1] == 2
    assert output.max_rel == pytest.approx(0.25 / abs(float(model(inputs)[output.where])), rel=1e-4)
    assert not output.passed


def test_the_same_seed_gives_the_same_result(square):
    there = gw.port(square, to="torch")
    first, again, other = (gw.verify(square, there, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.planted != other.planted
    assert str(first) == str(again)


def test_verify_changes_nothing(torch, square):
    there = gw.port(square, to="torch").train()
    before = {name: value.clone() for name, value in there.state_dict().items()}
    weights = [array.copy() for array in square.get_weights()]
    assert gw.verify(square, there).passed
    assert there.training
    assert all(torch.equal(value, before[name]) for name, value in there.state_dict().items())
    assert all(map(np.array_equal, weights, square.get_weights()))


def test_files_are_compared_like_objects(square, tmp_path):
    there = gw.port(square, to="torch")
    gw.save(square, tmp_path / "m.keras")
    gw.save(there, tmp_path / "m.safetensors")
    assert gw.verify(tmp_path / "m.keras", str(tmp_path / "m.safetensors")).passed


def test_other_shapes_fail_and_other_inputs_are_refused(keras, torch):
    one, wide, other = (torch.nn.LSTM(3, 4), torch.nn.LSTM(3, 5), torch.nn.LSTM(2, 4))
    parity = gw.verify(one, wide)
    assert parity.verdict == "failed"
    assert "differ in shape" in " ".join(parity.advice)
    with pytest.raises(SpecError, match="take different inputs"):
        gw.verify(one, other)
    with pytest.raises(SpecError, match="2 inputs for 1"):
        gw.verify(one, one, inputs=[np.zeros((1, 2, 3)), np.zeros(3)])
    with pytest.raises(SpecError, match=r"shape \(2, 3\) for input 'input'"):
        gw.verify(one, one, inputs=np.zeros((2, 3)))
    with pytest.raises(SpecError, match=r"shape \(2, 3, 4\) for input 'input'"):
        gw.verify(one, one, inputs=np.zeros((2, 3, 4)))


def test_outputs_that_are_no_numbers_are_told(torch):
    layer = torch.nn.LSTM(3, 4)
    assert "not finite" not in str(gw.verify(layer, layer))
    with torch.no_grad():
        layer.bias_ih_l0[0] = float("nan")
    parity = gw.verify(layer, layer)
    assert not parity.passed
    assert "not finite" in " ".join(parity.advice)
