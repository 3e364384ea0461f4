"""A small share of what `make stress` does."""

from __future__ import annotations

import subprocess
import sys


def test_nothing_is_wrong_lost_or_grows() -> None:
    command = [sys.executable, "-m", "tests.conformance.stress", "--share", "0.02"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": 0 bad") == 5
