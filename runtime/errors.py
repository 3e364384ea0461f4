"""What can go wrong, as data (`Reason`) and as exceptions. Imports neither ours nor torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ReasonKind(StrEnum):
    """Why a node is not executed by ONNX Runtime. The value is what reports print."""

    NO_RULE = "no lowering"
    DTYPE = "dtype"
    KERNEL = "no kernel"
    SEMANTICS = "not expressible"
    RANDOM = "random numbers"
    MUTATION = "mutation"
    SYMBOLIC = "symbolic value"
    DEVICE = "device"
    LAYOUT = "layout"
    OPTION = "eager_ops"
    REGION_SIZE = "region too small"
    RULE_FAILED = "rule failed"
    SESSION_FAILED = "session failed"
    RUN_FAILED = "run failed"
    VERIFICATION = "verification"
    SLOWER = "slower than eager"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something runs in eager: `detail` says what was met, `hint` what the user can do."""

    kind: ReasonKind
    detail: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.kind.value}: {self.detail}"
        return f"{text} ({self.hint})" if self.hint else text


class DynamoOnnxError(RuntimeError):
    """The base of every error this package raises."""


class OptionError(DynamoOnnxError):
    """An option, mode, provider or path that the user gave cannot be used."""


class UnsupportedError(DynamoOnnxError):
    """`strict=True`, and something would have run in eager PyTorch."""


class LoweringError(DynamoOnnxError):
    """A rule raised, or produced something that contradicts the graph's metadata."""


class SessionError(DynamoOnnxError):
    """ONNX Runtime rejected a program, or failed while running it."""


class CacheError(DynamoOnnxError):
    """A saved program or cache entry cannot be read or written."""


class BundleError(DynamoOnnxError):
    """A bundle cannot be saved as asked, is damaged, or was not saved for such a call."""
