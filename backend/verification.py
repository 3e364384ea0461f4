"""A program whose results are not eager's: it is noticed, and the operator found and left out.

A region that deviates is lowered again with the results of all its operators as outputs; the first
that is not eager's names the culprit. Where none deviates like that, since a fusion is at fault
that more outputs prevent, growing parts of the region with one output each are tried. The overload
is then pinned to eager, in this process and, by a file in `cache_dir`, in those to come that have
the same versions and rules. A script in `dump_dir`, or else `cache_dir`, shows it by itself.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import onnxruntime as ort
import torch
import torch.fx

from ..lowering.interpreter import lower_region
from ..lowering.ops import registry
from ..lowering.region import Region, is_symbolic, location
from ..runtime.compare import difference, exactly
from ..runtime.errors import CacheError, DynamoOnnxError, Reason, ReasonKind, SessionError
from ..runtime.executable import Executable
from ..runtime.kernels import kernel_table
from ..runtime.opened import Argument, Setup
from ..runtime.trials import Outcome, Run
from .dump import write_atomically
from .options import DEFAULT_OPSET, NEWEST_OPSET, Options
from .program_files import rules_digest
from .reproduction import write_reproduction
from .state import state
from .stitch import region_in_eager, values_in_eager
from .torch_private import OpOverload

log = logging.getLogger(__name__)

_PINS = "pins.json"
_writing = threading.Lock()


class Verification:
    """A `Trial` of the first calls: each is compared with eager, and a deviation investigated."""

    def __init__(
        self, calls: int, investigate: Callable[[Sequence[Argument], str], Reason], *, strict: bool
    ) -> None:
        self.left = calls
        self._investigate = investigate
        self._strict = strict

    def __call__(self, args: Sequence[Argument], ours: Run, eager: Run) -> Outcome:
        """One call; in strict, a SessionError if its results are not eager's."""
        self.left -= 1
        wanted = eager(args)
        found = ours(args)
        told = difference(found, wanted, lambda: exactly(eager, args))
        if not told:
            return Outcome(found, over=self.left <= 0)
        reason = self._investigate(args, f"its {told}")
        if self._strict:
            raise SessionError(str(reason))
        return Outcome(wanted, over=True, reason=reason)


@dataclass(frozen=True, slots=True)
class Investigator:
    """Called with a region's arguments when its results are not eager's."""

    gm: torch.fx.GraphModule
    region: Region
    setup: Setup
    options: Options

    def __call__(self, args: Sequence[Argument], told: str) -> Reason:
        """Why the region runs in eager from now on; the culprit is pinned."""
        node = self._culprit(args)
        if node is None:
            names = ", ".join(dict.fromkeys(str(n.target) for n in self._computing()))
            detail = f"{told}; no single operator of it deviates ({names})"
            return Reason(ReasonKind.VERIFICATION, detail)
        where = location(node) or "an unknown line"
        detail = f"{node.target} at {where} gives another result than eager: {self._of(node, args)}"
        pin(str(node.target), detail, self.options.kept_in)
        self._reproduce(node, args, detail)
        return Reason(ReasonKind.VERIFICATION, detail)

    def _reproduce(self, node: torch.fx.Node, args: Sequence[Argument], detail: str) -> None:
        """Write a script that shows it, where there is a directory for such things."""
        directory = self.options.dump_dir or self.options.kept_in
        if directory is None or not isinstance(node.target, OpOverload):
            return
        values = values_in_eager(self.gm, self.region, args)
        try:
            path = write_reproduction(directory, node, values, detail)
        except (CacheError, OSError) as error:
            log.warning("no script of the deviation: %s", error)
            return
        log.warning("%s; %s shows it", detail, path)

    def _culprit(self, args: Sequence[Argument]) -> torch.fx.Node | None:
        computing = self._computing()
        whole = self._deviations(computing, args)
        if whole is None or not any(whole):
            for end in range(1, len(computing) + 1):
                told = self._deviations(computing[end - 1 : end], args)
                if told is not None and any(told):
                    return computing[end - 1]
            return None
        return next(n for n, told in zip(computing, whole, strict=True) if told)

    def _of(self, node: torch.fx.Node, args: Sequence[Argument]) -> str:
        return "".join(self._deviations([node], args) or ["only beside the others"])

    def _computing(self) -> list[torch.fx.Node]:
        """The operators of the region that return one tensor."""
        return [
            node
            for node in self.region.nodes
            if node.op == "call_function"
            and not is_symbolic(node)
            and isinstance(node.meta.get("val"), torch.Tensor)
        ]

    def _deviations(
        self, nodes: Sequence[torch.fx.Node], args: Sequence[Argument]
    ) -> list[str] | None:
        """How the result of each node deviates if these are the outputs; None: it does not run."""
        last = max(self.region.nodes.index(node) for node in nodes)
        part = Region(self.region.nodes[: last + 1], self.region.inputs, tuple(nodes))
        lowered = lower_region(
            part,
            registry=registry,
            kernels=partial(kernel_table, tuple(name for name, _ in self.setup.providers)),
            opsets=(self.options.opset or DEFAULT_OPSET, self.options.opset or NEWEST_OPSET),
            fingerprint="",
            name="part",
        )
        if lowered.program is None:
            return None
        setup = replace(
            self.setup, weights=(), overwrites={}, strict=True, places=self.setup.places
        )
        eager = region_in_eager(self.gm, part)
        try:
            ours = Executable(lowered.program, setup, lambda: eager).run(args)
        except DynamoOnnxError as error:
            log.info("a part of a region does not run by itself: %s", error)
            return None
        exact = partial(exactly, eager, args)
        wanted = eager(args)
        references = exact()
        return [
            difference([mine], [right], _picked(references, index))
            for index, (mine, right) in enumerate(zip(ours, wanted, strict=True))
        ]


def _picked(
    references: list[torch.Tensor] | None, index: int
) -> Callable[[], list[torch.Tensor] | None]:
    return lambda: None if references is None else [references[index]]


# ------------------------------------------------------------------------------------- pins
def pin(op: str, detail: str, directory: Path | None) -> None:
    """Leave an overload to eager from now on; with a directory, in other processes as well."""
    with state.lock:
        state.pins[op] = detail
    if directory is None:
        return
    path = directory / _PINS
    with _writing:
        content = {"versions": _versions(), "pins": {**pins_in(directory), op: detail}}
        try:
            directory.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda p: p.write_text(json.dumps(content, indent=2) + "\n"))
        except (CacheError, OSError) as error:
            log.warning("the pin of %s is not kept: %s", op, error)


def pinned(options: Options) -> dict[str, str]:
    """The overloads to leave to eager, and why."""
    directory = options.kept_in
    return {**(pins_in(directory) if directory is not None else {}), **state.pins}


def pins_in(directory: Path) -> dict[str, str]:
    """Those that a directory has for these versions and rules."""
    try:
        content: Any = json.loads((directory / _PINS).read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("cannot read %s: %s", directory / _PINS, error)
        return {}
    if not isinstance(content, dict):
        return {}
    found = cast("dict[str, Any]", content)
    pins = found.get("pins")
    if found.get("versions") != _versions() or not isinstance(pins, dict):
        return {}
    return {str(op): str(detail) for op, detail in cast("dict[Any, Any]", pins).items()}


def _versions() -> dict[str, str]:
    return {"torch": torch.__version__, "onnxruntime": ort.__version__, "rules": rules_digest()}
