"""Keras's layers beside the recurrent ones, each with the spec that it is: options and arguments under other names.

Nothing here imports Keras: a table, read in both directions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from gatewise.core.spec import (
    AdditiveAttention,
    Attention,
    BatchNorm,
    Conv1D,
    Dropout,
    LayerNorm,
    Noise,
    Pad,
    Permute,
    Pool,
    Repeat,
    Rescale,
    Reshape,
    Spec,
)


class Twin(NamedTuple):
    """A class of Keras's, and what it is in neutral terms.

    Attributes:
        kind: The kind of spec.
        arguments: Option of the spec → argument of the class, and attribute of its layers.
        fixed: Option → the value it has by being of this class.
        only: Argument → the only value that is supported.
    """

    kind: type[Spec]
    arguments: Mapping[str, str]
    fixed: Mapping[str, Any] = {}
    only: Mapping[str, Any] = {}


_NORM = {"scale": "scale", "shift": "center", "epsilon": "epsilon"}
_CONV = {
    "units": "filters",
    "width": "kernel_size",
    "strides": "strides",
    "padding": "padding",
    "dilation": "dilation_rate",
    "groups": "groups",
    "bias": "use_bias",
    "activation": "activation",
}
_ATTENTION = {"scale": "use_scale", "dropout": "dropout"}
_WINDOW = {"size": "pool_size", "strides": "strides", "padding": "padding"}
_LAST = {"data_format": "channels_last"}

TWINS: dict[str, Twin] = {
    "BatchNormalization": Twin(BatchNorm, _NORM | {"momentum": "momentum"}, only={"renorm": False}),
    "LayerNormalization": Twin(LayerNorm, _NORM, only={"rms_scaling": False}),
    "Conv1D": Twin(Conv1D, _CONV, only=_LAST),
    "Attention": Twin(Attention, _ATTENTION | {"score": "score_mode"}),
    "AdditiveAttention": Twin(AdditiveAttention, _ATTENTION),
    "GlobalMaxPooling1D": Twin(Pool, {"keep": "keepdims"}, {"pool": "max", "size": None}, _LAST),
    "GlobalAveragePooling1D": Twin(Pool, {"keep": "keepdims"}, {"pool": "mean", "size": None}, _LAST),
    "MaxPooling1D": Twin(Pool, _WINDOW, {"pool": "max"}, _LAST),
    "AveragePooling1D": Twin(Pool, _WINDOW, {"pool": "mean"}, _LAST),
    "Flatten": Twin(Reshape, {}, {"shape": (-1,)}, _LAST),
    "Reshape": Twin(Reshape, {"shape": "target_shape"}),
    "Permute": Twin(Permute, {"order": "dims"}),
    "RepeatVector": Twin(Repeat, {"times": "n"}),
    "ZeroPadding1D": Twin(Pad, {"steps": "padding"}, only=_LAST),
    "Rescaling": Twin(Rescale, {"factor": "scale", "offset": "offset"}, {"offset_first": False}),
    "GaussianNoise": Twin(Noise, {"deviation": "stddev"}, {"rate": 0.0}),
    "GaussianDropout": Twin(Noise, {"rate": "rate"}, {"deviation": 0.0}),
    "SpatialDropout1D": Twin(Dropout, {"rate": "rate"}, {"whole": True}),
}
"""Class of Keras's → what it is. Of several that a spec may be, the first is built."""

ALONE = ("width", "strides", "dilation", "size")
"""Options that Keras keeps as a tuple of one."""


def twin_for(spec: Spec) -> str | None:
    """Return the name of the class that computes a spec, or None where it is another kind of layer.

    >>> twin_for(Pool("max", 2)), twin_for(Pool("max")), twin_for(Dropout(0.5))
    ('MaxPooling1D', 'GlobalMaxPooling1D', None)
    """
    options = spec.options()
    for name, twin in TWINS.items():
        if twin.kind is type(spec) and all(options[option] == value for option, value in twin.fixed.items()):
            return name
    return None


def arguments_for(spec: Spec) -> dict[str, Any]:
    """Return the arguments that make a layer of Keras's compute a spec.

    >>> arguments_for(Repeat(3))
    {'n': 3}
    """
    twin = TWINS[str(twin_for(spec))]
    return {argument: getattr(spec, option) for option, argument in twin.arguments.items()} | dict(twin.only)
