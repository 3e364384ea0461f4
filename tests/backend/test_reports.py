"""Reports as documents and as files: what they say is what happened, whatever the names."""

from __future__ import annotations

import gc
import json
import re
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

import dynamo_onnx
from dynamo_onnx.backend.report import CompileReport, Fallback, Timings
from dynamo_onnx.backend.report_data import document
from dynamo_onnx.backend.report_document import FORMAT
from dynamo_onnx.backend.report_files import html
from dynamo_onnx.backend.report_markdown import markdown
from dynamo_onnx.backend.state import GraphBreak
from dynamo_onnx.runtime.errors import CacheError, OptionError, Reason, ReasonKind
from dynamo_onnx.runtime.placement import Placed
from dynamo_onnx.runtime.providers import CPU

HOSTILE = "</script><script>alert(1)</script>\u2028|`*<img src=x onerror=alert(2)>\"'&amp;\udc80"
EMPTY = CompileReport(
    frames=(), graphs=0, regions=0, native_ops=0, native={}, eager_ops=0, onnx_nodes=0,
    fallbacks=(), graph_breaks=(), cache_hits=0, cache_misses=0, sessions=0, calls=0,
    input_copies=0, output_copies=0, timings=Timings(0.0, 0.0, 0.0),
)  # fmt: skip


class Two(torch.nn.Module):
    """Two layers, something that draws in between, and a break before the last."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(4, 4) for _ in range(2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.bernoulli(torch.sigmoid(self.layers[0](x))) + 1
        torch._dynamo.graph_break()
        return self.layers[1](x).relu()


class Drawing(torch.nn.Module):
    """A layer, and something that stays in eager."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.bernoulli(torch.sigmoid(self.layer(x)))


@pytest.fixture
def compiled() -> torch.nn.Module:
    module = torch.compile(Two().eval(), backend="onnx", dynamic=False, options={"min_region": 1})
    with torch.no_grad():
        module(torch.randn(2, 4))
        module(torch.randn(3, 4))
    return module


def test_the_document_has_the_numbers_of_the_report(compiled: torch.nn.Module) -> None:
    report = dynamo_onnx.report(compiled)
    made = document(report)
    assert made.format == FORMAT == 1
    for name in ("graphs", "regions", "native_ops", "eager_ops", "onnx_nodes", "sessions", "calls"):
        assert getattr(made.summary, name) == getattr(report, name)
    assert made.summary.graph_breaks == len(report.graph_breaks) == 1
    assert [phase.ms for phase in made.phases] == [
        report.timings.partition_ms,
        report.timings.lowering_ms,
        report.timings.session_ms,
    ]
    assert sum(graph.native_ops for graph in made.graphs) == report.native_ops
    assert sum(graph.eager_ops for graph in made.graphs) == report.eager_ops
    assert sum(r.calls for g in made.graphs for r in g.regions) == report.calls


def test_frames_have_their_guard_sets_with_the_guards_as_text(compiled: torch.nn.Module) -> None:
    first, second = document(dynamo_onnx.report(compiled)).frames
    assert first.function == "Two.forward"
    assert second.function.startswith("Two.forward from line ")
    assert first.line.source == "def forward(self, x: torch.Tensor) -> torch.Tensor:"
    assert [s.id for s in first.guard_sets] == ["0/0", "0/1"]
    assert [s.graphs for s in first.guard_sets] == [(0,), (2,)]
    assert any("size=[2, 4]" in guard for guard in first.guard_sets[0].guards)
    assert any("size=[3, 4]" in guard for guard in first.guard_sets[1].guards)
    assert "graph_break()" in first.graph_break
    assert second.graph_break == ""


def test_the_picture_of_a_graph_shows_what_runs_where(compiled: torch.nn.Module) -> None:
    graph = document(dynamo_onnx.report(compiled)).graphs[0]
    by_name = {node.name: node for node in graph.nodes}
    operators = [node for node in graph.nodes if node.kind == "operator"]
    assert len(operators) == graph.native_ops + graph.eager_ops
    assert sum(node.region is None for node in operators) == graph.eager_ops == 1
    assert [r.operators for r in graph.regions] == [
        sum(node.region == i for node in operators) for i in range(len(graph.regions))
    ]
    drawn = by_name["bernoulli"]
    assert drawn.region is None
    assert "draws from torch's generator" in drawn.reason
    assert drawn.location.startswith(__file__)
    assert [graph.nodes[i].name for i in drawn.reads] == ["sigmoid"]
    linear = by_name["addmm"]
    assert linear.module == ("layers", "0")
    assert linear.shape == "float32[2, 4]"
    assert linear.weights == ("layers.0.bias",)
    assert by_name["x"].kind == "input"


def test_weights_are_counted_once_for_all_guard_sets(compiled: torch.nn.Module) -> None:
    memory = document(dynamo_onnx.report(compiled)).memory
    assert memory.frozen_bytes == 2 * (4 * 4 + 4) * 4
    assert memory.live_bytes == 0
    assert memory.open_sessions == 6


def test_live_weights_are_counted_as_such() -> None:
    module = torch.compile(Two().eval(), backend="onnx", options={"weights": "live"})
    with torch.no_grad():
        module(torch.randn(2, 4))
    memory = document(dynamo_onnx.report(module)).memory
    assert (memory.frozen_bytes, memory.live_bytes) == (0, 2 * (4 * 4 + 4) * 4)


def test_a_report_outlives_its_model_without_holding_it() -> None:
    module = torch.compile(torch.nn.Sequential(Drawing(), Drawing()), backend="onnx")
    with torch.no_grad():
        module(torch.randn(2, 4))
    report = dynamo_onnx.report(module)
    assert len(document(report).graphs[0].regions) == 2
    del module
    torch._dynamo.reset()
    gc.collect()
    made = document(report)
    assert made.summary.graphs == 1
    assert [graph.nodes for graph in made.graphs] == [()]
    assert [r.in_use for g in made.graphs for r in g.regions] == [False, False]
    assert made.memory.open_sessions == 0


def test_training_graphs_have_pictures_too() -> None:
    module = torch.compile(
        torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh()), backend="onnx"
    )
    module(torch.randn(2, 4)).sum().backward()
    forward, backward = document(dynamo_onnx.report(module)).graphs
    assert (forward.kind, backward.kind) == ("forward", "backward")
    given = [[n.name for n in g.nodes if n.kind == "input"] for g in (forward, backward)]
    assert given == [["args.0"], ["tangents_1"]]


def test_the_most_expensive_fallback_comes_first() -> None:
    reason = Reason(ReasonKind.NO_RULE, "none")
    few, many = Fallback("a", reason, "f.py:1", 1), Fallback("b", reason, "f.py:2", 5)
    profile = dynamo_onnx.Profile(
        wall_ms=3.0,
        onnx_ms=1.0,
        eager_ms=2.0,
        runs=1,
        ops=(dynamo_onnx.OpTime("a", "eager", "", "f.py:1", 1, 2.0),),
        trace="{}",
    )
    report = replace(EMPTY, fallbacks=(few, many))
    assert [f.op for f in document(report).fallbacks] == ["b", "a"]
    found = document(replace(report, profile=profile)).fallbacks
    assert [(f.op, f.ms) for f in found] == [("a", 2.0), ("b", None)]


ADVICE = [
    ({}, "TORCH_LOGS=graph_breaks"),
    ({"graph_breaks": (GraphBreak("item() (Hint: do this)", "f.py:7"),)}, "do this"),
    (
        {"fallbacks": (Fallback("my.op.default", Reason(ReasonKind.NO_RULE, "none"), "", 1),)},
        '@dynamo_onnx.lowers("my.op.default")',
    ),
    ({"fallbacks": (Fallback("x", Reason(ReasonKind.OPTION, "o"), "", 1),)}, "eager_ops"),
    ({"fallbacks": (Fallback("x", Reason(ReasonKind.REGION_SIZE, "r"), "", 1),)}, "min_region"),
    ({"timings": Timings(100.0, 900.0, 500.0)}, "cache_dir"),
    ({"calls": 3, "input_copies": 3}, "x.contiguous()"),
    ({"calls": 1}, "dynamo_onnx.profile("),
    (
        {"placed": (Placed("Other", "Add", "", False, 3), Placed(CPU, "Mul", "", False, 1))},
        "require_provider",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "code"), ADVICE)
def test_advice_follows_from_the_facts(facts: dict[str, object], code: str) -> None:
    report = replace(EMPTY, **({"graphs": 1, **facts} if facts else {}))
    assert [a for a in document(report).advice if code in a.code]
    calm = replace(EMPTY, graphs=1)
    assert document(calm).advice == ()


def test_many_guard_sets_call_for_dynamic_shapes() -> None:
    compiled = torch.compile(lambda x: x * 2 + 1, backend="onnx", dynamic=False)
    for size in range(2, 5):
        compiled(torch.ones(size))
    (advice,) = [a for a in document(dynamo_onnx.report(compiled)).advice if "dynamic" in a.code]
    assert advice.why == "Frame 0 was compiled 3 times, for different guards."


def test_sessions_that_are_opened_again_call_for_live_weights() -> None:
    module = torch.nn.Linear(4, 4).eval()
    compiled = torch.compile(module, backend="onnx")
    with torch.no_grad():
        for _ in range(2):
            compiled(torch.ones(2, 4))
            module.weight.mul_(2)
    assert any("live" in a.code for a in document(dynamo_onnx.report(compiled)).advice)


@pytest.mark.parametrize("suffix", ["html", "md", "json"])
def test_save_writes_what_the_suffix_says(compiled: object, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"report.{suffix}"
    assert dynamo_onnx.report(compiled).save(str(path)) == path
    assert list(tmp_path.iterdir()) == [path]
    text = path.read_text(encoding="utf-8")
    assert text.startswith({"html": "<!doctype html>", "md": "# What", "json": "{"}[suffix])
    assert "bernoulli" in text


def test_json_is_the_document(compiled: object, tmp_path: Path) -> None:
    report = dynamo_onnx.report(compiled)
    read = json.loads(report.save(tmp_path / "report.json").read_text(encoding="utf-8"))
    made = document(report)
    assert list(read) == [field.name for field in fields(made)]
    assert {**read, "made": ""} == json.loads(json.dumps({**made.as_json(), "made": ""}))


def test_another_suffix_is_an_error_that_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"must end in one of \.html, \.md, \.json"):
        EMPTY.save(tmp_path / "report.pdf")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(CacheError, match="cannot write"):
        EMPTY.save(tmp_path / "report.html")


def hostile() -> CompileReport:
    """Everything that comes from the user is as bad as it can be."""
    fallback = Fallback(HOSTILE, Reason(ReasonKind.NO_RULE, HOSTILE, HOSTILE), f"{HOSTILE}:3", 2)
    op = dynamo_onnx.OpTime(HOSTILE, "onnx", HOSTILE, f"{HOSTILE}:3", 1, 1.0)
    return replace(
        EMPTY,
        graphs=1,
        fallbacks=(fallback,),
        graph_breaks=(GraphBreak(HOSTILE, f"{HOSTILE}:3"),),
        profile=dynamo_onnx.Profile(1.0, 1.0, 0.0, 1, (op,), "{}"),
    )


class Tags(HTMLParser):
    """The elements of a page, and the text of its document."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.data = ""
        self._reads = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self._reads = ("id", "document") in attrs

    def handle_data(self, data: str) -> None:
        self.data += data if self._reads else ""

    def handle_endtag(self, tag: str) -> None:
        self._reads = False


def test_hostile_names_stay_text_in_the_page() -> None:
    tags = Tags()
    tags.feed(html(document(hostile())))
    assert tags.seen.count("script") == 2
    assert "img" not in tags.seen
    assert json.loads(tags.data)["fallbacks"][0]["op"] == HOSTILE


def test_hostile_names_stay_text_in_markdown(tmp_path: Path) -> None:
    text = markdown(document(hostile()))
    assert "<" not in re.sub(r"(`+).*?\1", "", re.sub(r"\\.", "", text))
    rows = [line for line in text.splitlines() if "in one of" not in line and line.startswith("|")]
    cells = {len(re.findall(r"(?<!\\)\|", row)) - 1 for row in rows}
    assert cells == {2, 5}
    hostile().save(tmp_path / "report.md")


def test_the_page_asks_for_nothing_from_elsewhere(compiled: object) -> None:
    page = html(document(dynamo_onnx.report(compiled)))
    before, _, after = page.partition('<script id="document"')
    code = before + after.partition("</script>")[2]
    assert "default-src 'none'" in code
    addresses = set(re.findall(r"https?://[^\s\"')]+", code))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\b(src|href)=|@import|url\(", code)
    assert "innerHTML" not in code
