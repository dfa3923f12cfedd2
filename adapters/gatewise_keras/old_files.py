"""Files of Keras 1 and 2 and of tf_keras: Keras 3 reads them, but gives some of their names another meaning.

``hard_sigmoid`` is 0.2x + 0.5 in them, and x/6 + 0.5 in Keras 3; what a config of Keras 2.2 and before leaves out had
other defaults. So a config is rewritten before Keras 3 sees it, in a copy of the file. Sources: keras-team/keras 2.2.4
keras/activations.py and keras/layers/recurrent.py; keras-team/tf-keras tf_keras/backend.py, hard_sigmoid.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gatewise.errors import FileError

RENAMED = {"hard_sigmoid": "hard_sigmoid_02"}
"""Activation as an old file names it → what it is, where Keras 3 means another function by that name."""

DEFAULTS: dict[str, dict[str, Any]] = {
    **{kind: {"recurrent_activation": "hard_sigmoid"} for kind in ("LSTM", "LSTMCell", "ConvLSTM2D")},
    **{kind: {"recurrent_activation": "hard_sigmoid", "reset_after": False} for kind in ("GRU", "GRUCell")},
}
"""Class → what its config meant where it left an option out; Keras 3 has other defaults."""

GONE = {
    "CuDNNLSTM": "Load it in tf_keras into a model with LSTM in its place, and save that.",
    "CuDNNGRU": "Load it in tf_keras into a model with GRU(reset_after=True) in its place, and save that.",
    "TFOpLambda": "Rebuild the model in tf_keras with layers in place of operations on tensors, and save that.",
    "SlicingOpLambda": "Rebuild the model in tf_keras with layers in place of operations on tensors, and save that.",
}
"""Class of Keras 2 that Keras 3 does not have → what to do."""

_MODELS = ("Functional", "Model", "Sequential")
_RECURRENT = ("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "ConvLSTM2D")

_KERAS_1 = ("inner_activation", "inner_init")
"""Options that only configs of Keras 1 have."""


def is_old(version: object) -> bool:
    """Say whether the ``keras_version`` of a file is below 3; the oldest files have none.

    >>> is_old(b"2.2.4-tf"), is_old("3.15.0"), is_old(None)
    (True, False, True)
    """
    text = version.decode("utf-8", "replace") if isinstance(version, bytes) else str(version)
    major = text.partition(".")[0]
    return not major.isdecimal() or int(major) < 3


def check_archive(path: str, version: object) -> None:
    """Refuse a ``.keras`` file that Keras 2 or tf_keras wrote.

    Raises:
        FileError: Its version is below 3.
    """
    if is_old(version):
        raise FileError(
            f"{Path(path).name} was saved by Keras {version}.",
            "Keras 3 reads no .keras files of Keras 2 or tf_keras, which name other classes and weights.",
            "Load it in tf_keras, save it there as .h5, and give that file.",
        )


def rewrite(config: Any, file: str) -> Any:
    """Return the config of a model of Keras 2 with the names and options that mean the same in Keras 3.

    Args:
        config: The config of a model, or a part of one; it is not written to.
        file: What a message calls the file.

    Raises:
        FileError: A layer cannot be said in Keras 3.

    >>> rewrite({"class_name": "Masking", "config": {"mask_value": 0.0, "time_major": False}}, "old.h5")
    {'class_name': 'Masking', 'config': {'mask_value': 0.0}}
    """
    if isinstance(config, list):
        return [rewrite(each, file) for each in config]
    if not isinstance(config, Mapping):
        return config
    if "class_name" in config and "config" in config:
        return {**{key: rewrite(value, file) for key, value in config.items()}, "config": _rewrite_layer(config, file)}
    return {
        key: _activation(value) if key.endswith("activation") else rewrite(value, file) for key, value in config.items()
    }


def _rewrite_layer(layer: Mapping[str, Any], file: str) -> Any:
    """Return the options of one layer or model, rewritten."""
    kind, options = str(layer["class_name"]), layer["config"]
    if kind in GONE:
        raise FileError(f"{file} holds a {kind}.", "Keras 3 has no such layer.", GONE[kind])
    if kind == "Sequential" and isinstance(options, list):  # Keras 2.1 and before
        options = {"name": "sequential", "layers": options}
    if not isinstance(options, Mapping):
        return rewrite(options, file)
    if any(option in options for option in _KERAS_1):
        raise FileError(
            f"{file} was saved by Keras 1.",
            "Its layers have other options and weights than those of Keras 2 and 3.",
            "Load it in Keras 2 or tf_keras, save it there, and give that file.",
        )
    if options.get("time_major"):
        raise FileError(
            f"{file}: layer {options.get('name')!r} ({kind}) has time_major=True.",
            "Keras 3 takes the batch first.",
            "Build the model in tf_keras with time_major=False and the same weights, and save that.",
        )
    made = {**DEFAULTS.get(kind, {}), **options}
    made.pop("time_major", None)
    if kind == "Sequential":
        made["layers"] = _with_input(made.get("layers"))
    elif kind != "InputLayer":
        made.pop("batch_input_shape", None)  # of the first layer; its model has an input by now
    if isinstance(made.get("layers"), list) and kind != "Sequential":
        made = _with_new_calls(made)
    return rewrite(made, file)


def _with_new_calls(graph: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a Functional model with the calls of its layers as Keras 3 says them.

    In Keras 2 the own graph of a nested model is its call 0; in Keras 3 its first use is. There, a recurrent layer
    reads initial states behind its input; here they are an argument of their own.
    """
    layers = [each for each in graph["layers"] if isinstance(each, Mapping)]
    nested = {each.get("name") for each in layers if each.get("class_name") in _MODELS}

    def counted(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: counted(each) for key, each in value.items()}
        if not isinstance(value, list):
            return value
        match value:
            case [str(name), int(call), int(_), *_] if name in nested and call:
                return [name, call - 1, *map(counted, value[2:])]
        return [counted(each) for each in value]

    places = ("input_layers", "output_layers")
    made = {**graph, **{place: counted(graph[place]) for place in places if place in graph}}
    made["layers"] = [
        {**each, "inbound_nodes": [_call(each, node) for node in counted(each.get("inbound_nodes") or [])]}
        if isinstance(each, Mapping)
        else each
        for each in graph["layers"]
    ]
    return made


def _call(layer: Mapping[str, Any], node: Any) -> Any:
    """Return one call of a layer; of a recurrent one with initial states, in the words of Keras 3."""
    if layer.get("class_name") not in _RECURRENT or not isinstance(node, list) or len(node) < 2:
        return node

    def tensor(source: Any) -> dict[str, Any]:
        # Keras takes the tensor by its history, and neither shape nor dtype of this record.
        return {
            "class_name": "__keras_tensor__",
            "config": {"shape": [], "dtype": "float32", "keras_history": source[:3]},
        }

    source, *states = node
    options = source[3] if len(source) > 3 else {}
    return {"args": [tensor(source)], "kwargs": {**options, "initial_state": [tensor(state) for state in states]}}


def _with_input(layers: Any) -> Any:
    """Return the layers of a Sequential with an ``InputLayer`` in place of the ``batch_input_shape`` of the first."""
    if not isinstance(layers, list) or not layers or not isinstance(layers[0], Mapping):
        return layers
    first, options = layers[0].get("class_name"), layers[0].get("config")
    if not isinstance(options, Mapping) or "batch_input_shape" not in options or first == "InputLayer":
        return layers
    given = options.get("dtype")
    kind = "int32" if first == "Embedding" else given if isinstance(given, str) else "float32"
    source = {
        "batch_shape": options["batch_input_shape"],
        "dtype": kind,
        "name": f"{options.get('name', 'layer')}_input",
    }
    return [{"class_name": "InputLayer", "config": source}, *layers]


def _activation(value: Any) -> Any:
    """Return an activation of a config: its name or, where Keras 3 has none, the config of a registered function."""
    import keras

    from gatewise_keras.functions import FUNCTIONS

    if isinstance(value, str) and value in RENAMED:
        return keras.activations.serialize(FUNCTIONS[RENAMED[value]])
    return rewrite(value, "")
