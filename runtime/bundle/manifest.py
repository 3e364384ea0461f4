"""The files of a bundle, read with suspicion: a bundle may be damaged, or made to do damage.

    model.onnxbundle/
      manifest.json         what the bundle is, with the size and SHA-256 of every other file
      0_0.onnx …            a program for each captured graph, its weights in:
      weights.safetensors   every weight once, whichever programs read it

It is data: nothing in it is executed but ONNX programs, by ONNX Runtime. No file is opened outside
of the directory, nor through a link in it, and none that is not as the manifest says.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import onnx
from google.protobuf.message import DecodeError

from ..errors import BundleError
from ..model_tensors import tensors
from .arrays import ELEMENT_TYPES, NUMPYS
from .expressions import Expression, check

FORMAT = "dynamo_onnx bundle 1"
MANIFEST, WEIGHTS = "manifest.json", "weights.safetensors"
_LARGEST_MANIFEST = 1 << 28
_LARGEST_PROGRAM = (1 << 31) - 1
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,120}")
_BYTES = {
    "float32": 4, "float64": 8, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2,
    "int8": 1, "uint64": 8, "uint32": 4, "uint16": 2, "uint8": 1, "bool": 1,
    "float8_e4m3fn": 1, "float8_e5m2": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class File:
    """A file of the bundle: its name, size in bytes, and SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a program: its name there, and how its values are to be read.

    `dtype` is numpy's name. An output that is a `number` is returned as one.
    """

    name: str
    dtype: str
    number: bool = False


@dataclass(frozen=True, slots=True)
class ProgramEntry:
    """A program: its file, its inputs and outputs, the user's line of each node that has one."""

    file: File
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One of the function's parameters; `kind` is the name of an `inspect` kind.

    The default of one that is `optional` is an expression, or `left_out` where it is none.
    """

    name: str
    kind: str
    optional: bool
    left_out: bool
    default: Expression


@dataclass(frozen=True, slots=True)
class Kept:
    """An array that the bundle holds itself: where it lies among the weights."""

    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def item_bytes(self) -> int:
        """Of one element."""
        return _BYTES[self.dtype]

    @property
    def size_bytes(self) -> int:
        """Of all elements."""
        return math.prod(self.shape) * self.item_bytes

    @property
    def is_numpys(self) -> bool:
        """Has numpy the dtype itself?"""
        return self.dtype in NUMPYS


@dataclass(frozen=True, slots=True)
class Run:
    """Run a program; its results are then those of this number."""

    number: int
    program: int
    inputs: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Write:
    """Write a result into an argument, into an attribute of one, or into a kept array."""

    target: Expression
    attribute: str | None
    value: Expression


@dataclass(frozen=True, slots=True)
class Choice:
    """A way to go on, and what must hold for it; `name` is that of the guard set, or a branch."""

    name: str
    conditions: tuple[Expression, ...]
    then: Block


@dataclass(frozen=True, slots=True)
class Block:
    """Steps, and then either choices, of which the first that holds is taken, or the result."""

    steps: tuple[Run | Write, ...]
    choices: tuple[Choice, ...]
    result: Expression


@dataclass(frozen=True, slots=True)
class Manifest:
    """All of a bundle but its weights."""

    name: str
    versions: Mapping[str, str]
    providers: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    programs: tuple[ProgramEntry, ...]
    kept: Mapping[str, Kept]
    weights: File | None
    block: Block


def check_size(stream: BinaryIO, file: File) -> None:
    """BundleError, unless an open file has the size of the manifest."""
    found = os.fstat(stream.fileno()).st_size
    if found != file.size or found == 0:
        raise BundleError(f"{file.name} has {found} bytes, not the {file.size} of the manifest")


def check_content(content: bytes | memoryview, file: File) -> None:
    """BundleError, unless these bytes have the hash of the manifest."""
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise BundleError(f"{file.name} is not the file that was saved: its SHA-256 is another")


def opened(directory: Path, name: str) -> BinaryIO:
    """A plain file in the directory itself, open for reading."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise BundleError(f"{name[:80]!r} is no name of a file in a bundle")
    path = directory / name
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | _NONBLOCK)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BundleError(f"{path} is no plain file")
    return os.fdopen(descriptor, "rb")


_NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # a pipe in place of a file must not keep us waiting


def read_manifest(directory: Path) -> Manifest:
    """What the bundle says of itself; BundleError for what is no bundle."""
    if not directory.is_dir():
        raise BundleError(f"{directory} is no directory; a bundle is one, with a {MANIFEST} in it")
    with opened(directory, MANIFEST) as stream:
        data = stream.read(_LARGEST_MANIFEST + 1)
    if len(data) > _LARGEST_MANIFEST:
        raise BundleError(f"{MANIFEST} is too large to be one")
    try:
        told = _dict(json.loads(data))
        if told.get("format") != FORMAT:
            raise BundleError(
                f"{directory} is not of the format {FORMAT!r}, but {str(told.get('format'))[:80]!r}"
            )
        return _manifest(told)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise BundleError(f"{directory / MANIFEST} is damaged: {error!r}") from error


def check_program(directory: Path, entry: ProgramEntry, weights: File | None) -> bytes:
    """The bytes of a program, all of whose weights lie within the file of weights."""
    with opened(directory, entry.file.name) as stream:
        check_size(stream, entry.file)
        data = stream.read(entry.file.size)
    check_content(data, entry.file)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise BundleError(f"{entry.file.name} is no ONNX model: {error}") from error
    names = [value.name for value in model.graph.input]
    if names != [p.name for p in entry.inputs]:
        raise BundleError(f"{entry.file.name} has other inputs than the manifest says")
    if [value.name for value in model.graph.output] != [p.name for p in entry.outputs]:
        raise BundleError(f"{entry.file.name} has other outputs than the manifest says")
    for tensor in tensors(model):
        _check_tensor(tensor, entry.file, weights)
    return data


def _check_tensor(tensor: onnx.TensorProto, file: File, weights: File | None) -> None:
    where = f"{file.name}: tensor {tensor.name[:80]!r}"
    if any(size < 0 for size in tensor.dims):
        raise BundleError(f"{where} has a size below 0")
    elements = math.prod(tensor.dims)
    external = {e.key: e.value for e in tensor.external_data}
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        if external or elements > file.size * 8:
            raise BundleError(f"{where} is larger than its file")
        return
    if weights is None or external.get("location") != weights.name:
        raise BundleError(f"{where} lies in {external.get('location', '')[:80]!r}")
    if not external.keys() <= {"location", "offset", "length"}:
        raise BundleError(f"{where} lies where only {sorted(external)} tell")
    name = next((n for n, number in ELEMENT_TYPES.items() if number == tensor.data_type), "")
    try:
        offset, length = int(external["offset"]), int(external["length"])
    except (KeyError, ValueError) as error:
        raise BundleError(f"{where} lies nowhere in {weights.name}") from error
    if length != elements * _BYTES.get(name, 0) or not 0 <= offset <= weights.size - length:
        raise BundleError(f"{where} is not of its size, or not within {weights.name}")


def _manifest(told: Mapping[str, Any]) -> Manifest:
    programs = tuple(_program(p) for p in _list(told["programs"]))
    weights = None if told["weights"] is None else _file(told["weights"])
    if weights is not None and weights.name != WEIGHTS:
        raise BundleError(f"weights lie in {weights.name!r}, not in {WEIGHTS}")
    kept = {_text(name): _kept(k, weights) for name, k in _dict(told["kept"]).items()}
    return Manifest(
        name=_text(told["name"]),
        versions={_text(k): _text(v) for k, v in _dict(told["versions"]).items()},
        providers=tuple(map(_text, _list(told["providers"]))),
        parameters=tuple(_parameter(p) for p in _list(told["parameters"])),
        programs=programs,
        kept=kept,
        weights=weights,
        block=_block(told["block"], programs, kept, 0),
    )


def _program(told: Any) -> ProgramEntry:  # noqa: ANN401 - of JSON
    fields = _dict(told)
    file = _file(fields["file"])
    if file.size > _LARGEST_PROGRAM:
        raise BundleError(f"{file.name} is too large to be a program")
    return ProgramEntry(
        file, *(tuple(map(_port, _list(fields[key]))) for key in ("inputs", "outputs"))
    )


def _port(told: Any) -> Port:  # noqa: ANN401 - of JSON
    fields = _dict(told)
    if _text(fields["dtype"]) not in ELEMENT_TYPES:
        raise BundleError(f"no element type is called {str(fields['dtype'])[:80]!r}")
    return Port(_text(fields["name"]), fields["dtype"], bool(fields.get("number", False)))


def _file(told: Any) -> File:  # noqa: ANN401 - of JSON
    fields = _dict(told)
    return File(_text(fields["name"]), _number(fields["size"]), _text(fields["sha256"]))


def _parameter(told: Any) -> Parameter:  # noqa: ANN401 - of JSON
    fields = _dict(told)
    check(fields["default"])
    name, kind = _text(fields["name"]), _text(fields["kind"])
    if not name.isidentifier():
        raise BundleError(f"no parameter is called {name[:80]!r}")
    flags = bool(fields["optional"]), bool(fields["left_out"])
    return Parameter(name, kind, *flags, fields["default"])


def _kept(told: Any, weights: File | None) -> Kept:  # noqa: ANN401 - of JSON
    fields = _dict(told)
    kept = Kept(
        _text(fields["dtype"]),
        tuple(map(_number, _list(fields["shape"]))),
        _number(fields["offset"]),
    )
    if weights is None or min(kept.shape, default=0) < 0 or kept.offset < 0:
        raise BundleError("a kept array lies nowhere")
    if kept.offset + kept.size_bytes > weights.size:
        raise BundleError(f"a kept array does not lie within {weights.name}")
    return kept


_DEEPEST = 200


def _block(
    told: Any,  # noqa: ANN401 - of JSON
    programs: Sequence[ProgramEntry],
    kept: Mapping[str, Kept],
    depth: int,
) -> Block:
    if depth > _DEEPEST:
        raise BundleError("choices lie in each other too deeply")
    fields = _dict(told)
    choices = tuple(
        Choice(
            _text(choice["name"]),
            _expressions(choice["when"], kept),
            _block(choice["then"], programs, kept, depth + 1),
        )
        for choice in map(_dict, _list(fields["choices"]))
    )
    steps = tuple(_step(step, programs, kept) for step in _list(fields["steps"]))
    return Block(steps, choices, _expression(fields["result"], kept))


def _step(told: Any, programs: Sequence[ProgramEntry], kept: Mapping[str, Kept]) -> Run | Write:  # noqa: ANN401 - of JSON
    fields = _dict(told)
    if "program" in fields:
        index = _number(fields["program"])
        inputs = _expressions(fields["inputs"], kept)
        if not 0 <= index < len(programs) or len(inputs) != len(programs[index].inputs):
            raise BundleError(f"a step runs program {index}, which is not there or not like that")
        return Run(_number(fields["number"]), index, inputs)
    attribute = fields["attribute"]
    if attribute is not None and (not _text(attribute).isidentifier() or attribute[:2] == "__"):
        raise BundleError(f"no attribute is called {attribute[:80]!r}")
    return Write(_expression(fields["target"], kept), attribute, _expression(fields["value"], kept))


def _expressions(told: Any, kept: Mapping[str, Kept]) -> tuple[Expression, ...]:  # noqa: ANN401 - of JSON
    return tuple(_expression(e, kept) for e in _list(told))


def _expression(told: Any, kept: Mapping[str, Kept]) -> Expression:  # noqa: ANN401 - of JSON
    check(told)
    for part in parts(told):
        if part[0] == "kept" and part[1] not in kept:
            raise BundleError(f"there is no kept array {part[1][:80]!r}")
        if part[0] == "attribute" and part[2].startswith("__"):
            raise BundleError(f"the attribute {part[2][:80]!r} is not to be read")
    return told


def parts(expression: Any) -> Iterator[list[Any]]:  # noqa: ANN401 - an expression
    """Every operation in an expression, however deep."""
    if isinstance(expression, list):
        yield cast("list[Any]", expression)
        for operand in cast("list[Any]", expression)[1:]:
            yield from parts(operand)


def _number(value: Any) -> int:  # noqa: ANN401 - of JSON
    if type(value) is not int:
        raise TypeError(f"{str(value)[:80]!r} is no integer")
    return value


def _text(value: Any) -> str:  # noqa: ANN401 - of JSON
    return _of(str, value)


def _list(value: Any) -> list[Any]:  # noqa: ANN401 - of JSON
    return _of(list, value)


def _dict(value: Any) -> dict[str, Any]:  # noqa: ANN401 - of JSON
    return _of(dict, value)


def _of(kind: Callable[..., Any], value: Any) -> Any:  # noqa: ANN401 - of JSON
    if type(value) is not kind:
        raise TypeError(f"{str(value)[:80]!r} is no {getattr(kind, '__name__', kind)}")
    return value
