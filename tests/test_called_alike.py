"""A port takes what its source takes and gives what it gives, or says where it does not."""

import copy
import pickle
import warnings

import numpy as np
import pytest

import gatewise as gw


def _draw(model, seed=0):
    """Give a Keras model random weights, and return it."""
    random = np.random.default_rng(seed)
    model.set_weights([random.normal(0, 0.6, weight.shape) for weight in model.get_weights()])
    return model


def _values(*shapes, seed=1):
    random = np.random.default_rng(seed)
    return [random.normal(size=shape).astype("float32") for shape in shapes]


# ── layers that are called by keyword ───────────────────────────────────────────────────────────────────────────


def _by_keyword(keras, one, other):
    """Yield what a call by keyword, or by keyword and position mixed, gives."""
    layers, first = keras.layers, one[:, 0]
    within = keras.Input((5, 3))
    yield layers.LSTM(3)(sequences=one)
    yield layers.Dense(3)(inputs=one)
    yield layers.Bidirectional(layers.GRU(3))(sequences=one)
    yield layers.TimeDistributed(layers.Dense(3))(inputs=one)
    yield layers.RNN(layers.LSTMCell(3))(sequences=one)
    yield layers.Attention()(inputs=[one, other], use_causal_mask=True)
    yield layers.AdditiveAttention()([one, other], return_attention_scores=True)[1]
    yield layers.LSTM(2)(sequences=layers.Concatenate()(inputs=[one, other]))
    yield layers.Dot(2)(inputs=[one, other])
    yield layers.GRU(3)(initial_state=first, sequences=other)
    yield layers.LSTM(3)(mask=other[:, :, 0] > 0, sequences=one)
    yield layers.LSTM(3)(one, None, other[:, :, 0] > 0)
    yield layers.Softmax()(inputs=one, mask=other > 0)
    yield keras.Model(within, layers.LSTM(2)(sequences=within))(inputs=one)
    yield layers.LSTM(2)(sequences=layers.Masking()(inputs=layers.Dropout(0.5)(inputs=one)))


def test_layers_called_by_keyword(keras, torch):
    one, other = keras.Input((5, 3)), keras.Input((5, 3))
    model = _draw(keras.Model([one, other], list(_by_keyword(keras, one, other))))
    values = _values((2, 5, 3), (2, 5, 3))
    ported = gw.port(model, to="torch")(*map(torch.tensor, values))
    for mine, yours in zip(model(values), ported, strict=True):
        np.testing.assert_allclose(mine, yours.detach(), atol=2e-6)


# ── how several inputs and outputs are given ────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def pair(keras, torch):
    """Two inputs, two layers that read them, and the numbers that both sides are given."""
    one, other = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    values = _values((2, 3), (2, 3))
    made = [keras.layers.Dense(2)(one), keras.layers.Dense(4)(other)]
    return [one, other], made, values, [torch.tensor(value) for value in values]


def test_two_inputs_are_taken_in_every_way_that_keras_takes_them(keras, torch, pair):
    inputs, made, values, tensors = pair
    model = _draw(keras.Model(inputs, made))
    ported = gw.port(model, to="torch")
    left, right = tensors
    for given in (
        ported(left, right),
        ported([left, right]),
        ported((left, right)),
        ported({"right": right, "left": left}),
        ported(right=right, left=left),
    ):
        assert isinstance(given, list)
        for mine, yours in zip(model(values), given, strict=True):
            np.testing.assert_allclose(mine, yours.detach(), atol=1e-6)


def test_dicts_and_nests_come_back_as_they_are(keras, torch, pair, tmp_path):
    (one, other), (first, second), values, (left, right) = pair
    model = _draw(keras.Model({"right": other, "left": one}, {"a": first, "b": (second, [first])}))
    wanted = model({"right": values[1], "left": values[0]})
    ported = gw.port(model, to="torch")
    gw.save(ported, tmp_path / "a.safetensors")
    for port in (ported, gw.load(tmp_path / "a.safetensors")):
        for met in (port({"left": left, "right": right}), port(left, right), port(left=left, right=right)):
            assert set(met) == {"a", "b"}
            assert isinstance(met["b"], tuple)
            assert isinstance(met["b"][1], list)
            np.testing.assert_allclose(wanted["a"], met["a"].detach(), atol=1e-6)
            np.testing.assert_allclose(wanted["b"][0], met["b"][0].detach(), atol=1e-6)
            np.testing.assert_allclose(wanted["b"][1][0], met["b"][1][0].detach(), atol=1e-6)
    back = gw.port(ported, to="keras")
    again = back({"right": values[1], "left": values[0]})
    np.testing.assert_allclose(wanted["b"][0], again["b"][0], atol=1e-6)
    assert gw.describe(back) == gw.describe(model)
    assert gw.verify(model, ported, gradients=True).passed


@pytest.mark.parametrize(
    "call",
    [
        lambda port, one: port(one),
        lambda port, one: port([one]),
        lambda port, one: port(one, one, one),
        lambda port, one: port({"left": one}),
        lambda port, one: port(left=one, wrong=one),
        lambda port, one: port(one, right=one),
    ],
)
def test_other_inputs_are_refused_by_name(keras, torch, pair, call):
    inputs, made, _, (left, _) = pair
    port = gw.port(keras.Model(inputs, made), to="torch")
    with pytest.raises(gw.ShapeError, match="reads left, right"):
        call(port, left)


# ── what is called otherwise is said ────────────────────────────────────────────────────────────────────────────


def _warned(obj, to, **options):
    with warnings.catch_warnings(record=True) as met:
        warnings.simplefilter("always")
        port = gw.port(obj, to, **options)
    texts = [str(each.message) for each in met if issubclass(each.category, gw.PortWarning)]
    assert tuple(texts) == gw.port_report(port).calls
    return port, " ".join(texts)


def test_states_of_a_bare_layer_and_of_one_in_a_chain_come_alike_and_are_said(keras, torch):
    nn = torch.nn
    bare = nn.GRU(3, 5, batch_first=True)
    chain = nn.Sequential(nn.GRU(3, 5, batch_first=True))
    value = torch.randn(2, 4, 3)
    for module in (bare, chain):
        port, words = _warned(module, "keras")
        output, state = port(value.numpy())
        mine = module(value)
        np.testing.assert_allclose(output, mine[0].detach(), atol=1e-6)
        np.testing.assert_allclose(state, mine[1].transpose(0, 1).detach(), atol=1e-6)
        assert "h_n of (batch, layers × directions, units)" in words
        assert "called" not in words


def test_time_first_is_said_and_cannot_be_kept(keras, torch):
    module = torch.nn.LSTM(3, 4)
    port, words = _warned(module, "keras")
    assert "time first (batch_first=False), the port batch first" in words
    assert words.split(". ")[0] in str(gw.port_report(port))
    with pytest.raises(gw.UnsupportedModelError, match="time first"):
        gw.port(module, to="keras", batch_first=False)
    assert "called" not in _warned(torch.nn.LSTM(3, 4, batch_first=True), "keras", batch_first=False)[1]


def test_a_chain_without_time_says_how_many_axes_its_port_takes(keras, torch):
    module = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU())
    value = torch.randn(2, 3, 1)
    port, words = _warned(module, "keras")
    assert "takes any number of axes, the port 2 axes" in words
    port, words = _warned(module, "keras", inputs=value)
    assert not words
    np.testing.assert_allclose(port(value.numpy()), module(value).detach(), atol=1e-6)
    assert gw.verify(module, port).passed


def test_a_call_that_is_alike_warns_of_nothing(keras, torch):
    source = keras.Input((5, 3))
    for obj in (keras.Model(source, keras.layers.LSTM(3, return_state=True)(source)), torch.nn.Linear(3, 2)):
        assert not _warned(obj, "torch")[1]
    assert not _warned(torch.nn.Linear(3, 2), "keras")[1]


def test_a_cell_says_what_one_step_takes_and_gives(keras, torch):
    assert "(input, (h, c)) → (h, c), of the port cell(input, [h, c])" in _warned(torch.nn.LSTMCell(3, 4), "keras")[1]


def test_the_report_of_a_port(keras, torch):
    source = keras.Input((5, 3))
    port = gw.port(keras.Model(source, keras.layers.LSTM(3, name="top")(source)), to="torch")
    report = gw.port_report(port)
    assert report.to_dict()["layers"] == [
        {
            "layer": "top",
            "spec": "LSTM(features=3, units=3, return_sequences=False, return_state=False)",
            "verdict": "exact",
            "reason": report.plans["top"].reason,
            "parameters": {"source": 84, "target": 96},
            "frozen": ["bias_hh_l0"],
        }
    ]
    for text in (str(report), report._repr_html_(), report._repr_markdown_()):
        assert "bias_hh_l0 is zero and frozen" in " ".join(text.split())
    # The object carries nothing of it: copies are as they would be, and say that they have none.
    again = pickle.loads(pickle.dumps(port))
    assert set(vars(again)) == set(vars(port))
    for other in (again, copy.deepcopy(port), source, [], 5):
        with pytest.raises(gw.GatewiseError, match="has no report"):
            gw.port_report(other)


# ── masks ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _words_and_characters(keras, join):
    """Return a model of words and of the characters of each, whose masks have two and three axes."""
    layers = keras.layers
    words, characters = keras.Input((None,), dtype="int32"), keras.Input((None, None), dtype="int32")
    one = layers.Embedding(9, 4, mask_zero=True)(words)
    other = layers.TimeDistributed(layers.LSTM(4))(layers.Embedding(9, 3, mask_zero=True)(characters))
    return _draw(keras.Model([words, characters], join(layers, one, other)))


@pytest.mark.parametrize("turned", [False, True])
def test_a_mask_of_characters_meets_one_of_words(keras, torch, turned):
    def join(layers, one, other):
        parts = [other, one] if turned else [one, other]
        return layers.LSTM(2, return_sequences=True)(layers.Concatenate()(parts))

    model = _words_and_characters(keras, join)
    random = np.random.default_rng(0)
    values = [random.integers(0, 3, (3, 7)), random.integers(0, 3, (3, 7, 5))]
    # A word that is padded and has characters counts, one without either does not.
    values[0][0, 3:], values[1][0, 5:] = 0, 0
    ported = gw.port(model, to="torch")
    met = ported(*map(torch.tensor, values)).detach()
    np.testing.assert_allclose(model(values), met, atol=1e-6)
    np.testing.assert_array_equal(met[0, 5], met[0, 4])
    assert not np.allclose(met[0, 4], met[0, 3])
    assert gw.verify(model, ported).passed


@pytest.mark.parametrize(
    "join",
    [
        lambda layers, one, other: layers.LSTM(4)(other),
        lambda layers, one, other: layers.Bidirectional(layers.GRU(4))(other),
        lambda layers, one, other: layers.Multiply()([other, other * 1]),
        lambda layers, one, other: layers.Maximum()([other, layers.Dropout(0.1)(other)]),
        lambda layers, one, other: layers.Concatenate(axis=1)([one, other]),
        lambda layers, one, other: layers.Attention()([one, other]),
        lambda layers, one, other: layers.BatchNormalization()(other),
        lambda layers, one, other: layers.GlobalAveragePooling1D()(other),
    ],
)
def test_a_mask_of_other_axes_is_refused_by_name(keras, join):
    with pytest.raises(gw.UnsupportedModelError, match=r"mask='of other axes than its steps'"):
        gw.port(_words_and_characters(keras, join), to="torch")


def test_a_sum_hands_on_masks_of_characters(keras, torch):
    model = _words_and_characters(keras, lambda layers, one, other: layers.Add()([other, layers.Dropout(0.1)(other)]))
    random = np.random.default_rng(0)
    values = [random.integers(0, 3, (3, 7)), random.integers(0, 3, (3, 7, 5))]
    met = gw.port(model, to="torch")(*map(torch.tensor, values))
    np.testing.assert_allclose(model(values), met.detach(), atol=1e-6)


def _set_by_hand(keras):
    """Yield layers whose ``supports_masking`` says other than their class does, each with what follows it."""
    layers = keras.layers
    yield layers.Conv1D(3, 2, padding="same"), True
    yield layers.MaxPooling1D(2), True
    yield layers.Reshape((6, 3)), True
    yield layers.Dense(3), False
    yield layers.Dropout(0.1), False
    yield layers.LayerNormalization(), False
    yield layers.LSTM(3, return_sequences=True), False
    yield layers.Bidirectional(layers.GRU(3, return_sequences=True)), False
    yield layers.TimeDistributed(layers.Dense(3)), False


@pytest.mark.filterwarnings(r"ignore:[\s\S]*destroy the mask")  # Keras says so itself
def test_supports_masking_set_by_hand_is_refused_by_name(keras):
    source = keras.Input((6, 3))
    for layer, passes in _set_by_hand(keras):
        masked = keras.layers.Masking()(source)
        gw.describe(keras.Model(source, keras.layers.LSTM(2)(layer(masked))))
        layer.supports_masking = passes
        model = keras.Model(source, keras.layers.LSTM(2)(layer(masked)))
        with pytest.raises(gw.UnsupportedModelError, match=f"'{layer.name}'.*supports_masking={passes}"):
            gw.port(model, to="torch")
    for join in (keras.layers.Add(), keras.layers.Concatenate()):
        join.supports_masking = False
        model = keras.Model(source, keras.layers.LSTM(2)(join([masked, masked])))
        with pytest.raises(gw.UnsupportedModelError, match="supports_masking=False"):
            gw.port(model, to="torch")


def _under_a_mask(layers, one, other):
    """Yield what follows a mask on the first input, each in its way; the second has none."""
    yield layers.LSTM(3)(one)
    yield layers.GRU(3, return_sequences=True)(layers.Dropout(0.1)(layers.Dense(3)(one)))
    yield layers.Bidirectional(layers.LSTM(3, return_sequences=True), merge_mode="mul")(one)
    yield layers.GlobalAveragePooling1D()(one)
    yield layers.Multiply()([one, other])
    yield layers.Attention()([other, one])
    yield layers.RNN([layers.LSTMCell(2), layers.GRUCell(3)])(one)
    yield layers.LSTM(3)(layers.Conv1D(2, 2)(one))  # ends it
    yield layers.LSTM(3)(one, initial_state=[other[:, 0], other[:, 1]])  # does not follow it


@pytest.mark.filterwarnings(r"ignore:[\s\S]*destroy the mask")  # Keras says so itself
def test_a_mask_from_outside_is_taken_as_keras_takes_it(keras, torch):
    one, other = keras.Input((7, 3)), keras.Input((7, 3))
    model = _draw(keras.Model([one, other], list(_under_a_mask(keras.layers, one, other))))
    values = _values((4, 7, 3), (4, 7, 3))
    mask = np.random.default_rng(2).random((4, 7)) < 0.6
    mask[:, 0] = True
    ported, tensors = gw.port(model, to="torch"), list(map(torch.tensor, values))
    wanted, free = model(values, mask=[mask, None]), model(values)
    met = ported(*tensors, mask=[torch.tensor(mask), None])
    moved = [float(np.abs(with_mask - without).max()) for with_mask, without in zip(wanted, free, strict=True)]
    assert min(moved[:7]) > 0.05
    assert max(moved[7:]) == 0
    for mine, yours in zip(wanted, met, strict=True):
        np.testing.assert_allclose(mine, yours.detach(), atol=2e-6)
    for mine, yours in zip(free, ported(*tensors), strict=True):
        np.testing.assert_allclose(mine, yours.detach(), atol=2e-6)
    with pytest.raises(gw.ShapeError, match="1 masks for 2 inputs"):
        ported(*tensors, mask=torch.tensor(mask))


@pytest.mark.parametrize("kind", ["backwards", "distributed"])
def test_a_mask_from_outside_is_refused_where_it_is_not_followed(keras, torch, kind):
    layers, source = keras.layers, keras.Input((7, 3))
    layer = layers.GRU(2, go_backwards=True) if kind == "backwards" else layers.TimeDistributed(layers.Dense(2))
    ported = gw.port(keras.Model(source, layer(source)), to="torch")
    with pytest.raises(gw.UnsupportedModelError, match="mask from outside"):
        ported(torch.zeros(2, 7, 3), mask=torch.ones(2, 7, dtype=torch.bool))


# ── tokens, and a hint ──────────────────────────────────────────────────────────────────────────────────────────


def test_an_unknown_token_is_named(keras, torch):
    source = keras.Input((None,), dtype="int32")
    port = gw.port(
        keras.Model(source, keras.layers.LSTM(2)(keras.layers.Embedding(9, 3, name="words")(source))), "torch"
    )
    port(torch.tensor([[0, 8]]))
    for token in (-1, 9):
        with pytest.raises(gw.GatewiseError, match=f"Layer 'words' reads the token {token}") as met:
            port(torch.tensor([[1, token]]))
        assert isinstance(met.value, IndexError)
        assert "9 rows, for the tokens 0 to 8" in str(met.value)


def test_the_hint_for_a_recurrent_layer_in_a_chain_leads_to_the_same_function(torch):
    import gatewise_torch

    value = torch.randn(2, 5, 3)
    for both in (False, True):
        layer = torch.nn.LSTM(3, 4, batch_first=True, bidirectional=both)
        with pytest.raises(gw.UnsupportedModelError) as met:
            gw.port(torch.nn.Sequential(layer, torch.nn.Linear(8 if both else 4, 1)), to="keras")
        assert "go on taking out[:, -1]" in met.value.hint
        assert ("Do not set return_sequences=False" in met.value.hint) == both
        made = [
            gatewise_torch.LSTM(3, 4, batch_first=True, bidirectional=both, return_state=False, return_sequences=every)
            for every in (True, False)
        ]
        for one in made:
            one.load_state_dict(layer.state_dict())
        wanted = layer(value)[0][:, -1]
        torch.testing.assert_close(made[0](value)[:, -1], wanted)
        # The trap that the hint speaks of: in two directions this is another function.
        assert torch.allclose(made[1](value), wanted, atol=1e-6) != both
