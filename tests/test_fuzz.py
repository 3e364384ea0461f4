"""A hundred random programs, always the same ones; thousands in `make conformance`."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

from tests.conformance.drawing import programs
from tests.conformance.fuzz import failure
from tests.conformance.programs import Program


@settings(
    max_examples=100,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(programs())
def test_random_programs_give_eagers_answer(program: Program) -> None:
    found = failure(program)
    assert not found, f"{found}\n\n{program.script()}"
