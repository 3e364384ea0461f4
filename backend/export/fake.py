"""Models without memory for their weights."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from ..torch_private import FakeTensorMode, ShapeEnv


@contextlib.contextmanager
def enable_fake_mode() -> Generator[None]:
    """Models and tensors made inside have shapes and dtypes but no memory.

    `export` takes them, inside or outside; `program.apply_weights` gives the weights their values.
    """
    with FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv(tracked_fakes=[])):
        yield
