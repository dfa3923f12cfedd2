"""Reads the config of a Keras model as plain data: ``model.to_json()``, ``get_config()``, or one written by hand.

Mistakes that Keras only finds while it builds, and says badly, are found here from the shapes that the config states.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gatewise import checkpoints
from gatewise.checkpoints.keras_facts import KerasFacts, Stored, keras_facts
from gatewise.core.network import Network
from gatewise.errors import FileError, SpecError, UnsupportedModelError
from gatewise.registry import installed, model_adapter

MOST_DEPTH = 100
"""How deep a config may be nested."""

MOST_VALUES = 1_000_000
"""How many values a config may hold."""

MOST_NUMBERS = 1 << 28
"""How many numbers one weight of a model may have that is built from its config."""

RECURRENT = ("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional")

AXES = (
    dict.fromkeys((*RECURRENT, "Conv1D", "MaxPooling1D", "AveragePooling1D", "GlobalMaxPooling1D"), 3)
    | dict.fromkeys(
        ("GlobalAveragePooling1D", "SeparableConv1D", "Conv1DTranspose", "UpSampling1D", "ZeroPadding1D", "Cropping1D"),
        3,
    )
    | dict.fromkeys(
        ("Conv2D", "MaxPooling2D", "AveragePooling2D", "SeparableConv2D", "DepthwiseConv2D", "Conv2DTranspose"), 4
    )
    | {"ConvLSTM1D": 4, "ConvLSTM2D": 5, "Conv3D": 5}
)
"""Class of a layer → how many axes its input has, the batch among them."""

NAMES = {
    3: "(batch, timesteps, features)",
    4: "(batch, outer steps, timesteps, features)",
}

KEPT = (
    *("Dense", "Dropout", "SpatialDropout1D", "Activation", "ReLU", "LeakyReLU", "Softmax", "LayerNormalization"),
    "BatchNormalization",
    "Masking",
    "GaussianNoise",
    "GaussianDropout",
    "ActivityRegularization",
    "UnitNormalization",
)
"""Classes of layers that keep the number of axes."""


class LayerConfig(NamedTuple):
    """One layer of a config: its name, class, options, and the axes of its input where the config states them."""

    name: str
    kind: str
    options: Mapping[str, Any]
    shape: tuple[Any, ...] | None
    axes: int | None


def read_config(path: Path) -> Any:
    """Return the config in a file of JSON.

    Raises:
        FileError: The file is missing, or holds no config.
    """
    try:
        config = checkpoints.parse_json(path.read_bytes())
    except OSError as error:
        raise FileError(
            f"{path} cannot be read: {error.strerror}.", "Expected a .json file.", "Check the name."
        ) from None
    except ValueError as error:
        raise FileError(
            f"{path.name} is not JSON: {error}.", "Expected what model.to_json() gives.", "Write it again."
        ) from None
    return config


def whole_config(config: Any) -> dict[str, Any]:
    """Return the config of a layer or model as class_name and config; nothing in it is code of others.

    Raises:
        UnsupportedModelError: It is no config of Keras, too large, or names code outside Keras.
    """
    values = 0
    todo: list[tuple[Any, int]] = [(config, 0)]
    while todo:
        value, depth = todo.pop()
        values += 1
        if depth > MOST_DEPTH or values > MOST_VALUES:
            what = "nested too deep" if depth > MOST_DEPTH else f"of more than {MOST_VALUES:,} values"
            raise _refused(f"This config is {what}.")
        if isinstance(value, Mapping):
            module = value.get("module")
            if (
                "class_name" in value
                and isinstance(module, str)
                and module.partition(".")[0] not in ("keras", "builtins")
            ):
                raise _refused(
                    f"{value['class_name']!r} is code of {module!r}, outside Keras.",
                    "Load the model where that code is imported, and give the model itself.",
                )
            todo += [(each, depth + 1) for each in value.values()]
        elif isinstance(value, list | tuple):
            todo += [(each, depth + 1) for each in value]
    return normal(config)


def normal(config: Any) -> dict[str, Any]:
    """Return the config of a layer or model as class_name and config, whichever way it was given.

    Raises:
        UnsupportedModelError: It is no config of Keras.
    """
    if isinstance(config, list):
        config = {"class_name": "Sequential", "config": {"layers": config}}
    if isinstance(config, Mapping) and "class_name" not in config and isinstance(config.get("layers"), list):
        kind = "Functional" if "output_layers" in config else "Sequential"
        config = {"class_name": kind, "config": config}
    inner = config.get("config") if isinstance(config, Mapping) else None
    if isinstance(inner, list):  # Keras up to 2.1
        inner = {"layers": inner}
    if (
        not isinstance(config, Mapping)
        or not isinstance(config.get("class_name"), str)
        or not isinstance(inner, Mapping)
    ):
        raise _refused("This is no config of a Keras layer or model.")
    kind = "Functional" if config["class_name"] == "Model" and "layers" in inner else config["class_name"]
    return {
        **config,
        "class_name": kind,
        "config": {"name": kind.lower(), **inner} if "layers" in inner else dict(inner),
    }


def _refused(
    met: str, hint: str = "Give what model.to_json() or keras.saving.serialize_keras_object(model) gives."
) -> Any:
    return UnsupportedModelError(met, "Expected class_name and config, and in a model's config its layers.", hint)


def layers_of(config: Mapping[str, Any]) -> Iterator[LayerConfig]:
    """Yield the layers of a config that ``whole_config`` gave, with the axes of their inputs where these are stated."""
    inner = config["config"]
    listed = inner.get("layers")
    sequential = config["class_name"] == "Sequential"
    if not isinstance(listed, list):
        listed, sequential = [config], True
    axes, shape = _axes(inner.get("build_input_shape")) if sequential else None, None
    if sequential and axes is not None:
        shape = tuple(inner["build_input_shape"])
    for number, layer in enumerate(listed):
        options = layer.get("config") if isinstance(layer, Mapping) else None
        if not isinstance(options, Mapping) or not isinstance(layer.get("class_name"), str):
            raise _refused(f"Layer {number} of this config has no class_name and config.")
        kind = layer["class_name"]
        stated = next(
            (options[key] for key in ("batch_shape", "batch_input_shape") if _axes(options.get(key)) is not None), None
        )
        if stated is None and _axes(options.get("input_shape")) is not None:
            stated = [None, *options["input_shape"]]
        if stated is None and not sequential:
            stated = _incoming(layer.get("inbound_nodes"))
        if stated is not None:
            axes, shape = len(stated), tuple(stated)
        yield LayerConfig(
            str(options.get("name", layer.get("name", f"{kind.lower()}_{number}"))), kind, options, shape, axes
        )
        shape = shape if kind == "InputLayer" else None
        axes = _axes_behind(kind, options, axes) if sequential else None


def _axes(shape: Any) -> int | None:
    return len(shape) if isinstance(shape, list | tuple) else None


def _incoming(nodes: Any) -> list[Any] | None:
    """Return the shape of the one tensor that the first call of a layer in a Functional model was given."""
    found: list[list[Any]] = []
    todo: list[Any] = (
        [nodes[0].get("args")] if isinstance(nodes, list) and nodes and isinstance(nodes[0], Mapping) else []
    )
    while todo:
        value = todo.pop()
        if isinstance(value, Mapping):
            if value.get("class_name") == "__keras_tensor__" and isinstance(value.get("config"), Mapping):
                shape = value["config"].get("shape")
                found += [list(shape)] if isinstance(shape, list | tuple) else []
        elif isinstance(value, list | tuple):
            todo += value
    return found[0] if len(found) == 1 else None


def _axes_behind(kind: str, options: Mapping[str, Any], axes: int | None) -> int | None:
    """Return how many axes a layer gives; None where it cannot be told."""
    if axes is None or kind in (*KEPT, "InputLayer"):
        return axes
    held = options.get("layer")
    if kind == "TimeDistributed" and isinstance(held, Mapping) and isinstance(held.get("config"), Mapping):
        inside = _axes_behind(str(held.get("class_name")), held["config"], axes - 1)
        return None if inside is None else inside + 1
    if kind == "Bidirectional" and isinstance(held, Mapping) and isinstance(held.get("config"), Mapping):
        return _axes_behind(str(held.get("class_name")), held["config"], axes)
    if kind in RECURRENT:
        return 3 if options.get("return_sequences") else 2
    known = {
        "Flatten": 2,
        "RepeatVector": 3,
        "Embedding": axes + 1,
        "GlobalMaxPooling1D": 2,
        "GlobalAveragePooling1D": 2,
    }
    if kind in known:
        return known[kind]
    return axes if kind in AXES and AXES[kind] == axes else None


def check_axes(config: Mapping[str, Any]) -> None:
    """Raise ``SpecError`` where a layer is given fewer axes than it needs.

    Keras would say so while it builds, if at all.

    >>> lstm = {"class_name": "LSTM", "config": {"units": 64, "return_sequences": True}}
    >>> wrapped = {"class_name": "TimeDistributed", "config": {"layer": lstm, "batch_input_shape": [None, 10, 32]}}
    >>> check_axes({"class_name": "Sequential", "config": {"layers": [wrapped]}})
    Traceback (most recent call last):
        ...
    gatewise.errors.SpecError: Layer 'timedistributed_0' cannot read the shape (None, 10, 32).
      TimeDistributed gives its LSTM one step of the sequence, so the LSTM has no timesteps left.
      Hint: Drop the TimeDistributed around the LSTM, or feed 4 axes: (batch, outer steps, timesteps, features).
    """
    for layer in layers_of(config):
        _check_layer(layer)
        if isinstance(layer.options.get("layers"), list):  # a model within the model
            check_axes({"class_name": layer.kind, "config": layer.options})


def _check_layer(layer: LayerConfig) -> None:
    axes, kind, options, around = layer.axes, layer.kind, layer.options, 0
    while kind == "TimeDistributed" and isinstance(options.get("layer"), Mapping):
        held = options["layer"]
        inner = held.get("config")
        kind, options, around = str(held.get("class_name")), inner if isinstance(inner, Mapping) else {}, around + 1
    if axes is None or kind not in AXES or axes >= AXES[kind] + around:
        return
    met = str(layer.shape).replace("'", "") if layer.shape is not None else f"of {axes} axes that comes in"
    need = AXES[kind] + around
    feed = f"feed {need} axes" + (f": {NAMES[need]}" if need in NAMES else "")
    if around:
        what = "timesteps" if kind in RECURRENT else "axis"
        raise SpecError(
            f"Layer {layer.name!r} cannot read the shape {met}.",
            f"TimeDistributed gives its {kind} one step of the sequence, so the {kind} has no {what} left.",
            f"Drop the TimeDistributed around the {kind}, or {feed}.",
        )
    raise SpecError(
        f"Layer {layer.name!r} cannot read the shape {met}.",
        f"{kind} needs {need} axes, the batch among them, and there are {axes}.",
        f"{feed[0].upper()}{feed[1:]}; the layer in front may need return_sequences=True.",
    )


def check_sizes(config: Mapping[str, Any]) -> None:
    """Raise ``UnsupportedModelError`` where a weight would be too large to be built from a config alone."""
    before = 1
    for layer in layers_of(config):
        held = layer.options.get("layer")
        inner = held.get("config") if isinstance(held, Mapping) else layer.options
        options = inner if isinstance(inner, Mapping) else {}
        sizes = [options.get(key) for key in ("units", "filters", "output_dim", "input_dim")]
        known = [size for size in sizes if isinstance(size, int) and not isinstance(size, bool)]
        last = [size for size in layer.shape or () if isinstance(size, int)]
        before = max([before, *last[-1:]])
        largest = max(known, default=1)
        square = largest * largest if layer.kind != "Embedding" and layer.kind not in ("Dense",) else 1
        numbers = max(square, before * largest, (known[0] * known[-1]) if known else 1)
        if numbers > MOST_NUMBERS:
            raise _refused(
                f"Layer {layer.name!r} would have a weight of {numbers:,} numbers.",
                "Give the model itself, or its file; gatewise.count(spec, 'keras') counts a layer of any size.",
            )
        before = largest if known else before


def facts_of(path: Path) -> KerasFacts:
    """Return what a file of Keras says of itself, read once; its HDF5 is walked by another process before.

    Raises:
        FileError: The file is missing or damaged.
    """
    with checkpoints.snapshot(path) as copy:
        if installed("keras"):
            model_adapter("keras").check_file(str(copy))
        return keras_facts(copy)


def stored_layers(facts: KerasFacts) -> list[tuple[LayerConfig, list[Stored]]]:
    """Return the layers that the config of a file lists, each with the arrays that are stored for it."""
    try:
        layers = list(layers_of(normal(facts.config)))
    except UnsupportedModelError:
        return []
    used: dict[str, int] = {}
    found = []
    for layer in layers:
        # Keras numbers the groups of each class in the order of the layers.
        group = re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", layer.kind)).lower()
        number = used[group] = used.get(group, -1) + 1
        names = (f"layers/{group}_{number}/" if number else f"layers/{group}/", f"model_weights/{layer.name}/")
        found.append((layer, [each for each in facts.arrays if each.name.startswith(names)]))
    return found


def describe_config(config: Any) -> Network:
    """Return what the model of a config is, in neutral terms; no weights are in it.

    Raises:
        SpecError: A layer is given fewer axes than it needs.
        UnsupportedModelError: This is no config, or a layer or option is not supported.
    """
    whole = whole_config(config)
    check_axes(whole)
    check_sizes(whole)
    return model_adapter("keras").describe(whole)
