"""Bundles that are damaged, or made to do damage: each is refused, nothing outside is touched."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import dynamo_onnx
from dynamo_onnx.runtime.bundle.expressions import (
    OPERATIONS,
    Values,
    check,
    evaluate,
    holds,
)
from dynamo_onnx.runtime.bundle.load import load
from dynamo_onnx.runtime.errors import BundleError

Damage = Callable[[Path], None]
X = np.ones((2, 4), np.float32)


class Model(nn.Module):
    """Reads weights, and keeps a buffer."""

    calls: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 64)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        return self.linear(x) + self.calls


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound bundle."""
    compiled = torch.compile(Model(), backend="onnx", options={"strict": True})
    with torch.no_grad():
        compiled(torch.from_numpy(X))
    path = tmp_path_factory.mktemp("saved") / "sound.onnxbundle"
    dynamo_onnx.save(compiled, path)
    assert load(path)(X).shape == (2, 64)
    return path


def manifest(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Damage to the manifest."""

    def damage(folder: Path) -> None:
        path = folder / "manifest.json"
        told = json.loads(path.read_text())
        change(told)
        path.write_text(json.dumps(told))

    return damage


def program(change: Callable[[onnx.ModelProto], object]) -> Damage:
    """Damage to the program, with a manifest that has its new size and hash."""

    def damage(folder: Path) -> None:
        model = onnx.load(folder / "0_0.onnx", load_external_data=False)
        change(model)
        (folder / "0_0.onnx").write_bytes(model.SerializeToString())
        tell(folder)

    return damage


def tell(folder: Path, name: str = "0_0.onnx") -> None:
    """Have the manifest tell the size and hash that a file has now."""
    told = json.loads((folder / "manifest.json").read_text())
    data = (folder / name).read_bytes()
    entry = told["weights"] if name.endswith("safetensors") else told["programs"][0]["file"]
    entry.update(size=len(data), sha256=hashlib.sha256(data).hexdigest())
    (folder / "manifest.json").write_text(json.dumps(told))


def write(name: str, content: bytes | Callable[[bytes], bytes], *, told: bool = False) -> Damage:
    """Other contents of a file."""

    def damage(folder: Path) -> None:
        path = folder / name
        made = content if isinstance(content, bytes) else content(path.read_bytes())
        path.write_bytes(made)
        if told:
            tell(folder, name)

    return damage


def link(name: str, target: str) -> Damage:
    """A link in place of a file."""

    def damage(folder: Path) -> None:
        shutil.move(folder / name, folder.parent / name)
        (folder / name).symlink_to(target.replace("..", str(folder.parent)))

    return damage


def weight(model: onnx.ModelProto) -> onnx.TensorProto:
    """The first weight."""
    return next(t for t in model.graph.initializer if t.external_data)


def place(key: str, value: str) -> Callable[[onnx.ModelProto], object]:
    """Have a weight lie somewhere else."""

    def change(model: onnx.ModelProto) -> None:
        for entry in weight(model).external_data:
            if entry.key == key:
                entry.value = value

    return change


def more(key: str, value: str) -> Callable[[onnx.ModelProto], object]:
    """Tell more of where a weight lies."""

    def change(model: onnx.ModelProto) -> None:
        entry = weight(model).external_data.add()
        entry.key, entry.value = key, value

    return change


def hide(model: onnx.ModelProto) -> None:
    """A weight from elsewhere, deep within a node."""
    inner = onnx.GraphProto()
    tensor = inner.initializer.add()
    tensor.CopyFrom(weight(model))
    tensor.name = "hidden"
    tensor.external_data[0].value = "../../secret"
    node = model.graph.node.add(op_type="If", name="trap")
    node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g.CopyFrom(inner)


def file(told: dict[str, Any]) -> dict[str, Any]:
    """The program's entry."""
    return told["programs"][0]["file"]


def steps(told: dict[str, Any]) -> list[dict[str, Any]]:
    """What a call does."""
    block = told["block"]
    while not block["steps"]:
        block = block["choices"][0]["then"]
    return block["steps"]


def nested(depth: int) -> list[Any]:
    """An expression in itself."""
    return ["not", nested(depth - 1)] if depth else ["not", True]


def deep_blocks(told: dict[str, Any]) -> None:
    for _ in range(300):
        choice = {"name": "a", "when": [], "then": told["block"]}
        told["block"] = {"steps": [], "choices": [choice], "result": None}


DAMAGE: dict[str, Damage] = {
    "no manifest": lambda f: (f / "manifest.json").unlink(),
    "an empty manifest": write("manifest.json", b""),
    "half a manifest": write("manifest.json", lambda d: d[: len(d) // 2]),
    "a manifest that is a list": write("manifest.json", b"[]"),
    "a manifest of brackets": write("manifest.json", b"[" * 100_000),
    "a manifest of another format": manifest(lambda t: t.update(format="dynamo_onnx bundle 2")),
    "a manifest without programs": manifest(lambda t: t.pop("programs")),
    "a pickle": write("manifest.json", b"\x80\x04cos\nsystem\n(S'true'\ntR."),
    "a manifest that is a link": link("manifest.json", "../manifest.json"),
    "a program that is a link": link("0_0.onnx", "../0_0.onnx"),
    "weights that are a link": link("weights.safetensors", "../weights.safetensors"),
    "a program named outside": manifest(lambda t: file(t).update(name="../outside.onnx")),
    "a program by its path": manifest(lambda t: file(t).update(name="/etc/passwd")),
    "a program in a folder": manifest(lambda t: file(t).update(name="a/b.onnx")),
    "a program with a null": manifest(lambda t: file(t).update(name="a\0b")),
    "a program that is a folder": lambda f: (
        (f / "0_0.onnx").unlink(),
        (f / "0_0.onnx").mkdir(),
    )[0],
    "a program that is a pipe": lambda f: ((f / "0_0.onnx").unlink(), os.mkfifo(f / "0_0.onnx"))[0],
    "no program": lambda f: (f / "0_0.onnx").unlink(),
    "no weights": lambda f: (f / "weights.safetensors").unlink(),
    "half a program": write("0_0.onnx", lambda d: d[: len(d) // 2]),
    "half a program, told so": write("0_0.onnx", lambda d: d[: len(d) // 2], told=True),
    "noise for a program, told so": write("0_0.onnx", b"\xff" * 999, told=True),
    "a flipped bit in the program": write(
        "0_0.onnx", lambda d: d[:50] + bytes([d[50] ^ 1]) + d[51:]
    ),
    "a flipped bit in the weights": write(
        "weights.safetensors", lambda d: d[:-9] + bytes([d[-9] ^ 1]) + d[-8:]
    ),
    "half the weights": write("weights.safetensors", lambda d: d[: len(d) // 2]),
    "half the weights, told so": write(
        "weights.safetensors", lambda d: d[: len(d) // 2], told=True
    ),
    "no byte of weights, told so": write("weights.safetensors", b"", told=True),
    "a wrong hash": manifest(lambda t: file(t).update(sha256="0" * 64)),
    "a negative size": manifest(lambda t: file(t).update(size=-1)),
    "a giant size": manifest(lambda t: file(t).update(size=1 << 62)),
    "a size that is a text": manifest(lambda t: file(t).update(size="12")),
    "weights by another name": manifest(lambda t: t["weights"].update(name="0_0.onnx")),
    "a weight outside": program(place("location", "../outside")),
    "a weight by its path": program(place("location", "/etc/passwd")),
    "a weight in memory": program(place("location", "*/_ORT_MEM_ADDR_/*")),
    "a weight before the file": program(place("offset", "-8")),
    "a weight behind the file": program(place("offset", "99999999")),
    "a weight longer than the file": program(place("length", "99999999")),
    "a weight shorter than its dims": program(place("length", "4")),
    "a weight at no number": program(place("offset", "zero")),
    "a weight with more to tell": program(more("checksum", "0")),
    "a weight of giant dims": program(lambda m: weight(m).dims.extend([1 << 40, 1 << 40])),
    "a weight of negative dims": program(lambda m: weight(m).dims.insert(0, -1)),
    "a weight hidden in a branch": program(hide),
    "a constant of giant dims": program(
        lambda m: m.graph.initializer.add(name="big", data_type=1, dims=[1 << 40])
    ),
    "other inputs than told": program(lambda m: m.graph.input.add(name="more")),
    "other outputs than told": program(lambda m: m.graph.output.add(name="more")),
    "an operator that is none": program(lambda m: setattr(m.graph.node[0], "op_type", "Nonsense")),
    "an operation that is none": manifest(lambda t: t["block"].update(result=["system", "true"])),
    "an operation without operands": manifest(lambda t: t["block"].update(result=["eq", 1])),
    "an operation of an operation": manifest(lambda t: t["block"].update(result=[["eq"], 1, 1])),
    "an error without a text": manifest(
        lambda t: t["block"].update(result=["raise", "ValueError"])
    ),
    "an expression that is an object": manifest(lambda t: t["block"].update(result={"a": 1})),
    "an expression in itself, deeply": manifest(lambda t: t["block"].update(result=nested(500))),
    "a private attribute": manifest(
        lambda t: t["block"].update(result=["attribute", ["argument", "args"], "__class__"])
    ),
    "a private attribute to write": manifest(
        lambda t: steps(t).append(
            {"target": ["argument", "x"], "attribute": "__class__", "value": 1}
        )
    ),
    "a step of no program": manifest(lambda t: steps(t)[0].update(program=7)),
    "a step with fewer inputs": manifest(lambda t: steps(t)[0].update(inputs=[])),
    "choices without end": manifest(deep_blocks),
    "a kept array outside": manifest(lambda t: t["kept"]["calls"].update(offset=1 << 40)),
    "a kept array of negative size": manifest(lambda t: t["kept"]["calls"].update(shape=[-1])),
    "a kept array of no type": manifest(lambda t: t["kept"]["calls"].update(dtype="object")),
    "a kept array that is not there": manifest(lambda t: t["kept"].clear()),
    "a parameter that is no name": manifest(lambda t: t["parameters"][0].update(name="a; b")),
    "a parameter of no kind": manifest(lambda t: t["parameters"][0].update(kind="wild")),
    "parameters twice": manifest(lambda t: t["parameters"].append(t["parameters"][0])),
    "an element type that is none": manifest(
        lambda t: t["programs"][0]["inputs"][0].update(dtype="object")
    ),
    "providers that are a number": manifest(lambda t: t.update(providers=[3])),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_or_hostile_bundle_is_refused(name: str, saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "inside" / "bad.onnxbundle"
    shutil.copytree(saved, folder)
    (tmp_path / "inside" / "outside.onnx").write_bytes((saved / "0_0.onnx").read_bytes())
    DAMAGE[name](folder)
    before = contents(tmp_path)
    with pytest.raises((BundleError, dynamo_onnx.SessionError)) as refused:
        load(folder)
    if name != "an operator that is none":  # which onnxruntime finds
        assert isinstance(refused.value, BundleError)
    assert len(str(refused.value)) < 2000
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[Path, object]:
    """All that lies in a folder."""
    return {
        path: path.read_bytes()
        if path.is_file() and not path.is_symlink()
        else path.lstat().st_mode
        for path in folder.rglob("*")
    }


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "nothing", tmp_path):
        with pytest.raises(BundleError):
            load(path)


def test_a_bundle_that_is_a_link_itself_is_the_users_choice(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "latest.onnxbundle").symlink_to(saved)
    assert load(tmp_path / "latest.onnxbundle")(X).shape == (2, 64)


def test_every_operation_is_checked_for_its_operands() -> None:
    for name in OPERATIONS:
        with pytest.raises(BundleError):
            check([name, object()])


@pytest.mark.parametrize("name", ["add", "eq", "lt", "floordiv"])
def test_arrays_are_computed_with_in_programs_alone(name: str) -> None:
    values = Values({"x": X, "n": 3}, {})
    assert evaluate([name, ["argument", "n"], 3], values) == {"add": 6, "eq": 1, "lt": 0}.get(
        name, 1
    )
    with pytest.raises(BundleError, match="an array is computed with outside of a program"):
        evaluate([name, ["argument", "x"], 3], values)
    assert not holds([name, ["argument", "x"], 3], values)
