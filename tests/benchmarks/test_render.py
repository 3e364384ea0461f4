"""Tables, conditions and the README's sections, whatever the benchmark."""

from __future__ import annotations

import pytest

from benchmarks import render
from benchmarks.machine import Load, Machine
from benchmarks.measure import Quartiles
from benchmarks.record import Case, Row, Run, Settings


def _run(*cases: Case, **settings) -> Run:
    return Run(
        "2026-01-02T03:04:05+00:00",
        "python -m benchmarks.memory",
        Settings(threads=2, **settings),
        Machine("Some CPU", 2, "Linux x86_64", None),
        {"torch": "2.13.0", "onnx": "1.2"},
        cases,
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.012345, "0.0123"), (9.876, "9.88"), (99.96, "100"), (1234.5, "1234"), (-3.456, "-3.46")],
)
def test_numbers_have_three_digits_and_all_before_the_point(value, shown):
    assert render.number(value) == shown


def test_what_was_not_measured_is_an_empty_cell():
    assert render.cell(None, "ms") == ""
    assert render.times(None) == ""
    assert render.with_times(None, "ms", 2.0) == ""
    assert render.with_times(3.0, "ms", None) == "3 ms"
    assert render.with_times(3.0, "ms", 2.0) == "3 ms (2.00×)"


def test_short_rows_of_a_table_are_filled():
    assert render.table(["a", "b", "c"], [["1", "2"]]).splitlines() == [
        "| a | b | c |",
        "| --- | ---: | ---: |",
        "| 1 | 2 |  |",
    ]


def test_a_page_tells_what_failed_where_it_ran_and_how_quiet_it_was():
    timed = Row("eager", {"call_us": Quartiles(1.0, 2.0, 3.0, 5)})
    run = _run(
        Case("one", load=Load(0, 0, 0.03, 0.01), rows=(timed, Row("bare", error="SessionError"))),
        Case("two", error="the process died"),
    )
    text = render.page(run, ["TABLE"], "Notes.")
    assert text.startswith("TABLE\n")
    assert "- one, bare session: `SessionError`" in text
    assert "- two: `the process died`" in text
    assert "Some CPU, 2 cores, 2 threads; torch 2.13.0; 2026-01-02." in text
    assert "at most 3%" in text
    assert "no figure here counts" not in text


def test_figures_of_small_variants_are_marked_as_such():
    assert "no figure here counts" in render.page(_run(small=True), [], "Notes.")


def test_a_case_measured_beside_other_work_is_marked():
    assert render.case_name(Case("one", load=Load(0, 0, 0.03, 0.01))) == "one"
    assert render.case_name(Case("one", load=Load(0, 0, 0.08, 0.03))) == "one (busy)"
    assert "do not trust" in render.quietness([Load(0, 0, 0.2, 0.0)], "case")
    assert render.quietness([Load(0, 0, None, None), None], "case") == ""


def test_only_what_stands_between_the_markers_is_replaced():
    text = "a\n<!-- bench:x:begin -->\nold\n<!-- bench:x:end -->\nb\n"
    replaced = render.replace_between(text, "x", "\nnew\n")
    assert replaced == "a\n<!-- bench:x:begin -->\nnew\n<!-- bench:x:end -->\nb\n"
    assert render.replace_between(replaced, "x", "new") == replaced


@pytest.mark.parametrize(
    "text",
    [
        "no marker",
        "<!-- bench:x:begin --> only",
        "<!-- bench:x:end --><!-- bench:x:begin -->",
        "<!-- bench:x:begin --><!-- bench:x:end --><!-- bench:x:end -->",
    ],
)
def test_markers_that_are_missing_doubled_or_swapped_are_refused(text):
    with pytest.raises(ValueError, match="bench:x:"):
        render.replace_between(text, "x", "new")


def test_the_readme_shows_a_relative_picture_and_the_table(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("a\n<!-- bench:x:begin -->\n<!-- bench:x:end -->\nb\n")
    render.update_readme(readme, "x", "TABLE", tmp_path / "results" / "x.png", "Caption")
    text = readme.read_text()
    assert "![Caption](results/x.png)\n\nTABLE\n" in text
    assert text.startswith("a\n")
    assert text.endswith("\nb\n")
