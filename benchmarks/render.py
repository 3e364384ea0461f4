"""What the reader sees of a run: Markdown tables, what they were measured on, the README."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .machine import Load, Machine
from .record import Case, Run

LABELS = {"bare": "bare session", "raw": "raw session"}  # contenders whose name says too little
BUSY_SHARE = 0.1  # of the CPU time, taken by others: beyond it a case's figures are not trusted
SMALL = " **Small variants, to try the harness: no figure here counts.**"
PACKAGES = ("torch", "onnxruntime", "onnxruntime-gpu", "transformers")


def label(contender: str) -> str:
    """The contender as tables call it."""
    return LABELS.get(contender, contender)


def number(value: float) -> str:
    """Three digits, and all of those before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def cell(value: float | None, unit: str = "") -> str:
    """A number with its unit; empty where there is none."""
    if value is None:
        return ""
    return f"{number(value)} {unit}" if unit else number(value)


def times(value: float | None) -> str:
    """A ratio; empty where there is none."""
    return "" if value is None else f"{value:.2f}×"


def with_times(value: float | None, unit: str, ratio: float | None) -> str:
    """A number with its unit, and behind it a ratio."""
    shown = cell(value, unit)
    return f"{shown} ({times(ratio)})" if shown and ratio is not None else shown


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown; the first column names the row, the others hold numbers. Short rows are filled."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    lines += [[*row, *[""] * (len(header) - len(row))] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def busy(load: Load | None) -> bool:
    """Did others take so much of the CPU time that the figures are not to be trusted?"""
    shares = (load.others_share, load.stolen_share) if load else ()
    return sum(share for share in shares if share is not None) > BUSY_SHARE


def busy_mark(load: Load | None) -> str:
    """What stands behind the name of what was measured on a busy machine."""
    return " (busy)" if busy(load) else ""


def case_name(case: Case) -> str:
    """The name of a case, with a mark where the machine was busy."""
    return case.name + busy_mark(case.load)


def hardware(machine: Machine, threads: int) -> str:
    """Of one sentence, the part that says where."""
    return f"{machine.gpu or f'{machine.cpu}, {machine.cores} cores'}, {threads} threads"


def packages(versions: Mapping[str, str]) -> str:
    """The versions of what decides."""
    return ", ".join(f"{name} {versions[name]}" for name in PACKAGES if name in versions)


def quietness(loads: Sequence[Load | None], subject: str) -> str:
    """One or two sentences on what others took; empty where the system does not say."""
    known = [load for load in loads if load is not None]
    shares = [load.others_share for load in known if load.others_share is not None]
    stolen = [load.stolen_share for load in known if load.stolen_share is not None]
    text = ""
    if shares and stolen:
        text += (
            f" Other processes took at most {max(shares):.0%} of the CPU time during a {subject}'s "
            f"rounds, the hypervisor {max(stolen):.0%}."
        )
    if any(busy(load) for load in loads):
        text += (
            f" **Busy** rows lost more than {BUSY_SHARE:.0%} of it to others, which slows the "
            "backends down unequally: do not trust them."
        )
    return text


def failures(found: Iterable[tuple[str, str | None]]) -> list[str]:
    """Lines on what failed, of pairs of where and the error, if any did."""
    lines = [f"- {where}: `{error}`" for where, error in found if error is not None]
    return ["Failed:", "", *lines, ""] if lines else []


def page(run: Run, tables: Sequence[str], notes: str) -> str:
    """A run's tables, what failed, and one paragraph on how it was measured."""
    found = [(case.name, case.error) for case in run.cases]
    found += [(f"{c.name}, {label(r.contender)}", r.error) for c in run.cases for r in c.rows]
    paragraph = (
        f"{notes} {hardware(run.machine, run.settings.threads)}; {packages(run.versions)}; "
        f"{run.date[:10]}.{quietness([case.load for case in run.cases], 'case')}"
        f"{SMALL if run.settings.small else ''}"
    )
    shown = [line for table in tables for line in (table, "")]
    return "\n".join([*shown, *failures(found), paragraph])


def replace_between(text: str, section: str, body: str) -> str:
    """`text` with what stands between the two markers of `section` replaced by `body`."""
    begin, end = f"<!-- bench:{section}:begin -->", f"<!-- bench:{section}:end -->"
    for marker in (begin, end):
        if text.count(marker) != 1:
            raise ValueError(
                f"expected {marker} once in the text, found it {text.count(marker)} times"
            )
    head, rest = text.split(begin)
    if end not in rest:
        raise ValueError(f"{end} stands before {begin}")
    _, tail = rest.split(end)
    return f"{head}{begin}\n{body.strip()}\n{end}{tail}"


def update_readme(readme: Path, section: str, body: str, image: Path, caption: str) -> None:
    """Put the picture and the body between the README's markers of the section."""
    link = image.resolve().relative_to(readme.resolve().parent).as_posix()
    shown = f"![{caption}]({link})\n\n{body}"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(replace_between(text, section, shown), encoding="utf-8")
