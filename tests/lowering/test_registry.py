"""The registry: every rule is found by one search for its overload's name."""

from __future__ import annotations

from pathlib import Path

import pytest

import dynamo_onnx.lowering.ops
from dynamo_onnx.lowering.ops import registry

RULES = "\n".join(
    path.read_text() for path in sorted(Path(dynamo_onnx.lowering.ops.__file__).parent.glob("*.py"))
)


def test_there_are_rules_for_some_hundred_overloads() -> None:
    assert len(registry) >= 400


@pytest.mark.parametrize("op", sorted(registry, key=str), ids=str)
def test_one_grep_finds_the_lowering(op: object) -> None:
    assert str(op) in RULES
