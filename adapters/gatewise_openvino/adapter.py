"""Builds OpenVINO models of one sequence operation, and runs them on the CPU.

The model is batch first, as Keras is, and returns every step; ``merge=None`` gives both directions side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from gatewise.arrays.native import fitting
from gatewise.core.layout import Layout, check_holds, store
from gatewise.core.spec import GRU, LSTM, Recurrent, Spec

FIRST_WEIGHT = {"LSTMSequence": 4, "GRUSequence": 3, "RNNSequence": 3}
"""Operation → the place of W among its inputs; R and B follow. Before it stand the input, states and lengths."""


def claims(obj: object) -> bool:
    """Say whether an object is a model with one sequence operation in it."""
    return type(obj).__name__ == "Model" and type(obj).__module__.startswith("openvino") and len(_sequences(obj)) == 1


def build(spec: Spec, layout: Layout) -> Any:
    """Return a model with one sequence operation, its weights zero."""
    import openvino
    from openvino import opset13 as op

    check_holds(layout, spec)
    spec = cast(Recurrent, spec)
    inputs = op.parameter([-1, -1, spec.features], np.float32, name="inputs")
    shape = op.shape_of(inputs)
    batch, steps = (op.gather(shape, np.array([place]), np.int64(0)) for place in (0, 1))
    first = op.broadcast(np.float32(0), op.concat([batch, np.array([spec.directions, spec.units])], 0))
    states = [first] * (2 if isinstance(spec, LSTM) else 1)
    # Keras gives the outputs of a reversed sequence as they are computed, so the input is turned, not the direction.
    turned = [np.array([bound]) for bound in (-1, -(2**63) + 1, -1, 1)]  # from the last to before the first, on axis 1
    sequence = op.slice(inputs, *turned) if spec.go_backwards else inputs
    weights = [op.constant(np.zeros(shape, np.float32)) for shape in store(layout, spec).shapes.values()]
    outer = [spec.recurrent_activation] if isinstance(spec, LSTM | GRU) else []
    attributes: dict[str, Any] = {"activations": [*outer, *[spec.activation] * len(states)]}
    if isinstance(spec, GRU):
        attributes["linear_before_reset"] = spec.reset == "after"
    make = {"lstm": op.lstm_sequence, "gru": op.gru_sequence, "rnn": op.rnn_sequence}[spec.cell]
    direction = "bidirectional" if spec.bidirectional else "forward"
    made = make(sequence, *states, op.broadcast(steps, batch), *weights, spec.units, direction, **attributes)
    outputs = op.transpose(made.output(0), np.array([0, 2, 1, 3]))
    merges = {"sum": op.reduce_sum, "mul": op.reduce_prod, "ave": op.reduce_mean}
    if spec.bidirectional and spec.merge in merges:
        outputs = merges[spec.merge](outputs, np.array([2]), keep_dims=False)
    else:
        outputs = op.reshape(outputs, np.array([0, 0, -1]), special_zero=True)
    return openvino.Model([outputs], [inputs], layout.name)


def read(obj: Any) -> dict[str, np.ndarray]:
    """Return the weights by the names of the operation's inputs."""
    return {name: np.array(source.get_node().data) for name, source in _weights(obj).items()}


def write(obj: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Return a copy of the model with these weights."""
    from openvino import opset13 as op

    model = obj.clone()
    weights = _weights(model)
    shapes = {name: tuple(source.shape) for name, source in weights.items()}
    for name, array in fitting(arrays, shapes, f"openvino:{_sequences(model)[0].get_type_name()}").items():
        weights[name].replace(op.constant(np.asarray(array, np.float32)).output(0))
    return model


def run(obj: Any, inputs: np.ndarray) -> np.ndarray:
    """Return the outputs at every step, for inputs (batch, steps, features)."""
    import openvino

    # On its own the CPU plugin may choose bfloat16, whose error of 5e-3 looks like a wrong layout.
    compiled = openvino.Core().compile_model(obj, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled([np.asarray(inputs, np.float32)])[0])


def _sequences(obj: Any) -> list[Any]:
    return [node for node in obj.get_ops() if node.get_type_name() in FIRST_WEIGHT]


def _weights(obj: Any) -> dict[str, Any]:
    node = _sequences(obj)[0]
    first = FIRST_WEIGHT[node.get_type_name()]
    return {name: node.input(first + place).get_source_output() for place, name in enumerate("WRB")}
