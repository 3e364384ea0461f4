"""What windows that slide over an image have in common."""

from __future__ import annotations

WINDOW = ("kernel_size", "stride", "padding", "dilation")  # attributes in ONNX
