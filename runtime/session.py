"""Opening ONNX Runtime sessions: the options, the weights, the errors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import onnxruntime as ort
import torch

from .bytes import NO_BYTES_OF_FLOATS, make_exact, sums_exactly
from .cuda import ASYNCHRONOUS
from .errors import OptionError, SessionError
from .initializers import as_initializers
from .last_reshapes import Reshaped, shed_last_reshapes
from .placement import RECORDING, Placement, is_mixed, placement
from .program import Program
from .providers import ProviderChoice, as_onnxruntime_takes

_CONFIG_KEY = re.compile(r"^[a-z_]+\.")
QUIET = 4  # errors reach us as exceptions: the user gets them raised, or eager's answer
# For [128, 768], SkipLayerNormalization takes 256 µs, Add and LayerNormalization 68 (1.32).
SLOWER_ON_CPU = ["SkipLayerNormFusion"]
# It rounds float weights to 8 bits between quantized tensors; and the other merges two roundings.
INEXACT = ["WeightBiasQuantization"]
_KEEPS_ROUNDINGS = "session.disable_double_qdq_remover"


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
    """`onnxruntime.SessionOptions` from ours; the user's `settings` come last and win.

    `threads` mirrors torch. Threads spin inside a run only: past its end they would take the cores
    from torch's own operators. Without `spinning` they do not spin at all.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = QUIET
    ours = {
        "session.intra_op.allow_spinning": "1" if spinning else "0",
        "session.force_spinning_stop": "1",
        _KEEPS_ROUNDINGS: "1",
        **({} if sums_exactly() else {NO_BYTES_OF_FLOATS: "1"}),
    }
    for name, value in {**ours, **settings}.items():
        apply_setting(options, name, value)
    return options


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


def apply_setting(options: ort.SessionOptions, name: str, value: object) -> None:
    """Set one attribute or (`section.key`) config entry; a wrong name or type is an OptionError."""
    try:
        if _CONFIG_KEY.match(name):
            options.add_session_config_entry(name, str(value))
        elif hasattr(options, name) and not callable(getattr(options, name)):
            setattr(options, name, value)
        else:
            raise OptionError(
                f"session_options: onnxruntime.SessionOptions has no setting {name!r}; "
                f"config entries are spelled 'session.…'"
            )
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, OptionError):
            raise
        raise OptionError(f"session_options: {name}={value!r} was refused: {error}") from error


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
