"""The contenders: each gives eager's answer, and compiles when it says that it does."""

from __future__ import annotations

import pytest
import torch
import torch._inductor.config as inductor_config
from torch._dynamo.utils import counters

from benchmarks import backends
from benchmarks.models import MODELS, Example


def _example() -> Example:
    return backends.tiny(torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("make", [backends.onnx, backends.raw, backends.capture_only])
def test_a_contender_gives_eagers_answer(make):
    example = _example()
    with torch.no_grad():
        contender = make(example)
        (output,) = contender.tensors(contender.prime())
        torch.testing.assert_close(output, example.module(**example.kwargs))


def test_the_report_of_onnx_says_what_became_of_the_operators():
    with torch.no_grad():
        contender = backends.onnx(_example(), {"eager_ops": ["relu"], "min_region": 1})
        contender.prime()
    report = contender.report()
    assert report is not None
    assert report["eager_ops"] == 1
    assert report["timings"]["lowering_ms"] > 0


@pytest.mark.slow
def test_inductor_with_freezing_has_no_parameter_left_and_compiles_once(monkeypatch, tmp_path):
    from torch._inductor import freezing

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    left = []
    freeze = freezing.freeze

    def seen(*args, **kwargs):
        module, preserved = freeze(*args, **kwargs)
        left.append(len(preserved))
        return module, preserved

    monkeypatch.setattr(freezing, "freeze", seen)
    example = MODELS["mobilenet_v2"].build(small=True)
    with torch.no_grad():
        contender = backends.inductor_freezing(example)
        contender.prime()
        assert left == [1]  # the image
        graphs = counters["stats"]["unique_graphs"]
        (output, *_) = contender.tensors(contender.call())
        assert counters["stats"]["unique_graphs"] == graphs
        (expected, *_) = backends.eager(example).tensors(example.module(**example.kwargs))
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)
    assert not inductor_config.freezing
