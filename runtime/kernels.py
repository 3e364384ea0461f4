"""Which kernels the installed onnxruntime has: asked once, from its own registry.

Ref: `onnxruntime.capi._pybind_state.get_all_opkernel_def`, `get_all_operator_schema`.
"""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from functools import cache
from typing import Any

import onnxruntime as ort
from onnxruntime.capi import _pybind_state as ort_c

from .errors import OptionError
from .program import Signature

ONNX_DOMAINS = ("", "ai.onnx")
_MAY_END_THE_PROCESS = frozenset({"CUDAExecutionProvider", "TensorrtExecutionProvider"})
_NO_LAST = 2**31 - 1


class KernelTable:
    """The kernels of the given providers at one opset of the ai.onnx domain.

    Providers that do not register single kernels (they compile subgraphs) run what they refuse on
    the CPU provider, which is therefore always part of the question.
    """

    def __init__(self, providers: tuple[str, ...], opset: int) -> None:
        wanted = {*providers, "CPUExecutionProvider"}
        self._schemas: dict[tuple[str, str], Any] = {}
        self._kernels: dict[tuple[str, str], list[dict[str, frozenset[str]]]] = defaultdict(list)
        for (domain, name), schema in _newest_schemas(opset).items():
            self._schemas[domain, name] = schema
        _check_that_it_tells()
        for kernel in ort_c.get_all_opkernel_def():
            domain = "" if kernel.domain in ONNX_DOMAINS else kernel.domain
            first, last = kernel.version_range
            version = opset if domain == "" else 1
            schema = self._schemas.get((domain, kernel.op_name))
            # A kernel without a last version is for the schema that it names, not for later ones.
            open_ended = last == _NO_LAST and domain == ""
            if open_ended and schema is not None and first != schema.since_version:
                continue
            if kernel.provider in wanted and first <= version <= last:
                self._kernels[domain, kernel.op_name].append(
                    {name: frozenset(types) for name, types in kernel.type_constraints.items()}
                )
        self._signatures: dict[tuple[str, str], Signature | None] = {}
        self._accepted: dict[tuple[str, str, tuple[tuple[str, str], ...]], bool] = {}

    def signature(self, domain: str, op_type: str) -> Signature | None:
        """The operator's types, or None when onnxruntime does not know the operator."""
        key = (domain, op_type)
        if key not in self._signatures:
            schema = self._schemas.get(key)
            self._signatures[key] = None if schema is None else _signature(schema)
        return self._signatures[key]

    def needed_opset(self, op_type: str) -> int | None:
        """The first opset of ai.onnx that has this operator, if onnxruntime knows one."""
        return _first_opsets().get(op_type)

    def accepts(self, domain: str, op_type: str, types: tuple[tuple[str, str], ...]) -> bool:
        """Is there a kernel for these (type variable, `tensor(...)`) pairs?

        A kernel may list types that its operator's schema does not admit (Compress of bfloat16):
        such a model does not load.
        """
        key = (domain, op_type, types)
        if key not in self._accepted:
            schema = self._schemas.get((domain, op_type))
            admitted = _admitted(schema) if schema is not None else {}
            self._accepted[key] = all(
                type_ in admitted.get(var, (type_,)) for var, type_ in types
            ) and any(
                all(type_ in kernel.get(var, (type_,)) for var, type_ in types)
                for kernel in self._kernels.get((domain, op_type), ())
            )
        return self._accepted[key]


@cache
def _check_that_it_tells() -> None:
    """OptionError where asking for the kernels would end this process.

    A build for CUDA does so (seen with 1.31.1) where libraries of its providers are missing, those
    of TensorRT included. Another process is asked first.
    """
    if not _MAY_END_THE_PROCESS.intersection(ort.get_available_providers()):
        return
    script = "from onnxruntime.capi import _pybind_state as c; c.get_all_opkernel_def()"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - our own
    if done.returncode:
        raise OptionError(
            f"onnxruntime {ort.__version__} ends the process when it is asked for its kernels, "
            f"since libraries of CUDA or TensorRT are missing: install them (the package tensorrt "
            f"brings TensorRT's), another version, or the CPU build"
        )


@cache
def kernel_table(providers: tuple[str, ...], opset: int) -> KernelTable:
    """The table for one choice of providers and opset (about 15 ms, once)."""
    return KernelTable(providers, opset)


@cache
def _first_opsets() -> dict[str, int]:
    """Per ai.onnx operator the opset that brought it."""
    first: dict[str, int] = {}
    for schema in ort_c.get_all_operator_schema():
        if schema.domain in ONNX_DOMAINS:
            first[schema.name] = min(schema.since_version, first.get(schema.name, 1 << 30))
    return first


def _newest_schemas(opset: int) -> dict[tuple[str, str], Any]:
    """Per operator the newest schema that the opset admits."""
    newest: dict[tuple[str, str], Any] = {}
    for schema in ort_c.get_all_operator_schema():
        domain = "" if schema.domain in ONNX_DOMAINS else schema.domain
        if domain == "" and schema.since_version > opset:
            continue
        key = (domain, schema.name)
        if key not in newest or newest[key].since_version < schema.since_version:
            newest[key] = schema
    return newest


def _admitted(schema: Any) -> dict[str, list[str]]:  # noqa: ANN401 - a pybind class without a stub
    """Type variables of a schema, and what each may be."""
    return {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}


def _signature(schema: Any) -> Signature:  # noqa: ANN401 - a pybind class without a stub
    variadic = type(schema).FormalParameterOption.Variadic
    inputs, outputs = list(schema.inputs), list(schema.outputs)
    # A type variable that admits one type only is that type (the bool of comparisons).
    sole = {
        c.type_param_str: c.allowed_type_strs[0]
        for c in schema.type_constraints
        if len(c.allowed_type_strs) == 1
    }
    return Signature(
        inputs=tuple(sole.get(p.typeStr, p.typeStr) for p in inputs),
        outputs=tuple(sole.get(p.typeStr, p.typeStr) for p in outputs),
        variadic=bool(inputs) and inputs[-1].option == variadic,
        variadic_outputs=bool(outputs) and outputs[-1].option == variadic,
        mixed=bool(inputs) and inputs[-1].option == variadic and not inputs[-1].isHomogeneous,
    )
