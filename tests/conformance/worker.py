"""Runs cases in a process of its own: a line of JSON before and after each, on standard output.

The parent learns from a line without an answer which case ended the process.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

import dynamo_onnx
from dynamo_onnx.runtime.errors import ReasonKind

from .cases import Call, calls, gradient_calls
from .compare import (
    ILL_CONDITIONED,
    OPEN_AMONG_TIES,
    ROUNDED_IN_EAGER,
    difference,
    indices_resolved,
    is_exact,
    within_rounding,
)

CASE_LIMIT_S = 120


class TooSlow(BaseException):
    """A case ran past its limit."""


def main() -> None:
    """Jobs come as lines of JSON on standard input: name, dtype, samples, skip (case keys)."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger().setLevel(logging.ERROR)
    logging.getLogger("torch").setLevel(logging.CRITICAL)
    for line in sys.stdin:
        job = json.loads(line)
        source = gradient_calls if job["gradients"] else calls
        for call in _calls(source, job["name"], job["dtype"], job["samples"]):
            if call.case.key in job["skip"]:
                continue
            _say({"start": call.case.key})
            _say({"done": call.case.key, **run(call)})
        _say({"finished": job["name"]})


def run(call: Call) -> dict[str, Any]:
    """One case: its outcome (native, eager, wrong, crashed, invalid) and what there is to say."""
    _reset()
    signal.signal(signal.SIGALRM, _too_slow)
    signal.alarm(CASE_LIMIT_S)
    try:
        with torch.no_grad():
            found = _run(call)
            if found["outcome"] == "eager" and "native" not in found:
                found = _captured(call, found)
            return found
    except TooSlow:
        return {"outcome": "crashed", "detail": f"no answer within {CASE_LIMIT_S} s"}
    finally:
        signal.alarm(0)


def _captured(call: Call, otherwise: dict[str, Any]) -> dict[str, Any]:
    """The case again, with data-dependent shapes and numbers captured, if that makes a graph."""
    _reset()
    options = {"capture_dynamic_output_shape_ops": True, "capture_scalar_outputs": True}
    with torch._dynamo.config.patch(options):
        found = _run(call)
    return otherwise if found["outcome"] == "invalid" else found


def _reset() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    dynamo_onnx.reset()


def _run(call: Call) -> dict[str, Any]:
    ours = [_like(a) for a in call.args]
    args = [_like(a) for a in call.args]
    torch.manual_seed(0)
    try:
        expected = call.made(call.fn, args)
    except TooSlow:
        raise
    except Exception as error:  # noqa: BLE001 - whatever eager does not accept is no case
        return {"outcome": "invalid", "detail": f"{type(error).__name__}: {error}"[:200]}
    compiled = torch.compile(
        call.fn, backend="onnx", dynamic=True if call.case.variant == "dynamic" else None
    )
    torch.manual_seed(0)
    try:
        got = call.made(compiled, ours)
    except TooSlow:
        raise
    except Exception as error:  # noqa: BLE001 - any exception where eager has an answer
        detail = f"{type(error).__name__}: {error}"[:600]
        return {"outcome": "invalid" if _fails_without_us(call) else "crashed", "detail": detail}
    found = _difference(call, got, expected)
    given = len(call.args) - call.outs
    if not found and call.defined:
        found = difference(ours[:given], args[:given])
        found = found and f"inputs afterwards: {found}"
    report = dynamo_onnx.report()
    reasons = sorted(
        {
            f"{f.op}: {f.reason}"
            for f in report.fallbacks
            if f.reason.kind is not ReasonKind.REGION_SIZE  # it follows from the others
        }
    )
    if found:
        outcome = "invalid" if _differs_without_us(call, expected, args[:given]) else "wrong"
        return {"outcome": outcome, "detail": found, "reasons": reasons}
    broke = torch._dynamo.utils.counters["graph_break"] and not (report.native or reasons)
    if report.graphs == 0 or broke:
        return {"outcome": "eager", "reasons": [f"{call.case.name}: {_why_no_graph()}"]}
    outcome = "eager" if reasons else "native"
    return {"outcome": outcome, "reasons": reasons, "native": sorted(report.native)}


def _why_no_graph() -> str:
    """Dynamo's first line on why it left the call to Python."""
    breaks = torch._dynamo.utils.counters["graph_break"]
    return "Dynamo captured no graph: " + next(iter(breaks), "no reason given").split("\n")[0]


def _fails_without_us(call: Call) -> bool:
    """Does torch.compile fail on this call with its own backend too?"""
    torch._dynamo.reset()
    compiled = torch.compile(
        call.fn, backend="aot_eager", dynamic=True if call.case.variant == "dynamic" else None
    )
    try:
        call.made(compiled, [_like(a) for a in call.args])
    except Exception:  # noqa: BLE001 - that it fails is the answer
        return True
    return False


def _differs_without_us(call: Call, expected: Any, written: list[torch.Tensor]) -> bool:
    """Does torch.compile's own backend give another result than eager too?"""
    torch._dynamo.reset()
    compiled = torch.compile(
        call.fn, backend="aot_eager", dynamic=True if call.case.variant == "dynamic" else None
    )
    torch.manual_seed(0)
    args = [_like(a) for a in call.args]
    try:
        found = _difference(call, call.made(compiled, args), expected)
    except Exception:  # noqa: BLE001 - that it fails is a difference
        return True
    return bool(found or difference(args[: len(written)], written))


def _difference(call: Call, got: Any, expected: Any) -> str:
    if call.case.name in OPEN_AMONG_TIES and call.args:
        at = OPEN_AMONG_TIES[call.case.name]
        got, expected = (indices_resolved(r, call.args[0], at) for r in (got, expected))
    found = difference(got, expected, values=call.defined)
    if found and call.case.name in ILL_CONDITIONED:
        rounding = within_rounding(call.fn, call.args, got, expected)
        return "" if rounding and not difference(got, expected, values=False) else found
    if found and call.case.name in ROUNDED_IN_EAGER and call.case.dtype == "bfloat16":
        exact = not difference(got, expected, values=False) and is_exact(
            call.fn, call.args, got, expected
        )
        return "" if exact else found
    return found


def _like(tensor: torch.Tensor) -> torch.Tensor:
    """A copy with the same strides, also of the memory around it (`as_strided` can reach it)."""
    if tensor.layout is not torch.strided:
        return tensor.detach().clone()
    copy = torch.empty(0, dtype=tensor.dtype)
    memory = tensor.untyped_storage().clone()
    copy.set_(memory, tensor.storage_offset(), tensor.shape, tensor.stride())
    return copy.conj() if tensor.is_conj() else copy


def _calls(
    source: Callable[[str, str, int], Iterator[Call]], name: str, dtype: str, samples: int
) -> list[Call]:
    try:
        return list(source(name, dtype, samples))
    except Exception as error:  # noqa: BLE001 - op_db cannot make samples on this machine
        _say({"unavailable": f"{name} {dtype}", "detail": f"{type(error).__name__}: {error}"[:200]})
        return []


def _too_slow(*_: object) -> None:
    raise TooSlow


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
