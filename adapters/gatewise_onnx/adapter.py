"""Builds ONNX graphs of one layer, and runs them with ONNX Runtime.

The graph is batch first, as Keras is, and returns every step; ``merge=None`` gives both directions side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gatewise.arrays.native import fitting
from gatewise.core.layout import Layout, check_holds, store
from gatewise.core.spec import GRU, LSTM, Dense, Recurrent, Spec
from gatewise_onnx.layouts import ACTIVATIONS

# Axes as inputs of every Reduce operator came with 18; what reads 18 is old enough to be everywhere.
OPSET, IR_VERSION = 18, 8

INPUTS = {
    "LSTM": {"W": 1, "R": 2, "B": 3, "P": 7},
    "GRU": {"W": 1, "R": 2, "B": 3},
    "RNN": {"W": 1, "R": 2, "B": 3},
    "Gemm": {"B": 1, "C": 2},
    "Gather": {"data": 0},
}
"""Operator → the place of each weight among its inputs."""

MERGES = {"sum": "ReduceSum", "mul": "ReduceProd", "ave": "ReduceMean"}


def claims(obj: object) -> bool:
    """Say whether an object is a graph with one layer in it."""
    return type(obj).__name__ == "ModelProto" and type(obj).__module__.startswith("onnx") and len(_layers(obj)) == 1


def build(spec: Spec, layout: Layout) -> Any:
    """Return a ModelProto with one layer, its weights zero."""
    from onnx import TensorProto, checker, helper, numpy_helper

    check_holds(layout, spec)
    operator, shapes = layout.name.partition(":")[2], store(layout, spec).shapes
    weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    places = INPUTS[operator]
    inputs = [""] * (max(places[name] for name in weights) + 1)
    for name in weights:
        inputs[places[name]] = name
    graph = _Graph()
    kind, axes, width = TensorProto.FLOAT, ["batch"], getattr(spec, "units", None)
    if isinstance(spec, Recurrent):
        axes, width = ["batch", "steps"], spec.merged_directions * spec.state
        _recurrent(graph, spec, operator, inputs)
    elif isinstance(spec, Dense):
        _dense(graph, spec, inputs)
    else:
        kind = TensorProto.INT64
        graph.add(operator, ["data", "inputs"], "outputs")
    features = [spec.features] if isinstance(spec, Recurrent | Dense) else []
    proto = helper.make_graph(
        graph.nodes,
        operator,
        [helper.make_tensor_value_info("inputs", kind, [*axes, *features])],
        [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, [*axes, width])],
        [numpy_helper.from_array(array, name) for name, array in (weights | graph.constants).items()],
    )
    model = helper.make_model(
        proto, producer_name="gatewise", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    checker.check_model(model)
    return model


def read(obj: Any) -> dict[str, np.ndarray]:
    """Return the weights by the names of the operator's inputs, whatever the graph calls them."""
    from onnx import numpy_helper

    held = {tensor.name: tensor for tensor in obj.graph.initializer}
    return {name: numpy_helper.to_array(held[called]) for name, called in _called(obj).items()}


def write(obj: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Return a copy of the graph with these weights."""
    from onnx import numpy_helper

    model = type(obj)()
    model.CopyFrom(obj)
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    called = _called(model)
    shapes = {name: tuple(held[called[name]].dims) for name in called}
    for name, array in fitting(arrays, shapes, f"onnx:{_layers(obj)[0].op_type}").items():
        held[called[name]].CopyFrom(numpy_helper.from_array(np.asarray(array, np.float32), called[name]))
    return model


def run(obj: Any, inputs: np.ndarray) -> np.ndarray:
    """Return the outputs at every step, for inputs (batch, steps, features); tokens for Gather.

    Gemm takes matrices only, and a graph says how many axes its inputs have: for both, leading axes become one.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(obj.SerializeToString(), providers=["CPUExecutionProvider"])
    operator, name = _layers(obj)[0].op_type, obj.graph.input[0].name
    given = np.asarray(inputs, np.int64 if operator == "Gather" else np.float32)
    if operator not in ("Gemm", "Gather"):
        return np.asarray(session.run(None, {name: given})[0])
    leading = given.shape if operator == "Gather" else given.shape[:-1]
    outputs = session.run(None, {name: given.reshape(-1, *given.shape[len(leading) :])})[0]
    return np.asarray(outputs).reshape(*leading, -1)


def _layers(obj: Any) -> list[Any]:
    return [
        node
        for node in obj.graph.node
        if node.op_type in INPUTS and not any(each.name == "transB" and each.i for each in node.attribute)
    ]


def _called(obj: Any) -> dict[str, str]:
    """Return the name that the graph gives to each weight of its layer; an input that is left out has none."""
    node = _layers(obj)[0]
    return {
        name: node.input[place]
        for name, place in INPUTS[node.op_type].items()
        if place < len(node.input) and node.input[place]
    }


class _Graph:
    """Nodes, and the constants that they read."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def integers(self, name: str, *values: int) -> str:
        self.constants[name] = np.array(values, np.int64)
        return name


def _recurrent(graph: _Graph, spec: Recurrent, operator: str, inputs: list[str]) -> None:
    inputs[0] = graph.add("Transpose", ["inputs"], "steps_first", perm=[1, 0, 2])
    if spec.go_backwards:
        # direction="reverse" would give its outputs in the order of the inputs: Keras gives them as they are computed.
        bounds = [graph.integers("last", -1), graph.integers("before_first", -(2**63) + 1), graph.integers("time", 0)]
        inputs[0] = graph.add("Slice", [inputs[0], *bounds, bounds[0]], "reversed")
    attributes: dict[str, Any] = {"hidden_size": spec.units}
    attributes["direction"] = "bidirectional" if spec.bidirectional else "forward"
    inner = [spec.activation] * (2 if isinstance(spec, LSTM) else 1)
    outer = [spec.recurrent_activation] if isinstance(spec, LSTM | GRU) else []
    functions = [ACTIVATIONS[name] for name in (outer + inner) * spec.directions]
    attributes["activations"] = [name for name, _ in functions]
    for letter in ("alpha", "beta"):
        values = [given[letter] for _, given in functions if letter in given]
        if values:
            attributes[f"activation_{letter}"] = values
    if isinstance(spec, GRU):
        attributes["linear_before_reset"] = int(spec.reset == "after")
    states = graph.add(operator, inputs, "states", **attributes)
    states = graph.add("Transpose", [states], "batch_first", perm=[2, 0, 1, 3])
    if spec.bidirectional and spec.merge in MERGES:
        graph.add(MERGES[spec.merge], [states, graph.integers("directions", 2)], "outputs", keepdims=0)
    else:
        graph.add("Reshape", [states, graph.integers("side_by_side", 0, 0, -1)], "outputs")


def _dense(graph: _Graph, spec: Dense, inputs: list[str]) -> None:
    inputs[0] = "inputs"
    if spec.activation == "linear":
        graph.add("Gemm", inputs, "outputs")
    else:
        operator, attributes = ACTIVATIONS[spec.activation]
        graph.add(operator, [graph.add("Gemm", inputs, "product")], "outputs", **attributes)
