"""Importing the package: light, without side effects, and clear about what is missing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

import dynamo_onnx

ROOT = Path(__file__).resolve().parent.parent


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_loads_neither_torch_nor_onnxruntime() -> None:
    code = "import sys, dynamo_onnx; print({'torch', 'onnxruntime'} & sys.modules.keys())"
    assert python(code) == "set()"


def test_every_public_name_is_there() -> None:
    for name in dynamo_onnx.__all__:
        assert getattr(dynamo_onnx, name) is not None
    assert set(dynamo_onnx.__all__) <= set(dir(dynamo_onnx))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dynamo_onnx.nothing


def test_without_onnxruntime_the_error_says_what_to_install() -> None:
    code = (
        "import importlib.util as u, sys\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'onnxruntime' else find(name, *a)\n"
        "try:\n"
        "    import dynamo_onnx\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    said = python(code)
    assert "dynamo-onnx[cpu]" in said
    assert "dynamo-onnx[gpu]" in said


def test_the_backend_is_found_without_an_import() -> None:
    code = (
        "import torch\n"
        "f = torch.compile(lambda x: x * 2 + 1, backend='onnx', options={'strict': True})\n"
        "print(f(torch.ones(2)).tolist(), 'onnx' in torch._dynamo.list_backends())"
    )
    assert python(code) == "[3.0, 3.0] True"


def test_importing_changes_nothing_outside() -> None:
    code = (
        "import logging, warnings, os, torch, torch._dynamo\n"
        "def state():\n"
        "    return (logging.root.level, list(logging.root.handlers), list(warnings.filters),\n"
        "            dict(os.environ), torch.get_num_threads(), torch.is_grad_enabled(),\n"
        "            torch.get_default_dtype(), dict(torch._dynamo.config._config))\n"
        "import onnxscript, onnx_ir, sympy, onnxruntime\n"
        "before = state()\n"
        "import dynamo_onnx.backend.dynamo\n"
        "print(state() == before)"
    )
    assert python(code) == "True"


def test_the_version_is_the_installed_one() -> None:
    from importlib.metadata import version

    assert version("dynamo-onnx") == dynamo_onnx.__version__
    assert importlib.util.find_spec("dynamo_onnx.backend") is not None
    assert torch.__version__


def test_the_files_that_make_up_a_page_are_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["dynamo_onnx.backend"]
    packed = {path for pattern in patterns for path in (ROOT / "backend").glob(pattern)}
    assert {path.name for path in packed} == {"page.html", "page.css", "page.js", "graph.js"}
    others = {p for p in (ROOT / "backend").rglob("*") if p.is_file() and p.suffix != ".py"}
    assert {p for p in others if "__pycache__" not in p.parts} == packed
