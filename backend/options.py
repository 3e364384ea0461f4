"""What the user can choose: parsed once, frozen, checked at the door."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import onnx_ir as ir

from ..runtime.errors import OptionError
from ..runtime.providers import ProviderChoice, choose_providers
from ..runtime.session import session_options

Transform: TypeAlias = Callable[[ir.Model], ir.Model]
Weights: TypeAlias = Literal["auto", "frozen", "live"]
WEIGHTS = ("auto", "frozen", "live")
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
OLDEST_OPSET, DEFAULT_OPSET, NEWEST_OPSET = 23, 23, 26

KEYED = {"cache_key": True}  # the lowered program depends on it


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of `torch.compile(..., backend="onnx", options=...)`.

    Fields marked KEYED are part of a program's fingerprint; the others only change how a program
    is run.
    """

    providers: tuple[str | tuple[str, dict[str, Any]], ...] = field(default=(), metadata=KEYED)
    """Execution providers in order of preference: names ("CPUExecutionProvider", "cpu") or
    (name, options) pairs. Empty: CPU."""
    provider_options: tuple[dict[str, Any], ...] = ()
    """One dict per provider."""
    session_options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Attributes of `onnxruntime.SessionOptions` and `section.key` config entries."""
    weights: Weights = "auto"
    """ "frozen": weights are constants of the session; a change is noticed at the next call and
    opens a new one. "live": they are read at each call. "auto": frozen until they change often."""
    min_region: int = 2
    """A region with fewer computing operators stays in eager, unless it is the whole graph."""
    strict: bool = False
    """Raise UnsupportedError where something would run in eager."""
    eager_ops: frozenset[str] = frozenset()
    """Operators to leave in eager: "aten.sin.default", "aten.sin" or "sin"."""
    opset: int | None = field(default=None, metadata=KEYED)
    """The ai.onnx opset of the programs. None: 23, or a later one that a program needs."""
    transforms: tuple[Transform, ...] = field(default=(), metadata=KEYED)
    """Functions `onnx_ir.Model -> onnx_ir.Model` applied to each lowered program."""
    dump_dir: Path | None = None
    """Write each program, without weights, and its FX graph here as it is compiled."""

    @staticmethod
    def parse(given: Options | Mapping[str, Any] | None, mode: str | None = None) -> Options:
        """The checked options of a `torch.compile` call; OptionError names what is wrong."""
        if mode is not None and mode not in MODES:
            raise OptionError(
                f"unknown mode {mode!r}{_nearest(mode, MODES)}; modes: {', '.join(MODES)}"
            )
        if given is None:
            options = Options()
        elif isinstance(given, Options):
            options = given
        elif isinstance(given, Mapping):
            names = [f.name for f in fields(Options)]
            for key in given:
                if key not in names:
                    raise OptionError(
                        f"unknown option {key!r}{_nearest(str(key), names)}; "
                        f"options: {', '.join(names)}"
                    )
            options = Options(**{str(k): _coerce(str(k), v) for k, v in given.items()})
        else:
            raise OptionError(
                f"options must be a dict or dynamo_onnx.Options, not {type(given).__name__}"
            )
        options.check()
        return options

    def check(self) -> None:
        """Raise OptionError for the first field that cannot be used."""
        if self.weights not in WEIGHTS:
            raise OptionError(
                f"weights={self.weights!r}{_nearest(str(self.weights), WEIGHTS)}; "
                f"choose one of {', '.join(WEIGHTS)}"
            )
        _expect("min_region", self.min_region, int)
        if self.min_region < 1:
            raise OptionError(f"min_region={self.min_region}: a region has at least 1 operator")
        _expect("strict", self.strict, bool)
        if self.opset is not None:
            _expect("opset", self.opset, int)
            if not OLDEST_OPSET <= self.opset <= NEWEST_OPSET:
                raise OptionError(f"opset={self.opset}: choose {OLDEST_OPSET} to {NEWEST_OPSET}")
        for name in self.eager_ops:
            _expect("eager_ops", name, str)
        for transform in self.transforms:
            if not callable(transform):
                raise OptionError(f"transforms: {transform!r} is not callable")
        session_options(self.session_options, threads=1, spinning=False)
        if self.dump_dir is not None:
            check_writable("dump_dir", self.dump_dir)
        self.chosen_providers()

    def chosen_providers(self) -> tuple[ProviderChoice, ...]:
        """The providers by full name with their options."""
        return choose_providers(self.providers, self.provider_options)


def check_writable(option: str, directory: Path) -> None:
    """Create the directory if need be; OptionError when files cannot be written there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OptionError(f"{option}: cannot write to {directory}: {error.strerror}") from error


def _coerce(key: str, value: Any) -> Any:  # noqa: ANN401 - the user's
    """A dict's natural spellings as the field's types: lists for tuples, str for Path."""
    if key in ("providers", "transforms", "provider_options"):
        if isinstance(value, (str, dict)) or callable(value):
            value = [value]
        entries = _entries(key, value)
        if key == "providers":
            return tuple(_provider(e) for e in entries)
        return tuple(entries)
    if key == "eager_ops":
        return frozenset(
            str(e) for e in _entries(key, [value] if isinstance(value, str) else value)
        )
    if key == "dump_dir" and value is not None:
        if not isinstance(value, (str, os.PathLike)):
            raise OptionError(f"dump_dir must be a path, not {type(value).__name__}")
        return Path(cast("str", value))
    if key == "session_options" and not isinstance(value, Mapping):
        raise OptionError(
            f"session_options must be a dict of setting to value, not {type(value).__name__}"
        )
    return value


def _provider(entry: Any) -> str | tuple[str, dict[str, Any]]:  # noqa: ANN401 - the user's
    if isinstance(entry, str):
        return entry
    if isinstance(entry, (list, tuple)) and len(entry) == 2 and isinstance(entry[0], str):
        return entry[0], dict(cast("Mapping[str, Any]", entry[1]))
    raise OptionError(f"providers: {entry!r} is neither a name nor a (name, options) pair")


def _entries(key: str, value: Any) -> list[Any]:  # noqa: ANN401 - the user's
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise OptionError(f"{key} must be a list, not {type(value).__name__}")
    return list(cast("list[Any]", value))


def _expect(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise OptionError(f"{name}={value!r}: expected {kind.__name__}, got {type(value).__name__}")


def _nearest(word: str, known: tuple[str, ...] | list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
