"""Runs a plan over NumPy arrays: one short executor for all pairs of layouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gatewise.core.plan import Block, Plan, Step
from gatewise.errors import ImpossiblePlanError, ShapeError, WeightsError, nearest


def apply(plan: Plan, arrays: Mapping[str, Any] | Sequence[Any]) -> dict[str, np.ndarray]:
    """Bring arrays from the source layout of a plan into its target layout; see ``Plan.apply``.

    >>> import gatewise as gw
    >>> plan = gw.mapping(gw.LSTM(2, 1), "keras", "torch")
    >>> weights = {"kernel": np.arange(8.0).reshape(2, 4), "recurrent_kernel": np.ones((1, 4)), "bias": np.zeros(4)}
    >>> apply(plan, weights)["weight_ih_l0"]
    array([[0., 4.],
           [1., 5.],
           [2., 6.],
           [3., 7.]])
    """
    plan.require_possible()
    given = checked(plan, arrays)
    dtype = np.result_type(*given.values()) if given else np.dtype(np.float32)
    for step in plan.steps:
        if dtype.kind in "iu" and not step.constant.is_integer():
            raise WeightsError(
                f"Arrays of {dtype} cannot hold the constant {step.constant:g}.",
                f"{plan.source} → {plan.target}: it is added to a bias.",
                "Give arrays of floating-point numbers.",
            )
    made: dict[str, np.ndarray] = {}
    for step in plan.steps:
        value = _value(step, given, dtype)
        if step.target is None:
            if np.any(value != 0):
                raise _unmet(plan, step, value)
            continue
        name, shape = step.target.tensor, plan.target_shapes[step.target.tensor]
        if step.target.region() == shape and step.sources:
            made[name] = value.reshape(shape)
            continue
        if name not in made:
            made[name] = np.empty(shape, dtype)
        made[name][step.target.slicing()] = value.reshape(step.target.region()) if step.sources else value
    return {name: made[name] for name in plan.target_shapes}


def _value(step: Step, given: Mapping[str, np.ndarray], dtype: np.dtype[Any]) -> np.ndarray:
    if not step.sources:
        return np.asarray(step.constant, dtype)
    values = [
        _block(given[block.tensor], block).transpose(step.order(number)) for number, block in enumerate(step.sources)
    ]
    values = [value if sign > 0 else _negated(value) for sign, value in zip(step.signs, values, strict=True)]
    total = values[0]
    if step.constant:
        total = total + np.asarray(step.constant, total.dtype)
    for value in values[1:]:
        # -0.0 + 0.0 is +0.0: where one side is zero take the other as it is, or a round trip loses a sign bit. Where
        # both are, the bias counts, which comes last: the recurrent half is what a plan fills with zeros.
        total = np.where(total == 0, value, np.where(value == 0, total, total + value))
    return total


def _negated(value: np.ndarray) -> np.ndarray:
    """Return ``-value``, zeros as they are: a bias filled with 0 stays 0 on every way, and every bit still returns."""
    return np.where(value == 0, value, -value)


def _block(array: np.ndarray, block: Block) -> np.ndarray:
    return array[block.slicing()].reshape(block.shape)


def checked(plan: Plan, arrays: Mapping[str, Any] | Sequence[Any]) -> dict[str, np.ndarray]:
    """Return the arrays by name, after making sure that they belong to the source layout of the plan."""
    shapes, source = plan.source_shapes, f"{plan.source} of {plan.spec}"
    listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    if not isinstance(arrays, Mapping):
        if len(arrays) != len(shapes):
            raise WeightsError(
                f"{len(arrays)} arrays for {len(shapes)} tensors.",
                f"{source}: {listed}",
                "Give them all, in this order, or by name.",
            )
        arrays = dict(zip(shapes, arrays, strict=True))
    missing, unknown = [name for name in shapes if name not in arrays], [name for name in arrays if name not in shapes]
    if missing or unknown:
        met = " and ".join(
            f"{word} {', '.join(map(repr, names))}"
            for word, names in (("missing", missing), ("unknown", unknown))
            if names
        )
        raise WeightsError(
            f"The names do not fit: {met}.",
            f"{source}: {listed}",
            (nearest(unknown[0], missing) if unknown else "") + "Give all of these, and no others.",
        )
    given = {name: np.asarray(arrays[name]) for name in shapes}
    for name, shape in shapes.items():
        if given[name].shape != shape:
            turned = given[name].shape == shape[::-1] and len(shape) == 2
            hint = (
                "It fits when transposed: was it saved from another framework?"
                if turned
                else "Was it cut, or is the layer another one?"
            )
            raise ShapeError(f"{name!r} has shape {given[name].shape}, expected {shape}.", f"{source}: {listed}", hint)
        if not (
            np.issubdtype(given[name].dtype, np.number) or given[name].dtype.name.startswith(("bfloat16", "float8"))
        ):
            raise WeightsError(f"{name!r} holds {given[name].dtype}, not numbers.", source, "Give arrays of numbers.")
    return given


def _unmet(plan: Plan, step: Step, value: np.ndarray) -> ImpossiblePlanError:
    blocks = " + ".join(block.text(plan.source_shapes[block.tensor]) for block in step.sources)
    worst = float(np.max(np.abs(value)))
    return ImpossiblePlanError(
        f"These weights cannot go from {plan.source} to {plan.target}: {blocks} is not zero (up to {worst:.3g}).",
        plan.reason,
        "Keep them in the source, or choose another target. (An earlier step that rounded can leave a last bit.)",
    )
