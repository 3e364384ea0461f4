"""What an export did, for people (markdown) and for editors and code hosts (SARIF).

Ref: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx_ir as ir
from torch.export import ExportedProgram

from ...lowering.region import location, source_line
from ...runtime.errors import ReasonKind
from .convert import Refused
from .stages import Outcome, Stages

_PACKAGES = ("dynamo-onnx", "torch", "onnx", "onnxruntime")
_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_PROGRAM_CHARACTERS = 200_000  # of an exported program's text: a page must stay one that opens


@dataclass(slots=True)
class Record:
    """All that is known of an export, as far as it came."""

    model: str
    stages: Stages
    captured: ExportedProgram | None = None
    operators: Mapping[str, int] = field(default_factory=dict[str, int])
    refused: Sequence[Refused] = ()
    conditions: Sequence[str] = ()  # on sizes
    unchecked: Sequence[str] = ()  # those that the file takes for granted
    result: ir.Model | None = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """Operators that stand in the way for one reason at one place of the user's code."""

    operator: str
    kind: ReasonKind
    why: str
    hint: str
    location: str
    count: int

    def __str__(self) -> str:
        code = f" `{source_line(self.location)}`" if self.location else ""
        where = f" at {self.location or 'an unknown line'}{code}"
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.count} × {self.operator}: {self.kind.value}: {self.why}{hint}{where}"


def findings(refused: Iterable[Refused]) -> list[Finding]:
    """The same operators, reasons and lines together."""
    counted = Counter((str(r.node.target), r.reason, location(r.node)) for r in refused)
    return [
        Finding(operator, reason.kind, reason.detail, reason.hint, where, count)
        for (operator, reason, where), count in counted.items()
    ]


def markdown(record: Record) -> str:
    """The report as a page."""
    outcome = "failed" if record.error is not None else "succeeded"
    lines = [f"# Export of {record.model} to ONNX: {outcome}", "", _versions(), ""]
    lines += ["| stage | outcome | seconds |", "|---|---|---|"]
    lines += [f"| {s.name} | {s.outcome.value} | {s.seconds:.2f} |" for s in record.stages.done]
    if record.error is not None:
        lines += ["", "## Why it failed", "", *_fenced(str(record.error))]
    if record.refused:
        lines += ["", "## Operators without an ONNX form", "", *_refused(record.refused)]
    if record.conditions:
        lines += ["", "## Sizes that it is right for", ""]
        lines += ["A run with sizes that are others than these ends in an error:", ""]
        lines += [
            f"- `{c}`" + (" (the file does not check it)" if c in record.unchecked else "")
            for c in record.conditions
        ]
    failed = [s for s in record.stages.done if s.outcome is Outcome.FAILED]
    for stage in failed:
        lines += [
            "",
            f"## {stage.name}",
            "",
            *_fenced(f"{type(stage.error).__name__}: {stage.error}"),
        ]
    if record.result is not None:
        lines += ["", "## The ONNX model", "", *_ports(record.result), ""]
        calls = Counter(_kind(n) for n in record.result.graph.all_nodes())
        lines += _histogram("node", calls)
        for function in record.result.functions.values():
            nodes = Counter(_kind(n) for n in function.all_nodes())
            lines += ["", f"The function `{function.domain}.{function.name}`:", ""]
            lines += _histogram("node", nodes)
    if record.operators:
        lines += ["", "## ATen operators", "", *_histogram("operator", record.operators)]
    if record.captured is not None:
        lines += ["", "## The exported program", "", *_fenced(_program(record.captured))]
    return "\n".join(lines) + "\n"


def sarif(record: Record) -> str:
    """The findings as SARIF 2.1.0; an error without any is a finding without a place."""
    found = findings(record.refused)
    results: list[dict[str, Any]] = [
        {
            "ruleId": finding.kind.name,
            "level": "error",
            "message": {"text": f"{finding.operator}: {finding.why}"},
            "locations": [*_places(finding.location)],
            "occurrenceCount": finding.count,
        }
        for finding in found
    ]
    if record.error is not None and not found:
        results.append(
            {
                "ruleId": type(record.error).__name__,
                "level": "error",
                "message": {"text": str(record.error)},
                "locations": [],
            }
        )
    rules = sorted({result["ruleId"] for result in results})
    driver = {
        "name": "dynamo-onnx",
        "version": version("dynamo-onnx"),
        "rules": [{"id": rule} for rule in rules],
    }
    run = {"tool": {"driver": driver}, "results": results}
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _places(where: str) -> Iterator[dict[str, Any]]:
    file, _, line = where.rpartition(":")
    if file:
        uri = Path(file).as_uri() if Path(file).is_absolute() else file
        place = {"artifactLocation": {"uri": uri}, "region": {"startLine": int(line)}}
        yield {"physicalLocation": place}


def _versions() -> str:
    return ", ".join(
        f"{package} {version(package)}" for package in _PACKAGES if _installed(package)
    )


def _installed(package: str) -> bool:
    from importlib.metadata import PackageNotFoundError

    try:
        version(package)
    except PackageNotFoundError:  # onnxruntime-gpu has the name of its own
        return False
    return True


def _fenced(text: str) -> list[str]:
    return ["```", text.replace("```", "'''"), "```"]


def _refused(refused: Sequence[Refused]) -> list[str]:
    lines = ["| count | operator | reason | line | what to do |", "|---|---|---|---|---|"]
    for each in findings(refused):
        code = source_line(each.location).replace("|", "\\|")
        where = f"{each.location} `{code}`" if each.location else "unknown"
        reason = f"{each.kind.value}: {each.why}".replace("|", "\\|")
        todo = each.hint or "write it with operators that ONNX has"
        lines.append(f"| {each.count} | `{each.operator}` | {reason} | {where} | {todo} |")
    return lines


def _ports(model: ir.Model) -> list[str]:
    weights = [v.const_value for v in model.graph.initializers.values()]
    size = sum(w.nbytes for w in weights if w is not None)
    lines = [
        f"Opset {model.opset_imports['']}, {len(weights)} initializers of {size / 1e6:.3g} MB.",
        "",
    ]
    lines += ["|  | name | type | shape |", "|---|---|---|---|"]
    for kind, values in (("input", model.graph.inputs), ("output", model.graph.outputs)):
        lines += [
            f"| {kind} | {v.name} | {v.dtype.name if v.dtype else '?'} | {v.shape} |"
            for v in values
        ]
    return lines


def _kind(node: ir.Node) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _histogram(what: str, counts: Mapping[str, int]) -> list[str]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [f"| {what} | count |", "|---|---|", *(f"| `{n}` | {c} |" for n, c in ordered)]


def _program(program: ExportedProgram) -> str:
    text = str(program)
    left = len(text) - _PROGRAM_CHARACTERS
    return text if left <= 0 else f"{text[:_PROGRAM_CHARACTERS]}\n… and {left} characters more"
