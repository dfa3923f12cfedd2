"""An object whose behaviour is not its class's is refused by name: its description would be of something else."""

import warnings

import pytest

import gatewise as gw


def _refused(obj, to, layer, what):
    """Check that a port, a description and a file are refused by one error that names the layer and the change."""
    with pytest.raises(gw.UnsupportedModelError) as met:
        gw.port(obj, to=to)
    assert layer in str(met.value)
    assert what in str(met.value)
    with pytest.raises(gw.UnsupportedModelError, match=what):
        gw.describe(obj)


@pytest.fixture(scope="module")
def built(keras):
    """One Keras model with a layer of each way in which one is held, by name."""
    layers = keras.layers
    source = keras.Input((5, 3))
    both = layers.Bidirectional(layers.GRU(2, return_sequences=True))
    cell = layers.LSTMCell(3)
    dense = layers.Dense(2)
    step = keras.Sequential([layers.Dense(2), layers.Activation("relu")])
    rnn = layers.RNN(layers.StackedRNNCells([cell, layers.GRUCell(2)]), return_sequences=True)
    value = step(layers.TimeDistributed(dense)(rnn(both(source))))
    model = keras.Model(source, layers.LSTM(3, name="top")(value))
    inner = {"backward": both.backward_layer, "cell": cell, "distributed": dense, "model within": step}
    return model, inner | {"layer": model.get_layer("top"), "sequential's graph": step._functional, "model": model}


@pytest.mark.parametrize(
    ("place", "method"),
    [
        ("layer", "call"),
        ("layer", "__call__"),
        ("layer", "compute_mask"),
        ("layer", "inner_loop"),
        ("backward", "call"),
        ("cell", "call"),
        ("distributed", "call"),
        ("model within", "call"),
        ("sequential's graph", "call"),
        ("model", "call"),
    ],
)
def test_keras_method_replaced_on_an_object(built, place, method):
    model, places = built
    gw.describe(model)
    layer = places[place]
    setattr(layer, method, lambda *args, **kwargs: None)
    try:
        _refused(model, "torch", repr(layer.name), f"{method} was replaced")
    finally:
        delattr(layer, method)


def test_keras_bare_layer_and_cell(keras):
    for layer in (keras.layers.Dense(2), keras.layers.LSTMCell(2)):
        layer.build((None, 3))
        own = layer.call
        layer.call = lambda *args, own=own, **kwargs: own(*args, **kwargs)
        _refused(layer, "torch", layer.name, "call was replaced")


def test_keras_method_of_a_class_patched(keras, built, monkeypatch):
    own = keras.layers.Dense.call
    monkeypatch.setattr(keras.layers.Dense, "call", lambda self, *args, **kwargs: 2 * own(self, *args, **kwargs))
    _refused(built[0], "torch", built[1]["distributed"].name, "call of keras's class Dense was replaced")


def test_keras_model_that_overrides_how_it_runs(keras):
    class Blind(keras.Model):
        def compute_mask(self, *args, **kwargs):
            return None

    class Learning(keras.Model):
        def train_step(self, data):
            raise NotImplementedError

    source = keras.Input((5, 3))
    _refused(Blind(source, keras.layers.LSTM(2)(source)), "torch", "Blind", "compute_mask")
    assert gw.describe(Learning(source, keras.layers.LSTM(2)(source))).weighted


def _changed(torch):
    """Yield a module, and a word or two of the refusal it should meet."""
    nn = torch.nn

    def doubled(module):
        own = module.forward
        module.forward = lambda *args: 2 * own(*args)
        return module

    def first(chain, change):
        change(chain[0])
        return chain

    yield doubled(nn.GRU(3, 4, batch_first=True)), "A GRU does not run its class's code: forward was replaced"
    yield doubled(nn.LSTMCell(3, 4)), "A LSTMCell does not run its class's code: forward was replaced"
    chain = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU()))
    doubled(chain[1][0])
    yield chain, r"A ReLU \(1.0\) does not run its class's code: forward was replaced"
    yield first(nn.Sequential(nn.Linear(3, 4)), lambda one: one.register_forward_hook(lambda *args: None)), "a hook"
    yield first(nn.Sequential(nn.Linear(3, 4)), lambda one: one.register_forward_pre_hook(print)), "a hook, print"
    chain = nn.Sequential(nn.Linear(3, 4))
    chain[0].extra = nn.ReLU()
    yield chain, r"A Linear \(0\) has a submodule 'extra'"
    parametrised = nn.utils.parametrizations
    yield parametrised.weight_norm(nn.Linear(3, 4)), "computes its weights from others"
    yield parametrised.spectral_norm(nn.LSTM(3, 4), "weight_hh_l0"), "computes its weights from others"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield nn.utils.weight_norm(nn.Linear(3, 4)), "a hook, WeightNorm"


def test_torch_modules_that_were_changed(torch):
    for module, words in _changed(torch):
        with pytest.raises(gw.UnsupportedModelError, match=words):
            gw.port(module, to="keras")
        with pytest.raises(gw.UnsupportedModelError, match=words):
            gw.describe(module)


def test_torch_changed_module_is_not_saved(torch, tmp_path):
    module = torch.nn.Linear(3, 4)
    module.forward = lambda value: value
    with pytest.raises(gw.UnsupportedModelError, match="forward was replaced"):
        gw.save(module, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_torch_method_of_a_class_patched(torch, monkeypatch):
    own = torch.nn.Linear.forward
    monkeypatch.setattr(torch.nn.Linear, "forward", lambda self, value: own(self, value) * 2)
    with pytest.raises(gw.UnsupportedModelError, match="forward of torch's class Linear was replaced"):
        gw.port(torch.nn.Linear(3, 4), to="keras")


def test_torch_hook_on_all_modules(torch):
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *args: None)
    try:
        with pytest.raises(gw.UnsupportedModelError, match="has a hook"):
            gw.port(torch.nn.Linear(3, 4), to="keras")
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda nn, model: setattr(model, "dense", nn.Identity()), "'dense' is a Identity, and was a Linear"),
        (lambda nn, model: setattr(model, "dense", nn.Linear(4, 2)), "'dense' has in_features=4, and had 3"),
        (lambda nn, model: setattr(model.dropout, "p", 0.1), "'dropout' has p=0.1, and had 0.5"),
        (lambda nn, model: setattr(model, "more", nn.ReLU()), "a submodule 'more' more"),
        (lambda nn, model: setattr(model, "forward", lambda value: value), "forward was replaced"),
        (lambda nn, model: setattr(model.lstm, "forward", lambda value: value), "forward was replaced"),
    ],
)
def test_torch_model_that_is_not_as_it_was_built(torch, change, words):
    from gatewise.core.between import Dropout

    model = gw.build(gw.Network.chain(gw.LSTM(2, 3, return_state=False), Dropout(0.5), gw.Dense(3, 1)), "torch")
    assert gw.describe(model).weighted
    change(torch.nn, model)
    with pytest.raises(gw.UnsupportedModelError, match=words):
        gw.port(model, to="keras")
