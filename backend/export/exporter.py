"""`dynamo_onnx.export`: a whole model as one ONNX program."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.onnx
from torch.export import ExportedProgram

from ...lowering.ops import registry as rules
from ...lowering.region import location, source_line
from ...lowering.registry import Operator, Registry, as_rule
from ...runtime.errors import OptionError
from ..options import NEWEST_OPSET, OLDEST_OPSET
from ..torch_private import OpOverload, OpOverloadPacket
from .capture import Captured, capture, decomposed
from .convert import NotConvertibleError, Refused, convert
from .errors import OnnxExporterError
from .names import as_export_takes, named_dims, rename_dims, rename_ports
from .verify import verify_program


def export(
    model: torch.nn.Module | Callable[..., Any] | ExportedProgram,
    args: Sequence[Any] = (),
    f: str | os.PathLike[str] | None = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset_version: int | None = None,
    dynamic_shapes: Mapping[str, Any] | Sequence[Any] | None = None,
    custom_translation_table: Mapping[Any, Callable[..., Any] | Sequence[Callable[..., Any]]]
    | None = None,
    external_data: bool = True,
    keep_initializers_as_inputs: bool = False,
    verify: bool = False,
) -> torch.onnx.ONNXProgram:
    """Export a module, a function or an `ExportedProgram` as one ONNX program.

    `args` and `kwargs` are example inputs: tensors become inputs, anything else is fixed.
    `dynamic_shapes` is as `torch.export.export` takes it; a dimension may be given by its name
    alone (`{"x": {0: "batch"}}`). With `f` the program is saved there, its weights beside it unless
    `external_data=False`. `custom_translation_table` has a rule or an onnxscript function per
    overload, in the place of ours. `verify` runs the program in onnxruntime on the example inputs.

    Raises OnnxExporterError when the model cannot be captured, has operators without an ONNX form,
    or fails the verification; OptionError for an argument that cannot be used.
    """
    if opset_version is not None and not OLDEST_OPSET <= opset_version <= NEWEST_OPSET:
        raise OptionError(f"opset_version={opset_version}: choose {OLDEST_OPSET} to {NEWEST_OPSET}")
    kwargs = dict(kwargs or {})
    args = tuple(args)
    registry = _with_table(custom_translation_table or {})
    captured = capture(model, args, kwargs, as_export_takes(dynamic_shapes))
    if captured.program is None:
        raise _not_captured(captured)
    try:
        converted = convert(decomposed(captured.program, registry), registry, opset_version)
    except NotConvertibleError as error:
        raise OnnxExporterError(_unsupported(error.refused)) from error
    if dynamic_shapes is not None and not isinstance(model, ExportedProgram):
        rename_dims(converted.model, named_dims(model, args, kwargs, dynamic_shapes))
    rename_ports(converted.model, "input", input_names)
    rename_ports(converted.model, "output", output_names)
    program = torch.onnx.ONNXProgram(converted.model, captured.program)
    if verify:
        verify_program(program, captured.program, args, kwargs)
    if f is not None:
        _save(
            program,
            Path(f),
            external_data=external_data,
            as_inputs=keep_initializers_as_inputs,
        )
    return program


def _with_table(table: Mapping[Any, Any]) -> Registry:
    """Our rules, with the user's in their places."""
    if not table:
        return rules
    own = rules.copy()
    for op, functions in table.items():
        given = functions if isinstance(functions, Sequence) else [functions]
        for overload in _overloads(op):
            own.register(overload, as_rule(overload, given[0]), replace=True)
    return own


def _overloads(op: Any) -> list[Operator]:  # noqa: ANN401 - the user's
    """An overload, or all those of an operator but the ones that write to an argument."""
    if isinstance(op, OpOverloadPacket):
        every: list[OpOverload] = [getattr(op, name) for name in op.overloads()]
        return [overload for overload in every if not overload._schema.is_mutable]
    return [op]


def _save(
    program: torch.onnx.ONNXProgram, path: Path, *, external_data: bool, as_inputs: bool
) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        program.save(path, external_data=external_data, keep_initializers_as_inputs=as_inputs)
    except OSError as error:
        raise OnnxExporterError(f"cannot write {path}: {error.strerror or error}") from error


def _not_captured(captured: Captured) -> OnnxExporterError:
    lines = [f"  {a.strategy}: {_first_lines(a.error)}" for a in captured.attempts]
    error = OnnxExporterError(
        "the model could not be captured as one graph\n" + "\n".join(lines) + "\n"
        "torch.export explains each way; torch.compile(model, backend='onnx') needs no whole graph"
    )
    error.__cause__ = captured.attempts[0].error
    return error


def _first_lines(error: Exception | None) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: " + text.split("\n\n")[0].replace("\n", "\n    ")


def _unsupported(refused: Sequence[Refused]) -> str:
    told: dict[str, int] = {}
    for each in refused:
        where = location(each.node)
        code = f" `{source_line(where)}`" if where else ""
        line = f"{each.node.target}: {each.reason} at {where or 'an unknown line'}{code}"
        told[line] = told.get(line, 0) + 1
    lines = [f"  {count} × {line}" for line, count in list(told.items())[:10]]
    more = f"\n  … and {len(told) - 10} more" if len(told) > 10 else ""
    return f"{len(refused)} operators have no ONNX form\n" + "\n".join(lines) + more
