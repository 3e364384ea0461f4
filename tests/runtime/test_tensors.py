"""Tensors pass in and out on their own memory; strides come back exactly."""

from __future__ import annotations

import onnx_ir as ir
import pytest
import torch

from dynamo_onnx.lowering.dtypes import TO_ONNX
from dynamo_onnx.runtime.tensors import Feeder, restride
from dynamo_onnx.runtime.weights import LINE_BYTES, LINES, WeightWatch, probe_addresses

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", TO_ONNX, ids=str)
@pytest.mark.parametrize("shape", [(2, 3), (), (0, 3), (1, 1)])
def test_every_dtype_and_shape_is_fed_without_a_copy(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    tensor = torch.zeros(shape).to(dtype)
    (value,) = Feeder([TO_ONNX[dtype]], [tensor.device]).feed([tensor])
    assert tuple(value.shape()) == shape
    assert value.element_type() == int(TO_ONNX[dtype])
    if tensor.numel():
        assert value.data_ptr() == tensor.data_ptr()


def test_a_mixed_batch_keeps_its_order() -> None:
    tensors = [torch.zeros(2), torch.zeros(3, dtype=torch.bfloat16), torch.zeros(0)]
    feeder = Feeder([ir.DataType.FLOAT, ir.DataType.BFLOAT16, ir.DataType.FLOAT], [CPU] * 3)
    assert [v.shape() for v in feeder.feed(tensors)] == [[2], [3], [0]]


@pytest.mark.parametrize("strides", [(4, 1), (1, 3), (8, 2), (0, 1), (0, 0), (1, 0)])
def test_restride_makes_exactly_these_strides(strides: tuple[int, int]) -> None:
    base = torch.arange(64.0).as_strided((3, 4), strides)
    made = restride(base.contiguous(), (3, 4), strides)
    assert made.stride() == strides
    assert torch.equal(made, base)


@pytest.mark.parametrize(
    "weight",
    [
        torch.randn(3),
        torch.randn(1000, 7),
        torch.randn(64, 64).t(),
        torch.randn(64, 64)[:, ::2],
        torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last),
        torch.randn(5, 1).expand(5, 9),
        torch.randn(100).to(torch.bfloat16),
        torch.zeros(100, dtype=torch.bool),
        torch.zeros(701, dtype=torch.bool)[3:],
        torch.zeros((), dtype=torch.int64),
    ],
    ids=lambda w: f"{tuple(w.shape)}{w.stride()}{w.dtype}",
)
def test_a_watch_sees_versions_pointers_and_content(weight: torch.Tensor) -> None:
    start = weight.data_ptr()
    end = weight.untyped_storage().data_ptr() + weight.untyped_storage().nbytes()
    compared = [
        byte
        for size_bytes, places in probe_addresses(weight)
        for place in places
        for byte in range(place, place + size_bytes)
    ]
    assert all(place % size == 0 for size, places in probe_addresses(weight) for place in places)
    assert len(compared) == len(set(compared))
    assert set(compared) <= set(range(start, end))
    # One line may be lost at an end that is not aligned.
    assert len(compared) >= min(LINES * LINE_BYTES, end - start - 2 * LINE_BYTES)
    assert WeightWatch([weight]).unchanged([weight])

    watch = WeightWatch([weight])
    assert not watch.unchanged([weight.clone()])  # moved

    weight.data.logical_not_() if weight.dtype is torch.bool else weight.data.as_strided(
        (1,), (1,)
    ).add_(1)
    assert not watch.unchanged([weight])  # content, without a version

    versions = WeightWatch([weight])
    weight.as_strided((1,), (1,)).zero_()
    weight.as_strided((1,), (1,)).zero_()
    assert not versions.unchanged([weight])


def test_a_nan_equals_itself() -> None:
    weight = torch.full((10,), float("nan"))
    assert WeightWatch([weight]).unchanged([weight])


@pytest.mark.parametrize("offset", [0, 1, 8, 63, 64])
@pytest.mark.parametrize("elements", [1, 10, 40, 100])
def test_every_element_of_a_small_weight_is_compared(offset: int, elements: int) -> None:
    weight = torch.frombuffer(bytearray(600), dtype=torch.float32, offset=offset, count=elements)
    assert WeightWatch([weight]).unchanged([weight])
    for index in range(elements):
        watch = WeightWatch([weight])
        weight.data[index] = 5.0 + index
        assert not watch.unchanged([weight])
