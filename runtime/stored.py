"""Programs as bytes, and back: a header in JSON and the ONNX model, which holds no weight.

What is read may be damaged, or made to do damage. Nothing in it is executed, no file is opened that
it names, and no memory is taken that its own size does not cover.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, cast

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from .errors import CacheError
from .model_tensors import tensors
from .program import OutputLayout, Program, Quantization, TensorSpec

MAGIC = b"dynamo_onnx program 1\n"
_LENGTH_BYTES = 8
_LARGEST_HEADER = 1 << 26
_BITS: dict[int, int] = {  # of an element, where a tensor has its data as raw bytes
    onnx.TensorProto.FLOAT: 32, onnx.TensorProto.DOUBLE: 64, onnx.TensorProto.FLOAT16: 16,
    onnx.TensorProto.BFLOAT16: 16, onnx.TensorProto.INT64: 64, onnx.TensorProto.INT32: 32,
    onnx.TensorProto.INT16: 16, onnx.TensorProto.INT8: 8, onnx.TensorProto.UINT64: 64,
    onnx.TensorProto.UINT32: 32, onnx.TensorProto.UINT16: 16, onnx.TensorProto.UINT8: 8,
    onnx.TensorProto.BOOL: 8,
}  # fmt: skip


def to_bytes(program: Program, facts: Mapping[str, Any]) -> bytes:
    """The program, and `facts` that JSON takes, to be found again by `from_bytes`."""
    model = ir.serde.serialize_model(program.model).SerializeToString(deterministic=True)
    header = {
        "fingerprint": program.fingerprint,
        "inputs": [_spec(spec) for spec in program.inputs],
        "outputs": [_spec(spec) for spec in program.outputs],
        "layouts": [asdict(layout) for layout in program.layouts],
        "node_count": program.node_count,
        "quantization": None if program.quantization is None else asdict(program.quantization),
        "facts": dict(facts),
        "model": {"bytes": len(model), "sha256": hashlib.sha256(model).hexdigest()},
    }
    told = json.dumps(header, sort_keys=True).encode()
    return MAGIC + len(told).to_bytes(_LENGTH_BYTES, "little") + told + model


def from_bytes(data: bytes) -> tuple[Program, Mapping[str, Any]]:
    """The program, without locations, and its facts; CacheError says what is wrong with it."""
    header, model = _parts(data)
    try:
        specs = {key: tuple(_read_spec(s) for s in header[key]) for key in ("inputs", "outputs")}
        program = Program(
            model=ir.serde.deserialize_model(_checked(model)),
            inputs=specs["inputs"],
            outputs=specs["outputs"],
            layouts=tuple(_read_layout(layout) for layout in header["layouts"]),
            fingerprint=_text(header["fingerprint"]),
            node_count=_number(header["node_count"]),
            locations={},
            quantization=_read_quantization(header["quantization"]),
        )
        facts: Mapping[str, Any] = _dict(header["facts"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CacheError(f"a stored program's header is not one: {error!r}") from error
    graph = program.model.graph
    told = [[spec.name for spec in specs[key]] for key in ("inputs", "outputs")]
    if told != [[v.name for v in graph.inputs], [v.name for v in graph.outputs]]:
        raise CacheError("a stored program's header names other inputs and outputs than its model")
    if not len(program.layouts) <= len(program.outputs):
        raise CacheError("a stored program has more layouts than outputs")
    return program, facts


def _parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and model, whose length and hash are as the header says."""
    if not data.startswith(MAGIC):
        raise CacheError("not a stored program of this version: it begins otherwise")
    start = len(MAGIC) + _LENGTH_BYTES
    length = int.from_bytes(data[len(MAGIC) : start], "little")
    if len(data) < start or length > min(_LARGEST_HEADER, len(data) - start):
        raise CacheError("a stored program ends within its header")
    try:
        header = _dict(json.loads(data[start : start + length]))
        told = _dict(header["model"])
        wanted = _number(told["bytes"]), _text(told["sha256"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CacheError(f"a stored program's header is not one: {error!r}") from error
    model = data[start + length :]
    if (len(model), hashlib.sha256(model).hexdigest()) != wanted:
        raise CacheError("a stored program's model is not the one that was stored")
    return header, model


def _checked(data: bytes) -> onnx.ModelProto:
    """The model, of which no tensor lies elsewhere or is smaller than it says."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise CacheError(f"a stored program's model is not one: {error}") from error
    for tensor in tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise CacheError(f"a stored program's tensor {tensor.name!r} lies in another file")
        elements = 1
        for dim in tensor.dims:
            if dim < 0:
                raise CacheError(f"a stored program's tensor {tensor.name!r} has a size below 0")
            elements *= dim
        bits = _BITS.get(tensor.data_type)
        raw = tensor.raw_data
        if (raw and bits and len(raw) != (elements * bits + 7) // 8) or elements > len(data) * 8:
            raise CacheError(f"a stored program's tensor {tensor.name!r} is not of its size")
    return model


def structure(program: Program) -> bytes:
    """All of a program that decides what it computes: names are numbers, and lines are left out."""
    plain = replace(program, fingerprint="", locations={})
    _, model = _parts(to_bytes(plain, {}))
    proto = onnx.ModelProto.FromString(model)
    numbers: dict[str, str] = {"": ""}  # an optional input that is not given
    _renumber(proto.graph, numbers)
    specs = [(s.dtype, len(s.shape)) for s in (*program.inputs, *program.outputs)]
    rest = repr((specs, program.layouts, program.quantization))
    return proto.SerializeToString(deterministic=True) + rest.encode()


def _renumber(graph: onnx.GraphProto, numbers: dict[str, str]) -> None:
    def number(name: str) -> str:
        return numbers.setdefault(name, str(len(numbers)))

    for value in (*graph.input, *graph.initializer):
        value.name = number(value.name)
    for node in graph.node:
        node.name = ""
        node.input[:] = [number(name) for name in node.input]
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _renumber(inner, numbers)
        node.output[:] = [number(name) for name in node.output]
    for value in (*graph.output, *graph.value_info):
        value.name = number(value.name)
    described = sorted(graph.value_info, key=lambda value: value.name)
    del graph.value_info[:]
    graph.value_info.extend(described)


def _spec(spec: TensorSpec) -> list[Any]:
    return [spec.name, spec.dtype.name, list(spec.shape)]


def _read_spec(told: Any) -> TensorSpec:  # noqa: ANN401 - of JSON
    name, dtype, shape = told
    return TensorSpec(_text(name), ir.DataType[_text(dtype)], tuple(_dim(d) for d in shape))


def _read_layout(told: Any) -> OutputLayout:  # noqa: ANN401 - of JSON
    fields = dict(_dict(told))
    permute, restride = fields.pop("permute"), fields.pop("restride")
    return OutputLayout(
        permute=None if permute is None else tuple(map(_number, permute)),
        expanded=tuple(map(_number, fields.pop("expanded"))),
        restride=None if restride is None else cast("Any", tuple(_numbers(r) for r in restride)),
        **fields,
    )


def _read_quantization(told: Any) -> Quantization | None:  # noqa: ANN401 - of JSON
    return None if told is None else Quantization(**{k: _number(v) for k, v in told.items()})


def _numbers(value: Any) -> tuple[int, ...]:  # noqa: ANN401 - of JSON
    return tuple(map(_number, value))


def _dim(value: Any) -> int | str:  # noqa: ANN401 - of JSON
    return value if isinstance(value, str) else _number(value)


def _number(value: Any) -> int:  # noqa: ANN401 - of JSON
    if type(value) is not int:
        raise TypeError(f"{value!r} is no integer")
    return value


def _text(value: Any) -> str:  # noqa: ANN401 - of JSON
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _dict(value: Any) -> dict[str, Any]:  # noqa: ANN401 - of JSON
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is no object")
    return cast("dict[str, Any]", value)
