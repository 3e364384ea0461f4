"""Writes programs to disk: complete or not at all."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import torch.fx

from ..runtime.errors import CacheError
from ..runtime.program import Program


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """`write(temporary path)`, then move it to `path`; on failure nothing is left behind."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        raise CacheError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def dump_graph(directory: Path, gm: torch.fx.GraphModule, compile_id: str) -> Path:
    """The graph as AOTAutograd gave it, readable, with the user's lines, as `frame0_0.py`."""
    path = directory / f"{frame_stem(compile_id)}.py"
    content = gm.print_readable(print_output=False)
    write_atomically(path, lambda p: p.write_text(content))
    return path


def dump(directory: Path, program: Program, compile_id: str, region: int) -> Path:
    """The program without weights as `frame0_0_region0.onnx`."""
    path = directory / f"{file_stem(compile_id, region)}.onnx"
    content = ir.serde.serialize_model(program.model).SerializeToString()
    write_atomically(path, lambda p: p.write_bytes(content))
    return path


def file_stem(compile_id: str, region: int) -> str:
    """`0/1`, 2 -> `frame0_1_region2`."""
    return f"{frame_stem(compile_id)}_region{region}"


def frame_stem(compile_id: str) -> str:
    """`0/1` -> `frame0_1`; other characters that a file name should not have become `_` too."""
    return "frame" + re.sub(r"\W", "_", compile_id)
