"""Programs as bytes: they come back as they were, and what is damaged or hostile is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import onnx
import onnx_ir as ir
import pytest

from dynamo_onnx import CacheError
from dynamo_onnx.runtime.program import OutputLayout, Program, Quantization, TensorSpec
from dynamo_onnx.runtime.stored import MAGIC, from_bytes, structure, to_bytes

START = len(MAGIC) + 8


def program(constant: float = 2.0, op_type: str = "Mul", prefix: str = "") -> Program:
    """y[n, 3] = x[n, 3] * constant."""
    x = ir.Value(name=f"{prefix}x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n", 3]))
    number = ir.tensor([constant], name=f"{prefix}two", dtype=ir.DataType.FLOAT)
    two = ir.Value(name=f"{prefix}two", type=x.type, shape=ir.Shape([1]), const_value=number)
    node = ir.node(op_type, [x, two], name=f"{prefix}mul/Mul")
    y = node.outputs[0]
    y.name, y.type, y.shape = f"{prefix}y", x.type, x.shape
    graph = ir.Graph([x], [y], nodes=[node], initializers=[two], opset_imports={"": 23}, name="g")
    specs = [(TensorSpec(f"{prefix}{n}", ir.DataType.FLOAT, ("n", 3)),) for n in "xy"]
    layouts = (OutputLayout(permute=(1, 0), restride=((3, 2), (1, 3)), is_complex=True),)
    return Program(
        ir.Model(graph, ir_version=10), *specs, layouts, "f" * 64, 1, {}, Quantization(4, 1)
    )


def test_a_program_comes_back_as_it_was() -> None:
    wanted = program()
    found, facts = from_bytes(to_bytes(wanted, {"nodes": ["mul"]}))
    assert facts == {"nodes": ["mul"]}
    for name in ("inputs", "outputs", "layouts", "fingerprint", "node_count", "quantization"):
        assert getattr(found, name) == getattr(wanted, name)
    models = [ir.serde.serialize_model(each.model) for each in (found, wanted)]
    assert models[0].SerializeToString() == models[1].SerializeToString()
    assert to_bytes(found, facts) == to_bytes(wanted, facts)


def test_the_structure_knows_no_names_but_all_that_computes() -> None:
    assert structure(program()) == structure(program(prefix="other_"))
    assert structure(program()) != structure(program(constant=3.0))
    assert structure(program()) != structure(program(op_type="Add"))


# ------------------------------------------------------------------------------ what is refused
def rebuilt(
    header: Callable[[dict[str, Any]], object] | None = None,
    model: Callable[[onnx.ModelProto], object] | None = None,
) -> bytes:
    """A stored program of which header or model were changed, with hash and sizes that fit."""
    data = to_bytes(program(), {})
    length = int.from_bytes(data[len(MAGIC) : START], "little")
    told = json.loads(data[START : START + length])
    proto = onnx.ModelProto.FromString(data[START + length :])
    if model is not None:
        model(proto)
    content = proto.SerializeToString()
    told["model"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    if header is not None:
        header(told)
    packed = json.dumps(told).encode()
    return MAGIC + len(packed).to_bytes(8, "little") + packed + content


def external(proto: onnx.ModelProto, location: str) -> None:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


def in_an_attribute(proto: onnx.ModelProto) -> None:
    attribute = proto.graph.node[0].attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
    attribute.t.data_type = onnx.TensorProto.FLOAT
    attribute.t.dims.append(4)
    attribute.t.external_data.add(key="location", value="/etc/passwd")


def in_a_body(proto: onnx.ModelProto) -> None:
    attribute = proto.graph.node[0].attribute.add(name="body", type=onnx.AttributeProto.GRAPH)
    tensor = attribute.g.initializer.add(name="t", data_type=1, dims=[4])
    tensor.data_location = onnx.TensorProto.EXTERNAL


def dims(*sizes: int) -> Callable[[onnx.ModelProto], object]:
    def change(proto: onnx.ModelProto) -> None:
        proto.graph.initializer[0].dims[:] = sizes

    return change


GOOD = to_bytes(program(), {})
HEADER = int.from_bytes(GOOD[len(MAGIC) : START], "little")
DAMAGED = {
    "nothing": b"",
    "another file": b"\x7fELF" + GOOD,
    "another version": GOOD.replace(b"program 1", b"program 2"),
    "magic alone": MAGIC,
    "half a length": GOOD[: len(MAGIC) + 3],
    "half a header": GOOD[: START + HEADER // 2],
    "no model": GOOD[: START + HEADER],
    "half a model": GOOD[:-20],
    "more than the model": GOOD + b"\0",
    "a bit in the model": GOOD[:-5] + bytes([GOOD[-5] ^ 1]) + GOOD[-4:],
    "a bit in the header": GOOD[:START] + b"[" + GOOD[START + 1 :],
    "a length beyond the end": MAGIC + (1 << 62).to_bytes(8, "little") + GOOD[START:],
    "a length of 0": MAGIC + bytes(8) + GOOD[START:],
    "a header that nests": MAGIC + (200_000).to_bytes(8, "little") + b"[" * 200_000,
    "a list for a header": MAGIC + (2).to_bytes(8, "little") + b"[]",
    "a pickle": b"\x80\x04\x95" + GOOD,
    "no inputs": rebuilt(lambda told: told.pop("inputs")),
    "inputs of numbers": rebuilt(lambda told: told.update(inputs=[1])),
    "an unknown dtype": rebuilt(lambda told: told["inputs"][0].__setitem__(1, "FLOAT99")),
    "a dim that is no number": rebuilt(lambda told: told["inputs"][0].__setitem__(2, [1.5])),
    "a dim that is true": rebuilt(lambda told: told["inputs"][0].__setitem__(2, [True])),
    "another input": rebuilt(lambda told: told["inputs"][0].__setitem__(0, "z")),
    "an input more": rebuilt(lambda told: told["inputs"].append(["z", "FLOAT", [1]])),
    "layouts for no output": rebuilt(lambda told: told["layouts"].extend(told["layouts"] * 3)),
    "a layout with a field more": rebuilt(lambda told: told["layouts"][0].update(run="rm")),
    "a permutation of texts": rebuilt(lambda told: told["layouts"][0].update(permute=["0"])),
    "a fingerprint of a number": rebuilt(lambda told: told.update(fingerprint=5)),
    "a node count of a text": rebuilt(lambda told: told.update(node_count="1")),
    "a quantization of a text": rebuilt(lambda told: told.update(quantization="int8")),
    "a hash of nothing": rebuilt(lambda told: told["model"].update(sha256="")),
    "a size of the model below 0": rebuilt(lambda told: told["model"].update(bytes=-1)),
    "facts of a list": rebuilt(lambda told: told.update(facts=[])),
    "a tensor in another file": rebuilt(model=lambda p: external(p, "weights.bin")),
    "a tensor above the folder": rebuilt(model=lambda p: external(p, "../../secret")),
    "a tensor at an absolute path": rebuilt(model=lambda p: external(p, "/etc/passwd")),
    "a tensor of an attribute elsewhere": rebuilt(model=in_an_attribute),
    "a tensor of a body elsewhere": rebuilt(model=in_a_body),
    "giant dims": rebuilt(model=dims(1 << 40, 1 << 40)),
    "dims without data": rebuilt(model=dims(1 << 20)),
    "a dim below 0": rebuilt(model=dims(-1)),
    "a dim too few": rebuilt(model=dims(2)),
    "no graph": rebuilt(model=lambda p: p.ClearField("graph")),
    "an output renamed": rebuilt(model=lambda p: setattr(p.graph.output[0], "name", "q")),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_damaged_or_hostile_is_refused(name: str) -> None:
    with pytest.raises(CacheError):
        from_bytes(DAMAGED[name])


def test_a_model_that_is_no_protobuf_is_refused() -> None:
    content = b"\xff" * 50
    data = rebuilt()
    length = int.from_bytes(data[len(MAGIC) : START], "little")
    told = json.loads(data[START : START + length])
    told["model"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    packed = json.dumps(told).encode()
    with pytest.raises(CacheError, match="model is not one"):
        from_bytes(MAGIC + len(packed).to_bytes(8, "little") + packed + content)


def test_no_byte_of_a_file_can_be_changed_unseen() -> None:
    """But for the header's own, whose every change is seen or means the same or another program."""
    step = max(1, (len(GOOD) - START - HEADER) // 60)
    for place in range(START + HEADER, len(GOOD), step):
        with pytest.raises(CacheError):
            from_bytes(GOOD[:place] + bytes([GOOD[place] ^ 0xFF]) + GOOD[place + 1 :])
