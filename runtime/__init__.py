"""Programs, sessions and bundles. `from dynamo_onnx.runtime import load` needs no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bundle.load import Bundle, load

__all__ = ["Bundle", "load"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".bundle.load", __name__), name)
