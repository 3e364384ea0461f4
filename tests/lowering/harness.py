"""Runs one function through the lowering alone: trace, lower, open, run, compare with eager."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import onnxruntime as ort
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import dynamo_onnx.lowering.ops  # noqa: F401 - fills the registry
from dynamo_onnx.lowering.interpreter import lower_region
from dynamo_onnx.lowering.region import Region, is_symbolic
from dynamo_onnx.lowering.registry import registry
from dynamo_onnx.lowering.verdict import on_cpu, verdict
from dynamo_onnx.runtime.errors import Reason
from dynamo_onnx.runtime.kernels import kernel_table
from dynamo_onnx.runtime.program import Program
from dynamo_onnx.runtime.session import open_session, session_options
from dynamo_onnx.runtime.tensors import as_input

OPSETS = (23, 26)
CPU = ("CPUExecutionProvider",)


@dataclass(frozen=True)
class Case:
    """`fn(*args)` must be lowered whole and give eager's answer."""

    name: str
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    tolerance: float | None = None
    dynamic: bool = False
    max_nodes: int | None = None
    opsets: tuple[int, int] = OPSETS

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Lowering:
    """What became of a traced function."""

    program: Program | None
    reasons: list[Reason] = field(default_factory=list)
    kept_outputs: tuple[torch.fx.Node, ...] = ()


def trace(fn: Callable[..., Any], *args: Any, dynamic: bool = False) -> torch.fx.GraphModule:
    """The ATen graph of fn, functional, with fake (symbolic if dynamic) metadata."""
    functional = torch.func.functionalize(fn, remove="mutations")
    with torch.no_grad():
        gm = make_fx(functional, tracing_mode="symbolic" if dynamic else "fake")(*args)
    gm.graph.eliminate_dead_code()
    return gm


def lower(
    fn: Callable[..., Any],
    *args: Any,
    dynamic: bool = False,
    opsets: tuple[int, int] = OPSETS,
) -> Lowering:
    """Lower fn as one region."""
    gm = trace(fn, *args, dynamic=dynamic)
    placeholders = [n for n in gm.graph.nodes if n.op == "placeholder"]
    inputs = [n for n in placeholders if "val" in n.meta and (n.users or not is_symbolic(n))]
    compute = [
        n for n in gm.graph.nodes if n.op in ("call_function", "get_attr") and not is_symbolic(n)
    ]
    reasons = [
        r
        for n in compute
        if n.op == "call_function" and (r := verdict(n, registry, frozenset(), on_cpu)) is not None
    ]
    if reasons:
        return Lowering(None, reasons)
    (output,) = [n for n in gm.graph.nodes if n.op == "output"]
    returned = output.args[0]
    flat = list(returned) if isinstance(returned, (list, tuple)) else [returned]
    region = Region(tuple(compute), tuple(inputs), tuple(n for n in flat if n is not None))
    lowered = lower_region(
        region,
        registry=registry,
        kernels=partial(kernel_table, CPU),
        opsets=opsets,
        fingerprint="",
        name="test",
    )
    for refusal in lowered.refusals:
        if refusal.error is not None:
            raise refusal.error
    return Lowering(lowered.program, [r.reason for r in lowered.refusals], region.outputs)


def run(program: Program, args: tuple[Any, ...]) -> list[torch.Tensor]:
    """Run a program on torch tensors (any dtype) in a fresh session."""
    opened = open_session(
        program, session_options({}, threads=1, spinning=False), [(name, {}) for name in CPU], {}
    )
    feeds = {}
    tensors = [a for a in _flatten(args) if isinstance(a, (torch.Tensor, int))]
    for spec, value in zip(program.inputs, tensors, strict=True):
        tensor = as_input(value if isinstance(value, int) else value.detach()).contiguous()
        feeds[spec.name] = ort.OrtValue(
            ort.capi._pybind_state.OrtValue.from_dlpack(torch._C._to_dlpack(tensor))
        )
    results = opened.session.run_with_ort_values(opened.output_names, feeds)
    shapes = {reshaped.position: reshaped for reshaped in opened.reshaped}
    outputs = []
    # Strides may follow the results.
    for position, (result, layout) in enumerate(zip(results, program.layouts, strict=False)):
        tensor = torch._C._from_dlpack(result._ortvalue.to_dlpack())
        if position in shapes:
            tensor = shapes[position].view(tensor, tensors)
        if layout.is_complex:  # DLPack has strides of 0 where there are no elements
            tensor = torch.view_as_complex(tensor if tensor.numel() else torch.empty(tensor.shape))
        outputs.append(tensor.permute(layout.permute) if layout.permute else tensor)
    return outputs


def check(case: Case) -> Program:
    """Lower, run and compare: dtype, shape, NaNs and values."""
    lowering = lower(case.fn, *case.args, dynamic=case.dynamic, opsets=case.opsets)
    assert lowering.program is not None, f"{case.name}: {[str(r) for r in lowering.reasons]}"
    with torch.no_grad():
        expected = case.fn(*case.args)
    wanted = list(expected) if isinstance(expected, (list, tuple)) else [expected]
    wanted = [w for w in wanted if isinstance(w, torch.Tensor)]
    got = run(lowering.program, case.args)
    assert len(got) == len(wanted)
    for ours, eager in zip(got, wanted, strict=True):
        compare(ours, eager, case.tolerance)
    if case.max_nodes is not None:
        ops = [n.op_type for n in lowering.program.model.graph]
        assert len(ops) <= case.max_nodes, ops
    return lowering.program


def compare(ours: torch.Tensor, eager: torch.Tensor, tolerance: float | None = None) -> None:
    """Equal dtype, shape and values; floats within `tolerance` of eager (absolute and relative)."""
    assert ours.dtype == eager.dtype, (ours.dtype, eager.dtype)
    assert ours.shape == eager.shape, (ours.shape, eager.shape)
    if tolerance is None:
        tolerance = _TOLERANCE.get(eager.dtype, 0.0)
    torch.testing.assert_close(
        ours, eager, rtol=tolerance, atol=tolerance, equal_nan=True, check_stride=False
    )


_TOLERANCE = {
    torch.float32: 1e-5,
    torch.float64: 1e-10,
    torch.float16: 1e-3,
    torch.bfloat16: 8e-3,
    torch.complex64: 1e-5,
    torch.complex128: 1e-10,
}


def _flatten(args: Any) -> list[Any]:
    if isinstance(args, (list, tuple)):
        return [x for a in args for x in _flatten(a)]
    return [args]


__all__ = ["Case", "check", "compare", "lower", "run", "trace"]
