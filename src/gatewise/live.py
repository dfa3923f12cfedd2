"""Live objects: port a layer or model from one framework to another, save it, load it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gatewise import checkpoints
from gatewise.core.layout import CANONICAL
from gatewise.core.plan import Plan, Step, Verdict, plan
from gatewise.core.spec import Embedding, Input, Layer, Network, Spec
from gatewise.errors import FileError, GatewiseError, ImpossiblePlanError, WeightsError
from gatewise.registry import ModelAdapter, adapter, layout, model_adapter, owner

if TYPE_CHECKING:
    import numpy as np

    from gatewise.parity import Parity

METADATA = "gatewise"
"""Key of a file's metadata that holds the description of the model."""


class Port(NamedTuple):
    """A port, and what was done for it.

    Attributes:
        source: The framework it comes from.
        target: The framework it went to.
        network: What was ported, in neutral terms.
        result: The new object.
        plans: Layer → plan.
        frozen: Layer → tensors of the target that training does not change.
        remarks: What a person should know, a sentence each.
    """

    source: str
    target: str
    network: Network
    result: Any
    plans: dict[str, Plan]
    frozen: dict[str, tuple[str, ...]]
    remarks: tuple[str, ...]


def port(obj: Any, to: str, *, second_bias: str = "frozen", dtype: str | None = None) -> Port:
    """Port a live object; see ``gatewise.port`` for the arguments. Returns the new object with what was done."""
    name, side = owner(obj)
    if second_bias not in ("frozen", "trainable"):
        raise GatewiseError(
            f"second_bias={second_bias!r} is unknown.", "Known: 'frozen', 'trainable'.", "Use one of these."
        )
    network = side.describe(obj)
    target = model_adapter(to)
    plans = plan_network(network, name, to)
    dtype = dtype or side.dtype_of(obj)
    natives = side.natives(obj)
    moved: dict[str, dict[str, np.ndarray]] = {}
    for layer in network.weighted:
        arrays = side.read(natives[layer.name])
        check_finite(layer, arrays)
        moved[layer.name] = plans[layer.name].apply(arrays)
    result, made = target.assemble(network, dtype=dtype, form=side.form(obj))
    frozen = {}
    for layer in network.weighted:
        target.write(made[layer.name], moved[layer.name])
        tensors = _frozen(layer, plans[layer.name], second_bias)
        if tensors:
            target.freeze(made[layer.name], tensors)
            frozen[layer.name] = tensors
    return Port(name, to, network, result, plans, frozen, (*side.remarks(obj), *_remarks(plans, frozen)))


def plan_network(network: Network, source: str, target: str) -> dict[str, Plan]:
    """Return the plan of each layer that has weights.

    Raises:
        ImpossiblePlanError: A layer cannot go; it is named.
    """
    plans = {}
    for layer in network.weighted:
        made = plan(layer.spec, layout(source, layer.spec), layout(target, layer.spec))
        if made.verdict is Verdict.IMPOSSIBLE and not made.unless:
            raise ImpossiblePlanError(
                f"Layer {layer.name!r} cannot go from {made.source} to {made.target}.", made.reason, made.way_out
            )
        plans[layer.name] = made
    return plans


def check_finite(layer: Layer, arrays: dict[str, np.ndarray]) -> None:
    """Raise ``WeightsError`` where a weight is NaN or infinite."""
    import numpy as np

    for name, array in arrays.items():
        bad = int(np.count_nonzero(~np.isfinite(array)))
        if bad:
            raise WeightsError(
                f"{name!r} of layer {layer.name!r} holds {bad:,} values that are NaN or infinite.",
                "A port is proved by its outputs, and these would be NaN.",
                "Take an earlier checkpoint.",
            )


def _is_filled(tensor: str, steps: tuple[Step, ...]) -> bool:
    return all(not step.sources for step in steps if step.target and step.target.tensor == tensor)


def _frozen(layer: Layer, made: Plan, second_bias: str) -> tuple[str, ...]:
    """Return which tensors of the target training should leave alone."""
    if not layer.trainable:
        return tuple(made.target_shapes)
    if second_bias == "trainable":
        return ()
    return tuple(name for name in made.target_shapes if _is_filled(name, made.steps))


def _remarks(plans: dict[str, Plan], frozen: dict[str, tuple[str, ...]]) -> list[str]:
    said = []
    for name, made in plans.items():
        filled = [tensor for tensor in frozen.get(name, ()) if _is_filled(tensor, made.steps)]
        if filled and len(filled) < len(made.target_shapes):
            said.append(
                f"{name}: {', '.join(filled)} is zero and frozen, so that training goes on as in the source; "
                "second_bias='trainable' frees it."
            )
        if made.verdict is Verdict.EQUIVALENT:
            said.append(f"{name}: {made.reason}")
    return said


def build(spec: Spec | Network, framework: str, seed: int = 0, initial: str = "keras") -> Any:
    """Build a layer or model of a framework with drawn weights; see ``gatewise.build``."""
    from gatewise.arrays.initial import draw

    if isinstance(spec, Spec):
        there = layout(framework, spec)
        weights = plan(spec, CANONICAL[spec.cell], there).apply(draw(spec, seed, initial))
        side = adapter(there.framework)
        return side.write(side.build(spec, there), weights)
    target = model_adapter(framework)
    layouts = {layer.name: layout(framework, layer.spec) for layer in spec.weighted}
    result, natives = target.assemble(with_input(spec))
    for number, layer in enumerate(spec.weighted):
        # Each layer draws from a seed of its own, so that one layer more leaves the others as they were.
        weights = draw(layer.spec, seed + number, initial)
        target.write(
            natives[layer.name], plan(layer.spec, CANONICAL[layer.spec.cell], layouts[layer.name]).apply(weights)
        )
    return result


def with_input(network: Network) -> Network:
    """Return the network with an input in front, where it has none."""
    first = network.layers[0]
    if isinstance(first.spec, Input):
        return network
    tokens = isinstance(first.spec, Embedding)
    source = Layer("input", Input((None,) if tokens else (None, first.spec.options().get("features")), integer=tokens))
    layers = [replace(layer, inputs=layer.inputs or ("input",)) for layer in network.layers]
    return Network((source, *layers), network.outputs)


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────


def save(obj: Any, path: str | Path) -> None:
    """Write a live object to a file; see ``gatewise.save``."""
    path = Path(path)
    name, side = owner(obj)
    if path.suffix == ".keras":
        if name != "keras":
            raise FileError(
                f"A {name} object does not go into {path.name}.",
                ".keras is a file of Keras.",
                "Port it to Keras first, or use .safetensors.",
            )
        with checkpoints.whole(path) as unfinished:
            side.save_file(obj, str(unfinished))
        return
    if path.suffix != ".safetensors":
        raise FileError(
            f"{path.name} has no suffix that is known here.", "Known: .safetensors, .keras.", "Choose one of these."
        )
    network, natives = side.describe(obj), side.natives(obj)
    arrays, frozen = {}, []
    for layer in network.weighted:
        fixed = side.frozen(natives[layer.name])
        for tensor, array in side.read(natives[layer.name]).items():
            arrays[f"{layer.name}.{tensor}"] = array
            frozen += [f"{layer.name}.{tensor}"] * (tensor in fixed)
    about = {"framework": name, "form": side.form(obj), "frozen": frozen, "network": network.to_dict()}
    checkpoints.save(path, arrays, {METADATA: json.dumps(about)})


def load(path: str | Path, to: str | None = None) -> Any:
    """Read a live object from a file; see ``gatewise.load``."""
    path = Path(path)
    if path.suffix in (".keras", ".h5"):
        made = open_keras(path)
        return made if to in (None, "keras") else port(made, to).result
    about = checkpoints.metadata(path).get(METADATA)
    if about is None:
        raise FileError(
            f"{path.name} holds arrays and no model.",
            "Expected a file that gatewise.save wrote.",
            "Build the model, and load the arrays into it.",
        )
    try:
        said = json.loads(about)
        network, source, form, frozen = (
            Network.from_dict(said["network"]),
            said["framework"],
            said["form"],
            set(said["frozen"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(
            f"{path.name}: its description cannot be read: {error!r}.",
            "Expected what gatewise.save wrote.",
            "Save it again.",
        ) from None
    target_name = to or source
    target = model_adapter(target_name)
    plans = plan_network(network, source, target_name)
    arrays = checkpoints.load(path)
    result, made = target.assemble(network, dtype=_dtype(arrays), form=form)
    for layer in network.weighted:
        own = {
            name.removeprefix(f"{layer.name}."): array
            for name, array in arrays.items()
            if name.startswith(f"{layer.name}.")
        }
        target.write(made[layer.name], plans[layer.name].apply(own))
        fixed = tuple(name for name in own if f"{layer.name}.{name}" in frozen) if target_name == source else ()
        target.freeze(made[layer.name], fixed)
    return result


def _dtype(arrays: dict[str, np.ndarray]) -> str:
    kinds = {array.dtype.name for array in arrays.values()}
    return next(iter(kinds)) if len(kinds) == 1 else "float32"


def open_keras(path: Path) -> Any:
    """Read a Keras model from a file, by Keras itself."""
    if not path.is_file():
        raise FileError(f"{path} is not there.", "Expected a .keras file.", "Check the name.")
    side: ModelAdapter = model_adapter("keras")
    try:
        return side.open_file(str(path))
    except GatewiseError:
        raise
    except Exception as error:  # Keras raises whatever its zip, JSON and HDF5 readers raise.
        text = str(error).strip().splitlines()
        raise FileError(
            f"{path.name} cannot be read: {text[0] if text else type(error).__name__}",
            "Expected a model that Keras 3 saved.",
            "Where it holds classes of its own, import their module first and use gatewise.port.",
        ) from error


def port_file(source: str | Path, target: str | Path, *, second_bias: str = "frozen") -> tuple[Port, Parity]:
    """Port a file to a file and verify it; the target is written, whole, only where the verification passed.

    Raises:
        FileError: A file cannot be read or written.
    """
    from gatewise.parity import verify

    source, target = Path(source), Path(target)
    goes_to = {".safetensors": "torch", ".keras": "keras"}.get(target.suffix)
    if goes_to is None:
        raise FileError(
            f"{target.name} has no suffix that is known here.", "Known: .safetensors, .keras.", "Choose one of these."
        )
    obj = load(source)
    done = port(obj, goes_to, second_bias=second_bias)
    parity = verify(obj, done.result)
    if parity.passed:
        save(done.result, target)
    return done, parity
