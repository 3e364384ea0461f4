"""The command line that the benchmarks share, on one that measures nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks import (
    call_overhead,
    compile_time,
    generate,
    graph_breaks,
    harness,
    memory,
    record,
    threads,
)
from benchmarks.harness import Benchmark
from benchmarks.measure import Quartiles
from benchmarks.record import Case, Row, Run, Settings


def _measure(name: str, settings: Settings) -> Case:
    if name == "broken":
        raise RuntimeError("no such luck\nand more")
    rows = tuple(
        Row(backend, {"call_us": Quartiles(1.0, 2.0, 3.0, settings.rounds)})
        for backend in settings.backends
    )
    return Case(name, rows=rows)


QUESTIONS = (call_overhead, compile_time, generate, graph_breaks, memory, threads)
FAKE = Benchmark(
    name="fake",
    text="What is measured?\n\nNothing.",
    cases=("a", "b", "broken"),
    backends=("eager", "onnx"),
    usual=Settings(rounds=7, cases=("a", "b")),
    measure=_measure,
    page=lambda run: f"PAGE of {len(run.cases)}",
    picture=lambda run, path: path.write_bytes(b"drawn"),
    caption="Caption",
)


def test_the_usual_cases_are_measured_written_drawn_and_printed(tmp_path, capsys):
    out = tmp_path / "new" / "fake.json"
    assert harness.main(FAKE, ["--out", str(out), "--threads", "1"]) == 0
    run = record.read(out, Run)
    assert [case.name for case in run.cases] == ["a", "b"]
    assert run.settings == Settings(1, 7, 60.0, False, ("a", "b"), ("eager", "onnx"))
    assert run.command == "python -m benchmarks.fake --threads 1"
    assert out.with_suffix(".png").read_bytes() == b"drawn"
    assert "PAGE of 2" in capsys.readouterr().out


def test_a_case_that_fails_is_recorded_and_the_others_go_on(tmp_path):
    out = tmp_path / "fake.json"
    assert harness.main(FAKE, ["--out", str(out), "--threads", "1", "--cases", "broken,a"]) == 1
    broken, a = record.read(out, Run).cases
    assert broken.error == "RuntimeError: no such luck"
    assert a.error is None


def test_a_contender_that_failed_makes_the_exit_status_1(tmp_path):
    fails = replace(FAKE, measure=lambda name, _: Case(name, rows=(Row("onnx", error="no"),)))
    out = tmp_path / "fake.json"
    assert harness.main(fails, ["--out", str(out), "--threads", "1"]) == 1


def test_redrawing_measures_nothing(tmp_path, capsys):
    out = tmp_path / "fake.json"
    harness.main(FAKE, ["--out", str(out), "--threads", "1"])
    before = json.loads(out.read_text())
    never = replace(FAKE, measure=lambda *_: pytest.fail("measured"))
    assert harness.main(never, ["--out", str(out), "--redraw"]) == 0
    assert json.loads(out.read_text()) == before
    assert "PAGE of 2" in capsys.readouterr().out


def test_the_readme_is_updated_between_the_benchmarks_own_markers(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text("<!-- bench:fake:begin -->\n<!-- bench:fake:end -->\n")
    out = tmp_path / "results" / "fake.json"
    harness.main(FAKE, ["--out", str(out), "--threads", "1", "--update-readme"])
    assert "![Caption](results/fake.png)\n\nPAGE of 2\n" in readme.read_text()


@pytest.mark.parametrize("flag", ["--cases", "--backends"])
def test_an_unknown_name_ends_with_the_known_ones(flag, capsys):
    with pytest.raises(SystemExit):
        harness.main(FAKE, [flag, "a,unheard-of"])
    assert "unknown: " in capsys.readouterr().err


def test_eager_comes_first_whether_it_was_named_or_not():
    assert harness.eager_first(["onnx"]) == ("eager", "onnx")
    assert harness.eager_first(["onnx", "eager"]) == ("eager", "onnx")


def test_the_readme_has_a_place_for_every_benchmark():
    text = (harness.ROOT / "README.md").read_text()
    makefile = (harness.ROOT / "Makefile").read_text()
    for module in QUESTIONS:
        name = module.BENCHMARK.name
        assert module.__name__ == f"benchmarks.{name}"
        assert text.count(f"<!-- bench:{name}:begin -->\n") == 1
        assert f"python -m benchmarks.{name}\n" in makefile


@pytest.mark.parametrize("module", QUESTIONS)
def test_every_case_and_backend_can_be_named_in_a_list(module):
    benchmark = module.BENCHMARK
    for known in (benchmark.cases, benchmark.backends):
        assert harness.names(known, ",".join(known)) == tuple(known)
    assert set(benchmark.usual.cases) <= set(benchmark.cases)


@pytest.mark.parametrize("out", [["--out", "/some/where.json"], ["--out=/some/where.json"]])
def test_the_command_that_is_recorded_names_no_place_of_this_machine(out: list[str]) -> None:
    argv = ["--rounds", "3", *out, "--cases", "a b"]
    assert harness.command_of("memory", argv) == (
        "python -m benchmarks.memory --rounds 3 --cases 'a b'"
    )
