"""Interpolations reach the rules as one operator, and stay as they were for other backends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import dynamo_onnx

LINE, IMAGE = torch.randn(1, 2, 5), torch.randn(1, 2, 5, 6)
VOLUME = torch.randn(1, 2, 3, 4, 5)
CALLS: list[tuple[str, torch.Tensor, dict[str, Any]]] = [
    ("nearest", LINE, {"scale_factor": 2.0}),
    ("nearest", IMAGE, {"size": (7, 9)}),
    ("nearest", IMAGE, {"scale_factor": 1.05}),
    ("nearest", IMAGE, {"scale_factor": 2.1}),
    ("nearest", VOLUME, {"scale_factor": 1.7}),
    ("nearest-exact", IMAGE, {"scale_factor": 1.7}),
    ("linear", LINE, {"scale_factor": 2.0}),
    ("bilinear", IMAGE, {"scale_factor": 1.5}),
    ("bilinear", IMAGE, {"size": (9, 11), "align_corners": True}),
    ("bicubic", IMAGE, {"scale_factor": 2.0}),
    ("trilinear", VOLUME, {"scale_factor": 2.0}),
]


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("call", CALLS, ids=lambda c: f"{c[0]} of {c[1].dim()} dims, {c[2]}")
def test_an_interpolation_is_one_operator(
    call: tuple[str, torch.Tensor, dict[str, Any]], dynamic: bool
) -> None:
    mode, x, options = call

    def resize(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, mode=mode, **options)

    compiled = torch.compile(resize, backend="onnx", dynamic=dynamic, options={"strict": True})
    torch.testing.assert_close(compiled(x), resize(x))
    assert sum(dynamo_onnx.report().native.values()) == 1


def test_an_image_in_channels_last_keeps_its_strides() -> None:
    x = IMAGE.contiguous(memory_format=torch.channels_last)

    def resize(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, scale_factor=2.0)

    got = torch.compile(resize, backend="onnx", options={"strict": True})(x)
    torch.testing.assert_close(got, resize(x), check_stride=True)


def test_other_backends_find_torchs_kernels_as_they_were() -> None:
    op = torch.ops.aten.upsample_bilinear2d
    before = [dict(o.py_kernels) for o in (op.vec, op.default)]
    torch.compile(lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"), backend="onnx")(
        IMAGE
    )
    assert [dict(o.py_kernels) for o in (op.vec, op.default)] == before
