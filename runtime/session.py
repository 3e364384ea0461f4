"""Opening ONNX Runtime sessions: the options, the weights, the errors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import onnxruntime as ort
import torch

from .bytes import make_exact, sums_exactly
from .cuda import ASYNCHRONOUS
from .depthwise import lay_out_depthwise
from .errors import SessionError
from .initializers import as_initializers
from .last_reshapes import Reshaped, shed_last_reshapes
from .placement import RECORDING, Placement, is_mixed, placement
from .program import Program
from .providers import ProviderChoice, as_onnxruntime_takes
from .settings import INEXACT, SLOWER_ON_CPU, apply_setting
from .settings import session_options as settings_to_options


@dataclass(frozen=True, slots=True)
class Session:
    """A session, the names of its outputs in the program's order, and which are to be reshaped.

    `owned` is memory that must live as long as the session, which reads it in place. `placement`
    tells which provider took what, where there are several.
    """

    session: ort.InferenceSession
    output_names: list[str]
    reshaped: tuple[Reshaped, ...]
    owned: tuple[object, ...]
    placement: Placement


def session_options(
    settings: Mapping[str, Any], *, threads: int, spinning: bool
) -> ort.SessionOptions:
    """As `settings.session_options`, for programs that run here."""
    return settings_to_options(settings, threads=threads, spinning=spinning, exact=sums_exactly())


def run_options(
    settings: Mapping[str, str], *, severity: object, asynchronous: bool
) -> ort.RunOptions:
    """`onnxruntime.RunOptions` from the user's entries; `asynchronous` leaves a run on its stream.

    `severity` is the least one of messages to be logged.
    """
    options = ort.RunOptions()
    options.log_severity_level = severity
    ours = {ASYNCHRONOUS: "1"} if asynchronous else {}
    for name, value in {**ours, **settings}.items():
        options.add_run_config_entry(name, str(value))
    return options


def open_session(
    program: Program,
    options: ort.SessionOptions,
    providers: Sequence[ProviderChoice],
    frozen: Mapping[int, torch.Tensor],
) -> Session:
    """A session over the program, with the `frozen` inputs (by position) as initializers."""
    model = ir.serde.serialize_model(program.model)
    owned = as_initializers(model.graph, options, program, frozen) if frozen else ()
    reshaped = shed_last_reshapes(model.graph, program)
    if not sums_exactly():
        make_exact(model.graph)
    mixed = is_mixed(providers)
    optimizes = options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    if optimizes and not mixed:
        lay_out_depthwise(model)
    if mixed:
        for name, value in RECORDING.items():
            apply_setting(options, name, value)
    content = model.SerializeToString()
    try:
        session = ort.InferenceSession(
            content,
            options,
            providers=as_onnxruntime_takes(options, providers),
            disabled_optimizers=[*INEXACT, *([] if mixed else SLOWER_ON_CPU)],
            enable_fallback=0,  # else a provider that fails is replaced, and its error lost
        )
    except Exception as error:
        raise SessionError(explain(error, program, "ONNX Runtime rejected the program")) from error
    missing = [name for name, _ in providers if name not in session.get_providers()]
    if missing:  # onnxruntime goes on without a provider whose libraries it cannot load
        raise SessionError(
            f"onnxruntime {ort.__version__} could not start {', '.join(missing)}: a library is "
            f"missing, or its device; session_options={{'log_severity_level': 2}} tells which"
        )
    names = [value.name for value in model.graph.output]
    return Session(
        session, names, reshaped, owned, placement(session, program) if mixed else Placement()
    )


def explain(error: BaseException, program: Program, what: str) -> str:
    """onnxruntime's message, with the user's line where it names one of our nodes."""
    message = str(error)
    for name, location in program.locations.items():
        if re.search(rf"\b{re.escape(name)}/", message):
            return f"{what}: {message} (node {name}, from {location or 'no source line'})"
    return f"{what}: {message}"
