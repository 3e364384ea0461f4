"""Resizing, sampling and rearranging rules against eager."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from .harness import Case, check, lower

aten = torch.ops.aten


def rand(*dims, dtype=torch.float32, seed=0):
    return torch.randn(*dims, generator=torch.Generator().manual_seed(seed)).to(dtype)


X1, X2, X3 = rand(2, 3, 7), rand(2, 3, 6, 7), rand(2, 3, 4, 5, 6)
BYTES = torch.arange(2 * 3 * 6 * 7).reshape(2, 3, 6, 7)


def call(function, *args, **options):
    return lambda x: function(x, *args, **options)


def resize(mode, size=None, scale=None, corners=None, recompute=None):
    return lambda x: F.interpolate(
        x, size, scale, mode, align_corners=corners, recompute_scale_factor=recompute
    )


def in_channels_last(size):
    return lambda x: F.interpolate((-x).movedim(3, 1), size, mode="bicubic").movedim(1, 3) * 2


def sample(mode, padding, corners):
    return lambda x, grid: F.grid_sample(x, grid, mode, padding, corners)


def smooth(mode, **options):
    return lambda x: F.interpolate(x, mode=mode, antialias=True, **options)


SIZES = [(12, 14), (7, 5), (13, 20), (1, 1), (6, 7), (3, 7), (100, 3)]
SCALES = [2, 1.5, 0.5, (2.0, 3.0), (1.7, 0.6), 2.3]

RESIZES = [
    *(Case(f"{mode} to {size}, corners {corners}", resize(mode, size, corners=corners), (X2,))
      for size in SIZES
      for mode, corners in (("nearest", None), ("nearest-exact", None), ("bilinear", False),
                            ("bilinear", True), ("bicubic", False), ("bicubic", True))),
    *(Case(f"{mode} by {scale}, corners {corners}", resize(mode, None, scale, corners), (X2,))
      for scale in SCALES
      for mode, corners in (("nearest", None), ("nearest-exact", None), ("bilinear", False),
                            ("bilinear", True), ("bicubic", False), ("bicubic", True))),
    *(Case(f"{mode} of [N, C, L] by {scale}", resize(mode, None, scale, corners), (X1,))
      for scale in (2, 1.7, 0.6)
      for mode, corners in (("nearest", None), ("nearest-exact", None), ("linear", False),
                            ("linear", True))),
    *(Case(f"{mode} of [N, C, D, H, W] by {scale}", resize(mode, None, scale, corners), (X3,))
      for scale in (2, 1.7, 0.6)
      for mode, corners in (("nearest", None), ("nearest-exact", None), ("trilinear", False),
                            ("trilinear", True))),
    *(Case(f"{mode} with antialiasing, {options}, {x.dtype}", smooth(mode, **options), (x,))
      for mode in ("bilinear", "bicubic")
      for options in ({"size": (5, 4)}, {"size": (20, 3)}, {"size": (5, 7), "align_corners": True},
                      {"size": (1, 1), "align_corners": True}, {"scale_factor": 0.4},
                      {"scale_factor": (0.3, 2.0)})
      for x in (X2, X2.double())),
    Case("nearest by a whole factor is one node", resize("nearest", None, 2), (X2,), max_nodes=1),
    Case("nearest by a factor that keeps the size", lambda x: aten.upsample_nearest2d.default(
        x, [6, 7], 1.05, 1.1), (X2,)),
    Case("bilinear by a factor with symbolic dims", lambda x: aten.upsample_bilinear2d.default(
        x, [x.shape[2] * 2, x.shape[3] * 2], False, 2.0, 2.0), (X2,), dynamic=True),
    Case("bilinear is one node", resize("bilinear", (9, 12), None, False), (X2,), max_nodes=1),
    Case("bilinear with the scale computed again", resize("bilinear", None, 1.7, False, True),
         (X2,)),
    Case("bilinear of an empty batch", resize("bilinear", (9, 12), None, False), (X2[:0],)),
    Case("nearest of bytes", resize("nearest", (13, 5)), (BYTES.to(torch.uint8),)),
    Case("nearest of bytes by a whole factor", resize("nearest", None, 2),
         (BYTES.to(torch.uint8),)),
    Case("nearest of float64", resize("nearest", None, 2), (X2.double(),)),
    Case("nearest of bfloat16", resize("nearest", None, 2), (X2.bfloat16(),)),
    Case("bilinear of bfloat16", resize("bilinear", None, 2, False), (X2.bfloat16(),)),
    Case("bicubic of float16", resize("bicubic", None, 2, False), (X2.half(),)),
    *(Case(f"bicubic between channels last, {shape} to {size}", in_channels_last(size),
           (rand(*shape),), dynamic=dynamic)
      for shape in ((1, 4, 5, 3), (2, 4, 5, 3), (1, 4, 5, 1), (2, 4, 5, 1))
      for size in ((3, 7), (2, 2), (8, 9))
      for dynamic in (False, True)),
    *(Case(f"nearest of {size} elements to {out}", resize("nearest", (1, out)),
           (torch.arange(float(size)).reshape(1, 1, 1, size),))
      for size, out in ((3, 7), (49, 50), (100, 99), (7, 700), (41, 82), (1000, 333))),
]  # fmt: skip

GRID = rand(2, 5, 4, 2) * 0.8
GRID3 = rand(2, 3, 5, 4, 3) * 0.8
THETA = rand(2, 2, 3)

CASES = [
    *(Case(f"grid_sample, {mode}, {padding}, corners {corners}",
           sample(mode, padding, corners), (X2, GRID))
      for mode, padding, corners in itertools.product(
          ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection"), (True, False))),
    *(Case(f"grid_sample of volumes, {mode}, {padding}, corners {corners}",
           sample(mode, padding, corners), (X3, GRID3))
      for mode, padding, corners in itertools.product(
          ("bilinear", "nearest"), ("zeros", "border", "reflection"), (True, False))),
    Case("grid_sample of float64",
         sample("bilinear", "zeros", False), (X2.double(), GRID.double())),
    Case("grid_sample with symbolic dims",
         sample("bilinear", "zeros", False), (X2, GRID), dynamic=True),
    *(Case(f"affine_grid, corners {corners}, {dtype}",
           call(aten.affine_grid_generator.default, [2, 3, 5, 4], corners), (THETA.to(dtype),))
      for corners in (True, False) for dtype in (torch.float32, torch.float64)),
    *(Case(f"affine_grid of volumes, corners {corners}",
           call(aten.affine_grid_generator.default, [2, 3, 5, 4, 6], corners), (rand(2, 3, 4),))
      for corners in (True, False)),
    Case("pixel_shuffle", call(F.pixel_shuffle, 2), (rand(2, 12, 3, 5),), max_nodes=3),
    Case("pixel_shuffle with symbolic dims", call(F.pixel_shuffle, 2), (rand(2, 12, 3, 5),),
         dynamic=True),
    Case("pixel_shuffle of more batch dims", call(F.pixel_shuffle, 3), (rand(2, 4, 9, 3, 5),)),
    Case("pixel_shuffle of [C, H, W]", call(F.pixel_shuffle, 2), (rand(12, 3, 5),)),
    Case("pixel_shuffle of int64", call(F.pixel_shuffle, 2),
         (torch.arange(120).reshape(2, 4, 3, 5),)),
    Case("pixel_unshuffle", call(F.pixel_unshuffle, 2), (rand(2, 3, 4, 6),), max_nodes=3),
    Case("pixel_unshuffle with symbolic dims", call(F.pixel_unshuffle, 2), (rand(2, 3, 4, 6),),
         dynamic=True),
    Case("pixel_unshuffle of [C, H, W]", call(F.pixel_unshuffle, 2), (rand(3, 4, 6),)),
    Case("channel_shuffle", call(aten.channel_shuffle.default, 3),
         (rand(2, 6, 4, 5),), max_nodes=3),
    Case("channel_shuffle of a symbolic number of channels",
         call(aten.channel_shuffle.default, 3), (rand(2, 6, 4, 5),), dynamic=True),
    Case("im2col of touching windows", call(aten.im2col.default, [2, 2], [1, 1], [0, 0], [2, 2]),
         (rand(2, 3, 4, 6),)),
    Case("im2col, every option", call(aten.im2col.default, [3, 2], [2, 1], [1, 2], [1, 3]), (X2,)),
    Case("im2col, unbatched", call(aten.im2col.default, [3, 2], [1, 1], [1, 0], [1, 1]), (X2[0],)),
    Case("im2col of float64", call(aten.im2col.default, [3, 2], [1, 1], [1, 0], [1, 1]),
         (X2.double(),)),
    Case("im2col of symbolic dims", call(aten.im2col.default, [2, 2], [1, 1], [0, 0], [2, 2]),
         (rand(2, 3, 6, 8),), dynamic=True),
    Case("im2col of symbolic dims, every option", call(
        aten.im2col.default, [3, 2], [2, 1], [1, 2], [1, 3]), (X2,), dynamic=True),
    Case("im2col of one symbolic dim", lambda x: aten.im2col.default(
        x.reshape(2, 3, -1, 1), [9, 1], [1, 1], [4, 0], [1, 1]), (X2,), dynamic=True),
    Case("im2col of symbolic dims, unbatched", call(
        aten.im2col.default, [3, 2], [1, 1], [1, 0], [1, 1]), (X2[0],), dynamic=True),
    Case("fold of an unfolding with symbolic dims", lambda x: F.fold(
        F.unfold(x, 3, padding=1), x.shape[2:], 3, padding=1), (X2,), dynamic=True),
    Case("col2im", call(aten.col2im.default, [4, 6], [2, 2], [1, 1], [0, 0], [2, 2]),
         (rand(2, 12, 6),), max_nodes=1),
    Case("col2im, every option",
         call(aten.col2im.default, [6, 7], [3, 2], [2, 1], [1, 2], [1, 3]), (rand(2, 18, 16),)),
    Case("col2im, unbatched",
         call(aten.col2im.default, [6, 7], [3, 2], [1, 1], [1, 0], [1, 1]), (rand(18, 36),)),
    Case("fold of an unfolding", lambda x: F.fold(F.unfold(x, 3, padding=1), (6, 7), 3, padding=1),
         (X2,)),
]  # fmt: skip


@pytest.mark.parametrize("case", RESIZES + CASES, ids=str)
def test_vision(case: Case) -> None:
    check(case)


def test_interpolated_bytes_stay_eager() -> None:
    reasons = lower(resize("bilinear", (9, 12), None, False), BYTES.to(torch.uint8)).reasons
    assert "fixed point" in reasons[0].detail


def test_a_scale_that_float32_rounds_to_another_size_stays_eager() -> None:
    reasons = lower(resize("bilinear", None, 0.29, False), rand(1, 1, 100, 100)).reasons
    assert "100 elements by 0.29" in reasons[0].detail


def test_grid_sampling_in_16_bits_stays_eager() -> None:
    reasons = lower(sample("bilinear", "zeros", False), X2.bfloat16(), GRID.bfloat16()).reasons
    assert "rounds at each step" in reasons[0].detail
