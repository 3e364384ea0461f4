"""What a benchmark writes down, and its JSON file."""

from __future__ import annotations

import dataclasses
import json
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from .machine import Load, Machine
from .measure import Quartiles

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for. Empty `cases` or `backends` stand for the benchmark's usual ones."""

    threads: int = 1
    rounds: int = 12
    limit_s: float = 60.0  # for the rounds of one case
    small: bool = False
    cases: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Row:
    """One contender in one case; what was not measured is not in it, `error` says why it failed."""

    contender: str
    values: dict[str, Quartiles] = field(default_factory=dict[str, Quartiles])  # by name_unit
    facts: dict[str, Any] = field(default_factory=dict[str, Any])  # what no clock tells
    error: str | None = None

    def median(self, name: str) -> float | None:
        return self.values[name].median if name in self.values else None


@dataclass(frozen=True, slots=True)
class Case:
    """One case of a benchmark: its contenders beside each other."""

    name: str
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    load: Load | None = None
    rows: tuple[Row, ...] = ()
    error: str | None = None

    def row(self, contender: str) -> Row | None:
        return next((row for row in self.rows if row.contender == contender), None)

    def median(self, contender: str, name: str) -> float | None:
        row = self.row(contender)
        return None if row is None else row.median(name)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a benchmark."""

    date: str
    command: str
    settings: Settings
    machine: Machine
    versions: dict[str, str]
    cases: tuple[Case, ...] = ()


def describe(error: BaseException) -> str:
    """The type and the first line of an error's text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def write(run: Any, path: Path) -> None:  # noqa: ANN401 - any dataclass of a run
    """All of the file or nothing of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    text = json.dumps(dataclasses.asdict(run), indent=1, allow_nan=False)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def read(path: Path, kind: type[T]) -> T:
    """What `write` wrote of a `kind`. Fields that an older file lacks take their defaults."""
    return _decoded(kind, json.loads(path.read_text(encoding="utf-8")))


def _decoded(kind: Any, data: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    """JSON's dicts and lists as the dataclasses and tuples that `kind` annotates."""
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _decoded(hints[name], value) for name, value in data.items()})  # pyright: ignore[reportCallIssue] - a class, not an instance
    arguments = get_args(kind)
    if get_origin(kind) in (Union, types.UnionType):
        if data is None:
            return None
        (wanted,) = (argument for argument in arguments if argument is not types.NoneType)
        return _decoded(wanted, data)
    if get_origin(kind) is tuple:
        return tuple(_decoded(arguments[0], value) for value in data)
    if get_origin(kind) is dict:
        return {name: _decoded(arguments[1], value) for name, value in data.items()}
    return data
