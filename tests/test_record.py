"""A record is what a dataclass of the same fields would be."""

import copy
import dataclasses
import inspect
import pickle

import pytest

import gatewise as gw
from gatewise.core.between import WEIGHTLESS
from gatewise.core.layout import Layout
from gatewise.core.record import REQUIRED
from gatewise.core.spec import KINDS


def test_it_is_called_as_a_dataclass_is():
    own = {name: (each.kind, each.default) for name, each in inspect.signature(KINDS["LSTM"]).parameters.items()}
    assert list(own)[:3] == ["features", "units", "layers"]
    assert own["units"] == (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty)
    assert own["recurrent_activation"] == (inspect.Parameter.KEYWORD_ONLY, "sigmoid")
    assert next(iter(inspect.signature(KINDS["AdditiveAttention"]).parameters)) == "features"
    assert KINDS["AdditiveAttention"](4).options() == {
        "scale": True, "dropout": 0.0, "causal": False, "return_scores": False, "features": 4
    }  # fmt: skip


@pytest.mark.parametrize("kind", [*KINDS.values(), *WEIGHTLESS.values(), gw.Layer, gw.Network, Layout])
def test_every_field_is_one_of_a_dataclass_too(kind):
    assert dataclasses.is_dataclass(kind)
    fields = dataclasses.fields(kind)
    assert [field.name for field in fields] == list(kind.fields)
    for field in fields:
        default = REQUIRED if field.default is dataclasses.MISSING else field.default
        assert default is kind.fields[field.name]
        assert default is REQUIRED or getattr(kind, field.name) == default


def test_copies_are_equal_and_changes_are_seen():
    spec = gw.LSTM(3, 50, bias=False)
    layer = gw.Layer("one", spec)
    for each in (spec, layer, gw.Network((layer,))):
        for again in (pickle.loads(pickle.dumps(each)), copy.deepcopy(each), dataclasses.replace(each)):
            assert again == each
            assert hash(again) == hash(each)
            assert repr(again) == repr(each)
    assert dataclasses.replace(layer, name="two") == gw.Layer("two", spec) == layer.replace(name="two") != layer
    assert spec.replace(units=2) == gw.LSTM(3, 2, bias=False) != spec
    assert gw.LSTM(3, 5) != gw.RNN(3, 5)
    match spec:
        case gw.LSTM(features, units, bias=bias):
            assert (features, units, bias) == (3, 50, False)


def test_it_is_frozen():
    spec = gw.LSTM(3, 50)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.units = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del spec.units
    with pytest.raises(dataclasses.FrozenInstanceError):
        gw.Layer("one", spec).anything = 2


@pytest.mark.parametrize(
    ("args", "options", "met"),
    [
        ((3,), {}, "LSTM lacks units."),
        ((3, 4, 5), {}, "LSTM takes 2 values by position, and 3 are given."),
        ((3, 4), {"features": 3}, "features is given twice to LSTM."),
        ((3, 4), {"unit": 3}, "LSTM has no option 'unit'."),
        ((3,), {"unit": 3}, "LSTM has no option 'unit'."),
    ],
)
def test_options_that_no_layer_has(args, options, met):
    with pytest.raises(gw.SpecError) as error:
        gw.LSTM(*args, **options)
    assert error.value.met == met
    assert len(str(error.value).splitlines()) == 3
    with pytest.raises(gw.SpecError, match="has no option 'unit'"):
        gw.LSTM(3, 4).replace(unit=1)
    with pytest.raises(TypeError, match=r"Layer lacks spec\."):
        gw.Layer("one")
