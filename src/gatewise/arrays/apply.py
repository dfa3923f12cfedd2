"""Runs a plan over NumPy arrays: one short executor for all pairs of layouts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    shapes = plan.target_shapes
    made: dict[str, np.ndarray] = {}
    for step in plan.steps:
        try:
            value = _value(step, given, dtype)
        except OverflowError as error:
            raise WeightsError(
                f"Whole numbers of {dtype} cannot hold a result: {error}.",
                f"{plan.source} → {plan.target}: {step.target.tensor if step.target else 'condition'}, {step.words()}.",
                "Give arrays of floating-point numbers.",
            ) from None
        if step.target is None:
            if np.any(value != 0):
                raise _unmet(plan, step, value)
            continue
        name, shape = step.target.tensor, shapes[step.target.tensor]
        if step.target.region() == shape and step.sources:
            made[name] = value.reshape(shape)
            continue
        if name not in made:
            made[name] = np.empty(shape, dtype)
        made[name][step.target.slicing()] = value.reshape(step.target.region()) if step.sources else value
    return {name: made[name] for name in shapes}


def _value(step: Step, given: Mapping[str, np.ndarray], dtype: np.dtype[Any]) -> np.ndarray:
    if not step.sources:
        return _whole(np.asarray(step.constant), dtype) if dtype.kind in "iu" else np.asarray(step.constant, dtype)
    values = [
        _block(given[block.tensor], block).transpose(step.order(number)) for number, block in enumerate(step.sources)
    ]
    kind = np.result_type(*values)
    if kind.kind in "iu" and (len(values) == 2 or step.constant or -1 in step.signs):
        # Whole numbers of a fixed width would wrap around without a word.
        exact = np.zeros((), object)
        for sign, value in zip(step.signs, values, strict=True):
            exact = exact + sign * value.astype(object)
        return _whole(exact + (int(step.constant) if step.constant.is_integer() else step.constant), kind)
    values = [value if sign > 0 else _negated(value) for sign, value in zip(step.signs, values, strict=True)]
    total = values[0]
    if step.constant:
        total = total + np.asarray(step.constant, total.dtype)
    for value in values[1:]:
        # -0.0 + 0.0 is +0.0: where one side is zero take the other as it is, or a round trip loses a sign bit. Where
        # both are, the bias counts, which comes last: the recurrent half is what a plan fills with zeros.
        total = np.where(total == 0, value, np.where(value == 0, total, total + value))
    return total


def _whole(value: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Return numbers in a type of whole numbers that has to hold them."""
    if np.any(value % 1 != 0):
        raise OverflowError("it has a fraction")
    return np.frompyfunc(int, 1, 1)(value).astype(dtype) if value.ndim else np.asarray(int(value), dtype)


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
        if not isinstance(arrays, Iterable):
            raise WeightsError(
                f"A {type(arrays).__name__} is no weights.", f"{source}: {listed}", "Give a dict by name, or a list."
            )
        arrays = list(arrays)
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
            (nearest(str(unknown[0]), missing) if unknown else "") + "Give all of these, and no others.",
        )
    given = {name: _array(name, arrays[name], source) for name in shapes}
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


def _array(name: str, value: Any, source: str) -> np.ndarray:
    """Return what NumPy makes of an array of any framework's."""
    try:
        # A tensor that training changes hands over its numbers only where it is asked for them alone.
        return np.asarray(value.detach() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{name!r} cannot be read as an array: {str(error).rstrip('.')}.", source, "Give NumPy arrays."
        ) from None


def _unmet(plan: Plan, step: Step, value: np.ndarray) -> ImpossiblePlanError:
    blocks = " + ".join(block.text(plan.source_shapes[block.tensor]) for block in step.sources)
    worst = float(np.max(np.abs(value)))
    return ImpossiblePlanError(
        f"These weights cannot go from {plan.source} to {plan.target}: {blocks} is not zero (up to {worst:.3g}).",
        plan.reason,
        "Keep them in the source, or choose another target. (An earlier step that rounded can leave a last bit.)",
    )
