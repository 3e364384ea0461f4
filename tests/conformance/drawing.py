"""Hypothesis draws programs: inputs, then step after step of what eager accepts, then outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st

from .programs import Input, Program, Run, Step
from .steps import MUTATIONS, STEPS

DTYPES = (
    torch.float32,
    torch.float32,
    torch.float32,
    torch.int64,
    torch.bool,
    torch.float64,
    torch.int32,
    torch.bfloat16,
    torch.uint8,
)
LAYOUTS = ("plain", "plain", "plain", "reversed", "step", "expanded")
EAGER_OPS = ("mul", "add", "sum", "relu", "cat", "index", "permute", "neg", "where", "clone")


class NoCandidate(Exception):
    """No value so far fits the step."""


class Drawer:
    """Chooses among the values of a run that is under way."""

    def __init__(self, draw: Callable[..., Any], run: Run) -> None:
        self._draw = draw
        self.run = run
        self.count = len(run.values)

    def one(self, choices: Any) -> Any:
        """One of these; the first is the simplest."""
        return self._draw(st.sampled_from(choices))

    def chance(self, of: int) -> bool:
        """True once in so many."""
        return self._draw(st.integers(0, of - 1)) == of - 1

    def number(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def name(self, fits: Callable[[torch.Tensor], bool] = lambda t: True) -> str:
        """A value that fits, the latest first."""
        names = [n for n, v in self.run.values.items() if fits(v)]
        if not names:
            raise NoCandidate
        return self.one(names[::-1])

    def value(self, name: str) -> torch.Tensor:
        return self.run.values[name]

    def dim(self, name: str) -> int:
        """A dim of it, sometimes counted from behind."""
        rank = self.value(name).dim()
        if not rank:
            raise NoCandidate
        dim = self.number(0, rank - 1)
        return dim - rank if self.chance(3) else dim

    def like(self, name: str) -> str:
        """Another value that broadcasts with it."""
        shape = self.value(name).shape

        def fits(other: torch.Tensor) -> bool:
            pairs = zip(reversed(shape), reversed(other.shape), strict=False)
            return all(a in (b, 1) or b == 1 for a, b in pairs)

        return self.name(fits)

    def integers(self, rank: int | None = None) -> str:
        """A value to index with."""
        return self.name(
            lambda t: t.dtype in (torch.int64, torch.int32) and (rank is None or t.dim() == rank)
        )


@st.composite
def programs(draw: Callable[..., Any], max_steps: int = 16) -> Program:
    """A program that eager runs and whose answer does not hang on rounding."""
    sizes = draw(st.tuples(*[st.integers(2, 5)] * 3))
    if draw(st.integers(0, 11)) == 11:
        sizes = (sizes[0], draw(st.integers(0, 1)), sizes[2])
    dynamic = draw(st.booleans())
    second = tuple(7 - s if s > 1 else s for s in sizes) if dynamic else sizes
    inputs = draw(st.lists(_inputs(), min_size=1, max_size=3))
    eager_ops = draw(st.lists(st.sampled_from(EAGER_OPS), max_size=2, unique=True))
    if draw(st.integers(0, 3)) < 3:
        eager_ops = []
    start = Program(tuple(inputs), (), "v0", (sizes, second), dynamic, tuple(eager_ops))
    run = Run.start(start, 0)
    drawer = Drawer(draw, run)
    steps: list[Step] = []
    for _ in range(draw(st.integers(2, max_steps))):
        step = _step(drawer)
        if step is not None and run.step(step):
            steps.append(step)
            drawer.count = max(drawer.count, int(step.target[1:]) + 1)
    returned = _returned(drawer)
    return Program(start.inputs, tuple(steps), returned, start.sizes, dynamic, start.eager_ops)


@st.composite
def _inputs(draw: Callable[..., Any]) -> Input:
    axis = st.sampled_from([0, 1, 2, 0, 1, 2, None])
    shape = draw(st.lists(axis, max_size=3))
    layout = draw(st.sampled_from(LAYOUTS))
    special = draw(st.integers(0, 9)) == 9
    dtype = draw(st.sampled_from(DTYPES))
    return Input(tuple(shape), dtype, draw(st.integers(0, 12)), layout, special)


def _step(drawer: Drawer) -> Step | None:
    target = f"v{drawer.count}"
    try:
        if drawer.chance(7):
            made = drawer.one(MUTATIONS)(drawer)
            return Step(made[0], made[1], in_place=True)
        kind, write = drawer.one(STEPS)
        made = write(drawer)
    except NoCandidate:
        return None
    code, guard = made if isinstance(made, tuple) else (made, "")
    return Step(target, code, kind, guard=guard)


def _returned(drawer: Drawer) -> str:
    names = list(drawer.run.values)
    latest = names[-1]
    others = [drawer.name() for _ in range(drawer.number(0, 3))]
    if not others:
        return latest
    form = drawer.one(("tuple", "tuple", "dict", "list", "none"))
    chosen = [latest, *others]
    if form == "dict":
        return "{" + ", ".join(f"'k{i}': {n}" for i, n in enumerate(chosen)) + "}"
    if form == "none":
        chosen.insert(1, "None")
    return f"[{', '.join(chosen)}]" if form == "list" else f"({', '.join(chosen)})"
