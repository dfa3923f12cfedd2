"""Refuses layers and models that compute something else than their classes and options say."""

from __future__ import annotations

from typing import Any

from gatewise.arrays.replaced import replaced_method
from gatewise.errors import UnsupportedModelError

CODE = ("keras", "tensorflow", "jax", "torch", "gatewise_keras")
"""Where the code of a layer that can be read stands: Keras, its backends, and our own cells."""

WRAPPED = ("build", "quantize")
"""What Keras replaces on every layer itself; neither computes an output."""

RUNS = (
    "__call__",
    "call",
    "compute_mask",
    "operation_fn",
    "_run_through_graph",
    "_standardize_inputs",
    "_adjust_input_rank",
    "_convert_inputs_to_tensors",
    "_flatten_to_reference_inputs",
)
"""Methods by which a model with a graph runs it. A subclass may have what trains, saves or prints of its own."""


def check_bare(obj: Any, *, copied: bool = False) -> None:
    """Refuse an object within which a layer, cell or model does not run the code of its class.

    Args:
        obj: The layer, cell or model.
        copied: Whether only what a copy of it would lose is refused: all of it, as a copy is built from a description.

    Raises:
        UnsupportedModelError: The layer and the method are named.
    """
    import keras

    if not isinstance(obj, keras.layers.Layer):
        return  # ``describe`` says what it should be.
    for layer in obj._flatten_layers():
        check_own_code(layer)
        if isinstance(inner := getattr(layer, "_functional", None), keras.Model):
            check_own_code(inner)  # what a Sequential runs


def check_own_code(layer: Any) -> None:
    """Refuse one layer, cell or model that runs other code than that of Keras's class or ours."""
    import keras

    kind, of = type(layer).__name__, "Model" if isinstance(layer, keras.Model) else "Layer"
    if isinstance(layer, keras.Model):
        for name in RUNS:
            own = next((each for each in type(layer).__mro__ if name in vars(each)), None)
            if own is not None and own.__module__.partition(".")[0] not in CODE:
                raise UnsupportedModelError(
                    f"Model {layer.name!r} is a {kind}, whose {name} is code of its own.",
                    "A port computes what the graph of a model says.",
                    "Write it as a Functional model, with layers and keras.ops in its graph.",
                )
    met = replaced_method(layer, CODE, WRAPPED)
    if met is not None:
        raise UnsupportedModelError(
            f"{of} {layer.name!r} ({kind}) does not run its class's code: {met}.",
            "A port computes what the class's own code does.",
            "Put the original back, or port it without the change and make the change around the port.",
        )
