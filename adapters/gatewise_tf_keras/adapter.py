"""Builds and runs the layers of tf_keras: one layer, or a ``Sequential`` of them where the spec is a stack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from gatewise.arrays.native import activations, fitting
from gatewise.core.layout import Layout
from gatewise.core.spec import GRU, Dense, Embedding, Recurrent, Spec

WRAPPERS = ("Bidirectional", "Sequential")
LAYERS = ("LSTM", "GRU", "SimpleRNN", "Dense", "Embedding", "CuDNNLSTM", "CuDNNGRU")


def claims(obj: object) -> bool:
    """Say whether an object is one of tf_keras's layers that a layout describes, or a wrapper around them."""
    return any(
        base.__name__ in WRAPPERS + LAYERS and base.__module__.startswith("tf_keras.") for base in type(obj).__mro__
    )


def build(spec: Spec, layout: Layout) -> Any:
    """Return a built layer, with tf_keras's own weights; a recurrent one returns every step."""
    import tf_keras
    from tf_keras.src.layers.rnn.cudnn_gru import CuDNNGRU
    from tf_keras.src.layers.rnn.cudnn_lstm import CuDNNLSTM

    if isinstance(spec, Embedding):
        return _built(tf_keras.layers.Embedding(spec.tokens, spec.units), (None, None))
    functions = _activations(layout, spec)
    if isinstance(spec, Dense):
        return _built(tf_keras.layers.Dense(spec.units, use_bias=spec.bias, **functions), (None, spec.features))
    spec = cast(Recurrent, spec)
    options: dict[str, Any] = {"return_sequences": True, "go_backwards": spec.go_backwards}
    name = layout.name.partition(":")[2]
    kind = {"CuDNNLSTM": CuDNNLSTM, "CuDNNGRU": CuDNNGRU}.get(name) or getattr(tf_keras.layers, name)
    if kind not in (CuDNNLSTM, CuDNNGRU):
        options |= {"use_bias": spec.bias, "dropout": spec.dropout, "recurrent_dropout": spec.recurrent_dropout}
        options |= functions
        if isinstance(spec, GRU):
            options["reset_after"] = spec.reset == "after"
    layers = [kind(spec.units, **options) for _ in range(spec.layers)]
    if spec.bidirectional:
        layers = [tf_keras.layers.Bidirectional(layer, merge_mode=spec.merge) for layer in layers]
    return _built(layers[0] if len(layers) == 1 else tf_keras.Sequential(layers), (None, None, spec.features))


def read(obj: Any) -> dict[str, np.ndarray]:
    """Return the weights by name, in the order of ``get_weights()``."""
    return {name: variable.numpy() for name, variable in _variables(obj).items()}


def write(obj: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Set the weights and return the same layer."""
    variables = _variables(obj)
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    for name, array in fitting(arrays, shapes, f"tf_keras:{type(obj).__name__}").items():
        variables[name].assign(array)
    return obj


def run(obj: Any, inputs: np.ndarray) -> np.ndarray:
    """Return the outputs at every step; two directions that are not merged stand side by side."""
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        obj = _without_cudnn(obj)
    outputs = obj(tf.constant(inputs), training=False)
    return np.concatenate([each.numpy() for each in (outputs if isinstance(outputs, list) else [outputs])], axis=-1)


def _built(layer: Any, shape: tuple[int | None, ...]) -> Any:
    layer.build(shape)
    return layer


def _activations(layout: Layout, spec: Spec) -> dict[str, Any]:
    from tf_keras import activations as named

    own = {name: getattr(named, name) for name in ("linear", "gelu", "exponential", "softsign")}
    # The hard_sigmoid of a spec is another function, which the layouts refuse.
    own |= {"silu": named.swish, "hard_sigmoid_02": named.hard_sigmoid}
    arguments = {"activation": "activation", "recurrent_activation": "recurrent_activation"}
    return activations(named, layout, spec, arguments, own)


def _variables(obj: Any) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    if type(obj).__name__ == "Sequential":
        parts = {f"layer_{number}/": layer for number, layer in enumerate(obj.layers)}
    elif type(obj).__name__ == "Bidirectional":
        parts = {"forward_layer/": obj.forward_layer, "backward_layer/": obj.backward_layer}
    if not parts:
        return {variable.name.split("/")[-1].removesuffix(":0"): variable for variable in obj.weights}
    return {prefix + name: variable for prefix, part in parts.items() for name, variable in _variables(part).items()}


def _without_cudnn(obj: Any) -> Any:
    """Return plain layers for those of cuDNN, which run on a GPU only, as tf_keras does when it loads their files."""
    from tf_keras.src.saving.legacy.hdf5_format import preprocess_weights_for_loading

    plain = _plain(obj)
    if plain is obj:
        return obj
    plain.build((None, None, obj.weights[0].shape[0]))
    plain.set_weights(preprocess_weights_for_loading(plain, obj.get_weights()))
    return plain


def _plain(layer: Any) -> Any:
    import tf_keras

    kind = type(layer).__name__
    if kind == "Sequential":
        layers = [_plain(each) for each in layer.layers]
        return layer if layers == layer.layers else tf_keras.Sequential(layers)
    if kind == "Bidirectional":
        inner = _plain(layer.forward_layer)
        same = inner is layer.forward_layer
        return layer if same else tf_keras.layers.Bidirectional(inner, merge_mode=layer.merge_mode)
    if kind not in ("CuDNNLSTM", "CuDNNGRU"):
        return layer
    options = {"return_sequences": layer.return_sequences, "go_backwards": layer.go_backwards}
    return getattr(tf_keras.layers, kind.removeprefix("CuDNN"))(layer.units, **options)
