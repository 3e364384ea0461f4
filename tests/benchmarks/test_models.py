"""The ten benchmark models, in their small form, build and run in eager."""

from __future__ import annotations

import pytest
import torch
from torch.utils import _pytree as pytree

from benchmarks.models import MODELS


def _outputs(name: str, batch: int) -> list[torch.Tensor]:
    module, kwargs = MODELS[name].build(batch, small=True)
    with torch.no_grad():
        return [leaf for leaf in pytree.tree_leaves(module(**kwargs)) if torch.is_tensor(leaf)]


def test_there_are_ten_models() -> None:
    assert len(MODELS) == 10
    assert all(name == model.name for name, model in MODELS.items())


@pytest.mark.parametrize("name", MODELS)
def test_a_small_model_runs_in_eager_with_a_batch_of_two(name: str) -> None:
    outputs = _outputs(name, 2)
    assert outputs
    assert all(output.shape[0] == 2 for output in outputs)
    assert all(torch.isfinite(output).all() for output in outputs)


def test_the_same_seed_builds_the_same_model_and_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    first, second = _outputs("bert-base", 1), _outputs("bert-base", 1)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(before, torch.get_rng_state())


def test_the_attention_mask_of_bert_masks_something() -> None:
    _, kwargs = MODELS["bert-base"].build(2, small=True)
    assert kwargs["attention_mask"].sum() < kwargs["attention_mask"].numel()
