"""Why a model was not exported."""

from __future__ import annotations

import torch.onnx

from ...runtime.errors import DynamoOnnxError


class OnnxExporterError(DynamoOnnxError, torch.onnx.errors.OnnxExporterError):
    """No ONNX program came of it; the message says at which stage, why, and what to do."""
