"""What a benchmark writes down: it comes back as it was."""

from __future__ import annotations

import json
import math

import pytest

from benchmarks import record
from benchmarks.machine import Load, Machine
from benchmarks.measure import Quartiles
from benchmarks.record import Case, Row, Run, Settings

RUN = Run(
    date="2026-01-02T03:04:05+00:00",
    command="python -m benchmarks.memory",
    settings=Settings(threads=2, cases=("a", "b"), backends=("eager", "onnx")),
    machine=Machine("Some CPU", 2, "Linux x86_64", None),
    versions={"torch": "2.13.0"},
    cases=(
        Case(
            "a",
            facts={"weights": 3},
            load=Load(0.1, 0.2, None, None),
            rows=(
                Row("eager", {"call_us": Quartiles(1.0, 2.0, 3.0, 5)}, {"names": ["x"]}),
                Row("onnx", error="SessionError: no"),
            ),
        ),
        Case("b", error="the process died"),
    ),
)


def test_a_run_read_back_is_the_one_written(tmp_path):
    path = tmp_path / "results" / "run.json"
    record.write(RUN, path)
    assert record.read(path, Run) == RUN
    assert list(path.parent.iterdir()) == [path]


def test_a_field_that_an_older_file_lacks_takes_its_default(tmp_path):
    path = tmp_path / "run.json"
    record.write(RUN, path)
    data = json.loads(path.read_text())
    del data["settings"]["limit_s"], data["cases"][1]["facts"]
    path.write_text(json.dumps(data))
    assert record.read(path, Run) == RUN


def test_a_field_that_is_not_known_is_refused(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"dates": "2026"}))
    with pytest.raises(KeyError, match="dates"):
        record.read(path, Run)


def test_a_file_that_would_hold_a_nan_is_not_written(tmp_path):
    path = tmp_path / "run.json"
    bad = Case("a", rows=(Row("onnx", {"call_us": Quartiles(1.0, math.nan, 1.0, 1)}),))
    with pytest.raises(ValueError, match="nan"):
        record.write(Run(RUN.date, "", RUN.settings, RUN.machine, {}, (bad,)), path)
    assert not path.exists()


def test_medians_are_found_by_contender_and_name():
    case = RUN.cases[0]
    assert case.median("eager", "call_us") == 2.0
    assert case.median("eager", "call_ms") is None
    assert case.median("onnx", "call_us") is None
    assert case.median("inductor", "call_us") is None
