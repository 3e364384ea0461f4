"""`dynamo_onnx.export`: a whole model as one ONNX program."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
import torch.onnx
from torch.export import ExportedProgram

from ...lowering.ops import registry as rules
from ...lowering.random import register_random
from ...lowering.registry import Operator, Registry, as_one_rule
from ...lowering.symbolic import register_symbolic
from ...runtime.errors import OptionError
from ..dump import write_atomically
from ..options import NEWEST_OPSET, check_writable
from ..torch_private import OpOverload, OpOverloadPacket
from .arguments import arguments, with_all_names
from .calls import check_called, chosen
from .capture import capture
from .convert import NotConvertibleError, convert
from .decompose import decomposed
from .errors import OnnxExporterError
from .names import as_export_takes, in_names, named_dims, rename_dims, rename_ports
from .program import ONNXProgram
from .report import Record, findings, markdown, sarif
from .stages import Stages
from .verify import compare, computed, expected

log = logging.getLogger(__name__)

_OLDEST_OPSET = 21


def export(
    model: torch.nn.Module | Callable[..., Any] | ExportedProgram,
    args: Sequence[Any] | torch.Tensor = (),
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
    optimize: bool = True,
    export_modules_as_functions: Iterable[type[torch.nn.Module]]
    | type[torch.nn.Module]
    | bool = False,
    keep_initializers_as_inputs: bool = False,
    verify: bool = False,
    report: bool = False,
    sarif_report: bool = False,
    dump_exported_program: bool = False,
    artifacts_dir: str | os.PathLike[str] = ".",
) -> ONNXProgram:
    """Export a module, a function or an `ExportedProgram` as one ONNX program.

    `args` and `kwargs` are example inputs: tensors become inputs, anything else is fixed. A single
    tensor need not be in a tuple, and a dict at the end of `args` may hold the `kwargs`.
    `dynamic_shapes` is as `torch.export.export` takes it; a dimension may be given by its name
    alone (`{"x": {0: "batch"}}`), and arguments without such may be left out. Sizes for which the
    model would compute something else end a run in an error that names the condition. With `f` the
    program is saved there, its weights beside it unless `external_data=False`.
    `custom_translation_table` has a rule or an onnxscript function per overload, in the place of
    ours, or a list of functions, of which their annotations choose one. `optimize=False` keeps
    patterns as the nodes they were. `verify` runs the program in onnxruntime on the example inputs
    and compares with the model itself.

    Each call of a module of exactly one of the classes in `export_modules_as_functions` (True: of
    every class of the model's modules that is not torch's) is one node, of that name in the domain
    of the Python module, with a local function that has its nodes. Calls that are equal but for
    their weights share one function, others have `Name_2`; functions call functions where modules
    do. A call whose results come back to it by way of others, or that takes or returns other than
    real tensors and sizes, is in the graph as without.

    Into `artifacts_dir` go, also when the export fails, a `report` in markdown, one in SARIF
    (`sarif_report`) and the `ExportedProgram` (`dump_exported_program`, a `.pt2`). With a report
    the model is checked and run, and the report says what came of it.

    Raises OnnxExporterError when the model cannot be captured, has operators without an ONNX form,
    or fails the verification; OptionError for an argument that cannot be used.
    """
    if opset_version is not None and not _OLDEST_OPSET <= opset_version <= NEWEST_OPSET:
        raise OptionError(
            f"opset_version={opset_version}: choose {_OLDEST_OPSET} to {NEWEST_OPSET}"
        )
    artifacts = _Artifacts(Path(artifacts_dir), report, sarif_report, dump_exported_program)
    args, kwargs = arguments(model, args, kwargs)
    functions = chosen(export_modules_as_functions, model)
    registry = _with_table(custom_translation_table or {})
    record = Record(_name(model), Stages())
    stages = record.stages
    try:
        if not isinstance(model, ExportedProgram):
            dynamic_shapes = with_all_names(model, args, kwargs, dynamic_shapes)
        exported = capture(model, args, kwargs, as_export_takes(dynamic_shapes), stages)
        record.captured = exported
        if export_modules_as_functions is not True:
            check_called(exported.graph, functions)
        with stages.stage("decomposition"):
            program = decomposed(exported, registry)
        with stages.stage("translation"):
            converted = convert(
                program, registry, opset_version, fused=optimize, functions=functions
            )
        record.operators = converted.operators
        symbols: dict[str, str] = {}
        if dynamic_shapes is not None and not isinstance(model, ExportedProgram):
            names = named_dims(model, args, kwargs, dynamic_shapes)
            symbols = rename_dims(converted.model, converted.tensors, names)
        record.conditions = [in_names(c, symbols) for c in converted.conditions]
        record.unchecked = [in_names(c, symbols) for c in converted.unchecked]
        _tell_conditions(record)
        rename_ports(converted.model, "input", input_names)
        rename_ports(converted.model, "output", output_names)
        record.result = converted.model
        made = ONNXProgram(converted.model, exported)
        if verify or report:
            _check(made, model, exported, args, kwargs, stages)
        if f is not None:
            with stages.stage("saving"):
                _save(
                    made,
                    Path(f),
                    external_data=external_data,
                    as_inputs=keep_initializers_as_inputs,
                )
    except NotConvertibleError as error:
        record.refused = error.refused
        record.error = OnnxExporterError(_unsupported(error))
        raise record.error from error
    except Exception as error:
        record.error = error
        raise
    finally:
        artifacts.write(record)
    return made


def _tell_conditions(record: Record) -> None:
    if record.conditions:
        shown = "; ".join(record.conditions[:5])
        log.info("the model runs for sizes with %s, and ends in an error for others", shown)
    if record.unchecked:
        log.warning(
            "the model is right only for sizes with %s, which the file does not check",
            "; ".join(record.unchecked[:5]),
        )


def _check(
    program: torch.onnx.ONNXProgram,
    model: torch.nn.Module | Callable[..., Any] | ExportedProgram,
    exported: ExportedProgram,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    stages: Stages,
) -> None:
    """Is it valid, does it run, and are its results PyTorch's?"""
    with stages.stage("model check by onnx.checker"):
        onnx.checker.check_model(program.model_proto)
    with stages.stage("run in PyTorch"):
        wanted = expected(model, args, kwargs)
    with stages.stage("run in onnxruntime"):
        found = computed(program, args, kwargs)
    with stages.stage("comparison"):
        compare(program, found, wanted, lambda: expected(exported, args, kwargs))


class _Artifacts:
    """The files that tell of an export, beside the model."""

    def __init__(self, folder: Path, report: bool, sarif_report: bool, dump: bool) -> None:  # noqa: FBT001 - the user's three flags
        self._folder = folder
        self._report, self._sarif, self._dump = report, sarif_report, dump
        if report or sarif_report or dump:
            check_writable("artifacts_dir", folder)

    def write(self, record: Record) -> None:
        stem = (
            f"onnx_export_{time.strftime('%Y-%m-%d_%H-%M-%S')}_{time.time_ns() % 10**9 // 1000:06d}"
        )
        outcome = "failure" if record.error is not None else "success"
        if self._report:
            self._text(f"{stem}_{outcome}.md", markdown(record), record)
        if self._sarif:
            self._text(f"{stem}.sarif", sarif(record), record)
        if self._dump and record.captured is not None:
            torch.export.save(record.captured, self._folder / f"{stem}.pt2")

    def _text(self, name: str, text: str, record: Record) -> None:
        path = self._folder / name
        write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))
        if record.error is not None:
            record.error.add_note(f"report: {path}")


def _name(model: object) -> str:
    return getattr(model, "__qualname__", type(model).__qualname__)


def _with_table(table: Mapping[Any, Any]) -> Registry:
    """Our rules, those for random numbers, and the user's in their places."""
    own = rules.copy()
    register_random(own)
    register_symbolic(own)
    for op, functions in table.items():
        given = list(functions) if isinstance(functions, Sequence) else [functions]
        if not given:
            raise OptionError(f"custom_translation_table: no function is given for {op}")
        for overload in _overloads(op):
            own.register(overload, as_one_rule(overload, given), replace=True)
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


def _unsupported(error: NotConvertibleError) -> str:
    found = findings(error.refused)
    more = f"\n  … and {len(found) - 10} more" if len(found) > 10 else ""
    lines = [f"  {finding}" for finding in found[:10]]
    return f"{error}\n" + "\n".join(lines) + more
