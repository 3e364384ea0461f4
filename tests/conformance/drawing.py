"""Hypothesis draws programs: inputs, then step after step of what eager accepts, then outputs."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
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

    def __init__(self, chance: random.Random, run: Run, count: int) -> None:
        self._chance = chance
        self.run = run
        self.count = count

    def one(self, choices: Sequence[Any]) -> Any:
        """One of these."""
        return self._chance.choice(choices)

    def chance(self, of: int) -> bool:
        """True once in so many."""
        return self._chance.randrange(of) == 0

    def number(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return self._chance.randint(low, high)

    def name(self, fits: Callable[[torch.Tensor], bool] = lambda t: True) -> str:
        """A value that fits, more often one of the latest."""
        names = [n for n, v in self.run.values.items() if fits(v)]
        if not names:
            raise NoCandidate
        return self.one(names[-3:] if self.chance(2) else names)

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


# A seed for each choice that belongs together. Hypothesis favours the first of what it chooses
# among and repeats itself; behind a seed everything is as likely. It shrinks by leaving out steps.
SEED = st.integers(0, (1 << 48) - 1)


@st.composite
def programs(draw: Callable[..., Any], max_steps: int = 14) -> Program:
    """A program that eager runs and whose answer does not hang on rounding."""
    start = _start(random.Random(draw(SEED)))
    run = Run.start(start, 0)
    steps: list[Step] = []
    count = len(start.inputs)
    for seed in draw(st.lists(SEED, min_size=3, max_size=max_steps)):
        step = _attempt(Drawer(random.Random(seed), run, count), run)
        if step is not None:
            steps.append(step)
            count += not step.in_place
    returned = _returned(Drawer(random.Random(draw(SEED)), run, count))
    return replace(start, steps=tuple(steps), returned=returned)


def _start(chance: random.Random) -> Program:
    """Sizes, inputs and options."""
    sizes = [chance.randint(2, 5) for _ in range(3)]
    if chance.randrange(12) == 0:
        sizes[1] = chance.randint(0, 1)
    dynamic = chance.random() < 0.5
    second = tuple(7 - s if s > 1 else s for s in sizes) if dynamic else tuple(sizes)
    inputs = tuple(_input(chance) for _ in range(chance.randint(1, 3)))
    eager_ops = tuple(chance.sample(EAGER_OPS, 2)) if chance.randrange(5) == 0 else ()
    return Program(inputs, (), "v0", (tuple(sizes), second), dynamic, eager_ops)


def _input(chance: random.Random) -> Input:
    rank = chance.choice((0, 1, 1, 2, 2, 2, 3, 3, 3, 4))
    shape = tuple(chance.choice((0, 1, 2, 0, 1, 2, None)) for _ in range(rank))
    special = chance.randrange(10) == 0
    return Input(
        shape, chance.choice(DTYPES), chance.randrange(13), chance.choice(LAYOUTS), special
    )


def _attempt(drawer: Drawer, run: Run) -> Step | None:
    """A step that eager takes, if one is found in a few attempts."""
    for _ in range(6):
        step = _step(drawer)
        if step is not None and run.step(step):
            return step
    return None


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
