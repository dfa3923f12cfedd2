"""The same LSTM in every framework: counted, explained, ported, proven.

Importing this package loads neither NumPy nor a framework; each is imported by the call that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, overload

from gatewise.core.spec import (
    GRU,
    LSTM,
    RNN,
    AdditiveAttention,
    Attention,
    BatchNorm,
    Conv1D,
    Conv2D,
    Dense,
    Embedding,
    LayerNorm,
    Spec,
)
from gatewise.errors import (
    AdapterError,
    FileError,
    GatewiseError,
    ImpossiblePlanError,
    LayoutError,
    PortWarning,
    ShapeError,
    SpecError,
    TokenError,
    TransferError,
    UnknownFrameworkError,
    UnsupportedCellError,
    UnsupportedModelError,
    UnsupportedSpecError,
    WeightsError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gatewise.comparison import Comparison
    from gatewise.core.between import (
        Activation,
        Constant,
        Dot,
        Dropout,
        Flip,
        Input,
        Masking,
        Merge,
        Noise,
        Operation,
        Pad,
        Permute,
        Pool,
        Remask,
        Repeat,
        Rescale,
        Reshape,
        Softmax,
        Upsample,
    )
    from gatewise.core.count import Count
    from gatewise.core.diagnose import Diagnoses, Diagnosis
    from gatewise.core.explain import Cause, Explanation
    from gatewise.core.layout import Layout
    from gatewise.core.network import Layer, Network
    from gatewise.core.plan import Plan, Verdict
    from gatewise.core.solve import Solution, Solutions
    from gatewise.core.teach import Equations, Growth, Option
    from gatewise.inspecting import Inspection
    from gatewise.parity.result import Parity
    from gatewise.port_reports import PortReport
    from gatewise.registry import FrameworkRecord
    from gatewise.transfers.result import Transfer

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "AdapterError",
    "AdditiveAttention",
    "Attention",
    "BatchNorm",
    "Cause",
    "Comparison",
    "Constant",
    "Conv1D",
    "Conv2D",
    "Count",
    "Dense",
    "Diagnoses",
    "Diagnosis",
    "Dot",
    "Dropout",
    "Embedding",
    "Equations",
    "Explanation",
    "FileError",
    "Flip",
    "FrameworkRecord",
    "GatewiseError",
    "Growth",
    "ImpossiblePlanError",
    "Input",
    "Inspection",
    "Layer",
    "LayerNorm",
    "LayoutError",
    "Masking",
    "Merge",
    "Network",
    "Noise",
    "Operation",
    "Option",
    "Pad",
    "Parity",
    "Permute",
    "Plan",
    "Pool",
    "PortReport",
    "PortWarning",
    "Remask",
    "Repeat",
    "Rescale",
    "Reshape",
    "ShapeError",
    "Softmax",
    "Solution",
    "Solutions",
    "Spec",
    "SpecError",
    "TokenError",
    "Transfer",
    "TransferError",
    "UnknownFrameworkError",
    "UnsupportedCellError",
    "UnsupportedModelError",
    "UnsupportedSpecError",
    "Upsample",
    "Verdict",
    "WeightsError",
    "build",
    "compare",
    "count",
    "describe",
    "diagnose",
    "equations",
    "explain",
    "frameworks",
    "inspect",
    "load",
    "map_weights",
    "mapping",
    "option",
    "port",
    "port_file",
    "port_report",
    "save",
    "solve",
    "tabulate",
    "transfer",
    "vary",
    "verify",
]


_HOMES = {
    "Activation": "core.between",
    "Cause": "core.explain",
    "Comparison": "comparison",
    "Constant": "core.between",
    "Count": "core.count",
    "Diagnoses": "core.diagnose",
    "Diagnosis": "core.diagnose",
    "Dot": "core.between",
    "Dropout": "core.between",
    "Equations": "core.teach",
    "Explanation": "core.explain",
    "Flip": "core.between",
    "FrameworkRecord": "registry",
    "Growth": "core.teach",
    "Input": "core.between",
    "Inspection": "inspecting",
    "Layer": "core.network",
    "Masking": "core.between",
    "Merge": "core.between",
    "Network": "core.network",
    "Noise": "core.between",
    "Operation": "core.between",
    "Option": "core.teach",
    "Pad": "core.between",
    "Parity": "parity.result",
    "Permute": "core.between",
    "Plan": "core.plan",
    "Pool": "core.between",
    "Remask": "core.between",
    "Repeat": "core.between",
    "Rescale": "core.between",
    "Reshape": "core.between",
    "Softmax": "core.between",
    "PortReport": "port_reports",
    "Solution": "core.solve",
    "Solutions": "core.solve",
    "Transfer": "transfers.result",
    "Upsample": "core.between",
    "Verdict": "core.plan",
}


def __getattr__(name: str) -> Any:
    """Import a class where it is first asked for, so that a count does not wait for what a plan needs."""
    if name not in _HOMES:
        raise AttributeError(f"module 'gatewise' has no attribute {name!r}")
    return getattr(importlib.import_module(f"gatewise.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List what is public, of which some loads when it is first asked for."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


def frameworks() -> list[FrameworkRecord]:
    """List the known frameworks.

    Returns:
        Records with ``name``, ``title``, ``layouts``, ``installed`` and ``runnable``.

    >>> [record.title for record in frameworks() if record.name == "torch"]
    ['PyTorch']
    """
    from gatewise.registry import frameworks

    return frameworks()


def count(spec: Any, framework: str | None = None) -> Count:
    """Count the parameters of a layer or network as a framework stores them, or of a live model or the file of one.

    Args:
        spec: The layer or network; or a layer, model or module of Keras or torch, or the path of a file.
        framework: Its name, such as ``"torch"``, or with the class, ``"torch:LSTMCell"``; of a model its own framework
            unless another is named.

    Returns:
        The count: ``total``, and ``terms``, one for each stored tensor. Of a model also ``layers``, its summary layer
        by layer, and ``beside``, the same in the other framework; layers that gatewise does not know are counted, too.

    Raises:
        FileError: The file cannot be read.
        UnsupportedSpecError: The framework cannot hold the layer; the option is named.
        UnknownFrameworkError: No framework has this name, or none is named for a layer.

    >>> count(LSTM(features=3, units=50), "keras").total, count(LSTM(features=3, units=50), "torch").total
    (10800, 11000)
    """
    from gatewise.core import count as counting
    from gatewise.registry import layout

    if isinstance(spec, Spec) and framework is not None:
        return counting.count(spec, layout(framework, spec))
    from gatewise.core.network import Network

    if not isinstance(spec, Spec | Network):
        from gatewise.explaining import counted

        return counted(spec, framework)
    if framework is None:
        raise UnknownFrameworkError(
            "No framework is named.",
            f"count({type(spec).__name__}): how many parameters a layer has depends on how it is stored.",
            "Name one: count(spec, 'keras').",
        )
    assert isinstance(spec, Network)
    layouts = {layer.name: layout(framework, layer.spec) for layer in spec.weighted}
    return counting.count_network(spec, framework, layouts)


@overload
def explain(spec: Spec | Network, first: str, second: str) -> Explanation: ...
@overload
def explain(spec: Any, first: Any = ..., *, of: str = ...) -> Explanation: ...
def explain(spec: Any, first: Any = None, second: str | None = None, *, of: str = "parameters") -> Explanation:
    """Explain why two frameworks count a layer, or a network, differently; or why two live objects or files do.

    Of one live object or file alone: why its port to its other home, PyTorch or Keras, counts differently.

    Live objects and files may be any models of Keras and torch: layers that gatewise does not know are counted, too.

    Args:
        spec: The layer or network; or a layer, a model, or the file of one.
        first: The first framework; or the other layer, model or file; None for the port of the first.
        second: The second framework.
        of: What to count of live objects and files: ``"parameters"``, what the framework itself counts;
            ``"trainable"``, what training changes; ``"stored"``, every number that is kept; ``"effective"``, what the
            outputs can tell apart.

    Returns:
        The explanation: ``difference``, and ``causes`` that add up to it exactly.

    Raises:
        UnsupportedSpecError: A framework cannot hold the layer; the option is named.
        SpecError: ``of`` is unknown.

    >>> told = explain(LSTM(features=3, units=50), "keras", "torch")
    >>> told.difference, told.causes[0].name, told.causes[0].formula
    (200, 'second bias', '4·units')
    """
    from gatewise.core import explain as explaining
    from gatewise.core.network import Network
    from gatewise.registry import layout

    if second is None:
        if isinstance(spec, Spec | Network):
            raise SpecError(
                f"{'One' if first is not None else 'No'} framework is named, and a difference is between two.",
                f"explain({type(spec).__name__}, {first!r})"
                if first is not None
                else f"explain({type(spec).__name__})",
                "Name both: explain(spec, 'keras', 'torch').",
            )
        from gatewise.explaining import explained

        return explained(spec, first, of)
    if not isinstance(spec, Spec | Network) or of != "parameters":
        raise SpecError(
            "Two frameworks are named for what is no layer or network."
            if not isinstance(spec, Spec | Network)
            else f"of={of!r} says what to count of live objects and files.",
            f"explain({type(spec).__name__}, …, {second!r})",
            "Give two objects or files: explain(a, b, of='stored'); or a layer and two names: "
            "explain(spec, 'keras', 'torch').",
        )
    if isinstance(spec, Network):
        layouts = {layer.name: (layout(first, layer.spec), layout(second, layer.spec)) for layer in spec.weighted}
        return explaining.explain_network(spec, first, second, layouts)
    return explaining.explain(spec, layout(first, spec), layout(second, spec))


def diagnose(
    claimed: int,
    spec: Spec | Network,
    framework: str,
    *,
    head: Dense | int | None = None,
    timesteps: int | None = None,
    batch: int | None = None,
    stale: Mapping[str, int] | Spec | None = None,
) -> Diagnoses:
    """Name the mistakes that give exactly a claimed number of parameters.

    Args:
        claimed: The number that someone has.
        spec: The layer it was claimed for, or a network of it and a dense layer on top.
        framework: Where the layer is stored.
        head: A dense layer on top that the number includes, or how many outputs it has.
        timesteps: Length of the sequence, where it may have been multiplied in.
        batch: Batch size, likewise.
        stale: Sizes of an earlier layer that may have been used, such as ``{"features": 3}``.

    Returns:
        A list of at most five, the likeliest first. It is empty if the number is right, or if no mistake gives it; its
        ``verdict`` says which, and its ``nearest`` is the mistake that comes closest.

    >>> found = diagnose(claimed=120, spec=LSTM(features=1, units=10), framework="keras")
    >>> found[0].mistake, found[0].arithmetic
    ('output-size-one', '10·(4·1·1 + 4·1·1 + 4·1)')
    >>> diagnose(claimed=480, spec=LSTM(features=1, units=10), framework="keras").right
    True
    """
    from gatewise import registry
    from gatewise.core import diagnose as diagnosing

    layer, head = diagnosing.layer_and_head(spec, head)
    return diagnosing.diagnose(
        claimed,
        layer,
        registry.layout(framework, layer),
        head=head,
        timesteps=timesteps,
        batch=batch,
        stale=stale,
        layouts=[layout for name in registry.names() for layout in registry.framework(name).layouts],
    )


def equations(spec: Spec, notation: str = "blog", frameworks: Sequence[str] = ()) -> Equations:
    """Write one timestep of a layer, with the tensor, shape and slice of every symbol.

    Args:
        spec: The layer.
        notation: ``"blog"``, that of the well-known blog, ``"keras"`` or ``"torch"``.
        frameworks: Where to look the symbols up. Where none is named: in the notation's own, or for the blog's in all
            that have a notation.

    Returns:
        The equations: ``lines`` and ``symbols``; printed they are plain text, and a notebook shows them with a table.

    Raises:
        SpecError: No notation has this name, or the layer has no equations.

    >>> print(equations(RNN(features=3, units=2), "torch"))
    h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)
    """
    from gatewise import arguments
    from gatewise.core import teach
    from gatewise.registry import layout

    arguments.spec_of(spec, Spec)
    arguments.text_of(notation, "notation", "blog")
    if isinstance(frameworks, str) or not hasattr(frameworks, "__iter__"):
        frameworks = [arguments.framework_name(frameworks, "frameworks")]
    for each in frameworks:
        arguments.framework_name(each, "frameworks")
    homes = [each.home for each in teach.NOTATIONS.values() if each.home]
    home = teach.NOTATIONS[notation].home if notation in teach.NOTATIONS else ""
    named = dict.fromkeys([*([home] if home else []), *(frameworks or ([] if home else homes))])
    return teach.equations(spec, notation, [layout(name, spec) for name in named])


def option(name: str) -> Option:
    """Explain one argument of a layer's constructor: what it does in Keras and in PyTorch.

    Raises:
        SpecError: No argument has this name.

    >>> option("recurrent_dropout").name
    'recurrent_dropout'
    """
    from gatewise import arguments
    from gatewise.core import teach

    return teach.option(arguments.text_of(name, "name", "return_sequences"))


def vary(spec: Spec, sizes: str, *frameworks: str) -> Growth:
    """Count a layer at several sizes.

    Args:
        spec: The layer; the size that varies may be anything in it.
        sizes: ``"units=32:512:32"`` (first, last, step), ``"features=1:8"`` or ``"units=32,64,128"``.
        frameworks: Where the layer is stored; Keras and PyTorch unless named.

    Returns:
        The growth: ``rows`` of a size and its counts.

    Raises:
        SpecError: The sizes cannot be read, or the layer has no such size.

    >>> vary(LSTM(features=3, units=1), "units=10:30:10", "keras").rows
    ((10, (560,)), (20, (1920,)), (30, (4080,)))
    """
    from functools import partial

    from gatewise import arguments
    from gatewise.core import teach
    from gatewise.registry import layout

    arguments.spec_of(spec, Spec)
    arguments.text_of(sizes, "sizes", "units=32:512:32")
    for name in frameworks:
        arguments.framework_name(name)
    return teach.vary(spec, sizes, {name: partial(layout, name) for name in frameworks or ("keras", "torch")})


def solve(
    total: int,
    framework: str,
    *,
    features: int | None = None,
    units: int | None = None,
    cell: str | None = None,
) -> Solutions:
    """Find every recurrent layer, alone or under a dense one, that has a number of parameters.

    Args:
        total: The number.
        framework: Where the layers are stored.
        features: Only layers that read so many features.
        units: Only layers with so many units.
        cell: Only ``"LSTM"``, ``"GRU"`` or ``"RNN"``.

    Returns:
        A list of all there are within ``gatewise.core.solve.BOUNDS``, the likeliest first.

    >>> solve(10_851, framework="keras")[0].layers
    (LSTM(features=3, units=50), Dense(features=50, units=1))
    """
    from gatewise import arguments, registry
    from gatewise.core import solve as solving

    arguments.framework_name(framework)
    if cell is not None:
        arguments.text_of(cell, "cell", "LSTM")
    owner = framework.partition(":")[0]
    if framework not in {owner, *(layout.name for layout in registry.framework(owner).layouts)}:
        registry.layout(framework, LSTM(1, 1))  # Says which classes there are.

    def lookup(spec: Spec) -> Layout | None:
        try:
            # A named class stores the recurrent layer; the dense one on top is the framework's own.
            return registry.layout(owner if isinstance(spec, Dense) else framework, spec)
        except UnknownFrameworkError:
            return None

    return solving.solve(total, lookup, features=features, units=units, cell=cell)


def mapping(spec: Spec, source: str, target: str) -> Plan:
    """Plan how the weights of a layer go from one framework to another.

    Returns:
        A plan, always; its ``verdict`` may be ``impossible``.

    >>> print(mapping(LSTM(features=3, units=50), "keras", "torch"))
    keras:LSTM → torch:LSTM: exact. Every number of the source has a place of its own; recurrent bias is filled with 0.
      weight_ih_l0 = kernel    # transpose
      weight_hh_l0 = recurrent_kernel    # transpose
      bias_ih_l0 = bias    # copy
      bias_hh_l0 = 0    # fill with 0
    """
    from gatewise.core.plan import plan
    from gatewise.registry import layout

    return plan(spec, layout(source, spec), layout(target, spec))


map_weights = mapping
"""Another name of ``mapping``."""


def build(spec: Spec | Network, framework: str, seed: int = 0, initial: str = "keras") -> Any:
    """Build a framework's own layer or model with weights set: for one seed the same function in every framework.

    Args:
        spec: The layer or network.
        framework: Its name; it must be installed.
        seed: Seed of the one draw of weights.
        initial: The named rule of the draw, ``"keras"`` or ``"torch"``.

    Raises:
        ImpossiblePlanError: The framework cannot compute this layer with these weights.

    >>> layer = build(LSTM(features=3, units=5), "torch")
    >>> type(layer).__name__, sum(parameter.numel() for parameter in layer.parameters())
    ('LSTM', 200)
    """
    from gatewise import arguments
    from gatewise.core.network import Network
    from gatewise.live import build

    arguments.spec_of(spec, Spec, Network)
    arguments.framework_name(framework)
    arguments.text_of(initial, "initial", "keras")
    return build(spec, framework, seed, initial)


def describe(obj: Any, inputs: Any = None) -> Network:
    """Say what a live object is, in neutral terms; a path is the file of one.

    The config of a Keras layer or model will do as well: a dictionary, or the ``.json`` file that ``model.to_json()``
    gives. It is read as plain data first, and a mistake in it that Keras would find while it builds is explained.

    Args:
        obj: A layer, a model, or the file or config of one.
        inputs: Example inputs, as ``verify`` takes them; they are checked against what the model reads.

    Raises:
        UnsupportedModelError: A layer or option is not supported; it is named.
        SpecError: The inputs are not what the model reads; or a layer of a config is given fewer axes than it needs.

    >>> describe(build(LSTM(features=3, units=5), "torch")).layers[-1].spec
    LSTM(features=3, units=5)
    """
    import os
    from collections.abc import Mapping

    if isinstance(obj, Mapping) or (isinstance(obj, str | os.PathLike) and str(obj).lower().endswith(".json")):
        from pathlib import Path

        from gatewise import configs

        network = configs.describe_config(obj if isinstance(obj, Mapping) else configs.read_config(Path(obj)))
    else:
        from gatewise.live import describe

        network = describe(obj)
    if inputs is not None:
        from gatewise.parity.inputs import check_inputs

        check_inputs(inputs, network)
    return network


def inspect(obj: Any) -> Inspection:
    """Say what a model, a file or a Keras config holds, and whether it can be ported.

    Args:
        obj: A layer or model of Keras or torch; the path of a file (``.keras``, ``.h5``, ``.safetensors``, ``.npz``);
            or the config of a Keras model, a dictionary or a ``.json`` file.

    Returns:
        The facts: ``format``, ``version``, ``layers``, ``tensors`` (dtype, shape, bytes), ``optimizer``, and
        ``portable`` with its ``reason``.

    Raises:
        FileError: The file cannot be read.

    >>> import torch
    >>> found = inspect(torch.nn.LSTM(3, 5))
    >>> found.portable, [(tensor.name, tensor.shape) for tensor in found.tensors][0]
    (True, ('weight_ih_l0', (20, 3)))
    """
    from gatewise.inspecting import inspected

    return inspected(obj)


def port(
    obj: Any,
    to: str,
    inputs: Any = None,
    *,
    second_bias: str = "frozen",
    dtype: str | None = None,
    batch_first: bool = True,
) -> Any:
    """Port a live layer or model to another framework.

    Args:
        obj: A Keras layer or model, one of torch's layers that are supported, or a model that gatewise built.
        to: ``"torch"`` or ``"keras"``.
        inputs: Example inputs, as ``verify`` takes them; they are checked against what the model reads, and say how
            many axes its inputs have where the source takes any number.
        second_bias: Where the target has a bias that the source lacks, it is zero and, so that training goes on as in
            the source, ``"frozen"``; ``"trainable"`` frees it.
        dtype: Type of the new weights, such as ``"float64"``; that of the source unless said.
        batch_first: Whether a port has the batch as its first axis where the source has time there. To keep the
            source's axes is refused: no port does it.

    Returns:
        A new object, called like the source: in eval mode, on the CPU, frozen where the source is, sharing no memory.
        ``verify`` proves it, and ``port_report`` says what was done.

    Raises:
        UnsupportedModelError: A layer or option is not supported; it is named.
        ImpossiblePlanError: The target has no such function.
        SpecError: The inputs are not what the model reads.

    Warns:
        PortWarning: A call of the new object differs from one of the source: in axes, nesting or states.

    >>> import torch
    >>> layer = port(torch.nn.Linear(3, 5), to="keras")
    >>> print(port_report(layer))
    torch → keras: 1 layers with weights.
    <BLANKLINE>
    layer  what it is                  verdict  torch  keras  difference
    -----  --------------------------  -------  -----  -----  ----------
    dense  Dense(features=3, units=5)  exact       20     20           0
    total                                          20     20           0
    """
    import warnings

    from gatewise.live import port

    done = port(obj, to, inputs, second_bias=second_bias, dtype=dtype, batch_first=batch_first)
    for text in done.calls:
        warnings.warn(text, PortWarning, stacklevel=2)
    return done.result


def port_report(obj: Any) -> PortReport:
    """Say what was done for a port: verdicts of its layers, what is frozen, what to know, how a call differs.

    Args:
        obj: What ``port`` returned, the very object.

    Raises:
        GatewiseError: ``port`` did not return this object.

    >>> import torch
    >>> port_report(port(torch.nn.Linear(3, 5), to="keras")).plans["dense"].verdict.name
    'EXACT'
    """
    from gatewise.port_reports import report_of

    return report_of(obj)


def port_file(
    source: str | Path,
    target: str | Path,
    inputs: Any = None,
    *,
    second_bias: str = "frozen",
    write_inconclusive: bool = False,
) -> Parity:
    """Port a model file to another, whose suffix says the framework, and verify it.

    Args:
        source: A model file.
        target: The file to write.
        inputs: What ``verify`` feeds; random inputs unless given.
        second_bias: As for ``port``.
        write_inconclusive: Whether the target is written, too, where the outputs agree on inputs that would not have
            shown every fault.

    Returns:
        The comparison of the two; the target is written, whole, only where it passed, or as ``write_inconclusive``
        says.

    Raises:
        FileError: A file cannot be read or written.
        UnsupportedModelError: A layer or option is not supported; it is named.
    """
    from gatewise import arguments
    from gatewise.live import port_file

    source, target = arguments.path_of(source, "source"), arguments.path_of(target, "target")
    return port_file(source, target, inputs, second_bias=second_bias, write_inconclusive=write_inconclusive)[1]


def verify(
    a: Any,
    b: Any,
    *,
    seed: int = 0,
    inputs: Any = None,
    gradients: bool = False,
    training_steps: int = 0,
) -> Parity:
    """Compare two live objects, or files of them, on the same inputs.

    Of models whose layers can be read both are fed in their own order of axes, and test faults show whether the inputs
    would have told. Anything else that can be called (a module of any class, a subclass of ``keras.Model``, a function
    around one) needs ``inputs``, which both are given as they are; each weight is changed in turn, and those that
    change nothing are named.

    Args:
        a: The source; its own rounding sets the tolerance.
        b: What should compute the same.
        seed: Seed of the inputs.
        inputs: Inputs of your own, arrays or tensors, batch first: one alone, a tuple in the order of the inputs, a
            dict by their names, or the path of an ``.npz``. Random inputs of several sizes unless given.
        gradients: Whether the gradients of one loss are compared, too: of every weight, and of the inputs.
        training_steps: How many steps of Adam copies of both are trained for, to compare losses, weights and moving
            statistics. For these two both sides run as in training, without dropout, and come back as they were.

    Returns:
        What came out: ``passed``, ``verdict`` (``"passed"``, ``"failed"`` or ``"inconclusive"``), ``outputs``; where it
        failed ``diagnosis``, the mistakes that keep the two apart; where asked for ``gradients`` and ``training``;
        ``remarks``; and ``basis``, ``"read"`` or ``"called"``. What was only called is inconclusive where a trained
        weight that takes part in the outputs, and that nothing behind it cancels, changes nothing.

    Raises:
        UnsupportedModelError: One cannot be read, and no inputs are given to call it with; or it raised when called.
        SpecError: The inputs are not what the models take.

    >>> spec = LSTM(features=3, units=5)
    >>> verify(build(spec, "torch"), build(spec, "keras")).verdict
    'passed'
    """
    from gatewise.parity.verify import verify
    from gatewise.transfers.copies import with_mistakes

    parity = verify(a, b, seed=seed, inputs=inputs, gradients=gradients, training_steps=training_steps)
    return with_mistakes(parity, a, b, inputs)


def transfer(
    source: Any,
    target: Any,
    *,
    pairs: Mapping[str, str] | None = None,
    inputs: Any = None,
    second_bias: str = "frozen",
    dtype: str | None = None,
    allow_missing: bool = False,
) -> Transfer:
    """Fill the weights of a model that exists from another's, and prove it by the outputs of both.

    Layers are paired by kind and sizes, names, and the order of definition and of use; what that leaves open is settled
    by running both. Weights go through the layouts of both sides: gates in order, kernels transposed, biases merged.

    Args:
        source: A live model of Keras or torch, of any class; a file of one; or a state dict, live or in a file.
        target: The model to fill: a live one of any class. It is tried on a copy, and then filled whole.
        pairs: Source layer → target layer, where you know; it overrides, whole or in part.
        inputs: What both are called with: a tuple is positional, a dict is by keyword. Drawn where a model says what
            it takes.
        second_bias: Where the target has a bias that the source lacks, it is zero, and ``"frozen"`` or ``"trainable"``.
        dtype: Type to change the target's floats to, such as ``"float64"``; as they are unless given.
        allow_missing: Go on where layers of either side have no partner.

    Returns:
        What was done: ``target``, ``pairs``, ``parity`` and ``remarks``; printed it is a table.

    Raises:
        TransferError: Layers do not pair, more than one pairing is possible, or the outputs differ; the target is as
            it was.

    >>> import torch
    >>> layer = build(LSTM(features=3, units=5), "keras")
    >>> done = transfer(layer, torch.nn.LSTM(3, 5, batch_first=True))
    >>> [(pair.source, pair.target, pair.verdict) for pair in done.pairs], done.parity.verdict
    ([('lstm', 'lstm', 'exact')], 'passed')
    """
    from gatewise.transfers.transfer import transfer

    return transfer(
        source,
        target,
        pairs=pairs,
        inputs=inputs,
        second_bias=second_bias,
        dtype=dtype,
        allow_missing=allow_missing,
    )


def save(obj: Any, path: str | Path) -> None:
    """Write a live object to a file: ``.safetensors`` with what it is in its metadata, or ``.keras``.

    Raises:
        FileError: The suffix is unknown, or the file cannot be written; nothing is left half-written.
    """
    from gatewise import arguments
    from gatewise.live import save

    save(obj, arguments.path_of(path))


def load(path: str | Path, to: str | None = None) -> Any:
    """Read a live object from a file that ``save`` or Keras wrote.

    Args:
        path: A ``.safetensors`` file of ``save``, which needs the target's framework alone, or a ``.keras`` file.
        to: The framework it is wanted in; its own unless said.

    Raises:
        FileError: The file cannot be read, or holds no model.
    """
    from gatewise import arguments
    from gatewise.live import load

    return load(arguments.path_of(path), None if to is None else arguments.framework_name(to, "to"))


def tabulate(path: str | Path) -> Comparison:
    """Count and explain every case of a TOML file.

    Returns:
        The comparison: ``rows``, and ``render(format)`` for the table.

    Raises:
        FileError: The file cannot be read, or a case of it not understood.
    """
    from gatewise import arguments
    from gatewise.comparison import compare

    return compare(arguments.path_of(path))


compare = tabulate
"""The name that ``tabulate`` had first."""
