"""A few model families of the sweep (`tests/conformance/families.py`), one of each kind."""

from __future__ import annotations

import pytest
import torch

from tests.conformance.families import FAMILIES, Family
from tests.conformance.family import run
from tests.conformance.training import as_near, difference

CHOSEN = (
    "DebertaV2ForMaskedLM",
    "Gemma2ForCausalLM",
    "MixtralForCausalLM",
    "RwkvForCausalLM",
    "BartForConditionalGeneration",
    "Dinov2ForImageClassification",
    "Wav2Vec2ForCTC",
    "CLIPModel",
)


@pytest.mark.parametrize("name", CHOSEN)
def test_a_family_answers_as_eager_with_nothing_in_eager(name: str) -> None:
    family = FAMILIES[name]
    result = run(Family(family.cls, family.kind, family.inputs, family.config))
    assert (result["outcome"], result["detail"]) == ("equal", "")
    assert result["whole"] == result["graphs"]
    assert result["graphs"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [f.cls for f in FAMILIES.values() if f.generates][:1])
def test_generation_gives_eagers_tokens_and_compiles_no_more_once_warm(name: str) -> None:
    generated = run(FAMILIES[name])["generate"]
    assert {cache: g["outcome"] for cache, g in generated.items()} == {
        "dynamic": "equal",
        "static": "equal",
    }
    for result in generated.values():
        assert result["onnx"] == result["aot_eager"]
        assert result["onnx"][0] == result["onnx"][-1]


@pytest.mark.parametrize(
    ("ours", "eager", "told", "near"),
    [
        ((4e10 + 1e5, 0.5), (4e10, 0.51), "result 1: off by", True),  # as far off as eager
        ((4e10, 0.5), (4e10, 0.55), "result 1: off by", True),
        ((4e10, 0.6), (4e10, 0.51), "result 1: off by", False),  # ten times as far
        ((4e10 + 1e5, 0.5), (4e10, 0.5), "", True),
        ((4.1e10, 0.5), (4e10, 0.51), "result 0: off by", False),
    ],
)
def test_each_result_is_as_near_to_float64_as_eagers_or_wrong(
    ours: tuple[float, float], eager: tuple[float, float], told: str, near: bool
) -> None:
    """A loss on another scale says nothing of the sound that comes with it (DacModel)."""

    def named(*values: float) -> dict[str, torch.Tensor]:
        names = ("result 0", "result 1", "gradient of x")
        return {
            n: torch.tensor([v], dtype=torch.float64)
            for n, v in zip(names, (*values, 1.0), strict=True)
        }

    exact = named(4e10, 0.5)
    assert difference(named(*ours), named(*eager)).startswith(told)
    assert as_near(named(*ours), named(*eager), exact) == near


def test_gradients_are_as_near_to_float64_as_eagers_or_wrong() -> None:
    exact = {"gradient of x": torch.zeros(2), "gradient of y": torch.ones(2)}
    eager = {"gradient of x": torch.full((2,), 0.01), "gradient of y": torch.ones(2)}
    assert as_near({**eager, "gradient of x": torch.full((2,), -0.03)}, eager, exact)
    assert not as_near({**eager, "gradient of x": torch.full((2,), -0.05)}, eager, exact)
    assert not as_near({"gradient of x": torch.zeros(2)}, eager, exact)
