"""Complex numbers as pairs of reals, and Fourier transforms."""

from __future__ import annotations

import pytest
import torch

from .harness import Case, check, compare, lower, run

X = torch.linspace(-2, 2, 12).reshape(3, 4)
Z = torch.complex(X, X.flip(0) * 0.5 + 0.1)
W = torch.complex(X.cos(), X.sin() * 2)
SPECIAL = torch.tensor(
    [
        0j,
        complex(-0.0, -0.0),
        3e30 + 3e30j,
        complex(float("inf"), 1),
        complex(float("nan"), 1),
        -2 + 0j,
    ]
)
MASK = X > 0

CASES = [
    Case("add with alpha", lambda z, w: torch.add(z, w, alpha=2 - 1j), (Z, W)),
    Case("sub of a real", lambda z, x: z - x, (Z, X)),
    Case("mul by a number", lambda z: z * 2j, (Z,)),
    Case("mul by a size", lambda z: z * z.shape[0], (Z,), dynamic=True),
    Case("div", lambda z, w: z / w, (Z, W)),
    Case("div of doubles", lambda z, w: z / w, (Z.to(torch.complex128), W.to(torch.complex128))),
    Case("div of what overflows squared", lambda z: z / z, (SPECIAL[2:3],)),
    Case("div of doubles that overflow", lambda z: z / z, (Z.to(torch.complex128) * 1e300,)),
    Case("reciprocal", lambda z: z.reciprocal(), (Z,)),
    Case("square", lambda z: z**2, (Z,)),
    Case("abs", torch.abs, (Z,)),
    Case("abs of special numbers", torch.abs, (SPECIAL,)),
    Case("abs of doubles", torch.abs, (SPECIAL.to(torch.complex128) * 1e270,)),
    Case("angle", torch.angle, (torch.cat([Z.flatten(), SPECIAL[:2], SPECIAL[5:]]),)),
    Case("sgn", torch.sgn, (torch.cat([Z.flatten(), SPECIAL[:1]]),)),
    Case("exp", torch.exp, (Z,)),
    Case("log", torch.log, (Z,)),
    Case("isnan", torch.isnan, (SPECIAL,)),
    Case("eq with a real", lambda z, x: z == x, (Z.real + 0j, X)),
    Case("conj", lambda z: torch.conj_physical(z), (Z,)),
    Case("polar", torch.polar, (X.abs(), X)),
    Case("complex", torch.complex, (X, X[0])),
    Case("real part of a cast", lambda z: z.to(torch.complex128).real, (Z,)),
    Case("full", lambda z: torch.full((2, 3), 1 - 2j) + z[0, 0], (Z,)),
    Case("full_like in reals", lambda z: torch.full_like(z, 2, dtype=torch.float32), (Z,)),
    Case("full_like of reals", lambda x: torch.full_like(x, 2j, dtype=torch.complex64), (X,)),
    Case("ones", lambda z: torch.ones_like(z) + torch.eye(3, 4, dtype=z.dtype), (Z,)),
    Case("pad", lambda z: torch.nn.functional.pad(z, (1, 2), value=3), (Z,)),
    Case("where", lambda z, x: torch.where(x > 0, z, x), (Z, X)),
    Case("masked fill", lambda z, m: z.masked_fill(m, 1j), (Z, MASK)),
    Case("index put", lambda z, w: z.index_put((torch.tensor([2, 0]),), w[:2]), (Z, W)),
    Case(
        "index add",
        lambda z, w: z.index_add(0, torch.tensor([1, 1]), w[:2]),
        (Z, W),
    ),
    Case("gather", lambda z: z.gather(1, torch.tensor([[0, 3], [1, 1]])), (Z,)),
    Case("diagonal", lambda z: torch.diag_embed(z.diagonal()), (Z,)),
    Case("cat with reals", lambda z, x: torch.cat([z, x]), (Z, X)),
    Case("split", lambda z: torch.split(z, 3, 1)[1], (Z,)),
    Case("mean", lambda z: z.mean(0), (Z,)),
    Case("cumsum", lambda z: z.cumsum(1), (Z,)),
    Case("matmul", lambda z, w: z @ w.mT, (Z, W)),
    Case("bmm", lambda z, w: torch.bmm(z[None], w.mT[None]), (Z, W)),
    Case("mv", lambda z, w: z @ w[0], (Z, W)),
    Case("dot", lambda z, w: torch.dot(z[0], w[0]), (Z, W)),
    Case("vdot", lambda z, w: torch.vdot(z[0], w[0]), (Z, W)),
    Case(
        "addmm", lambda z, w: torch.addmm(z @ z.mT, z, w.mT, beta=2j, alpha=1 + 1j), (Z, W)
    ),
    Case(
        "addmm without what it adds to",
        lambda s, z, w: torch.addmm(s, z, w.mT, beta=0),
        (SPECIAL[4].expand(3, 3), Z, W),
    ),
    Case("empty", lambda z: z[:0] * 2, (Z,)),
    Case("0-d", lambda z: z[0, 0] * 2, (Z,)),
    Case("dynamic", lambda z: (z * z.conj()).reshape(-1), (Z,), dynamic=True),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_complex_numbers(case: Case) -> None:
    check(case)


def test_a_power_that_has_no_formula_declines() -> None:
    (reason,) = lower(lambda z: z**3.5, Z).reasons
    assert "to the power of 3.5" in reason.detail


def test_an_operator_without_a_rule_for_complex_numbers_says_so() -> None:
    (reason,) = lower(torch.tanh, Z).reasons
    assert "ONNX has no complex numbers, and aten.tanh.default" in reason.detail


# One product; split in two and in three; a prime in one product and within a split; by DFT.
SIZES = [1, 2, 7, 64, 66, 100, 131, 262, 768, 2 * 257, 1009, 4096]
FFT = torch.fft


def _signal(n: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(3, n, dtype=dtype, generator=torch.Generator().manual_seed(n))


def _close(ours: torch.Tensor, eager: torch.Tensor, eps: float) -> None:
    """Within a few roundings of the largest number, as one transform mixes all of them."""
    assert (ours.dtype, ours.shape) == (eager.dtype, eager.shape)
    assert (ours - eager).abs().max() <= 8 * eps * eager.abs().max()


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("n", SIZES)
def test_transforms_are_as_exact_as_eagers(n: int, dtype: torch.dtype, *, dynamic: bool) -> None:
    z = _signal(n, dtype)
    eps = torch.finfo(dtype).eps
    if dtype is torch.complex128 and (dynamic or n in (2 * 257, 1009)):
        eps *= 1000  # onnxruntime's DFT

    def transforms(z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        half = z[:, : n // 2 + 1]
        return (
            FFT.fft(z),
            FFT.ifft(z),
            FFT.rfft(z.real),
            FFT.fft(z.real, norm="ortho"),
            FFT.irfft(half, n=n, norm="forward"),
        )

    lowering = lower(transforms, z, dynamic=dynamic)
    assert lowering.program is not None, lowering.reasons
    for ours, eager in zip(run(lowering.program, (z,)), transforms(z), strict=True):
        _close(ours, eager, eps)


SEVERAL = [
    Case("fft2", lambda x: FFT.fft2(x), (_signal(12, torch.float32),)),
    Case("one-sided in the middle", lambda x: FFT.rfftn(x, dim=(2, 1)), (torch.ones(2, 5, 6),)),
    Case("hfftn", lambda z: FFT.hfftn(z), (_signal(12, torch.complex64),), tolerance=1e-4),
    Case("ihfft2", lambda x: FFT.ihfft2(x), (_signal(12, torch.float32),)),
    Case("cut and padded", lambda x: FFT.fft2(x, s=(2, 20)), (_signal(12, torch.float32),)),
    Case("dynamic", lambda x: FFT.irfft2(FFT.rfft2(x)), (X,), dynamic=True),
]  # fmt: skip


@pytest.mark.parametrize("case", SEVERAL, ids=str)
def test_transforms_along_several_dims(case: Case) -> None:
    check(case)


def test_a_transform_of_768_points_is_two_products() -> None:
    program = lower(FFT.fft, _signal(768, torch.complex64)).program
    assert program is not None
    names = [node.op_type for node in program.model.graph]
    assert names.count("MatMul") == 2
    assert "DFT" not in names


def test_infinities_and_nans_spread_as_in_eager() -> None:
    z = torch.ones(2, 8, dtype=torch.complex64)
    z[0, 3] = float("nan")
    lowering = lower(FFT.fft, z)
    assert lowering.program is not None
    (ours,) = run(lowering.program, (z,))
    compare(ours.isnan(), FFT.fft(z).isnan())
