"""Contenders beside each other in one process: made ready, timed in turn, put into rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from . import measure, record
from .backends import Contender
from .record import Row


def made_ready(
    makers: Mapping[str, Callable[[], Contender]],
) -> tuple[dict[str, Contender], list[Row]]:
    """Each contender after its first call, and a row for each one that failed.

    Nothing can be said of the others where eager fails: its error is raised.
    """
    ready: dict[str, Contender] = {}
    failed: list[Row] = []
    for name, make in makers.items():
        try:
            contender = make()
            contender.prime()
            contender.call()
        except Exception as error:
            if name == "eager":
                raise
            failed.append(Row(name, error=record.describe(error)))
        else:
            ready[name] = contender
    return ready, failed


def timed_rows(
    times: Mapping[str, Sequence[float]],
    value: str,
    *,
    base: str = "eager",
    facts: Mapping[str, dict[str, Any]] | None = None,
) -> list[Row]:
    """A row per contender: its times as `value`, and their `ratio` to those of `base` by round."""
    rows: list[Row] = []
    for name, own in times.items():
        values = {value: measure.quartiles(own)}
        if base in times:
            values["ratio"] = measure.quartiles(measure.paired_ratios(own, times[base]))
        rows.append(Row(name, values, (facts or {}).get(name, {})))
    return rows


def in_order(rows: Sequence[Row], names: Sequence[str]) -> tuple[Row, ...]:
    """The rows as their contenders were named; every one is among the names."""
    return tuple(sorted(rows, key=lambda row: names.index(row.contender)))


def finite_error(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """`measure.relative_error`; ValueError where it is no number, which no record may hold."""
    error = measure.relative_error(actual, expected)
    if not math.isfinite(error):
        raise ValueError(f"the error against eager is {error}")
    return error
