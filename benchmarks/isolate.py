"""Processes of their own, so that neither crashes, caches nor memory pass from one to the next."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import torch

from .backends import hush

P = ParamSpec("P")
T = TypeVar("T")


class ProcessDiedError(RuntimeError):
    """A process ended without an answer."""


def isolated(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of the call in a new process, or what it raises; ProcessDiedError if it dies."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(function, *args, **kwargs).result()
        except BrokenProcessPool as error:
            raise ProcessDiedError("the process died (a crash, or out of memory)") from error


@contextmanager
def prepared(threads: int) -> Iterator[None]:
    """Inference on so many threads, quietly; Inductor's caches are empty, so that it compiles."""
    hush()
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache, torch.no_grad():
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        yield
