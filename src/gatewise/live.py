"""Live objects: port a layer or model from one framework to another, save it, load it."""

from __future__ import annotations

import json
import re
from collections.abc import Set
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gatewise import arguments, checkpoints
from gatewise.arguments import path_of
from gatewise.core.between import Constant, Input
from gatewise.core.layout import CANONICAL, Layout, gaps
from gatewise.core.network import Layer, Network
from gatewise.core.plan import Plan, Step, Verdict, plan
from gatewise.core.shapes import shapes
from gatewise.core.spec import Attending, Embedding, Norm, Recurrent, Spec
from gatewise.errors import FileError, GatewiseError, ImpossiblePlanError, UnsupportedModelError, WeightsError
from gatewise.port_reports import PortReport, call_differences, keep
from gatewise.registry import ModelAdapter, adapter, holds_models, layout, live_layout, model_adapter, owner
from gatewise.stages import stage

if TYPE_CHECKING:
    import numpy as np

    from gatewise.parity.result import Parity

METADATA = "gatewise"
"""Key of a file's metadata that holds the description of the model."""

DTYPES = ("float32", "float64", "float16", "bfloat16")
"""Types that a port may have."""

FORMS = ("model", "layer", "cell", "stack")
"""How an object may be called; see ``ModelAdapter.form``."""


class Port(NamedTuple):
    """A port, and what was done for it; see ``PortReport`` for the other attributes.

    Attributes:
        result: The new object.
    """

    source: str
    target: str
    network: Network
    result: Any
    plans: dict[str, Plan]
    frozen: dict[str, tuple[str, ...]]
    remarks: tuple[str, ...]
    calls: tuple[str, ...]


def port(
    obj: Any,
    to: str,
    inputs: Any = None,
    *,
    second_bias: str = "frozen",
    dtype: str | None = None,
    batch_first: bool = True,
) -> Port:
    """Port a live object; see ``gatewise.port`` for the arguments. Returns the new object with what was done."""
    name, side = owner(obj)
    arguments.framework_name(to, "to")
    arguments.one_of(second_bias, ("frozen", "trainable"), "second_bias")
    if dtype is not None:
        arguments.one_of(dtype, DTYPES, "dtype")
    side.check_bare(obj)
    network, form = side.describe(obj), side.form(obj)
    calling = side.calling(obj)
    _check_batch_first(batch_first, calling)
    if inputs is not None and "any" in calling.get("rank", ""):
        network = _with_axes_of(inputs, network)
        del calling["rank"]
    shapes(network)
    if inputs is not None:
        from gatewise.parity.inputs import check_inputs

        check_inputs(inputs, network)
    target = model_adapter(to)
    natives = side.natives(obj)
    plans = plan_network(network, own_layouts(name, network, form, natives), to, form)
    dtype = dtype or side.dtype_of(obj)
    moved: dict[str, dict[str, np.ndarray]] = {}
    for layer in network.weighted:
        arrays = side.read(natives[layer.name])
        check_finite(layer, arrays)
        moved[layer.name] = plans[layer.name].apply(arrays)
    result, made = target.assemble(network, dtype=dtype, form=form)
    frozen = {}
    for layer in network.weighted:
        target.write(made[layer.name], moved[layer.name])
        tensors = _frozen(layer, plans[layer.name], second_bias, side.frozen(natives[layer.name]))
        if tensors:
            target.freeze(made[layer.name], tensors)
            frozen[layer.name] = tensors
    calls = call_differences(calling, target.calling(result))
    remarks = (*side.remarks(obj), *_remarks(plans, frozen))
    keep(result, PortReport(name, to, network, plans, frozen, remarks, calls))
    return Port(name, to, network, result, plans, frozen, remarks, calls)


def _with_axes_of(inputs: Any, network: Network) -> Network:
    """Return a network that takes any number of axes with so many as its example input has."""
    from gatewise.parity.inputs import read_inputs

    given = read_inputs(inputs)
    arrays = [array for _, array in given.leaves()] if given is not None else []
    if len(arrays) != 1 or len(network.sources) != 1:
        return network  # Which input is missing is said where they are checked.
    [source] = network.sources
    spec, last = source.spec, () if source.spec.options()["integer"] else source.spec.options()["shape"][-1:]
    free = arrays[0].ndim - 1 - len(last)
    reshaped = replace(source, spec=spec.replace(shape=(None,) * max(free, 0) + last))
    return replace(network, layers=tuple(reshaped if layer is source else layer for layer in network.layers))


def _check_batch_first(batch_first: Any, calling: dict[str, str]) -> None:
    """Refuse to keep other axes than batch first, which no port does yet."""
    if not isinstance(batch_first, bool):
        raise GatewiseError(
            f"batch_first={batch_first!r:.80} is not a truth value.", "Expected True or False.", "Leave it out."
        )
    if not batch_first and not calling["axes"].startswith("batch first"):
        raise UnsupportedModelError(
            f"A port that keeps the axes of its source, which is called {calling['axes']}, is not supported.",
            "Keras's fit and predict cut data along the first axis, and take it for the batch.",
            "Use batch_first=True, and give the port input.transpose(0, 1).",
        )


def describe(obj: Any) -> Network:
    """Return what a live object is, or the file of one; see ``gatewise.describe``."""
    obj = load(obj) if isinstance(obj, str | Path) else obj
    _, side = owner(obj)
    side.check_bare(obj)
    return side.describe(obj)


def own_layouts(name: str, network: Network, form: str, natives: dict[str, Any] | None = None) -> dict[str, Layout]:
    """Return layer → the layout in which a live object holds it; of one that ``assemble`` makes, without natives."""
    usual = {layer.name: live_layout(name, layer.spec, form) for layer in network.weighted}
    if natives is None:
        return usual
    side = model_adapter(name)
    return {layer: side.layout_of(natives[layer], there) for layer, there in usual.items()}


def plan_network(network: Network, source: dict[str, Layout], target: str, form: str) -> dict[str, Plan]:
    """Return the plan of each layer that has weights.

    Args:
        network: The layers.
        source: Layer → the layout that it comes in.
        target: The framework that it goes to.
        form: How the object is called.

    Raises:
        ImpossiblePlanError: A layer cannot go; it is named.
    """
    plans = {}
    for layer in network.weighted:
        made = plan(layer.spec, source[layer.name], live_layout(target, layer.spec, form))
        if made.verdict is Verdict.IMPOSSIBLE and not made.unless:
            way_out = made.way_out
            if form == "cell" and not gaps(live_layout(target, layer.spec), layer.spec):
                way_out = "Put the cell into a layer that runs it over a sequence; such a layer can be ported."
            raise ImpossiblePlanError(
                f"Layer {layer.name!r} cannot go from {made.source} to {made.target}.", made.reason, way_out
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


def _frozen(layer: Layer, made: Plan, second_bias: str, fixed: Set[str] = frozenset()) -> tuple[str, ...]:
    """Return which tensors of the target training should leave alone; ``fixed`` are those of the source."""
    if not layer.trainable:
        return tuple(made.target_shapes)
    frozen = []
    for name in made.target_shapes:
        read = {
            block.tensor for step in made.steps if step.target and step.target.tensor == name for block in step.sources
        }
        if (read and read <= fixed) or (second_bias == "frozen" and not read):
            frozen.append(name)
    return tuple(frozen)


def _remarks(plans: dict[str, Plan], frozen: dict[str, tuple[str, ...]]) -> list[str]:
    said = []
    for name, made in plans.items():
        filled = [tensor for tensor in frozen.get(name, ()) if _is_filled(tensor, made.steps)]
        if filled and len(filled) < len(made.target_shapes):
            are, them = ("are", "them") if len(filled) > 1 else ("is", "it")
            said.append(
                f"{name}: {' and '.join(filled)} {are} zero and frozen, so that training goes on as in the source; "
                f"second_bias='trainable' frees {them}."
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
    network = with_input(spec)
    shapes(network)
    layouts = own_layouts(framework, spec, "model")
    result, natives = target.assemble(network)
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
    path = path_of(path)
    checkpoints.check_writable(path, WRITTEN)
    name, side = owner(obj)
    if path.suffix.lower() == ".keras":
        if name != "keras":
            raise FileError(
                f"A {name} object does not go into {path.name}.",
                ".keras is a file of Keras.",
                "Port it to Keras first, or use .safetensors.",
            )
        with checkpoints.whole(path) as unfinished:
            side.save_file(obj, str(unfinished))
        return
    side.check_bare(obj)
    network, natives, form = side.describe(obj), side.natives(obj), side.form(obj)
    # What a layer's own options make of its layout is not in the file: it goes there in the usual one.
    plans = plan_network(network, own_layouts(name, network, form, natives), name, form)
    arrays, frozen = {}, []
    for layer in network.weighted:
        made = plans[layer.name]
        fixed = side.frozen(natives[layer.name]) | set(_frozen(layer, made, "frozen"))
        for tensor, array in made.apply(side.read(natives[layer.name])).items():
            arrays[f"{layer.name}.{tensor}"] = array
            frozen += [f"{layer.name}.{tensor}"] * (tensor in fixed)
    about = {"framework": name, "form": form, "frozen": frozen, "network": network.to_dict()}
    checkpoints.save(path, arrays, {METADATA: json.dumps(about)})


def load(path: str | Path, to: str | None = None) -> Any:
    """Read a live object from a file; see ``gatewise.load``."""
    path = path_of(path)
    checkpoints.check_readable(path, READ)
    if path.suffix.lower() in checkpoints.KERAS_FILES:
        with checkpoints.snapshot(path) as copy:
            made = open_keras(copy)
        return made if to in (None, "keras") else port(made, to).result
    return restore(path.name, checkpoints.read(path), to)


def restore(name: str, contents: checkpoints.Contents, to: str | None = None) -> Any:
    """Return the live object that the contents of a file describe, in its own framework or in another.

    Raises:
        FileError: The contents are not those of a model.
    """
    kept = _description(name, contents)
    target_name = to or kept.framework
    target = model_adapter(target_name)
    own = own_layouts(kept.framework, kept.network, kept.form)
    plans = plan_network(kept.network, own, target_name, kept.form)
    arrays = contents.arrays
    _check_complete(name, plans, arrays)
    result, made = target.assemble(kept.network, dtype=_dtype(arrays), form=kept.form)
    second_bias = "trainable" if target_name == kept.framework else "frozen"
    for layer in kept.network.weighted:
        done = plans[layer.name]
        target.write(
            made[layer.name], done.apply({name: arrays[f"{layer.name}.{name}"] for name in done.source_shapes})
        )
        fixed = {name for name in done.source_shapes if f"{layer.name}.{name}" in kept.frozen}
        target.freeze(made[layer.name], _frozen(layer, done, second_bias, fixed))
    return result


class _Description(NamedTuple):
    """What a file says of the model in it."""

    network: Network
    framework: str
    form: str
    frozen: frozenset[str]


def _description(name: str, contents: checkpoints.Contents) -> _Description:
    """Read what a file says of the model in it, and check that there can be such a model."""
    about = contents.about.get(METADATA)
    if about is None:
        raise FileError(
            f"{name} holds arrays and no model.",
            "Expected a file that gatewise.save wrote.",
            "Build the model, and load the arrays into it.",
        )
    try:
        said = checkpoints.parse_json(about)
        framework, form, frozen = (said[key] for key in ("framework", "form", "frozen"))
        if not isinstance(frozen, list) or not all(isinstance(text, str) for text in (framework, form, *frozen)):
            raise ValueError("its framework, form or frozen tensors are no names")
        kept = _Description(Network.from_dict(said["network"]), framework, form, frozenset(frozen))
        if not kept.network.layers or kept.form not in FORMS or not holds_models(kept.framework):
            raise ValueError(f"{kept.framework} {kept.form} of {len(kept.network.layers)} layers")
        _check_enough(name, kept.network, contents)
        for layer in kept.network.layers:
            if not layer.inputs and not isinstance(layer.spec, Input | Constant):
                raise ValueError(f"layer {layer.name!r} reads nothing")
        own_layouts(kept.framework, kept.network, kept.form)
        shapes(kept.network)
    except FileError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError, GatewiseError) as error:
        text = error.met if isinstance(error, GatewiseError) else str(error)
        raise FileError(
            f"{name}: its description cannot be read: {text.rstrip('.')}.",
            "Expected what gatewise.save wrote.",
            "Save it again.",
        ) from None
    return kept


def _check_enough(name: str, network: Network, contents: checkpoints.Contents) -> None:
    """Raise ``FileError`` where a file says that it holds more layers than it has arrays, before any is planned."""
    specs = [layer.spec for layer in network.weighted]
    layers = sum(spec.layers * spec.directions if isinstance(spec, Recurrent) else 1 for spec in specs)
    bare = sum(isinstance(spec, Attending | Norm) for spec in specs)  # They may have no weights at all.
    if layers - bare > len(contents.arrays):
        raise FileError(
            f"{name} says that it has {layers:,} layers, and holds {len(contents.arrays):,} arrays.",
            "Each layer and direction has at least one.",
            "Save it again, or check that it is whole.",
        )


def _check_complete(name: str, plans: dict[str, Plan], arrays: dict[str, np.ndarray]) -> None:
    """Raise ``FileError`` where the arrays of a file are not those of the model in it."""
    wanted = {
        f"{layer}.{tensor}": shape for layer, made in plans.items() for tensor, shape in made.source_shapes.items()
    }
    found = {tensor: array.shape for tensor, array in arrays.items()}
    for tensor, array in arrays.items():
        if array.dtype.name not in ("float32", "float64"):
            raise FileError(f"{name}: {tensor!r} is of {array.dtype.name}.", "Expected float32.", "Save it again.")
    for tensor in [*wanted, *found]:
        if wanted.get(tensor) != found.get(tensor):
            met, expected = (str(each.get(tensor, "not there")) for each in (found, wanted))
            raise FileError(
                f"{name}: {tensor!r} is {met}, and by the description {expected}.",
                "Expected what gatewise.save wrote.",
                "Save it again, or check that it is whole.",
            )


def _dtype(arrays: dict[str, np.ndarray]) -> str:
    kinds = {array.dtype.name for array in arrays.values()}
    return next(iter(kinds)) if len(kinds) == 1 else "float32"


def open_keras(path: Path) -> Any:
    """Read a Keras model from a private copy of a file, by Keras itself.

    Raises:
        FileError: It holds no model that can be read.
    """
    side: ModelAdapter = model_adapter("keras")
    try:
        return side.open_file(str(path))
    except GatewiseError:
        raise
    except Exception as error:  # Keras raises whatever its zip, JSON and HDF5 readers raise.
        text = str(error).strip().splitlines()
        # Keras says it behind several pages of configs: the innermost layer comes last.
        missing = re.findall(r"Could not locate (?:class|function) '([^']+)'", str(error))
        missing += re.findall(r"Unknown [\w ]+: '([^']+)'", str(error))
        homes = re.findall(r"'registered_name': '([^']+)'", str(error))
        if missing:
            home = next((name for name in reversed(homes) if name.endswith(missing[-1])), missing[-1])
            raise FileError(
                f"{path.name} holds {home}, which is not known here.",
                "Keras registers classes of one's own under package>name when their module is imported.",
                f"In Python, import the module that registers {home}, and then load the file.",
            ) from error
        raise FileError(
            f"{path.name} cannot be read: {text[0][:300] if text else type(error).__name__}",
            "Expected a model that Keras 3 can read.",
            "Load it with keras.saving.load_model where you made it, and save it again as .keras.",
        ) from error


READ = (*checkpoints.KERAS_FILES, ".safetensors")
"""Suffixes of files that hold a model."""

WRITTEN = {".safetensors": "torch", ".keras": "keras"}
"""Suffix of a file that is written → the framework that a model in it is ported to."""


def port_file(
    source: str | Path,
    target: str | Path,
    inputs: Any = None,
    *,
    second_bias: str = "frozen",
    write_inconclusive: bool = False,
) -> tuple[Port, Parity]:
    """Port a file to a file and verify it; the target is written, whole, only where the verification passed.

    With ``write_inconclusive`` it is written, too, where the outputs agree on inputs that would not have told.

    Raises:
        FileError: A file cannot be read or written.
    """
    source, target = path_of(source), path_of(target)
    checkpoints.check_readable(source, READ)
    checkpoints.check_writable(target, WRITTEN)
    checkpoints.check_other(source, target)
    from gatewise.parity.verify import verify

    obj = load(source)
    goes_to = WRITTEN[target.suffix.lower()]
    stage(f"Porting {source.name} to {goes_to}")
    done = port(obj, goes_to, inputs, second_bias=second_bias)
    stage("Running both on the same inputs")
    parity = verify(obj, done.result, inputs=inputs)
    if parity.passed or (write_inconclusive and parity.verdict == "inconclusive"):
        save(done.result, target)
    return done, parity
