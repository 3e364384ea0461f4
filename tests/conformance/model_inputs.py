"""Inputs for model families. A maker takes the model and draws from torch's global generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Inputs = dict[str, Any]
Maker = Callable[[nn.Module], Inputs]

BATCH, LENGTH = 2, 16
FIRST_ID = 5  # the ids below are special in many vocabularies


def ids(model: nn.Module, length: int = LENGTH, batch: int = BATCH) -> Tensor:
    """int64 [batch, length] of ordinary tokens."""
    return torch.randint(FIRST_ID, 200, (batch, length))


def text(model: nn.Module) -> Inputs:
    """Two sequences, the first padded on the right."""
    mask = torch.ones(BATCH, LENGTH, dtype=torch.int64)
    mask[0, -3:] = 0
    return {"input_ids": ids(model), "attention_mask": mask}


def plain_text(model: nn.Module) -> Inputs:
    """Two sequences of one length."""
    return {"input_ids": ids(model)}


def prompt(model: nn.Module) -> Inputs:
    """Two sequences, the first padded on the left, as for generation."""
    mask = torch.ones(BATCH, LENGTH, dtype=torch.int64)
    mask[0, :3] = 0
    return {"input_ids": ids(model), "attention_mask": mask}


def translation(model: nn.Module) -> Inputs:
    """A padded source and the beginning of a target."""
    return {**text(model), "decoder_input_ids": ids(model, 8)}


def image(side: int = 32, batch: int = 2, channels: int = 3) -> Maker:
    """[batch, channels, side, side]."""
    return lambda model: {"pixel_values": torch.randn(batch, channels, side, side)}


def video(frames: int, side: int = 32, name: str = "pixel_values") -> Maker:
    """[1, frames, 3, side, side]."""
    return lambda model: {name: torch.randn(1, frames, 3, side, side)}


def speech(samples: int = 1600) -> Maker:
    """[2, samples] of a waveform."""
    return lambda model: {"input_values": torch.randn(BATCH, samples)}


def features(
    *dims: int, name: str = "input_features", mask: bool = False, target: int = 0
) -> Maker:
    """[2, *dims] of features, on request with a mask over frames, or with a decoder's input."""

    def make(model: nn.Module) -> Inputs:
        made: Inputs = {name: torch.randn(BATCH, *dims)}
        if mask:
            made["attention_mask"] = torch.ones(BATCH, dims[0], dtype=torch.int64)
        if target:
            made["decoder_input_ids"] = ids(model, target)
        return made

    return make


def captioned(side: int = 32) -> Maker:
    """Images and texts side by side, as contrastive models take them."""
    return lambda model: {**text(model), **image(side)(model)}


def illustrated(tokens: int, side: int = 32, **more: Callable[[], Tensor]) -> Maker:
    """One text per image, with the image's place marked by `tokens` image tokens."""

    def make(model: nn.Module) -> Inputs:
        config: Any = model.config
        token = getattr(config, "image_token_id", None)
        token = getattr(config, "image_token_index", None) if token is None else token
        words = ids(model, 8 + tokens)
        words[:, 2 : 2 + tokens] = token
        extra = {name: value() for name, value in more.items()}
        return {"input_ids": words, **image(side)(model), **extra}

    return make
