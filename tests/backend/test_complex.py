"""Complex numbers in compiled functions: inputs, outputs, layouts, saved programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

import dynamo_onnx

STRICT = {"strict": True}


def _rotary(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).flatten(2)


def _spectrum(x: torch.Tensor) -> torch.Tensor:
    return torch.stft(x, 16, 4, window=torch.hann_window(16), return_complex=True).abs()


def _z() -> torch.Tensor:
    return torch.randn(3, 4, dtype=torch.complex64)


CASES: dict[str, tuple[Callable[..., torch.Tensor], Callable[[], tuple[torch.Tensor, ...]]]] = {
    "product": (lambda z, w: z * w[0] + 1, lambda: (_z(), _z())),
    "with reals": (lambda z, r: z * r - 2j, lambda: (_z(), torch.randn(3, 4))),
    "views": (lambda z: (z.t().reshape(2, 6) * 2).flip(0), lambda: (_z(),)),
    "transposed output": (lambda z: (z * 2).t(), lambda: (_z(),)),
    "pairs": (lambda z: torch.view_as_real(z * z).sum(-1), lambda: (_z(),)),
    "parts": (lambda z: (z * 2).real + z.imag * 3, lambda: (_z(),)),
    "rotary": (_rotary, lambda: (torch.randn(2, 5, 8), torch.randn(5, 4))),
    "conjugate": (lambda z: z.conj() * z, lambda: (_z(),)),
    "conjugate output": (lambda z: (z * 2).conj(), lambda: (_z(),)),
    "conjugate input": (lambda z: z * 2, lambda: (_z().conj(),)),
    "matmul": (lambda z: z @ z.mT, lambda: (_z(),)),
    "cat": (lambda z: torch.cat([z * 2, z]).sum(0), lambda: (_z(),)),
    "equal": (lambda z: z == z * 1, lambda: (_z(),)),
    "from real": (lambda r: r.to(torch.complex64) * 1j, lambda: (torch.randn(3, 4),)),
    "transposed input": (lambda z: z * 2, lambda: (_z().t(),)),
    "views of the input": (lambda z: z.transpose(0, 1).chunk(2)[0], lambda: (_z(),)),
    "empty": (lambda z: z[:0] * 2, lambda: (_z(),)),
    "spectrum": (_spectrum, lambda: (torch.randn(64),)),
    "doubles": (lambda z: z * 2 - 1j, lambda: (_z().to(torch.complex128),)),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", CASES)
def test_complex_numbers_run_natively(name: str, *, dynamic: bool) -> None:
    fn, make = CASES[name]
    args = make()
    compiled = torch.compile(fn, backend="onnx", dynamic=dynamic, options=STRICT)
    torch.testing.assert_close(compiled(*args), fn(*args), check_stride=True)


def test_a_complex_weight_that_changes_is_seen() -> None:
    class Scale(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(_z())

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return z * self.weight

    model, z = Scale(), _z()
    compiled = torch.compile(model, backend="onnx", options=STRICT)
    with torch.no_grad():
        compiled(z)
        model.weight.mul_(2)
        torch.testing.assert_close(compiled(z), model(z))


def test_a_saved_program_takes_and_returns_pairs(tmp_path: Path) -> None:
    z = _z()
    compiled = torch.compile(lambda z: (z * 2j).t(), backend="onnx", options=STRICT)
    compiled(z)
    dynamo_onnx.save(compiled, tmp_path)
    (program,) = json.loads((tmp_path / "manifest.json").read_text())["programs"]
    session = ort.InferenceSession(tmp_path / program["file"], providers=program["providers"])
    (pairs,) = session.run(None, {program["inputs"][0]["name"]: torch.view_as_real(z).numpy()})
    np.testing.assert_allclose(torch.view_as_real((z * 2j).t()).numpy(), pairs, rtol=1e-6)
