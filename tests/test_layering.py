"""Imports point one way, held over the syntax trees.

    runtime.errors, runtime.program  <-  rest of runtime, lowering  <-  backend  <-  api

Modules go by their installed names without the leading `dynamo_onnx.`: the files of `api/` are
"" (its `__init__`), "report" and so on, the others "backend.dynamo" and the like.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("backend", "lowering", "runtime")

# `runtime/__init__.py` runs whenever lowering imports `runtime.errors`: it stands at the bottom.
FOUNDATION = frozenset({"runtime", "runtime.errors", "runtime.program"})
MAY_IMPORT = {
    "foundation": {"foundation"},
    "runtime": {"foundation", "runtime"},
    "lowering": {"foundation", "lowering"},
    "backend": {"foundation", "runtime", "lowering", "backend"},
    "api": {"foundation", "runtime", "lowering", "backend", "api"},
}
# What a package offers under its own name, loaded when it is asked for.
OFFERS = {"runtime": "runtime.bundle.load"}
NEVER = {
    "foundation": ("onnxruntime", "torch.fx"),
    "lowering": ("onnxruntime",),
    "runtime": ("torch.fx",),
}
NO_TORCH_AT_IMPORT = FOUNDATION | {""}
PRIVATE_TORCH_ALLOWED = frozenset(
    f"{package}.torch_private" for package in ("backend", "lowering", "runtime")
)


@dataclass(frozen=True)
class Import:
    """One name in use. `loads`: neither inside a function nor under `if TYPE_CHECKING`."""

    target: str
    line: int
    loads: bool


@cache
def modules() -> dict[str, Path]:
    """Every module of the package, by name."""
    found = {_name(path.relative_to(ROOT / "api")): path for path in (ROOT / "api").rglob("*.py")}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            found[_name(path.relative_to(ROOT))] = path
    return found


def _name(path: Path) -> str:
    return ".".join(part for part in path.with_suffix("").parts if part != "__init__")


def layer(module: str) -> str:
    """The layer that a module of ours belongs to."""
    if module in FOUNDATION:
        return "foundation"
    first = module.partition(".")[0]
    return first if first in PACKAGES else "api"


def imports_of(source: str, module: str, *, is_package: bool = False) -> list[Import]:
    """Each import in the source, and each `torch.…` it reads; relative ones are resolved."""
    full = f"dynamo_onnx.{module}".rstrip(".")
    package = full if is_package else full.rpartition(".")[0]
    return list(_walk(ast.parse(source), package, loads=True))


def _walk(node: ast.AST, package: str, *, loads: bool) -> Iterator[Import]:
    match node:
        case ast.Import():
            for alias in node.names:
                yield Import(alias.name, node.lineno, loads)
        case ast.ImportFrom():
            for alias in node.names:
                yield Import(_origin(node, alias.name, package), node.lineno, loads)
        case ast.Attribute() if (chain := _attribute_chain(node)).startswith("torch."):
            yield Import(chain, node.lineno, loads=False)
            return
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
            loads = False
        case ast.If() if "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                yield from _walk(child, package, loads=False)
            for child in node.orelse:
                yield from _walk(child, package, loads=loads)
            return
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, package, loads=loads)


def _origin(node: ast.ImportFrom, name: str, package: str) -> str:
    """What `from … import name` reads: of ours the module, of others the name itself."""
    start = package.rsplit(".", node.level - 1)[0] if node.level else ""
    module = f"{start}.{node.module or ''}".strip(".")
    if module.split(".")[0] != "dynamo_onnx":
        return f"{module}.{name}"
    submodule = f"{module}.{name}"
    return submodule if submodule.removeprefix("dynamo_onnx.") in modules() else module


def _attribute_chain(node: ast.expr) -> str:
    """`torch.a.b` as text, or nothing where the chain does not start at a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := _attribute_chain(node.value)):
        return f"{base}.{node.attr}"
    return ""


def is_private_torch(target: str) -> bool:
    """Does the name pass through something private of torch? Operators are not meant."""
    first, *rest = target.split(".")
    if first != "torch" or rest[:1] == ["ops"]:
        return False
    return any(part.startswith("_") and not part.startswith("__") for part in rest)


def violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """What the module's imports do that its layer may not."""
    own = layer(module)
    found: set[str] = set()
    for imported in imports_of(source, module, is_package=is_package):
        target, where = imported.target, f"{module or '__init__'}:{imported.line}"
        first = target.split(".")[0]
        if first == "dynamo_onnx":
            ours = target.removeprefix("dynamo_onnx").removeprefix(".")
            offered = not imported.loads and OFFERS.get(module) == ours
            if layer(ours) not in MAY_IMPORT[own] and not offered:
                found.add(f"{where}: {own} must not import {ours or target}")
        for banned in NEVER.get(own, ()):
            if f"{target}.".startswith(f"{banned}."):
                found.add(f"{where}: {own} must not use {banned}")
        if module in NO_TORCH_AT_IMPORT and imported.loads and first == "torch":
            found.add(f"{where}: must not load torch when it is imported")
        if module not in PRIVATE_TORCH_ALLOWED and is_private_torch(target):
            found.add(f"{where}: {target} is private: import it in {own}/torch_private.py")
    return sorted(found)


@pytest.mark.parametrize("module", sorted(modules()), ids=lambda name: name or "__init__")
def test_module_keeps_to_its_layer(module: str) -> None:
    path = modules()[module]
    source = path.read_text(encoding="utf-8")
    assert violations(source, module, is_package=path.name == "__init__.py") == []


BAD = [
    (
        "runtime.errors",
        "from .session import Session",
        "foundation must not import runtime.session",
    ),
    ("runtime.program", "import torch", "must not load torch"),
    ("runtime.program", "try:\n    from torch import fx\nexcept ImportError: ...", "load torch"),
    ("runtime.session", "from ..lowering.registry import x", "runtime must not import lowering"),
    ("runtime.session", "from .. import lowering", "runtime must not import lowering"),
    ("runtime.session", "from dynamo_onnx.backend import x", "runtime must not import backend"),
    ("runtime.session", "from torch.fx import Node", "runtime must not use torch.fx"),
    ("runtime.session", "import torch\nx = torch.fx.Node", "runtime must not use torch.fx"),
    ("lowering.rule", "import onnxruntime as ort", "lowering must not use onnxruntime"),
    ("lowering.rule", "def f():\n    from onnxruntime.capi import x", "not use onnxruntime"),
    (
        "lowering.rule",
        "from ..runtime.session import x",
        "lowering must not import runtime.session",
    ),
    ("lowering.ops.math", "from ...backend.options import x", "must not import backend.options"),
    ("backend.dynamo", "from dynamo_onnx import report", "backend must not import dynamo_onnx"),
    ("backend.dynamo", "from torch._dynamo import reset", "torch._dynamo.reset is private"),
    ("backend.dynamo", "import torch._inductor.config as c", "torch._inductor.config is private"),
    ("backend.dynamo", "from torch import _guards", "torch._guards is private"),
    ("backend.dynamo", "from torch.fx.node import _side_effects", "_side_effects is private"),
    ("backend.dynamo", "def f():\n    torch._dynamo.reset()", "torch._dynamo.reset is private"),
]


@pytest.mark.parametrize(("module", "source", "complaint"), BAD)
def test_a_forbidden_import_is_found(module: str, source: str, complaint: str) -> None:
    assert complaint in " ".join(violations(source, module))


def test_the_public_module_must_not_load_torch() -> None:
    for source in ("import torch", "from torch import nn", "if True:\n    import torch.nn"):
        assert "must not load torch" in " ".join(violations(source, "", is_package=True))


GOOD = [
    ("runtime.program", "if TYPE_CHECKING:\n    import torch"),
    ("runtime.program", "from .errors import Reason"),
    ("runtime.session", "import onnxruntime, torch\nfrom . import errors\nx = torch.cuda.Stream"),
    ("lowering.rule", "from ..runtime.errors import Reason\nfrom ..runtime import program"),
    ("lowering.ops.math", "from ..registry import lowers\nfrom torch.fx import Node"),
    ("lowering.ops.math", "import torch\nx = torch.ops.aten._softmax.default, torch.__version__"),
    ("backend.torch_private", "from torch._dynamo.backends.common import aot_autograd"),
    ("lowering.torch_private", "from torch.onnx._internal.exporter import _registration"),
    ("backend.dynamo", "from ..lowering.registry import x\nfrom ..runtime import session"),
    ("report", "from .backend.report import report\nimport torch"),
]


@pytest.mark.parametrize(("module", "source"), GOOD)
def test_an_allowed_import_is_let_through(module: str, source: str) -> None:
    assert violations(source, module) == []


def _loaded_by(names: list[str]) -> list[str]:
    """Which of torch and onnxruntime a fresh interpreter has loaded after importing these."""
    script = (
        f"import sys, {', '.join(names)}\n"
        "print(*sorted({'torch', 'onnxruntime'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_importing_the_package_loads_neither_torch_nor_onnxruntime() -> None:
    names = ["dynamo_onnx", "dynamo_onnx.runtime.errors", "dynamo_onnx.runtime.program"]
    assert _loaded_by(names) == []


def test_importing_lowering_does_not_load_onnxruntime() -> None:
    names = [f"dynamo_onnx.{name}" for name in modules() if layer(name) == "lowering"]
    assert _loaded_by(names) == ["torch"]


def test_no_folder_at_the_root_hides_the_installed_package() -> None:
    assert not (ROOT / "dynamo_onnx").exists()
    assert not (ROOT / "dynamo_onnx.py").exists()


def test_pyproject_lists_every_package_folder() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = settings["tool"]["setuptools"]["packages"]
    on_disk = {f"dynamo_onnx.{name}".rstrip("."): path for name, path in modules().items()}
    folders = {name for name, path in on_disk.items() if path.name == "__init__.py"}
    assert sorted(listed) == sorted(folders)
