"""Small programs as data: inputs, steps, outputs; their source, and what eager makes of them.

Each program is run twice side by side: as it is, and with the rounding errors of every step
enlarged. Where that changes a comparison, an index or a rounding to integers, the answer hangs on
rounding and the step is no test; how far the two end up apart is the tolerance of the outputs.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

VALUES = '''
def values(shape, dtype, seed, layout="plain", special=False):
    """A few small multiples of 1/4 (or integers, or bools) in one of several memory layouts."""
    full = list(shape)
    if layout == "reversed":
        full = full[::-1]
    elif layout == "step" and full:
        full[-1] *= 2
    elif layout == "expanded" and full:
        full[0] = 1
    count = math.prod(full)
    steps = (torch.arange(count) * 7 + seed) % 13
    if dtype is torch.bool:
        flat = steps % 2 == 0
    elif dtype is torch.uint8:
        flat = (steps % 9).to(dtype)
    else:
        flat = (steps - 6).to(dtype)
    if dtype.is_floating_point:
        flat = flat / 4
        if special and count:
            marks = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0], dtype=dtype)
            flat[: min(count, 4)] = marks[: min(count, 4)]
    made = flat.reshape(full)
    if layout == "reversed":
        return made.permute(list(range(len(full)))[::-1])
    if layout == "step" and full:
        return made[..., ::2]
    return made.expand(shape) if layout == "expanded" else made
'''

# What one step may err by in either implementation, in units in the last place.
NOISE_ULPS = {torch.float64: 64, torch.float32: 64, torch.float16: 2, torch.bfloat16: 2}
# A larger disagreement between a step and its noisy twin: the step amplifies errors too much.
NOISE_LIMIT = {torch.float64: 1e-6, torch.float32: 5e-3, torch.float16: 0.05, torch.bfloat16: 0.2}
MAGNITUDE = 1e4


@dataclass(frozen=True)
class Input:
    """`shape` holds positions among the program's sizes, or None for a size of 1."""

    shape: tuple[int | None, ...]
    dtype: torch.dtype
    seed: int
    layout: str = "plain"
    special: bool = False

    def source(self, sizes: tuple[int, ...], shift: int) -> str:
        shape = tuple(1 if d is None else sizes[d] for d in self.shape)
        extra = (
            f", {self.layout!r}, {self.special}" if self.layout != "plain" or self.special else ""
        )
        return f"values({shape}, {self.dtype}, {self.seed + shift}{extra})"


@dataclass(frozen=True)
class Step:
    """`target = code`, or code alone if it writes in place into `target`.

    `kind`: "exact" chooses or moves values, "arith" may be exact, "smooth" rounds.
    `guard` must hold before it, for an answer that torch leaves open otherwise.
    """

    target: str
    code: str
    kind: str = "exact"
    in_place: bool = False
    guard: str = ""

    @property
    def line(self) -> str:
        return self.code if self.in_place else f"{self.target} = {self.code}"


@dataclass(frozen=True)
class Program:
    """Everything that makes a run; `sizes` has one tuple per call."""

    inputs: tuple[Input, ...]
    steps: tuple[Step, ...]
    returned: str
    sizes: tuple[tuple[int, ...], ...]
    dynamic: bool = False
    eager_ops: tuple[str, ...] = ()

    def function(self) -> str:
        names = ", ".join(f"v{i}" for i in range(len(self.inputs)))
        lines = [f"def fn({names}):", *(s.line for s in self.steps), f"return {self.returned}"]
        return "\n    ".join(lines) + "\n"

    def arguments(self, call: int) -> str:
        made = [i.source(self.sizes[call], call) for i in self.inputs]
        return "[" + ", ".join(made) + "]"

    def script(self) -> str:
        """A Python file that shows the difference."""
        calls = "\n".join(f"    lambda: {self.arguments(i)}," for i in range(len(self.sizes)))
        return (
            f"import math\n\nimport torch\nimport torch.nn.functional as F\n\n{VALUES}\n\n"
            f"{self.function()}\n\n"
            f'compiled = torch.compile(fn, backend="onnx", dynamic={self.dynamic or None}, '
            f"options={self.options()})\n"
            f"for arguments in [\n{calls}\n]:\n"
            "    with torch.no_grad():\n"
            "        ours, eager = arguments(), arguments()\n"
            "        got, expected = compiled(*ours), fn(*eager)\n"
            "    print(got, expected, sep='\\n')\n"
            "    torch.testing.assert_close(got, expected, equal_nan=True)\n"
            "    torch.testing.assert_close(ours, eager, equal_nan=True)\n"
        )

    def options(self) -> dict[str, Any]:
        return {"eager_ops": list(self.eager_ops)} if self.eager_ops else {}


def namespace() -> dict[str, Any]:
    """What the source of a program may name."""
    import math

    scope: dict[str, Any] = {"torch": torch, "F": F, "math": math}
    exec(VALUES, scope)
    return scope


SCOPE = namespace()


@dataclass
class Run:
    """The values of one call so far, and their noisy twins."""

    values: dict[str, Any] = field(default_factory=dict)
    noisy: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def start(cls, program: Program, call: int) -> Run:
        made = [eval(program.arguments(call), SCOPE) for _ in range(2)]
        names = [f"v{i}" for i in range(len(program.inputs))]
        return cls(dict(zip(names, made[0], strict=True)), dict(zip(names, made[1], strict=True)))

    def step(self, step: Step) -> bool:
        """Take it, if eager accepts it and its result does not hang on rounding."""
        if not step.in_place:
            taken = self._take(step)
            if not taken:
                self.values.pop(step.target, None)
                self.noisy.pop(step.target, None)
            return taken
        before = copy.deepcopy((self.values, self.noisy))
        taken = self._take(step)
        if not taken:
            self.values, self.noisy = before
        return taken

    def _take(self, step: Step) -> bool:
        try:
            with torch.no_grad():
                if step.guard and not eval(step.guard, SCOPE, self.values):
                    return False
                exact = step.kind == "exact" or self._is_exact(step)
                exec(step.line, SCOPE, self.values)
                exec(step.line, SCOPE, self.noisy)
                value, noisy = self.values[step.target], self.noisy[step.target]
                if not isinstance(value, torch.Tensor) or value.numel() > 5000:
                    return False
                if not step.in_place and not exact and value.is_floating_point():
                    _add_noise(noisy)
        except (RuntimeError, IndexError, ValueError, TypeError, ZeroDivisionError, NameError):
            return False
        return agrees(value, noisy)

    def _is_exact(self, step: Step) -> bool:
        """Is the result the exact one, rounded at most once?"""
        if step.kind != "arith" or step.in_place:
            return step.in_place
        wide = {n: v.double() if v.is_floating_point() else v for n, v in self.values.items()}
        result, precise = eval(step.code, SCOPE, self.values), eval(step.code, SCOPE, wide)
        if not result.is_floating_point():
            return True
        return torch.equal(precise.to(result.dtype).nan_to_num(7.5), result.nan_to_num(7.5))


def _add_noise(noisy: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(noisy.numel())
    ulps = NOISE_ULPS[noisy.dtype] * torch.finfo(noisy.dtype).eps
    signs = torch.randint(0, 2, noisy.shape, generator=generator) * 2 - 1
    # Of sizes of their own, so that they never cancel to nothing in a sum.
    signs = signs * (0.5 + torch.rand(noisy.shape, generator=generator) / 2)
    finite = noisy.isfinite()
    # Approximations (of sigmoid, tanh, erf) are as good as the largest value, or 1, demands.
    scale = noisy.abs() + (noisy.abs()[finite].max() / 8 if finite.any() else 0) + 0.125
    noisy.copy_(torch.where(finite, noisy + signs * scale * ulps, noisy))


def agrees(value: torch.Tensor, noisy: torch.Tensor) -> bool:
    """Did noise change nothing but the last digits?"""
    if value.shape != noisy.shape or value.dtype != noisy.dtype:
        return False
    if not value.is_floating_point():
        small = value.dtype is torch.bool or not value.numel() or int(value.abs().max()) < 1e6
        return torch.equal(value, noisy) and small
    dtype, finite = value.dtype, value.isfinite()
    if not torch.equal(finite, noisy.isfinite()):
        return False
    odd = torch.equal(value[~finite].nan_to_num(7.5), noisy[~finite].nan_to_num(7.5))
    value, noisy = value[finite].double(), noisy[finite].double()
    if not value.numel():
        return odd
    apart = float(((value - noisy).abs() / (1 + value.abs())).max())
    return odd and float(value.abs().max()) < MAGNITUDE and apart < NOISE_LIMIT[dtype]


def simulate(program: Program, call: int) -> Run | None:
    """The program in eager; None if it is no test."""
    try:
        run = Run.start(program, call)
    except (RuntimeError, ValueError):
        return None
    if not all(run.step(step) for step in program.steps):
        return None
    try:
        eval(program.returned, SCOPE, run.values)
    except NameError:
        return None
    return run
