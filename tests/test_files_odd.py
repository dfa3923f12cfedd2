"""Odd files and models that fuzzing found: many arrays, operations in .h5, attention, what a framework cannot write."""

from __future__ import annotations

import inspect
import sys
import time

import numpy as np
import pytest

import gatewise as gw
from gatewise.arrays.initial import draw
from gatewise.cli.transferring import built
from gatewise.conversion import convert
from gatewise.core.layout import store
from gatewise.parity.reference import Reference
from gatewise.parity.subject import Trial
from gatewise.registry import layout


def test_a_file_of_many_arrays_is_no_stack_of_many_layers(tmp_path):
    np.savez(tmp_path / "many.npz", **{f"part{number}/table": np.ones((2, 3), "f4") for number in range(300)})
    begin = time.process_time()
    with pytest.raises(gw.WeightsError, match="of 300 layers, not of one"):
        convert("torch", "keras", str(tmp_path / "many.npz"), None, {})
    assert time.process_time() - begin < 5


@pytest.mark.parametrize("extra", [0, 40])
def test_all_layers_of_a_stack_are_found_among_other_arrays(extra):
    spec = gw.LSTM(3, 4, layers=3)
    there = layout("torch", spec)
    shapes = store(there, spec).shapes | {f"table{number}": (2, 2) for number in range(extra)}
    if not extra:
        assert gw.core.infer.infer(there, shapes) == spec
        return
    with pytest.raises(gw.WeightsError, match="unknown 'table0'") as caught:
        gw.core.infer.infer(there, shapes)
    assert "weight_ih_l2" in caught.value.where


def test_small_layers_cost_what_python_takes():
    """The faults of 2,000 small layers would take minutes; a run of one layer is as dear as 100,000 products."""
    network = gw.Network.chain(gw.Input((4, 3)), gw.Dense(3, 3), gw.Dense(3, 3))
    dense = draw(gw.Dense(3, 3), 0, "keras")
    reference = Reference(network, {"dense": dense, "dense_1": dense})
    assert reference.cost(Trial([np.ones((3, 4, 3))])) > 2e5


@pytest.mark.parametrize("call", ["Net({[]: 1})", "Net(" + "-" * 3_000 + "1)", "Net(**{})"])
def test_arguments_of_a_class_that_are_no_literals(call):
    with pytest.raises(gw.SpecError, match="no class with literal arguments") as caught:
        built_in_place(call)
    assert len(str(caught.value)) < 400


def test_a_class_that_exits_is_no_success(tmp_path, monkeypatch):
    (tmp_path / "quits.py").write_text("import sys\ndef net():\n    sys.exit(0)\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(gw.FileError, match="SystemExit"):
        built("quits.py:net()")
    sys.modules.pop("quits", None)


def built_in_place(call):
    return built(f"{__file__}:{call}")


def test_an_operation_in_h5_is_told_from_a_class_of_ones_own(keras, tmp_path):
    source = keras.Input((4, 3))
    off = keras.ops.not_equal(source, 0.0)
    keras.Model(source, keras.layers.GRU(2)(keras.layers.Concatenate()([source, off]))).save(tmp_path / "m.h5")
    with pytest.raises(gw.FileError, match="holds NotEqual, an operation") as caught:
        gw.load(tmp_path / "m.h5")
    assert "model.save('model.keras')" in caught.value.hint


def test_an_attention_without_a_partner(keras, torch):
    source = keras.Input((5, 4))
    seen = keras.layers.MultiHeadAttention(2, 2)(source, source)
    model = keras.Model(source, keras.layers.GRU(3)(seen))
    with pytest.raises(gw.TransferError):
        gw.transfer(torch.nn.LSTM(4, 3, batch_first=True), model)


def test_what_keras_cannot_write_is_said_and_leaves_nothing(keras, tmp_path):
    class Unsaid(keras.layers.Dense):
        def get_config(self):
            raise RuntimeError("no config today")

    model = keras.Sequential([keras.Input((3,)), Unsaid(2)])
    with pytest.raises(gw.FileError, match="no config today"):
        gw.save(model, tmp_path / "m.keras")
    assert not list(tmp_path.iterdir())


def test_models_too_deep_in_each_other(keras):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    for _ in range(40):
        model = keras.Sequential([keras.Input((3,)), model])
    assert len(gw.describe(model).weighted) == 1
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 120)
    try:
        with pytest.raises(gw.UnsupportedModelError, match="too deep in each other"):
            gw.describe(model)
    finally:
        sys.setrecursionlimit(limit)
