"""PyTorch: its layouts, the adapter that runs it, and recurrent layers that do what Keras's can.

``LSTM``, ``GRU`` and ``RNN`` import torch when they are first asked for; nothing else here does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gatewise_torch.modules import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN"]


def __getattr__(name: str) -> Any:
    """Return a layer, importing torch now."""
    if name in __all__:
        from gatewise_torch import modules

        return getattr(modules, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
