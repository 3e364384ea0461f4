"""Normalisation rules against eager."""

from __future__ import annotations

import operator
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from dynamo_onnx.lowering.interpreter import lower_region
from dynamo_onnx.lowering.region import Region
from dynamo_onnx.lowering.registry import registry
from dynamo_onnx.runtime.kernels import kernel_table

from .harness import CPU, OPSETS, Case, check, compare, run

aten = torch.ops.aten


def rand(*dims, dtype=torch.float32, seed=0):
    return torch.randn(*dims, generator=torch.Generator().manual_seed(seed)).to(dtype)


X = rand(2, 6, 4, 5) * 3 + 1
FAR = rand(2, 6, 4, 5) + 1000
SCALE, SHIFT, MEAN = rand(6, seed=1), rand(6, seed=2), rand(6, seed=3)
VAR = rand(6, seed=4).abs() + 0.1
ROW = rand(5, seed=5)


def layer(dims):
    return lambda x, w, b: aten.native_layer_norm.default(x, dims, w, b, 1e-5)[0]


def layer_bare(x):
    return F.layer_norm(x, x.shape[-1:])


def layer_stats(x, w, b):
    return aten.native_layer_norm.default(x, [x.shape[-1]], w, b, 1e-5)


def group(groups):
    return lambda x, w, b: F.group_norm(x, groups, w, b)


def group_stats(x, w, b):
    return aten.native_group_norm.default(x, w, b, 2, 6, 20, 3, 1e-5)


def batch(x, w, b, mean, var):
    return aten._native_batch_norm_legit_no_training.default(x, w, b, mean, var, 0.1, 1e-5)[0]


def batch_whole(x, w, b, mean, var):
    return aten._native_batch_norm_legit_no_training.default(x, w, b, mean, var, 0.1, 1e-5)


def batch_train(x, w, b, mean, var):
    return aten._native_batch_norm_legit_functional.default(x, w, b, mean, var, True, 0.1, 1e-5)


def batch_eval(x, w, b, mean, var):
    y = aten._native_batch_norm_legit_functional.default(x, w, b, mean, var, False, 0.1, 1e-5)
    return y[0], y[3], y[4]


def batch_update(x, w, b, mean, var):
    y = aten._batch_norm_with_update_functional.default(x, w, b, mean, var, 0.1, 1e-5)
    return y[0], y[1], y[2], y[4], y[5]


BATCH = (SCALE, SHIFT, MEAN, VAR)

CASES = [
    Case("layer norm is one node", layer([5]), (X, ROW, ROW), max_nodes=1),
    Case("layer norm without parameters", layer_bare, (X,), max_nodes=1),
    Case("layer norm with a weight alone", lambda x, w: F.layer_norm(x, (5,), w), (X, ROW),
         max_nodes=1),
    Case("layer norm with a bias alone", lambda x, b: F.layer_norm(x, (5,), None, b), (X, ROW)),
    Case("layer norm over three dims", layer([6, 4, 5]), (X, rand(6, 4, 5), rand(6, 4, 5, seed=1))),
    Case("layer norm of one dim", layer([5]), (X[0, 0, 0], ROW, ROW)),
    Case("layer norm far from zero", layer([5]), (FAR, ROW, ROW), tolerance=5e-4),
    Case("layer norm with its statistics", layer_stats, (X, ROW, ROW), max_nodes=1),
    Case("layer norm of an empty batch", layer([5]), (X[:0], ROW, ROW)),
    Case("layer norm of an empty batch with its statistics", layer_stats, (X[:0], ROW, ROW)),
    Case("layer norm with symbolic dims", layer_stats, (X, ROW, ROW), dynamic=True),
    Case("layer norm without parameters, symbolic", layer_bare, (X,), dynamic=True),
    Case("layer norm of float64", layer_stats, (X.double(), ROW.double(), ROW.double())),
    Case("layer norm of float64 with a variance below eps", layer_bare, (X.double() * 1e-3,)),
    Case("layer norm of float16", layer([5]), (X.half(), ROW.half(), ROW.half()), tolerance=2e-3),
    Case("layer norm of float16 without parameters", layer_bare, (X.half(),)),
    Case("layer norm of bfloat16", layer([5]), (X.bfloat16(), ROW.bfloat16(), ROW.bfloat16())),
    Case("layer norm of bfloat16 with float32 parameters", layer([5]), (X.bfloat16(), ROW, ROW)),
    Case("layer norm of float16 with its statistics", layer_stats,
         (X.half(), ROW.half(), ROW.half()), tolerance=2e-3),
    Case("layer norm of NaN, inf and a constant row", layer_bare, (torch.tensor(
        [[1.0, torch.nan, 2.0], [1.0, torch.inf, 2.0], [3.0, 3.0, 3.0]]),)),
    Case("group norm", group(3), (X, SCALE, SHIFT), max_nodes=7),
    Case("group norm of one group", group(1), (X, SCALE, SHIFT)),
    Case("group norm with a group per channel is one node", group(6), (X, SCALE, SHIFT),
         max_nodes=1),
    Case("group norm of [N, C]", group(3), (X[:, :, 0, 0], SCALE, SHIFT)),
    Case("group norm of [N, C, L]", group(2), (X[:, :, 0], SCALE, SHIFT)),
    Case("group norm without parameters", lambda x: F.group_norm(x, 3), (X,)),
    Case("group norm with its statistics", group_stats, (X, SCALE, SHIFT)),
    Case("group norm of an empty batch", group(3), (X[:0], SCALE, SHIFT)),
    Case("group norm of float64", group(3), (X.double(), SCALE.double(), SHIFT.double())),
    Case("group norm of bfloat16", group(3), (X.bfloat16(), SCALE.bfloat16(), SHIFT.bfloat16())),
    Case("group norm of bfloat16 with float32 parameters", group(3), (X.bfloat16(), SCALE, SHIFT)),
    Case("instance norm", lambda x, w, b: F.instance_norm(x, weight=w, bias=b), (X, SCALE, SHIFT)),
    Case("batch norm in inference is one node", batch, (X, *BATCH), max_nodes=1),
    Case("batch norm in inference, all outputs", batch_whole, (X, *BATCH)),
    Case("batch norm of [N, C]", batch, (X[:, :, 0, 0], *BATCH)),
    Case("batch norm of [N, C, L]", batch, (X[:, :, 0], *BATCH)),
    Case("batch norm of [N, C, D, H, W]", batch, (X[..., None], *BATCH)),
    Case("batch norm with symbolic dims", batch, (X, *BATCH), dynamic=True),
    Case("batch norm of an empty batch", batch, (X[:0], *BATCH)),
    Case("batch norm without parameters", lambda x, m, v: F.batch_norm(x, m, v), (X, MEAN, VAR)),
    Case("batch norm with a bias alone", lambda x, b, m, v: F.batch_norm(x, m, v, None, b),
         (X, SHIFT, MEAN, VAR)),
    Case("batch norm of float64", batch, (X.double(), *(p.double() for p in BATCH))),
    Case("batch norm of bfloat16", batch, (X.bfloat16(), *(p.bfloat16() for p in BATCH))),
    Case("batch norm of bfloat16 with float32 parameters", batch, (X.bfloat16(), *BATCH)),
    Case("batch norm in training", batch_train, (X, *BATCH)),
    Case("batch norm in training with symbolic dims", batch_train, (X, *BATCH), dynamic=True),
    Case("batch norm in training, float64", batch_train,
         (X.double(), *(p.double() for p in BATCH))),
    Case("batch norm in training, bfloat16 with float32 parameters",
         lambda *args: batch_train(*args)[0], (X.bfloat16(), *BATCH)),
    Case("batch norm in training far from zero", batch_train, (FAR, *BATCH), tolerance=5e-4),
    Case("the functional batch norm in evaluation", batch_eval, (X, *BATCH)),
    Case("batch norm with update", batch_update, (X, *BATCH)),
    Case("batch norm without update",
         lambda x, w, b, m, v: aten._batch_norm_no_update.default(x, w, b, m, v, 0.1, 1e-5)[0],
         (X, *BATCH)),
    Case("batch norm of the batch, no statistics kept",
         lambda x, w, b: aten._native_batch_norm_legit.no_stats(x, w, b, True, 0.1, 1e-5),
         (X, SCALE, SHIFT)),
    Case("batch norm of a batch of one", lambda x, w, b: aten._native_batch_norm_legit.no_stats(
        x, w, b, True, 0.1, 1e-5)[0], (X[:1], SCALE, SHIFT), max_nodes=1),
    Case("batch norm of a batch of one, bfloat16 with float32 parameters",
         lambda x, w, b: aten._native_batch_norm_legit.no_stats(x, w, b, True, 0.1, 1e-5)[0],
         (X[:1].bfloat16(), SCALE, SHIFT)),
    Case("instance norm of float64", lambda x: F.instance_norm(x), (X.double(),)),
    Case("instance norm with symbolic dims", lambda x: F.instance_norm(x), (X,), dynamic=True),
    Case("local response norm", lambda x: F.local_response_norm(x, 3), (X,)),
    Case("weight norm along the first dim",
         lambda v, g: aten._weight_norm_interface.default(v, g, 0),
         (X, rand(2, 1, 1, 1))),
    Case("weight norm along the last dim",
         lambda v, g: aten._weight_norm_interface.default(v, g, 3),
         (X, rand(1, 1, 1, 5))),
    Case("weight norm of bfloat16", lambda v, g: aten._weight_norm_interface.default(v, g, 0)[0],
         (X.bfloat16(), rand(2, 1, 1, 1).bfloat16())),
    Case("native batch norm in evaluation",
         lambda x, w, b, m, v: aten.native_batch_norm.default(x, w, b, m, v, False, 0.1, 1e-5)[0],
         (X, *BATCH)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_normalization(case: Case) -> None:
    check(case)


def fused_rms_norm(x, weight, eps, outputs, opsets=OPSETS):
    """The overload by itself: tracing on the CPU takes it apart, on CUDA it stays whole."""
    graph = torch.fx.Graph()
    args = [graph.placeholder("x"), graph.placeholder("weight")]
    norm = graph.call_function(aten._fused_rms_norm.default, (args[0], [x.shape[-1]], args[1], eps))
    items = [graph.call_function(operator.getitem, (norm, i)) for i in range(outputs)]
    eager = aten._fused_rms_norm.default(x, [x.shape[-1]], weight, eps)
    for node, val in zip((*args, norm, *items), (x, weight, eager, *eager), strict=False):
        node.meta["val"] = val
    lowered = lower_region(
        Region((norm, *items), tuple(args), tuple(items)),
        registry=registry,
        kernels=partial(kernel_table, CPU),
        opsets=opsets,
        fingerprint="",
        name="t",
    )
    assert lowered.program is not None
    for ours, theirs in zip(run(lowered.program, (x, weight)), eager, strict=False):
        compare(ours, theirs)
    return lowered.program


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("eps", [1e-6, None])
@pytest.mark.parametrize("outputs", [1, 2])
def test_fused_rms_norm(dtype, eps, outputs) -> None:
    fused_rms_norm(X.to(dtype), ROW.to(dtype), eps, outputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_fused_rms_norm_at_an_opset_without_it(dtype) -> None:
    program = fused_rms_norm(X.to(dtype), ROW.to(dtype), 1e-6, 1, opsets=(21, 21))
    assert program.model.opset_imports[""] == 21


def test_fused_rms_norm_is_one_node() -> None:
    program = fused_rms_norm(X, ROW, 1e-6, 1)
    assert [n.op_type for n in program.model.graph] == ["RMSNormalization"]
