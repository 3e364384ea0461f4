"""Locks that a fork does not leave closed."""

from __future__ import annotations

import os
import threading


class ProcessLock:
    """A lock for each process: `with lock(): ...`.

    A fork copies a lock that another thread holds, but not the thread, which would open it again.
    It is no context manager itself: an interrupt between the lines of one would leave it closed.
    """

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: dict[int, threading.Lock] = {}

    def __call__(self) -> threading.Lock:
        """The one of this process."""
        return self._locks.setdefault(os.getpid(), threading.Lock())
