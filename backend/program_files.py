"""Programs on disk, under their fingerprints: what one process lowered, the next one finds.

Many processes may share a directory. A file appears whole or not at all, and is checked by whoever
takes it; one that is damaged counts as absent, and is replaced. Beyond a size, the files that were
not used for longest are removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime as ort

from .. import lowering, runtime
from ..runtime.errors import CacheError
from ..runtime.program import Program
from ..runtime.stored import from_bytes
from .dump import write_atomically

log = logging.getLogger(__name__)

SUFFIX = ".program"
LOOKS_PER_LIMIT = 16  # so often, at least, the sizes are added up until the limit is reached
LEFTOVER_S = 3600.0  # a temporary file as old as this was left by a process that died


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: its key, size and the time of its last use (seconds since 1970)."""

    path: Path
    key: str
    size_bytes: int
    used: float


@dataclass(frozen=True, slots=True)
class Stored:
    """A program as it was read, with the facts that were stored beside it and its bytes."""

    program: Program
    facts: Mapping[str, Any]
    data: bytes


class ProgramFiles:
    """The programs in one directory, of at most `limit_bytes` together."""

    def __init__(self, directory: Path, limit_bytes: int) -> None:
        self.directory = directory / "programs"
        self.limit_bytes = limit_bytes
        self._unseen_bytes = limit_bytes  # what may have been written since the last look
        self._lock = threading.Lock()

    def find(self, fingerprint: str) -> Stored | None:
        """A program; None where there is none that can be used."""
        path = self._path(key_of(fingerprint))
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("cannot read %s: %s", path, error.strerror)
            return None
        try:
            program, facts = from_bytes(data)
        except CacheError as error:
            log.warning("%s is compiled again: %s", path, error)
            return None
        if program.fingerprint != fingerprint:
            log.warning("%s is compiled again: it holds another program", path)
            return None
        with contextlib.suppress(OSError):  # it may be gone by now
            os.utime(path)
        return Stored(program, facts, data)

    def keep(self, fingerprint: str, data: bytes) -> None:
        """Write a program's bytes. What cannot be written is only lowered again the next time."""
        path = self._path(key_of(fingerprint))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda p: p.write_bytes(data))
        except (CacheError, OSError) as error:
            log.warning("the program is not kept: %s", error)
            return
        with self._lock:
            self._unseen_bytes += len(data)
            due = self._unseen_bytes > self.limit_bytes // LOOKS_PER_LIMIT
            if due:
                self._unseen_bytes = 0
        if due:
            self.evict()

    def entries(self) -> list[Entry]:
        """The files, those first that were not used for longest."""
        found: list[Entry] = []
        for path in self.directory.glob(f"*/*{SUFFIX}"):
            with contextlib.suppress(OSError):  # another process has removed it
                stat = path.lstat()
                if not path.is_symlink():
                    found.append(Entry(path, path.stem, stat.st_size, stat.st_mtime))
        return sorted(found, key=lambda entry: entry.used)

    def evict(self) -> int:
        """Remove files until the rest is within the limit; how many were removed."""
        for leftover in self._leftovers():
            leftover.unlink(missing_ok=True)
        entries = self.entries()
        total = sum(entry.size_bytes for entry in entries)
        removed = 0
        for entry in entries:
            if total <= self.limit_bytes:
                break
            entry.path.unlink(missing_ok=True)
            total -= entry.size_bytes
            removed += 1
        return removed

    def clear(self) -> int:
        """Remove all of them; how many there were."""
        entries = self.entries()
        for entry in entries:
            entry.path.unlink(missing_ok=True)
        return len(entries)

    def _leftovers(self) -> Iterator[Path]:
        oldest = time.time() - LEFTOVER_S
        for path in self.directory.glob(f"*/.*{SUFFIX}.*"):
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime < oldest:
                    yield path

    def _path(self, key: str) -> Path:
        return self.directory / key[:2] / f"{key}{SUFFIX}"


def key_of(fingerprint: str) -> str:
    """The fingerprint together with what lowers and runs programs, hexadecimal."""
    parts = (fingerprint, rules_digest(), ort.__version__)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@cache
def rules_digest() -> str:
    """sha256 of the sources of what makes programs: one is only as good as the rules it is from."""
    digest = hashlib.sha256()
    for package in (lowering, runtime):
        (root,) = map(Path, package.__path__)
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
