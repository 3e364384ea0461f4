"""The options of ONNX Runtime's sessions, as ours and the user's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from .errors import OptionError

_CONFIG_KEY = re.compile(r"^[a-z_]+\.")
QUIET = 4  # errors reach us as exceptions: the user gets them raised, or eager's answer
# For [128, 768], SkipLayerNormalization takes 256 µs, Add and LayerNormalization 68 (1.32).
SLOWER_ON_CPU = ["SkipLayerNormFusion"]
# It rounds float weights to 8 bits between quantized tensors; and the other merges two roundings.
INEXACT = ["WeightBiasQuantization"]
_KEEPS_ROUNDINGS = "session.disable_double_qdq_remover"
# Else products of dequantized numbers become products of bytes, which may be the saturating ones.
_NO_BYTES_OF_FLOATS = "session.disable_quant_qdq"
_READS_BUFFERS = "session.use_external_initializer_file_buffers_directly"
_READS_BUFFERS_SINCE = (1, 31)
READS_BUFFERS = tuple(map(int, ort.__version__.split(".")[:2])) >= _READS_BUFFERS_SINCE


def session_options(
    settings: Mapping[str, Any], *, threads: int, spinning: bool, exact: bool
) -> ort.SessionOptions:
    """`onnxruntime.SessionOptions` from ours; the user's `settings` come last and win.

    `threads` mirrors torch; 0 lets onnxruntime choose. Threads spin inside a run only: past its end
    they would take the cores from others. Without `spinning` they do not spin at all. `exact` is
    whether this processor's products of uint8 and int8 can be trusted.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = QUIET
    ours = {
        "session.intra_op.allow_spinning": "1" if spinning else "0",
        "session.force_spinning_stop": "1",
        _KEEPS_ROUNDINGS: "1",
        **({} if exact else {_NO_BYTES_OF_FLOATS: "1"}),
    }
    for name, value in {**ours, **settings}.items():
        apply_setting(options, name, value)
    return options


def give_files(options: ort.SessionOptions, files: Mapping[str, npt.NDArray[np.uint8]]) -> None:
    """The contents of a model's external data, by file, for onnxruntime to read where they lie.

    They must live as long as the session. One older than 1.31 copies them when it is opened.
    """
    if READS_BUFFERS:
        options.add_session_config_entry(_READS_BUFFERS, "1")
    sizes = [content.nbytes for content in files.values()]
    options.add_external_initializers_from_files_in_memory([*files], [*files.values()], sizes)


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
