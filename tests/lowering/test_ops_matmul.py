"""Matrix products against eager."""

from __future__ import annotations

import pytest
import torch

from . import harness
from .harness import Case, check, lower

aten = torch.ops.aten
A, B = torch.randn(3, 4), torch.randn(4, 5)
W, BIAS = torch.randn(5, 4), torch.randn(5)
P, Q = torch.randn(2, 3, 4), torch.randn(2, 4, 5)
INTS, MORE = torch.randint(-9, 9, (3, 4)), torch.randint(-9, 9, (4, 5))
HUGE = torch.tensor([[2**62, 2**61]])
NAN = torch.full((5,), float("nan"))

mm, addmm, bmm = aten.mm.default, aten.addmm.default, aten.bmm.default


def scores(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Attention scores as swin and t5 write them: heads are moved, merged and transposed."""
    b, s, h, d = q.shape
    keys = k.permute(0, 2, 3, 1).reshape(b * h, d, s)
    return bmm(q.permute(0, 2, 1, 3).reshape(b * h, s, d), keys)


HEADS = torch.randn(2, 6, 3, 4), torch.randn(2, 6, 3, 4)

CASES = [
    Case("mm is one node", mm, (A, B), max_nodes=1),
    Case("mm by a transposed weight is one Gemm", lambda a, w: mm(a, w.t()), (A, W), max_nodes=1),
    Case(
        "mm of a transposed matrix is one Gemm", lambda a, b: mm(a.t(), b), (A.t(), B), max_nodes=1
    ),
    Case("mm of two transposed ones", lambda a, b: mm(a.t(), b.t()), (A.t(), B.t()), max_nodes=1),
    Case("mm of float64", lambda a, w: mm(a, w.t()), (A.double(), W.double()), max_nodes=1),
    Case(
        "mm of bfloat16 adds up in float32", lambda a, w: mm(a, w.t()), (A.bfloat16(), W.bfloat16())
    ),
    Case("mm of float16", mm, (A.half(), B.half())),
    Case("mm of int64 wraps around", lambda a: mm(a, a.t()), (HUGE,)),
    Case("mm of int64", lambda a, b: mm(a, b), (INTS, MORE), max_nodes=1),
    Case(
        "mm of int32 by a transposed one", lambda a, b: mm(a, b.t()), (INTS.int(), MORE.t().int())
    ),
    Case("mm of int8 wraps around", mm, (INTS.char() * 9, MORE.char() * 9)),
    Case("mm of uint8 wraps around", mm, (INTS.byte(), MORE.byte())),
    Case("mm over nothing is zeros", mm, (torch.ones(3, 0), torch.ones(0, 5)), max_nodes=1),
    Case("mm of no rows", mm, (torch.ones(0, 4), B)),
    Case("mm with symbolic rows", lambda a, w: mm(a, w.t()), (A, W), dynamic=True, max_nodes=1),
    Case(
        "addmm with a bias row is one Gemm",
        lambda b, a, w: addmm(b, a, w.t()),
        (BIAS, A, W),
        max_nodes=1,
    ),
    Case("addmm with a whole matrix", addmm, (torch.ones(3, 5), A, B), max_nodes=1),
    Case("addmm with a column", addmm, (torch.ones(3, 1), A, B), max_nodes=1),
    Case("addmm with a number", addmm, (torch.tensor(2.0), A, B), max_nodes=1),
    Case(
        "addmm scales",
        lambda c, a, b: addmm(c, a, b, beta=0.5, alpha=-2),
        (BIAS, A, B),
        max_nodes=1,
    ),
    Case(
        "addmm without beta never reads the bias",
        lambda c, a, b: addmm(c, a, b, beta=0),
        (NAN, A, B),
        max_nodes=1,
    ),
    Case(
        "addmm of float64 scales by a number that float32 has not",
        lambda c, a, b: addmm(c, a, b, beta=0.1, alpha=0.3),
        (BIAS.double(), A.double(), B.double()),
    ),
    Case("addmm of int64", lambda c, a, b: addmm(c, a, b, beta=2, alpha=3), (MORE[0], INTS, MORE)),
    Case("addmm of bfloat16", addmm, (BIAS.bfloat16(), A.bfloat16(), B.bfloat16())),
    Case("addmm over nothing is the bias", addmm, (BIAS, torch.ones(3, 0), torch.ones(0, 5))),
    Case(
        "addmm with symbolic rows",
        lambda b, a, w: addmm(b, a, w.t()),
        (BIAS, A, W),
        dynamic=True,
        max_nodes=1,
    ),
    Case("addmm, then relu", lambda c, a, b: aten._addmm_activation.default(c, a, b), (BIAS, A, B)),
    Case(
        "addmm, then gelu",
        lambda c, a, b: aten._addmm_activation.default(c, a, b, use_gelu=True),
        (BIAS, A, B),
    ),
    Case("bmm is one node", bmm, (P, Q), max_nodes=1),
    Case(
        "bmm by a transposed operand is one FusedMatMul",
        lambda a, b: bmm(a, b.transpose(1, 2)),
        (P, Q.transpose(1, 2)),
        max_nodes=1,
    ),
    Case("bmm of a transposed operand", lambda a, b: bmm(a.mT, b), (P.mT, Q), max_nodes=1),
    Case("bmm of float64 transposed", lambda a, b: bmm(a.mT, b), (P.mT.double(), Q.double())),
    Case("bmm of transposed int64 has no FusedMatMul", lambda a: bmm(a, a.mT), (INTS[None],)),
    Case("bmm of bfloat16", lambda a, b: bmm(a, b.mT), (P.bfloat16(), Q.mT.bfloat16())),
    Case("bmm over nothing", bmm, (torch.ones(2, 3, 0), torch.ones(2, 0, 5))),
    Case("bmm of attention scores reads keys row by row", scores, HEADS, max_nodes=6),
    Case("bmm of attention scores, symbolic", scores, HEADS, dynamic=True),
    Case("bmm with symbolic dims", lambda a, b: bmm(a, b.mT), (P, Q.mT), dynamic=True, max_nodes=1),
    Case(
        "baddbmm is a product and a sum",
        aten.baddbmm.default,
        (torch.ones(2, 3, 5), P, Q),
        max_nodes=2,
    ),
    Case(
        "baddbmm scales",
        lambda c, a, b: aten.baddbmm.default(c, a, b, beta=0.5, alpha=0.125),
        (torch.ones(3, 5), P, Q),
        max_nodes=3,
    ),
    Case(
        "baddbmm without beta never reads the first",
        lambda c, a, b: aten.baddbmm.default(c, a, b, beta=0, alpha=2),
        (NAN, P, Q),
        max_nodes=1,
    ),
    Case(
        "baddbmm of bfloat16 rounds once",
        lambda c, a, b: aten.baddbmm.default(c, a, b, alpha=0.3),
        (torch.ones(2, 3, 5).bfloat16(), P.bfloat16(), Q.bfloat16()),
    ),
    Case(
        "baddbmm of int64",
        lambda a: aten.baddbmm.default(a, a, a, alpha=3, beta=2),
        (torch.arange(8).reshape(2, 2, 2),),
    ),
    Case(
        "addbmm sums over the batch",
        lambda c, a, b: aten.addbmm.default(c, a, b, alpha=2),
        (BIAS, P, Q),
    ),
    Case("addbmm with symbolic dims", aten.addbmm.default, (torch.ones(3, 5), P, Q), dynamic=True),
    Case("mv", aten.mv.default, (A, B[:, 0]), max_nodes=3),
    Case("mv of a transposed matrix", lambda a, v: aten.mv.default(a.t(), v), (A, A[:, 0])),
    Case(
        "addmv of a transposed matrix",
        lambda c, a, v: aten.addmv.default(c, a.t(), v),
        (A[0], A, A[:, 0]),
    ),
    Case(
        "matmul of transposed matrices and a vector",
        lambda a, v: aten.matmul.default(a.transpose(1, 2), v),
        (torch.stack([A, A * 2]), A[:, 0]),
    ),
    Case(
        "mv of complex numbers, transposed",
        lambda a, v: aten.mv.default(a.t(), v),
        (torch.complex(A, A * 2), torch.complex(A[:, 0], A[:, 1])),
    ),
    Case("mv of int64", aten.mv.default, (INTS, MORE[:, 0])),
    Case("mv over nothing", aten.mv.default, (torch.ones(3, 0), torch.ones(0))),
    Case(
        "addmv",
        lambda c, a, b: aten.addmv.default(c, a, b, beta=2, alpha=0.5),
        (A[:, 0], A, B[:, 0]),
    ),
    Case(
        "addmv with a number and without beta",
        lambda c, a, b: aten.addmv.default(c, a, b, beta=0),
        (torch.tensor(float("nan")), A, B[:, 0]),
    ),
    Case("addr", lambda c, a, b: aten.addr.default(c, a, b, beta=0.5, alpha=2), (A, A[:, 0], A[0])),
    Case("addr of bool", aten.addr.default, (A > 9, A[:, 0] > 0, A[0] > 0)),
    Case(
        "addr of bfloat16",
        lambda c, a, b: aten.addr.default(c, a, b, beta=0.6, alpha=0.2),
        (A.bfloat16(), A[:, 0].bfloat16(), A[0].bfloat16()),
    ),
    Case(
        "addr of int64 without beta",
        lambda c, a, b: aten.addr.default(c, a, b, beta=0),
        (INTS[0, 0], INTS[:, 0], INTS[0]),
    ),
    Case("dot", aten.dot.default, (A[0], A[1]), max_nodes=1),
    Case("dot of int64", aten.dot.default, (INTS[0], INTS[1])),
    Case("dot of nothing", aten.dot.default, (torch.ones(0), torch.ones(0))),
    Case("vdot", aten.vdot.default, (A[0], A[1])),
    Case(
        "_int_mm does not saturate",
        aten._int_mm.default,
        (torch.full((32, 64), -128, dtype=torch.int8), torch.full((64, 8), -128, dtype=torch.int8)),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matmul(case: Case) -> None:
    check(case)


def test_a_transposed_weight_is_read_where_it_lies() -> None:
    program = check(Case("", lambda b, a, w: addmm(b, a, w.t()), (BIAS, A, W)))
    (node,) = program.model.graph
    assert node.op_type == "Gemm"
    assert node.attributes["transB"].value == 1
    assert node.inputs[1] is program.model.graph.inputs[2]


def test_addbmm_of_bfloat16_stays_eager() -> None:
    args = torch.ones(3, 5).bfloat16(), P.bfloat16(), Q.bfloat16()
    (reason,) = lower(aten.addbmm.default, *args).reasons
    assert "rounds after every matrix" in str(reason)


class Whole(torch.nn.Module):
    """linear and matmul, which only torch.export leaves whole."""

    def forward(self, x, w, b):
        return (
            torch.nn.functional.linear(x, w, b),
            torch.nn.functional.linear(x[0], w),
            torch.matmul(x, w.t()),
            torch.matmul(x, w[0]),
            torch.matmul(x[0], x.transpose(1, 2)),
        )


def test_linear_and_matmul_of_an_exported_program(monkeypatch) -> None:
    args = P, W, BIAS
    exported = torch.export.export(Whole(), args).graph_module
    targets = {str(node.target) for node in exported.graph.nodes}
    assert {"aten.linear.default", "aten.matmul.default"} <= targets
    monkeypatch.setattr(harness, "trace", lambda fn, *args, dynamic: exported)
    check(Case("", Whole(), args))
