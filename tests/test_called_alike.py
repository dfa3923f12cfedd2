"""A port takes what its source takes and gives what it gives, or says where it does not."""

import numpy as np

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
