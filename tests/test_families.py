"""A few model families of the sweep (`tests/conformance/families.py`), one of each kind."""

from __future__ import annotations

import pytest

from tests.conformance.families import FAMILIES, Family
from tests.conformance.family import run

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
