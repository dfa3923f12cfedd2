"""Every public function turns a bad argument into one clear error, never a traceback of something underneath."""

import inspect

import numpy as np
import pytest

import gatewise as gw

BAD = {
    "None": None,
    "5": 5,
    "-1": -1,
    "empty": "",
    "NUL": "x\0y",
    "list": [],
    "object": object(),
    "nan": float("nan"),
    "class": gw.LSTM,
    "dict": {"units": 3},
    "bytes": b"torch",
}


def _good(torch, folder):
    """Return function → arguments with which it succeeds, of the cheapest kind."""
    spec, layer = gw.LSTM(3, 2), torch.nn.Linear(3, 2)
    file = folder / "a.safetensors"
    gw.save(layer, file)
    (folder / "cases.toml").write_text('[[case]]\nid = "a"\nlayers = ["LSTM(3, 2)"]\n')
    return {
        "build": {"spec": spec, "framework": "torch", "seed": 0, "initial": "keras"},
        "compare": {"path": folder / "cases.toml"},
        "count": {"spec": spec, "framework": "torch"},
        "describe": {"obj": layer, "inputs": np.zeros((4, 3))},
        "diagnose": {
            "claimed": 64,
            "spec": spec,
            "framework": "torch",
            "head": 1,
            "timesteps": 5,
            "batch": 2,
            "stale": {"features": 3},
        },
        "equations": {"spec": spec, "notation": "keras", "frameworks": ["torch"]},
        "explain": {"spec": spec, "first": "keras", "second": "torch", "of": "parameters"},
        "frameworks": {},
        "load": {"path": file, "to": "torch"},
        "mapping": {"spec": spec, "source": "keras", "target": "torch"},
        "option": {"name": "units"},
        "port": {
            "obj": layer,
            "to": "torch",
            "inputs": np.zeros((4, 3)),
            "second_bias": "frozen",
            "dtype": "float32",
            "batch_first": True,
        },
        "port_file": {"source": file, "target": folder / "b.safetensors", "second_bias": "frozen"},
        "port_report": {"obj": gw.port(layer, to="torch")},
        "save": {"obj": layer, "path": folder / "c.safetensors"},
        "solve": {"total": 40, "framework": "torch", "features": 3, "units": 2, "cell": "LSTM"},
        "transfer": {"source": layer, "target": torch.nn.Linear(3, 2), "second_bias": "frozen"},
        "inspect": {"obj": layer},
        "map_weights": {"spec": spec, "source": "keras", "target": "torch"},
        "tabulate": {"path": folder / "cases.toml"},
        "vary": {"spec": spec, "sizes": "units=1:3"},
    }


@pytest.fixture(scope="module")
def good(torch, tmp_path_factory):
    return _good(torch, tmp_path_factory.mktemp("bad"))


FUNCTIONS = sorted(name for name in gw.__all__ if inspect.isfunction(getattr(gw, name)) and name != "verify")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_bad_argument_is_one_clear_error(good, name):
    function, arguments = getattr(gw, name), good[name]
    function(**arguments)
    for argument in arguments:
        refused = 0
        for words, bad in BAD.items():
            try:
                function(**{**arguments, argument: bad})
            except gw.GatewiseError as error:
                refused += bool(error.met and error.where and error.hint)
            except Exception as error:
                raise AssertionError(f"{name}({argument}={words}) raises a raw {type(error).__name__}") from error
        assert refused >= 7, f"{name}({argument}=…) takes {len(BAD) - refused} of {len(BAD)} bad values"


def test_names_of_frameworks_to_vary_over():
    for bad in (5, None, "", "x\0y"):
        with pytest.raises(gw.UnknownFrameworkError):
            gw.vary(gw.LSTM(3, 2), "units=1:3", bad)


def test_two_frameworks_that_are_none():
    for pair in ((1, 2), (None, None), ("keras", 5)):
        with pytest.raises(gw.GatewiseError):
            gw.explain(*pair)
        with pytest.raises(gw.GatewiseError):
            gw.explain(gw.LSTM(3, 2), *pair)


def test_an_unbuilt_class_is_named_as_such():
    with pytest.raises(gw.SpecError, match="Call it: LSTM"):
        gw.build(gw.LSTM, "torch")
