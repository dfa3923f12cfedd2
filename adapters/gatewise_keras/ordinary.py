"""Keras's layers beside the recurrent ones, each with the spec that it is: options and arguments under other names.

Nothing here imports Keras: a table, read in both directions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from gatewise.core.between import Dropout, Noise, Pad, Permute, Pool, Repeat, Rescale, Reshape, Upsample
from gatewise.core.spec import AdditiveAttention, Attention, BatchNorm, Conv1D, Conv2D, LayerNorm, Spec


class Twin(NamedTuple):
    """A class of Keras's, and what it is in neutral terms.

    Attributes:
        kind: The kind of spec.
        arguments: Option of the spec → argument of the class, and attribute of its layers.
        fixed: Option → the value it has by being of this class.
        only: Argument → the only value that is supported.
        axes: Along how many axes it goes, where the same spec may go along others.
    """

    kind: type[Spec]
    arguments: Mapping[str, str]
    fixed: Mapping[str, Any] = {}
    only: Mapping[str, Any] = {}
    axes: int | None = None


_NORM = {"scale": "scale", "shift": "center", "epsilon": "epsilon"}
_CONV = {
    "units": "filters",
    "strides": "strides",
    "padding": "padding",
    "dilation": "dilation_rate",
    "groups": "groups",
    "bias": "use_bias",
    "activation": "activation",
}
_ATTENTION = {"scale": "use_scale", "dropout": "dropout"}
_WINDOW = {"size": "pool_size", "strides": "strides", "padding": "padding"}
_WHOLE = {"keep": "keepdims"}
_LAST = {"data_format": "channels_last"}

TWINS: dict[str, Twin] = {
    "BatchNormalization": Twin(BatchNorm, _NORM | {"momentum": "momentum"}, only={"renorm": False}),
    "LayerNormalization": Twin(LayerNorm, _NORM, only={"rms_scaling": False}),
    "Conv1D": Twin(Conv1D, {"width": "kernel_size"} | _CONV, only=_LAST),
    "Conv2D": Twin(Conv2D, {"sizes": "kernel_size"} | _CONV, only=_LAST),
    "Attention": Twin(Attention, _ATTENTION | {"score": "score_mode"}),
    "AdditiveAttention": Twin(AdditiveAttention, _ATTENTION),
    "GlobalMaxPooling1D": Twin(Pool, _WHOLE, {"pool": "max", "size": None}, _LAST, 1),
    "GlobalMaxPooling2D": Twin(Pool, _WHOLE, {"pool": "max", "size": None}, _LAST, 2),
    "GlobalAveragePooling1D": Twin(Pool, _WHOLE, {"pool": "mean", "size": None}, _LAST, 1),
    "GlobalAveragePooling2D": Twin(Pool, _WHOLE, {"pool": "mean", "size": None}, _LAST, 2),
    "MaxPooling1D": Twin(Pool, _WINDOW, {"pool": "max"}, _LAST, 1),
    "MaxPooling2D": Twin(Pool, _WINDOW, {"pool": "max"}, _LAST, 2),
    "AveragePooling1D": Twin(Pool, _WINDOW, {"pool": "mean"}, _LAST, 1),
    "AveragePooling2D": Twin(Pool, _WINDOW, {"pool": "mean"}, _LAST, 2),
    "Flatten": Twin(Reshape, {}, {"shape": (-1,)}, _LAST),
    "Reshape": Twin(Reshape, {"shape": "target_shape"}),
    "Permute": Twin(Permute, {"order": "dims"}),
    "RepeatVector": Twin(Repeat, {"times": "n"}),
    "ZeroPadding1D": Twin(Pad, {"steps": "padding"}, only=_LAST, axes=1),
    "ZeroPadding2D": Twin(Pad, {"steps": "padding"}, only=_LAST, axes=2),
    "UpSampling1D": Twin(Upsample, {"times": "size"}, axes=1),
    "UpSampling2D": Twin(Upsample, {"times": "size"}, only=_LAST | {"interpolation": "nearest"}, axes=2),
    "Rescaling": Twin(Rescale, {"factor": "scale", "offset": "offset"}, {"offset_first": False}),
    "GaussianNoise": Twin(Noise, {"deviation": "stddev"}, {"rate": 0.0}),
    "GaussianDropout": Twin(Noise, {"rate": "rate"}, {"deviation": 0.0}),
    "SpatialDropout1D": Twin(Dropout, {"rate": "rate"}, {"whole": True}, axes=1),
    "SpatialDropout2D": Twin(Dropout, {"rate": "rate"}, {"whole": True}, _LAST, 2),
}
"""Class of Keras's → what it is. Of several that a spec may be, the first is built."""


def options_of(twin: Twin, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a spec from the values of a layer's arguments; a tuple of one is the one.

    >>> options_of(TWINS["MaxPooling1D"], {"size": (2,), "strides": (1,), "padding": "same"})
    {'size': 2, 'strides': 1, 'padding': 'same', 'pool': 'max', 'axes': 1}
    """
    made = dict(values)
    if "sizes" in made:
        made["height"], made["width"] = made.pop("sizes")
    for option in ("width", "strides", "dilation", "size"):
        if isinstance(made.get(option), tuple) and len(made[option]) == 1:
            [made[option]] = made[option]
    made |= twin.fixed
    return made | ({"axes": twin.axes} if "axes" in twin.kind.fields else {})


def twin_for(spec: Spec, axes: int = 1) -> str | None:
    """Return the name of the class that computes a spec, or None where it is another kind of layer.

    Args:
        spec: The spec.
        axes: How many axes lie between batch and features, where the spec goes along any.

    >>> twin_for(Pool("max", 2)), twin_for(Pool("max")), twin_for(Dropout(0.5)), twin_for(Dropout(0.5, whole=True), 2)
    ('MaxPooling1D', 'GlobalMaxPooling1D', None, 'SpatialDropout2D')
    """
    along = getattr(spec, "axes", axes)
    for name, twin in TWINS.items():
        fits = twin.kind is type(spec) and twin.axes in (None, along)
        if fits and all(getattr(spec, option) == value for option, value in twin.fixed.items()):
            return name
    return None


def arguments_for(spec: Spec, axes: int = 1) -> dict[str, Any]:
    """Return the arguments that make a layer of Keras's compute a spec; see ``twin_for``.

    >>> arguments_for(Repeat(3))
    {'n': 3}
    """
    twin = TWINS[str(twin_for(spec, axes))]
    return {argument: getattr(spec, option) for option, argument in twin.arguments.items()} | dict(twin.only)
