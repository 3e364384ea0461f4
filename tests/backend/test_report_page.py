"""The page of a report in a browser: it draws itself without errors, and shows what is true."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest

import dynamo_onnx
from dynamo_onnx.backend.report_data import document
from tests.backend.test_reports import HOSTILE, hostile
from tests.conformance.report_picture import browse, chromium, profiled

pytestmark = pytest.mark.skipif(chromium() is None, reason="there is no Chromium")


@dataclass
class Shown(HTMLParser):
    """What a page shows once its script has run: facts by name, rows by kind, all elements."""

    facts: dict[str, str] = field(default_factory=dict)
    rows: dict[str, list[str]] = field(default_factory=dict)
    tags: Counter[str] = field(default_factory=Counter)
    drawn: bool = False

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[tuple[str, str | None, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags[tag] += 1
        self.drawn |= given.get("data-shown") == "true"
        if tag in ("meta", "br", "input"):
            return
        fact, row = given.get("data-fact"), given.get("data-row")
        self._open.append((tag, fact, row))
        if fact is not None:
            self.facts[fact] = ""
        if row is not None:
            self.rows.setdefault(row, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, fact, row in self._open:
            if fact is not None:
                self.facts[fact] += data
            if row is not None:
                self.rows[row][-1] += data


def opened(report: dynamo_onnx.CompileReport, folder: Path) -> Shown:
    """The report's page as the browser has drawn it; nothing may be on its console."""
    page = report.save(folder / "report.html")
    done = browse("--dump-dom", page.as_uri())
    assert "CONSOLE" not in done.stderr, done.stderr
    shown = Shown()
    shown.feed(done.stdout)
    assert shown.drawn
    return shown


def ms(text: str) -> float:
    """`1.23 s`, `45 ms` or `67 µs` in milliseconds."""
    number, unit = text.split()
    return float(number) * {"s": 1000.0, "ms": 1.0, "µs": 0.001}[unit]


def test_a_model_with_a_break_guard_sets_and_fallbacks_is_shown_truthfully(tmp_path: Path) -> None:
    report = profiled(depth=2, calls=3)
    shown = opened(report, tmp_path)
    assert len(report.graph_breaks) == 1
    assert len({f.op for f in report.fallbacks}) == 3
    facts = ("graphs", "regions", "native_ops", "eager_ops", "onnx_nodes", "sessions", "calls")
    assert {name: shown.facts[name] for name in facts} == {
        name: str(getattr(report, name)) for name in facts
    }
    made = document(report)
    assert shown.facts["graph_breaks"] == "1"
    assert shown.facts["guard_sets"] == str(made.summary.guard_sets) == "4"
    assert len(shown.rows["guard_set"]) == 4
    for row in shown.rows["guard_set"]:
        assert re.search(r"size=\[[48], 64", row)
    (broken,) = shown.rows["break"]
    assert "if x.abs().max() > 1e6:" in broken
    assert len(shown.rows["fallback"]) == len(report.fallbacks) == 3
    for index, (fallback, row) in enumerate(
        zip(made.fallbacks, shown.rows["fallback"], strict=True)
    ):
        assert fallback.op in row
        assert fallback.kind in row
        assert fallback.line.source in row
        assert fallback.ms is not None
        assert shown.facts[f"fallback_count_{index}"] == str(fallback.count)
        assert ms(shown.facts[f"fallback_ms_{index}"]) == pytest.approx(fallback.ms, rel=0.06)
    assert len(shown.rows["advice"]) == len(made.advice)
    for name, time_ms in (
        ("ms_partition", report.timings.partition_ms),
        ("ms_lowering", report.timings.lowering_ms),
        ("ms_sessions", report.timings.session_ms),
        ("ms_onnx", report.profile.onnx_ms),
        ("ms_eager", report.profile.eager_ms),
        ("ms_other", report.profile.other_ms),
    ):
        assert ms(shown.facts[name]) == pytest.approx(time_ms, rel=0.06)
    assert shown.facts["open_sessions"] == str(made.memory.open_sessions)
    boxes = shown.tags["g"] - 1
    assert 5 < boxes < len(made.graphs[0].nodes)


def test_an_empty_report_is_shown_too(tmp_path: Path) -> None:
    shown = opened(dynamo_onnx.report(), tmp_path)
    assert shown.facts["graphs"] == "0"
    assert len(shown.rows["advice"]) == 1


def test_hostile_names_are_shown_as_they_are(tmp_path: Path) -> None:
    shown = opened(hostile(), tmp_path)
    assert shown.tags["img"] == 0
    (fallback,) = shown.rows["fallback"]
    assert HOSTILE.replace("\udc80", "?") in fallback


INTERACTION = """
const all = (selector) => [...document.querySelectorAll(selector)];
const button = (text) => all(".tools button").find((b) => b.textContent === text);
const boxes = () => all("svg .box").length;
const box = (title) => all(".box").find((b) => b.textContent.startsWith(title));
const about = () => document.querySelector(".about").textContent;
setTimeout(() => {
  const told = [];
  const start = boxes();
  box("layers.0").dispatchEvent(new MouseEvent("click"));
  told.push(boxes() > start);
  button("open all").click();
  told.push(boxes());
  box("demo.buckets").dispatchEvent(new PointerEvent("pointerenter"));
  told.push(about());
  button("close").click();
  told.push(boxes() === start);
  const choice = document.querySelector("select");
  choice.value = 1;
  choice.dispatchEvent(new Event("change"));
  button("open all").click();
  told.push(boxes());
  const place = document.querySelector("svg > g").getAttribute("transform");
  button("+").click();
  told.push(place !== document.querySelector("svg > g").getAttribute("transform"));
  document.body.append(h("pre", { "data-row": "told" }, JSON.stringify(told)));
}, 100);
"""


def test_the_graph_opens_closes_and_tells_what_a_box_is(tmp_path: Path) -> None:
    report = profiled(depth=2, calls=1)
    page = report.save(tmp_path / "report.html")
    script = f"<script>{INTERACTION}</script></body>"
    text = page.read_text(encoding="utf-8").replace("</body>", script)
    page.write_text(text, encoding="utf-8")
    done = browse("--dump-dom", page.as_uri())
    assert "CONSOLE" not in done.stderr, done.stderr
    shown = Shown()
    shown.feed(done.stdout)
    opened, all_of_it, about, closed, all_of_the_next, zoomed = json.loads(shown.rows["told"][0])
    first, second, *_ = document(report).graphs
    assert opened
    assert closed
    assert zoomed
    assert (all_of_it, all_of_the_next) == (len(first.nodes), len(second.nodes))
    assert "demo.buckets.default" in about
    assert "no lowering" in about
    assert "self.pieces(buckets(tokens))" in about
