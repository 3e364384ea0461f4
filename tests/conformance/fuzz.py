"""Random small programs, eager against `backend="onnx"`.

    python -m tests.conformance.fuzz --programs 2000 --seed 0

Each program that differs is made as small as it still differs, and printed as a script.
"""

from __future__ import annotations

import argparse
import itertools
import linecache
import logging
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hypothesis
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

import dynamo_onnx
from dynamo_onnx.runtime.errors import ReasonKind

from .drawing import programs
from .programs import SCOPE, Program, Run, Step, simulate

BUGS = frozenset({ReasonKind.RULE_FAILED, ReasonKind.SESSION_FAILED, ReasonKind.RUN_FAILED})
LIMIT_S = 60
_numbers = itertools.count()


class TooSlow(BaseException):
    """A program ran past its limit; no `except Exception` on the way may swallow it."""


def failure(program: Program) -> str:
    """What is wrong with our answers, in a line; "" for nothing, or if the program is no test."""
    signal.signal(signal.SIGPROF, _too_slow)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    try:
        return _failure(program)
    except TooSlow:
        return f"raises TooSlow: no answer within {LIMIT_S} s of computing"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _too_slow(*_: object) -> None:
    raise TooSlow


def _failure(program: Program) -> str:
    calls = [call for call in range(len(program.sizes)) if simulate(program, call)]
    found = _compared(program, calls, "onnx") if calls else ""
    if found and _compared(program, calls, "aot_eager"):
        return ""  # what torch.compile makes of it differs from eager whatever the backend
    return found


def _compared(program: Program, calls: list[int], backend: str) -> str:
    torch._dynamo.reset()
    dynamo_onnx.reset()
    fn = _function(program)
    options: dict[str, Any] = {}
    if backend == "onnx":
        options["options"] = program.options()
    compiled = torch.compile(
        fn, backend=backend, dynamic=True if program.dynamic else None, **options
    )
    for call in calls:
        run = simulate(program, call)
        assert run is not None
        ours, eager = (eval(program.arguments(call), SCOPE) for _ in range(2))
        with torch.no_grad():
            expected = fn(*eager)
            try:
                got = compiled(*ours)
            except Exception as error:  # noqa: BLE001 - any, where eager has an answer
                return f"raises {type(error).__name__}: {error}"
        found = difference(program, run, (got, ours), (expected, eager))
        if found and not ("strides" in found and _misstated(program, call)):
            return f"call {call}: {found}"
    bad = [f for f in dynamo_onnx.report().fallbacks if f.reason.kind in BUGS]
    return f"{bad[0].op}: {bad[0].reason}" if bad else ""


def _misstated(program: Program, call: int) -> bool:
    """Does torch itself state other strides for a step than eager gives it?

    Its shape functions do for some results of `index`. What the graph says is all we have.
    """
    run = Run.start(program, call)
    for step in program.steps:
        stated = None if step.in_place else _stated(step, run.values)
        run.step(step)
        if stated is not None and _strides(stated) != _strides(run.values[step.target]):
            return True
    return False


def _stated(step: Step, values: dict[str, torch.Tensor]) -> torch.Tensor | None:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        fakes = {name: mode.from_tensor(value) for name, value in values.items()}
        try:
            return eval(step.code, SCOPE, fakes)
        except RuntimeError:  # the shape depends on values
            return None


def _function(program: Program) -> Callable[..., Any]:
    source = program.function()
    file = f"<program {next(_numbers)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    scope = dict(SCOPE)
    exec(compile(source, file, "exec"), scope)
    return scope["fn"]


def difference(program: Program, run: Run, ours: Any, eager: Any) -> str:
    """Structure, dtypes, shapes, strides, sharing of memory, values within the run's noise."""
    our_leaves, our_spec = pytree.tree_flatten(ours)
    leaves, spec = pytree.tree_flatten(eager)
    if our_spec != spec:
        return f"structure {our_spec} for {spec}"
    names = [f"v{i}" for i in range(len(program.inputs))]
    noisy = pytree.tree_leaves(
        (eval(program.returned, SCOPE, run.noisy), [run.noisy[n] for n in names])
    )
    for index, (a, b, c) in enumerate(zip(our_leaves, leaves, noisy, strict=True)):
        found = _leaf(a, b, c)
        if found:
            return f"item {index}: {found}"
    if _sharing(our_leaves) != _sharing(leaves):
        return f"memory is shared as {_sharing(our_leaves)} for {_sharing(leaves)}"
    return ""


def _leaf(ours: Any, eager: Any, noisy: Any) -> str:
    if not isinstance(eager, torch.Tensor):
        return "" if ours is eager else f"{ours!r} for {eager!r}"
    for what in ("dtype", "shape"):
        if getattr(ours, what) != getattr(eager, what):
            return f"{what} {getattr(ours, what)} for {getattr(eager, what)}"
    if _dense(eager) and _strides(ours) != _strides(eager):
        return f"strides {ours.stride()} for {eager.stride()}"
    tolerance = _tolerance(eager, noisy)
    try:
        torch.testing.assert_close(
            ours, eager, rtol=0, atol=tolerance, equal_nan=True, check_stride=False
        )
    except AssertionError as error:
        return " ".join(str(error).split())[:300]
    return ""


def _tolerance(eager: torch.Tensor, noisy: torch.Tensor) -> float:
    if not eager.is_floating_point() or not eager.numel():
        return 0.0
    finite = eager.isfinite()
    if not finite.any():
        return 0.0
    values = eager[finite].double()
    apart = float((values - noisy[finite].double()).abs().max())
    return 4 * apart + 2 * torch.finfo(eager.dtype).eps * float(values.abs().max())


def _dense(tensor: torch.Tensor) -> bool:
    placed = sorted((s, n) for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n > 1)
    wanted = itertools.accumulate((n for _, n in placed), int.__mul__, initial=1)
    pairs = zip((s for s, _ in placed), wanted, strict=False)
    return tensor.numel() > 0 and all(given == want for given, want in pairs)


def _strides(tensor: torch.Tensor) -> list[int]:
    return [s for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n > 1]


def _sharing(leaves: list[Any]) -> list[tuple[int, int]]:
    """Which tensors share memory with which."""
    tensors = [(i, t) for i, t in enumerate(leaves) if isinstance(t, torch.Tensor) and t.numel()]
    starts = {i: t.untyped_storage().data_ptr() for i, t in tensors}
    return [(i, j) for i, j in itertools.combinations(starts, 2) if starts[i] == starts[j]]


def reduced(program: Program, found: str) -> tuple[Program, str]:
    """The program without what the difference does not need."""
    while True:
        for smaller in _smaller(program):
            still = failure(smaller)
            if still and _kind(still) == _kind(found):
                program, found = smaller, still
                break
        else:
            return program, found


def _kind(found: str) -> str:
    return "raises" if "raises" in found else "differs"


def _smaller(program: Program) -> list[Program]:
    made = [replace(program, steps=program.steps[:i] + program.steps[i + 1 :])
            for i in range(len(program.steps) - 1, -1, -1)]  # fmt: skip
    names = [s.target for s in program.steps] + [f"v{i}" for i in range(len(program.inputs))]
    made += [
        replace(program, returned=n)
        for n in names
        if n != program.returned and len(program.returned) > 3
    ]
    if program.eager_ops:
        made.append(replace(program, eager_ops=()))
    if program.dynamic:
        made.append(replace(program, dynamic=False, sizes=program.sizes[:1] * 2))
    if len(program.sizes) > 1:
        made += [
            replace(program, sizes=program.sizes[:1]),
            replace(program, sizes=program.sizes[1:]),
        ]
    for i, given in enumerate(program.inputs):
        plain = replace(given, layout="plain", special=False)
        if plain != given:
            made.append(
                replace(program, inputs=(*program.inputs[:i], plain, *program.inputs[i + 1 :]))
            )
    return made


def sweep(count: int, seed: int, limit: int) -> list[Program]:
    """Draw programs and compare; the first `limit` that differ, made small and printed."""
    bad: list[Program] = []
    done, started = itertools.count(1), time.perf_counter()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(programs())
    def compare(program: Program) -> None:
        number = next(done)
        if number % 100 == 0:
            took = time.perf_counter() - started
            print(
                f"{number} programs, {len(bad)} differ, {took:.0f} s", file=sys.stderr, flush=True
            )
        if len(bad) >= limit:
            return
        found = failure(program)
        if found:
            smaller, still = reduced(program, found)
            bad.append(smaller)
            print(f"# {'-' * 80}\n# {still}\n{smaller.script()}", flush=True)

    compare()
    return bad


def quiet() -> None:
    """One thread, no warnings: thousands of programs follow."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("torch").setLevel(logging.CRITICAL)
    logging.getLogger("dynamo_onnx").setLevel(logging.CRITICAL)


def main() -> int:
    """Run the sweep; the exit code is 1 if any program differed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=20, help="programs that differ, at most")
    options = parser.parse_args()
    quiet()
    bad = sweep(options.programs, options.seed, options.limit)
    print(f"seed {options.seed}: {options.programs} programs, {len(bad)} differ")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
