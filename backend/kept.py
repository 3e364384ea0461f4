"""What outlives a process: programs in `cache_dir`, and in torch's own cache artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..lowering.ops import OWN_RULES, registry
from ..lowering.region import Region, location
from ..runtime.errors import CacheError
from ..runtime.program import Program
from ..runtime.stored import from_bytes, structure, to_bytes
from .options import Options
from .program_files import ProgramFiles, Stored, key_of
from .state import state
from .torch_private import record_artifact

_NODES = "nodes"


class KeptPrograms:
    """The programs of earlier processes, under one choice of options."""

    def __init__(self, files: ProgramFiles | None) -> None:
        self._files = files

    @staticmethod
    def of(options: Options) -> KeptPrograms | None:
        """None where nothing is kept: no directory, or a rule or transform of the user's.

        Nobody but the user knows when what those do has changed.
        """
        directory = options.kept_in
        own = registry.version == OWN_RULES and not options.transforms
        if not own or (directory is None and not state.delivered):
            return None
        limit = options.cache_size_mb * 1_000_000
        return KeptPrograms(None if directory is None else state.files_in(directory, limit))

    def find(self, fingerprint: str, region: Region) -> Program | None:
        """The program of a region, with the region's own lines."""
        key = key_of(fingerprint)
        delivered = state.delivered.pop(key, None)
        if self._files is None:
            found = None if delivered is None else Stored(*from_bytes(delivered), delivered)
        else:
            if delivered is not None:
                self._files.keep(fingerprint, delivered)
            found = self._files.find(fingerprint)
        if found is None:
            return None
        names = found.facts.get(_NODES)
        if not isinstance(names, list) or len(names) != len(region.nodes):
            return None
        state.cache_loads += 1
        record_artifact(key, found.data)
        lines = {str(n): location(node) for n, node in zip(names, region.nodes, strict=True)}
        return replace(found.program, locations=lines)

    def keep(self, program: Program, region: Region) -> None:
        """Write a program, for those who come later."""
        key, data = program_bytes(program, region)
        record_artifact(key, data)
        if self._files is not None:
            self._files.keep(program.fingerprint, data)

    def compare(self, earlier: Program, program: Program) -> None:
        """CacheError where what was kept is not what is made now."""
        if structure(earlier) != structure(program):
            raise CacheError(
                f"cache_verify: the program kept as {key_of(program.fingerprint)} is not what is "
                f"lowered now; remove it by `python -m dynamo_onnx cache clear` and report this"
            )


def program_bytes(program: Program, region: Region) -> tuple[str, bytes]:
    """A program's key and its bytes, with the names of the region's nodes."""
    facts: Mapping[str, Any] = {_NODES: [node.name for node in region.nodes]}
    return key_of(program.fingerprint), to_bytes(program, facts)


def deliver(key: str, data: bytes) -> None:
    """Take a program from torch's cache artifacts; CacheError if it is damaged."""
    program, _ = from_bytes(data)
    if key != key_of(program.fingerprint):
        return  # made by another version: it would never be found
    with state.lock:
        state.delivered[key] = data
