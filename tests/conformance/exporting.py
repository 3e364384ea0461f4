"""Each model family as one `.onnx`: exported by us and by `torch.onnx.export`, run in plain
onnxruntime, compared with eager; once with the sizes as they are, once with all of them dynamic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.export import Dim

import dynamo_onnx

from .families import Family
from .family import TOLERANCE, build, forward, line, rounding_noise, tensors

# torch's first: ours teaches pytree the objects that a model returns, and that stays.
EXPORTERS: dict[str, Callable[..., Any]] = {
    "torch.onnx": lambda *args, **kwargs: torch.onnx.export(
        *args, **kwargs, dynamo=True, optimize=True, verbose=False
    ),
    "dynamo_onnx": dynamo_onnx.export,
}
RANDOM = frozenset({"RandomUniform", "RandomUniformLike", "RandomNormal", "RandomNormalLike"})


def run(family: Family) -> dict[str, Any]:
    """By exporter, for static and dynamic shapes: `outcome`, `seconds`, `nodes`, `detail`."""
    try:
        model, inputs = build(family)
        expected = forward(model, inputs)
    except Exception as error:  # noqa: BLE001 - whatever eager does not do is no case
        return {"outcome": "eager fails", "detail": line(error)}
    twice = {n: torch.cat([v, v]) if _is_batch(v) else v for n, v in inputs.items()}
    cases = [(inputs, expected)]
    try:
        more = [*cases, (twice, forward(model, twice))]
    except Exception:  # noqa: BLE001 - its first dimension is no batch
        more = cases
    result: dict[str, Any] = {"outcome": "exported"}
    for name, export in EXPORTERS.items():
        result[f"{name} static"] = _exported(export, model, cases, None)
        result[f"{name} dynamic"] = _exported(export, model, more, _all_dynamic(inputs))
    return result


def _is_batch(value: object) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0


def _all_dynamic(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Every dimension may vary; torch.export fixes those that the model fixes."""
    return {
        name: dict.fromkeys(range(value.dim()), Dim.AUTO) if isinstance(value, Tensor) else None
        for name, value in inputs.items()
    }


def _exported(
    export: Callable[..., Any],
    model: nn.Module,
    cases: Sequence[tuple[Mapping[str, Any], Any]],
    shapes: dict[str, Any] | None,
) -> dict[str, Any]:
    """The first of the cases is exported; those that fit the program are run and compared."""
    inputs = cases[0][0]
    started = time.perf_counter()
    try:
        program = export(model, (), kwargs=dict(inputs), dynamic_shapes=shapes)
    except Exception as error:  # noqa: BLE001 - what an exporter refuses is the answer
        return {"outcome": "not exported", "detail": line(error)}
    result: dict[str, Any] = {"seconds": time.perf_counter() - started}
    result["nodes"] = len(list(program.model.graph.all_nodes()))
    try:
        proto = program.model_proto
        onnx.checker.check_model(proto)
        session = ort.InferenceSession(proto.SerializeToString())
        details: list[str] = []
        for given, expected in cases:
            feeds = _feeds(session, given)
            if given is inputs or _fit(session, feeds):
                found = [torch.from_numpy(r) for r in session.run(None, feeds)]
                details.append(_difference(found, [t for _, t in tensors(expected)]))
    except Exception as error:  # noqa: BLE001 - a file that does not run is the answer
        return result | {"outcome": "does not run", "detail": line(error)}
    if any(node.op_type in RANDOM for node in program.model.graph.all_nodes()):
        return result | {"outcome": "random"}
    detail = next(filter(None, details), "")
    outcome = _blame(model, program, inputs, cases[0][1]) if detail else "equal"
    return result | {"outcome": outcome, "runs": len(details), "detail": detail}


def _blame(
    model: nn.Module, program: torch.onnx.ONNXProgram, inputs: Mapping[str, Any], expected: Any
) -> str:
    """Whose is it: the capture's, rounding's (as in `family.difference`), the exporter's?"""
    noise = rounding_noise(model, inputs, expected)
    session = ort.InferenceSession(program.model_proto.SerializeToString())
    found = [torch.from_numpy(r) for r in session.run(None, _feeds(session, inputs))]
    wanted = [t for _, t in tensors(expected)]
    allowed = [4 * noise.get(path, 0.0) for path, _ in tensors(expected)]
    if not _difference(found, wanted, allowed):
        return "equal within rounding"
    assert program.exported_program is not None
    captured = [t for _, t in tensors(forward(program.exported_program.module(), inputs))]
    if _difference(captured, wanted, allowed) and not _difference(found, captured, allowed):
        return "torch.export differs"
    return "wrong"


def _feeds(session: ort.InferenceSession, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """By name; an exporter that has other names keeps the order."""
    given = {n: v.numpy() for n, v in inputs.items() if isinstance(v, Tensor)}
    names = [value.name for value in session.get_inputs()]
    if given.keys() >= set(names):
        return {name: given[name] for name in names}
    return dict(zip(names, given.values(), strict=True))


def _fit(session: ort.InferenceSession, feeds: Mapping[str, Any]) -> bool:
    """Do the sizes that the program fixed allow these inputs?"""
    return all(
        not isinstance(want, int) or want == size
        for value in session.get_inputs()
        for want, size in zip(value.shape, feeds[value.name].shape, strict=True)
    )


def _difference(
    found: list[Tensor], expected: list[Tensor], allowed: Sequence[float] | None = None
) -> str:
    """What differs by more than the tolerance, and by more than is allowed to each."""
    if len(found) != len(expected):
        return f"{len(found)} results for {len(expected)}"
    for index, (ours, eager) in enumerate(zip(found, expected, strict=True)):
        wanted = torch.view_as_real(eager.resolve_conj()) if eager.is_complex() else eager
        if (ours.dtype, ours.shape) != (wanted.dtype, wanted.shape):
            return (
                f"{index}: {ours.dtype} {list(ours.shape)} for {wanted.dtype} {list(wanted.shape)}"
            )
        scale = float(wanted.abs().nan_to_num(posinf=0.0).max()) if wanted.numel() else 0.0
        limit = max(TOLERANCE * scale, allowed[index] if allowed else 0.0)
        off = not torch.allclose(
            ours.double(), wanted.double(), rtol=0.0, atol=limit, equal_nan=True
        )
        if off:
            error = float((ours.double() - wanted.double()).nan_to_num().abs().max())
            return f"{index}: off by {error:.1e} at a scale of {scale:.1e}"
    return ""
