"""Tensors pass in and out on their own memory; strides come back exactly."""

from __future__ import annotations

import onnx_ir as ir
import pytest
import torch

from dynamo_onnx.lowering.dtypes import TO_ONNX
from dynamo_onnx.runtime.tensors import Feeder, restride
from dynamo_onnx.runtime.weights import PROBES, WeightWatch, probe_addresses


@pytest.mark.parametrize("dtype", TO_ONNX, ids=str)
@pytest.mark.parametrize("shape", [(2, 3), (), (0, 3), (1, 1)])
def test_every_dtype_and_shape_is_fed_without_a_copy(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    tensor = torch.zeros(shape).to(dtype)
    (value,) = Feeder([TO_ONNX[dtype]]).feed([tensor])
    assert tuple(value.shape()) == shape
    assert value.element_type() == int(TO_ONNX[dtype])
    if tensor.numel():
        assert value.data_ptr() == tensor.data_ptr()


def test_a_mixed_batch_keeps_its_order() -> None:
    tensors = [torch.zeros(2), torch.zeros(3, dtype=torch.bfloat16), torch.zeros(0)]
    feeder = Feeder([ir.DataType.FLOAT, ir.DataType.BFLOAT16, ir.DataType.FLOAT])
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
        torch.zeros((), dtype=torch.int64),
    ],
    ids=lambda w: f"{tuple(w.shape)}{w.stride()}{w.dtype}",
)
def test_a_watch_sees_versions_pointers_and_content(weight: torch.Tensor) -> None:
    _, addresses = probe_addresses(weight)
    storage = weight.untyped_storage()
    assert len(set(addresses)) == min(PROBES, storage.nbytes() // weight.element_size())
    assert min(addresses) >= storage.data_ptr()
    assert max(addresses) <= storage.data_ptr() + storage.nbytes() - weight.element_size()
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


def test_memory_that_is_not_aligned_to_its_elements_is_compared_by_bytes() -> None:
    weight = torch.frombuffer(bytearray(41), dtype=torch.float32, offset=1)
    size_bytes, addresses = probe_addresses(weight)
    assert size_bytes == (1 if weight.data_ptr() % 4 else 4)
    assert WeightWatch([weight]).unchanged([weight])
    watch = WeightWatch([weight])
    weight.data[3] = 5.0
    assert not watch.unchanged([weight])
    assert len(addresses) == (40 if size_bytes == 1 else 10)
