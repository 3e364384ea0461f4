"""What the inference benchmark writes down, and its JSON file."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .measure import Load, Machine, Quartiles


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for."""

    device: str = "cpu"
    dtype: str = "float32"
    batch: int = 1
    threads: int = 1
    rounds: int = 20
    limit_s: float = 60.0  # for the rounds of one model
    small: bool = False
    models: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BackendResult:
    """One backend on one model; a None was not measured, and `error` says why if it failed."""

    backend: str
    first_call_s: float | None = None  # make ready, compile and run once
    own_compile_s: float | None = None  # first_call_s less the model's capture_s
    time_ms: Quartiles | None = None
    ratio: Quartiles | None = None  # its time over eager's, round by round
    max_error: float | None = None  # max|output - eager's| / max|eager's|
    report: dict[str, Any] | None = None
    error: str | None = None

    @property
    def speedup(self) -> float | None:
        return None if self.ratio is None else 1 / self.ratio.median


@dataclass(frozen=True, slots=True)
class ModelResult:
    """One model. `capture_s` is the first call of `aot_eager`: Dynamo, AOTAutograd and one run."""

    model: str
    parameters: int | None = None
    capture_s: float | None = None
    load: Load | None = None
    backends: tuple[BackendResult, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Sweep:
    """One run of the benchmark."""

    date: str
    command: str
    settings: Settings
    machine: Machine
    versions: dict[str, str]
    sgemm_gflops: float
    models: tuple[ModelResult, ...] = ()


def describe(error: BaseException) -> str:
    """The type and the first line of an error's text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def write(sweep: Sweep, path: Path) -> None:
    """All of the file or nothing of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    text = json.dumps(dataclasses.asdict(sweep), indent=1, allow_nan=False)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def read(path: Path) -> Sweep:
    """What `write` wrote."""
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for key in ("models", "backends"):
        data["settings"][key] = tuple(data["settings"][key])
    data["settings"] = Settings(**data["settings"])
    data["machine"] = Machine(**data["machine"])
    data["models"] = tuple(_model(entry) for entry in data["models"])
    return Sweep(**data)


def _model(data: dict[str, Any]) -> ModelResult:
    if data["load"] is not None:
        data["load"] = Load(**data["load"])
    data["backends"] = tuple(_backend(entry) for entry in data["backends"])
    return ModelResult(**data)


def _backend(data: dict[str, Any]) -> BackendResult:
    for key in ("time_ms", "ratio"):
        if data[key] is not None:
            data[key] = Quartiles(**data[key])
    return BackendResult(**data)
