"""PyTorch: its layouts, the adapter that runs it, recurrent layers that do what Keras's can, and how Keras trains them.

``LSTM``, ``GRU``, ``RNN``, ``BatchNorm``, ``Attention`` and ``AdditiveAttention``, Keras's Adam ``KerasAdam``, its
regularisers ``penalty`` and constraints ``constrain`` import torch when they are first asked for; nothing else does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gatewise_torch.attention import AdditiveAttention, Attention
    from gatewise_torch.modules import GRU, LSTM, RNN
    from gatewise_torch.normalisation import BatchNorm
    from gatewise_torch.optim import KerasAdam
    from gatewise_torch.regularisation import constrain, penalty

_HOMES = {
    "AdditiveAttention": "attention",
    "Attention": "attention",
    "BatchNorm": "normalisation",
    "KerasAdam": "optim",
    "constrain": "regularisation",
    "penalty": "regularisation",
}

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "AdditiveAttention",
    "Attention",
    "BatchNorm",
    "KerasAdam",
    "constrain",
    "penalty",
]


def __getattr__(name: str) -> Any:
    """Return a layer or what trains it, importing torch now."""
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'modules')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
