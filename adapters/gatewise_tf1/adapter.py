"""Runs the cells of TensorFlow 1, step by step.

Beside Keras 3, ``tf.compat.v1.nn.rnn_cell`` refuses to make them, unless a switch was set before TensorFlow was
imported. Its classes live in tf_keras, where they can be made at any time.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from gatewise.arrays.native import MERGES, Built, activations, fitting
from gatewise.core.layout import Layout, axis_length
from gatewise.core.spec import LSTM, Recurrent, Spec


def claims(obj: object) -> bool:
    """Say whether an object is a cell, or cells that were built here."""
    if isinstance(obj, Built):
        return obj.layout.framework == "tf1"
    return any(base.__name__ == "RNNCell" and base.__module__.endswith("legacy_cells") for base in type(obj).__mro__)


def build(spec: Spec, layout: Layout) -> Built:
    """Return the cells by layer and direction, with TensorFlow's own weights; the loop around them is ours."""
    spec = cast(Recurrent, spec)
    features = [axis_length(spec, "features", layer) for layer in range(spec.layers)]
    cells = tuple(tuple(_cell(spec, layout, each) for _ in range(spec.directions)) for each in features)
    return Built(cells, None, spec, layout)


def read(obj: Any) -> dict[str, np.ndarray]:
    """Return the weights by their names behind the scope of the cell."""
    return {name: variable.numpy() for name, variable in _variables(obj).items()}


def write(obj: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Set the weights and return the same cells."""
    variables = _variables(obj)
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    for name, array in fitting(arrays, shapes, "tf1").items():
        variables[name].assign(array)
    return obj


def run(obj: Any, inputs: np.ndarray) -> np.ndarray:
    """Return the outputs at every step, for inputs (batch, steps, features)."""
    spec = cast(Recurrent, obj.spec) if isinstance(obj, Built) else None
    steps = np.asarray(inputs, np.float32)
    for cells in _cells(obj):
        # As Keras does, a reversed sequence is given in the order in which it was computed.
        if spec and spec.go_backwards:
            steps = steps[:, ::-1]
        halves = [_sequence(cells[0], steps), *(_sequence(cell, steps[:, ::-1])[:, ::-1] for cell in cells[1:])]
        merge = MERGES.get(str(spec.merge)) if spec and len(halves) == 2 else None
        steps = merge(*halves) if merge else np.concatenate(halves, axis=-1)
    return steps


def _cells(obj: Any) -> tuple[tuple[Any, ...], ...]:
    return cast(tuple[tuple[Any, ...], ...], obj.module) if isinstance(obj, Built) else ((obj,),)


def _cell(spec: Recurrent, layout: Layout, features: int) -> Any:
    import tensorflow as tf
    from tf_keras.src.layers.rnn import legacy_cells

    own = {"exponential": tf.exp, "gelu": tf.nn.gelu, "softsign": tf.nn.softsign}
    own["hard_sigmoid_02"] = lambda x: tf.clip_by_value(0.2 * x + 0.5, 0.0, 1.0)
    options: dict[str, Any] = activations(tf.nn, layout, spec, {"activation": "activation"}, own)
    if isinstance(spec, LSTM) and layout.name == "tf1:LSTMCell":
        options |= {"use_peepholes": bool(spec.peepholes), "num_proj": spec.projection, "cell_clip": spec.cell_clip}
    with warnings.catch_warnings():  # Each of them says that it is deprecated.
        warnings.simplefilter("ignore", UserWarning)
        cell = getattr(legacy_cells, layout.name.partition(":")[2])(spec.units, **options)
    cell.build((None, features))
    return cell


def _variables(obj: Any) -> dict[str, Any]:
    cells = _cells(obj)
    named = {}
    for layer, directions in enumerate(cells):
        for direction, cell in zip(("fw/", "bw/") if len(directions) == 2 else ("",), directions, strict=True):
            prefix = (f"cell_{layer}/" if len(cells) > 1 else "") + direction
            for variable in cell.weights:
                named[prefix + variable.name.partition("/")[2].removesuffix(":0")] = variable
    return named


def _sequence(cell: Any, inputs: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    state, outputs = cell.zero_state(len(inputs), tf.float32), []
    for step in range(inputs.shape[1]):
        output, state = cell(tf.constant(inputs[:, step]), state)
        outputs.append(output.numpy())
    return np.stack(outputs, axis=1)
