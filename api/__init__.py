"""ONNX Runtime behind `torch.compile(model, backend="onnx")`.

Importing this package imports neither torch nor onnxruntime: its names are loaded when used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .backend.export.errors import OnnxExporterError
    from .backend.export.exporter import export
    from .backend.export.fake import enable_fake_mode
    from .backend.export.legacy import (
        DiagnosticOptions,
        ExportOptions,
        OnnxRegistry,
        ONNXRuntimeOptions,
        dynamo_export,
    )
    from .backend.export.program import ONNXProgram
    from .backend.options import Options, Quantize
    from .backend.profiling import OpTime, Profile, profile, profiling
    from .backend.report import CompileReport, Fallback, QuantizedProgram, explain, report
    from .backend.saved import CachedProgram, programs, save
    from .backend.state import reset
    from .lowering.registry import lowers, registry
    from .runtime.bundle.load import Bundle, load
    from .runtime.errors import (
        BundleError,
        CacheError,
        DynamoOnnxError,
        LoweringError,
        OptionError,
        Reason,
        SessionError,
        UnsupportedError,
    )

if find_spec("onnxruntime") is None:
    raise ImportError(
        "dynamo-onnx needs ONNX Runtime: pip install 'dynamo-onnx[cpu]', or 'dynamo-onnx[gpu]' "
        "on a machine with CUDA (never both: they fill the same folder)"
    )

__version__ = "0.1.0"

_HOMES = {
    ".backend.export.errors": ("OnnxExporterError",),
    ".backend.export.exporter": ("export",),
    ".backend.export.fake": ("enable_fake_mode",),
    ".backend.export.legacy": (
        "DiagnosticOptions",
        "ExportOptions",
        "ONNXRuntimeOptions",
        "OnnxRegistry",
        "dynamo_export",
    ),
    ".backend.export.program": ("ONNXProgram",),
    ".backend.options": ("Options", "Quantize"),
    ".backend.profiling": ("OpTime", "Profile", "profile", "profiling"),
    ".backend.report": ("CompileReport", "Fallback", "QuantizedProgram", "explain", "report"),
    ".backend.saved": ("CachedProgram", "programs", "save"),
    ".backend.state": ("reset",),
    ".lowering.registry": ("lowers", "registry"),
    ".runtime.bundle.load": ("Bundle", "load"),
    ".runtime.errors": (
        "BundleError",
        "CacheError",
        "DynamoOnnxError",
        "LoweringError",
        "OptionError",
        "Reason",
        "SessionError",
        "UnsupportedError",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Bundle",
    "BundleError",
    "CacheError",
    "CachedProgram",
    "CompileReport",
    "DiagnosticOptions",
    "DynamoOnnxError",
    "ExportOptions",
    "Fallback",
    "LoweringError",
    "ONNXProgram",
    "ONNXRuntimeOptions",
    "OnnxExporterError",
    "OnnxRegistry",
    "OpTime",
    "OptionError",
    "Options",
    "Profile",
    "Quantize",
    "QuantizedProgram",
    "Reason",
    "SessionError",
    "UnsupportedError",
    "dynamo_export",
    "enable_fake_mode",
    "explain",
    "export",
    "load",
    "lowers",
    "profile",
    "profiling",
    "programs",
    "registry",
    "report",
    "reset",
    "save",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("lowers", "registry"):
        import_module(".lowering.ops", __name__)  # the rules come before the user's own
    value = getattr(import_module(_HOME_OF[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
