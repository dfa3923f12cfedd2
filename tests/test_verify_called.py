"""verify on models that nobody can read: a person's own modules, subclasses, Lambdas and functions are called."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest

import gatewise as gw
from gatewise.errors import GatewiseError, SpecError, UnsupportedModelError


@pytest.fixture(scope="module")
def inputs():
    return np.random.default_rng(0).normal(size=(5, 6, 3)).astype("float32")


@pytest.fixture(scope="module")
def kinds(torch):
    """Modules as people write them."""
    nn = torch.nn

    class Loop(nn.Module):
        """An LSTM as a loop over its cell, with outputs by name and a head that is run in training alone."""

        def __init__(self):
            super().__init__()
            self.cell, self.drop, self.head = nn.LSTMCell(3, 4), nn.Dropout(0.5), nn.Linear(4, 2)
            self.auxiliary = nn.Linear(4, 2)

        def forward(self, x):
            h = c = x.new_zeros(x.shape[0], 4)
            for step in range(x.shape[1]):
                h, c = self.cell(x[:, step], (h, c))
            if self.training:
                return {"logits": self.head(self.drop(h)), "hidden": h, "auxiliary": self.auxiliary(h)}
            return {"logits": self.head(h), "hidden": h}

    class Packed(nn.Module):
        """Sequences of several lengths."""

        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(3, 4, batch_first=True)

        def forward(self, x, lengths):
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            return self.gru(packed)[1][0]

    class Attention(nn.Module):
        """A softmax over the steps, which takes the bias of its scores away; the last layer may be another."""

        def __init__(self):
            super().__init__()
            self.gru, self.score, self.out = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 1), nn.Linear(4, 2)

        def forward(self, x):
            steps, _ = self.gru(x)
            return self.out((torch.softmax(self.score(steps), 1) * steps).sum(1))

    class Noisy(Attention):
        def forward(self, x):
            return super().forward(nn.functional.dropout(x, 0.3, training=True))

    class Keeping(Attention):
        """Each call gives more than the one before, by an attribute, a list and a buffer."""

        def __init__(self):
            super().__init__()
            self.calls, self.seen = 0, []
            self.register_buffer("total", torch.zeros(()))

        def forward(self, x):
            self.calls, self.total = self.calls + 1, self.total + 1
            self.seen.append(len(x))
            return super().forward(x) * self.calls * len(self.seen) * self.total

    class TimeFirst(nn.Module):
        def __init__(self, batch_first):
            super().__init__()
            self.gru, self.out = nn.GRU(3, 4, batch_first=batch_first), nn.Linear(4, 2)

        def forward(self, x):
            return self.out(self.gru(x)[0])

    found = {kind.__name__: kind for kind in (Loop, Packed, Attention, Noisy, Keeping, TimeFirst)}

    def make(name, *args):
        made = found[name](*args)
        torch.manual_seed(1)
        for parameter in made.parameters():
            nn.init.normal_(parameter, std=0.6)
        return made

    return make


@pytest.fixture(scope="module")
def subclass(keras, kinds, inputs):
    """A subclass of keras.Model with the weights of a Loop, laid over by hand."""

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = keras.layers.LSTM(4), keras.layers.Dense(2)

        def call(self, x):
            hidden = self.lstm(x)
            return {"hidden": hidden, "logits": self.head(hidden)}

    loop, made = kinds("Loop"), Own()
    made(inputs)
    cell, head = loop.cell, loop.head
    biases = cell.bias_ih + cell.bias_hh
    arrays = [cell.weight_ih.T, cell.weight_hh.T, biases, head.weight.T, head.bias]
    made.set_weights([array.detach().numpy() for array in arrays])
    return made


def bits(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(torch, before, after):
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_a_subclass_of_keras_against_a_loop_of_torch(torch, kinds, subclass, inputs):
    loop = kinds("Loop")
    before, kept = bits(loop), subclass.get_weights()
    for first, second in ((loop, subclass), (subclass, loop)):
        parity = gw.verify(first, second, inputs=inputs)
        assert parity.verdict == "passed", str(parity)
        assert parity.basis == "called"
        assert {output.name for output in parity.outputs} == {"logits", "hidden"}
        assert 0 < max(output.max_abs for output in parity.outputs) < 1e-6
        words = " ".join(str(parity).split())
        assert "was not read, only called" in words
        # What is run in training alone was not tested, and is named.
        assert "auxiliary.weight, auxiliary.bias (no part of these outputs" in words
        assert len(parity.planted) == 6 + 5
        assert min(each.moved for each in parity.planted) > 100
        assert parity.trials == ("(5, 6, 3)", "(2, 6, 3)")
    assert loop.training
    assert loop.drop.training
    assert same(torch, before, bits(loop))
    assert all(np.array_equal(one, other) for one, other in zip(kept, subclass.get_weights(), strict=True))


def test_broken_twins_fail(torch, kinds, subclass, inputs):
    for name in ("cell.weight_ih", "cell.weight_hh", "cell.bias_hh", "head.weight", "head.bias"):
        wrong = kinds("Loop")
        tensor = wrong.get_parameter(name).data
        tensor[:2] = tensor[:2].flip(0)
        for first, second in ((wrong, subclass), (subclass, wrong)):
            assert gw.verify(first, second, inputs=inputs).verdict == "failed", name


def test_without_inputs_the_call_is_said(kinds, keras, subclass, inputs):
    with pytest.raises(UnsupportedModelError, match=r"inputs=\(x,\)\), where x may be of shape \(2, 7, 3\)"):
        gw.verify(kinds("Loop"), subclass)
    with pytest.raises(UnsupportedModelError, match="gradients=True needs models that can be read"):
        gw.verify(kinds("Loop"), subclass, inputs=inputs, gradients=True)
    with pytest.raises(UnsupportedModelError, match="training_steps=3"):
        gw.verify(kinds("Loop"), subclass, inputs=inputs, training_steps=3)
    with pytest.raises(UnsupportedModelError, match="had no weights yet"):
        gw.verify(type(subclass)(), subclass, inputs=inputs)
    assert gw.verify(keras.layers.Lambda(lambda x: x * 2), lambda x: x * 2, inputs=inputs).verdict == "passed"


@pytest.mark.parametrize("form", [tuple, dict])
def test_packed_sequences(kinds, inputs, form):
    given = {"x": inputs, "lengths": np.array([6, 5, 4, 6, 3])}
    one, other = kinds("Packed"), kinds("Packed")
    parity = gw.verify(one, other, inputs=given if form is dict else tuple(given.values()))
    assert parity.verdict == "passed", str(parity)
    other.gru.bias_hh_l0.data[8:] *= 0.9
    assert gw.verify(one, other, inputs=given).verdict == "failed"
    with pytest.raises(SpecError, match="1 inputs, and a call needs 2"):
        gw.verify(one, other, inputs=inputs)
    with pytest.raises(SpecError, match="No input is called length"):
        gw.verify(one, other, inputs={"x": inputs, "length": given["lengths"]})
    with pytest.raises(UnsupportedModelError, match=r"raised RuntimeError.*\n.*\n.*A call takes \(x, lengths\)"):
        gw.verify(one, other, inputs=(inputs[..., :2], given["lengths"]))


def test_weights_that_show_nothing_are_named(kinds, inputs):
    one = kinds("Loop")
    parity = gw.verify(one, copy.deepcopy(one), inputs=inputs[:, :1])
    assert parity.verdict == "inconclusive"  # One step from a zero state: the recurrent kernel plays no part.
    assert "Not tested in the source: cell.weight_hh (a change does not show" in " ".join(parity.advice)
    assert "bias" not in parity.advice[0]
    assert any("Axis 1 of input 0 has a single entry" in remark for remark in parity.remarks)
    alike = np.tile(inputs[:, :1], (1, 6, 1))
    parity = gw.verify(one, one, inputs=alike)
    assert any("order along axis 1 of input 0 changes no output" in remark for remark in parity.remarks)


def test_what_a_softmax_cancels_is_no_gap(kinds, inputs):
    one, other = kinds("Attention"), kinds("Attention")
    other.score.bias.data += 1
    parity = gw.verify(one, other, inputs=inputs)
    assert parity.verdict == "passed", str(parity)
    assert any("score.bias (any change moves the outputs by rounding alone" in remark for remark in parity.remarks)
    assert all("score.weight" not in remark for remark in parity.remarks)
    for parameter in (one.score.weight, other.score.weight):
        parameter.data.zero_()  # What is multiplied by zero may be wrong unseen.
    one.out.weight.data.zero_()
    other.out.weight.data.zero_()
    parity = gw.verify(one, other, inputs=inputs)
    assert parity.verdict == "inconclusive"
    assert "gru.weight_hh_l0" in parity.advice[0]


def test_what_is_random_is_said(torch, kinds, inputs):
    steady, noisy = kinds("Attention"), kinds("Noisy")
    state = torch.random.get_rng_state()
    parity = gw.verify(steady, noisy, inputs=inputs)
    assert parity.verdict == "failed"
    assert any("The target gives other outputs at each call" in word for word in parity.advice)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    "wrap", [lambda module: module, lambda module: lambda x: module(x) * 1.0], ids=["itself", "function"]
)
def test_what_is_kept_between_calls_comes_back(torch, kinds, inputs, wrap):
    steady, keeping = kinds("Attention"), kinds("Keeping")
    before = bits(keeping)
    parity = gw.verify(steady, wrap(keeping), inputs=inputs)
    assert parity.verdict == "passed", str(parity)
    assert any("keeps a state" in remark for remark in parity.remarks)
    assert (keeping.calls, keeping.seen, float(keeping.total)) == (0, [], 0)
    assert keeping.training
    assert same(torch, before, bits(keeping))


def test_weights_come_back_where_a_call_breaks_off(torch, kinds, inputs):
    broken = kinds("Attention")
    forward, before = broken.out.forward, bits(broken)

    def fussy(value):
        if not torch.equal(broken.gru.bias_hh_l0, before["gru.bias_hh_l0"]):
            raise ArithmeticError("another bias")
        return forward(value)

    broken.out.forward = fussy
    assert gw.verify(broken, kinds("Attention"), inputs=inputs).verdict == "passed"
    assert same(torch, before, bits(broken))
    broken.gru.bias_hh_l0.data += 1
    with pytest.raises(GatewiseError, match="raised ArithmeticError: another bias"):
        gw.verify(broken, kinds("Attention"), inputs=inputs)
    assert broken.out.forward is fussy


def test_other_axes_are_named(kinds, inputs):
    first, last = kinds("TimeFirst", True), kinds("TimeFirst", False)
    parity = gw.verify(first, last, inputs=inputs)
    assert parity.verdict == "failed"
    [found] = parity.diagnosis
    assert found.mistake == "batch-and-time-exchanged"
    assert "once the target is fed with batch and time exchanged" in found.text
    adapted = lambda x: last(x.transpose(0, 1)).transpose(0, 1)  # noqa: E731
    assert gw.verify(first, adapted, inputs=inputs).verdict == "passed"
    parity = gw.verify(first, lambda x: last(x.transpose(0, 1)), inputs=inputs)
    assert "once batch and time of the target's outputs are exchanged" in parity.diagnosis[0].text


def test_functions_and_their_models(kinds, subclass, inputs):
    loop = kinds("Loop")
    hidden = lambda x: loop(x)["hidden"]  # noqa: E731
    parity = gw.verify(hidden, lambda x: subclass(x)["hidden"], inputs=inputs)
    assert parity.verdict == "passed"
    assert len(parity.planted) == 4 + 3  # of the cell and of the layer; the heads are named
    assert any("head.weight, head.bias" in remark for remark in parity.remarks)
    assert gw.verify(functools.partial(loop.forward), loop, inputs=inputs).verdict == "passed"
    parity = gw.verify(lambda x: x[:, -1] * 2, lambda x: x[:, -1] * 2.001, inputs=inputs)
    assert parity.verdict == "failed"
    with pytest.raises(UnsupportedModelError, match="cannot be called"):
        gw.verify(5, loop, inputs=inputs)


@pytest.mark.filterwarnings("ignore:The source returns states as h_n:gatewise.errors.PortWarning")
def test_a_replaced_forward_is_called(torch, inputs):
    layer = torch.nn.GRU(3, 4, batch_first=True)
    there = gw.port(layer, to="keras")
    assert gw.verify(layer, there, inputs=inputs).basis == "read"
    forward = layer.forward
    layer.forward = lambda *args, **kwargs: tuple(2 * output for output in forward(*args, **kwargs))
    with pytest.raises(UnsupportedModelError, match=r"(?s)forward was replaced.*inputs="):
        gw.verify(layer, there)
    parity = gw.verify(layer, there, inputs=inputs)
    assert (parity.verdict, parity.basis) == ("failed", "called")
    layer.forward = lambda *args, **kwargs: tuple(forward(*args, **kwargs))
    parity = gw.verify(layer, there, inputs=inputs)
    assert parity.verdict == "passed", str(parity)
    assert len(parity.outputs) == 2
    handle = torch.nn.GRU(3, 4, batch_first=True)
    handle.register_forward_hook(lambda module, args, output: (output[0] * 2, output[1]))
    handle.load_state_dict(layer.state_dict())
    assert gw.verify(handle, there, inputs=inputs).verdict == "failed"


def test_outputs_of_one_side_alone_are_said(torch, kinds, inputs):
    one = kinds("Attention")
    parity = gw.verify(one, lambda x: (one.gru(x)[0], one(x)), inputs=inputs)
    assert parity.verdict == "passed", str(parity)
    assert any("Only the target gives 0 of shape (5, 6, 4)" in remark for remark in parity.remarks)
    parity = gw.verify(one, torch.nn.Linear(3, 7), inputs=inputs)
    assert parity.verdict == "failed"
    assert "No output is common to both: (5, 2) in the source, (5, 6, 7) in the target." in parity.advice
    many = torch.nn.Sequential(*[torch.nn.Linear(3, 3) for _ in range(2)], torch.nn.Flatten())
    assert gw.verify(many.double(), copy.deepcopy(many), inputs=inputs).dtype == "float64"


def test_inputs_by_the_names_of_a_graph(keras, inputs):
    layers = keras.layers
    left, right = keras.Input((None, 3), name="left"), keras.Input((2,), name="right")
    joined = layers.Concatenate()([layers.GRU(4)(left), right])
    model = keras.Model([left, right], layers.Lambda(lambda value: value + 1.0)(joined))
    beside = np.random.default_rng(1).normal(size=(5, 2)).astype("float32")
    for given in ((inputs, beside), {"right": beside, "left": inputs}):
        assert gw.verify(model, model, inputs=given).verdict == "passed"
    other = keras.Model([left, right], layers.Lambda(lambda value: value + 1.001)(joined))
    assert gw.verify(model, other, inputs=(inputs, beside)).verdict == "failed"
    with pytest.raises(SpecError, match="reads left, right"):
        gw.verify(model, model, inputs=inputs)


def test_equal_for_no_reason_is_not_passed(torch, kinds, inputs):
    one = kinds("Attention")
    parity = gw.verify(lambda x: one(x) * float("nan"), lambda x: one(x) * float("nan"), inputs=inputs)
    assert parity.verdict == "inconclusive"
    assert any("NaN or infinite" in word for word in parity.advice)
    one.forward = lambda x: x.sum(1)
    parity = gw.verify(one, one, inputs=inputs)
    assert parity.verdict == "inconclusive"
    assert any("No weight of the source changes its outputs" in word for word in parity.advice)
    with pytest.raises(UnsupportedModelError, match="belongs to no framework") as refused:
        gw.verify(5, one)
    assert "inputs=" not in str(refused.value)


def test_a_stateful_layer_of_keras_is_put_back(keras, inputs):
    model = keras.Sequential(
        [keras.Input((6, 3), batch_size=5), keras.layers.GRU(4, stateful=True), keras.layers.Lambda(lambda x: x * 1.0)]
    )
    model(inputs)
    states = model.layers[0].states[0].numpy()
    assert states.any()
    parity = gw.verify(model, model, inputs=inputs)
    assert parity.verdict == "passed", str(parity)
    assert any("keeps a state" in remark for remark in parity.remarks)
    assert np.array_equal(states, model.layers[0].states[0].numpy())
