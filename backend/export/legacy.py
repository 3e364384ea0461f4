"""The names of the exporter that `torch.onnx` had from 2.1 to 2.8, as thin forms over `export`.

Ref: https://docs.pytorch.org/docs/2.6/onnx_dynamo.html
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim

from ...lowering.ops import registry as rules
from ...lowering.registry import Operator
from ...runtime.errors import OptionError
from ..options import DEFAULT_OPSET
from ..torch_private import pytree
from .exporter import export
from .program import ONNXProgram


@dataclass(frozen=True, slots=True)
class DiagnosticOptions:
    """How much is told: `verbosity_level` is one of `logging`'s, for the stages as they begin.

    With `warnings_as_errors` a warning of the exporter is an error. `report` and `sarif` write
    those files into `artifacts_dir`.
    """

    verbosity_level: int = logging.WARNING
    warnings_as_errors: bool = False
    report: bool = False
    sarif: bool = False
    artifacts_dir: Path = Path()


class OnnxRegistry:
    """Lowerings of the user's own, by operator; the others are this package's.

    `opset_version` is that of exported models, unless a node needs a later one.
    """

    def __init__(self) -> None:
        self._own: dict[Operator, Callable[..., Any]] = {}

    @property
    def opset_version(self) -> int:
        """The opset that models have."""
        return DEFAULT_OPSET

    def register_op(
        self,
        function: Callable[..., Any],
        namespace: str,
        op_name: str,
        overload: str | None = None,
        is_complex: bool = False,  # noqa: FBT001, FBT002 - as torch had it
    ) -> None:
        """Put a rule or an onnxscript function in the place of ours."""
        if is_complex:
            raise OptionError("register_op: complex operators are registered with lowers_complex")
        self._own[_operator(namespace, op_name, overload)] = function

    def get_op_functions(
        self, namespace: str, op_name: str, overload: str | None = None
    ) -> list[Callable[..., Any]] | None:
        """The user's function for an operator, or else our rule; None without either."""
        op = _operator(namespace, op_name, overload)
        lowering = rules.get(op)
        found = self._own.get(op, None if lowering is None else lowering.rule)
        return None if found is None else [found]

    def is_registered_op(self, namespace: str, op_name: str, overload: str | None = None) -> bool:
        """Can it be lowered?"""
        return self.get_op_functions(namespace, op_name, overload) is not None

    @property
    def table(self) -> dict[Operator, Callable[..., Any]]:
        """The user's, as `export` takes them."""
        return dict(self._own)


def _operator(namespace: str, op_name: str, overload: str | None) -> Operator:
    try:
        packet = getattr(getattr(torch.ops, namespace), op_name)
        return getattr(packet, overload or "default")
    except AttributeError as error:
        raise OptionError(
            f"torch has no operator {namespace}::{op_name}.{overload or 'default'}"
        ) from error


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What `dynamo_export` takes: whether all sizes may vary, the registry, the diagnostics."""

    dynamic_shapes: bool = False
    onnx_registry: OnnxRegistry | None = None
    diagnostic_options: DiagnosticOptions = field(default_factory=DiagnosticOptions)


@dataclass(frozen=True, slots=True)
class ONNXRuntimeOptions:
    """How `ONNXProgram` runs: `onnxruntime.SessionOptions` and execution providers.

    `program.initialize_inference_session(options.session)` opens the session with them.
    """

    session_options: Any = None
    execution_providers: Sequence[str | tuple[str, dict[str, Any]]] = ("CPUExecutionProvider",)
    execution_provider_options: Sequence[dict[str, Any]] | None = None

    def session(self, model: str | bytes) -> Any:  # noqa: ANN401 - an InferenceSession
        """A session of a model, for `initialize_inference_session`."""
        import onnxruntime

        return onnxruntime.InferenceSession(
            model,
            sess_options=self.session_options,
            providers=list(self.execution_providers),
            provider_options=self.execution_provider_options,
        )


def dynamo_export(
    model: torch.nn.Module | Callable[..., Any],
    /,
    *model_args: Any,  # noqa: ANN401 - the model's
    export_options: ExportOptions | None = None,
    **model_kwargs: Any,  # noqa: ANN401 - the model's
) -> ONNXProgram:
    """Export a model. Deprecated, as it was in torch: call `dynamo_onnx.export`."""
    warnings.warn(
        "dynamo_export is deprecated: call dynamo_onnx.export", DeprecationWarning, stacklevel=2
    )
    options = ExportOptions() if export_options is None else export_options
    diagnostics = options.diagnostic_options
    log = logging.getLogger(__package__)
    level = log.level
    log.setLevel(diagnostics.verbosity_level)
    try:
        with warnings.catch_warnings():
            if diagnostics.warnings_as_errors:
                warnings.simplefilter("error", torch.onnx.errors.OnnxExporterWarning)
            return export(
                model,
                model_args,
                kwargs=model_kwargs,
                dynamic_shapes=_all_dynamic(model, model_args, model_kwargs)
                if options.dynamic_shapes
                else None,
                custom_translation_table=(options.onnx_registry or OnnxRegistry()).table,
                report=diagnostics.report,
                sarif_report=diagnostics.sarif,
                artifacts_dir=diagnostics.artifacts_dir,
            )
    finally:
        log.setLevel(level)


def _all_dynamic(
    model: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Every size may vary that the model leaves open."""
    import inspect

    forward = model.forward if isinstance(model, torch.nn.Module) else model
    given = inspect.signature(forward).bind(*args, **kwargs).arguments
    return {name: pytree.tree_map(_dims, value) for name, value in given.items()}


def _dims(value: object) -> dict[int, Any] | None:
    return dict.fromkeys(range(value.dim()), Dim.AUTO) if isinstance(value, torch.Tensor) else None
