"""The ten models that the benchmarks and the model tests run: real architectures, random weights.

`MODELS[name].build()` returns the module and the keyword arguments of one call. `small=True` keeps
the architecture and shrinks every size, for tests. Nothing is downloaded.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by transformers when it is imported

from transformers import (
    BertConfig,
    BertModel,
    ConvNextConfig,
    ConvNextForImageClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    SwinConfig,
    SwinModel,
    T5Config,
    T5Model,
    ViTConfig,
    ViTModel,
    WhisperConfig,
    WhisperModel,
)
from transformers.utils import logging as transformers_logging

transformers_logging.set_verbosity_error()


class Example(NamedTuple):
    """A module in eval mode and the keyword arguments of one call of it."""

    module: nn.Module
    kwargs: dict[str, Tensor]


class Maker(Protocol):
    """Draws weights and inputs from torch's global generator."""

    def __call__(self, batch: int, *, small: bool) -> Example: ...


@dataclass(frozen=True, slots=True)
class Model:
    """One architecture and how it is made."""

    name: str
    make: Maker

    def build(self, batch: int = 1, *, small: bool = False, seed: int = 0) -> Example:
        """Equal arguments give equal weights and inputs; the global generator stays as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module, kwargs = self.make(batch, small=small)
        return Example(module.eval(), kwargs)


def _tokens(batch: int, length: int, vocabulary: int) -> Tensor:
    """int64 [batch, length]."""
    return torch.randint(0, vocabulary, (batch, length))


def _image(batch: int, side: int) -> Tensor:
    """float32 [batch, 3, side, side]."""
    return torch.randn(batch, 3, side, side)


def _bert(batch: int, *, small: bool) -> Example:
    shrunk: dict[str, Any] = (
        dict(vocab_size=1000, hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
        | dict(intermediate_size=128, max_position_embeddings=64)
        if small
        else {}
    )
    config = BertConfig(**shrunk)
    length = 16 if small else 128
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[0, -length // 8 :] = 0  # the first sequence is shorter, so the mask has work to do
    ids = _tokens(batch, length, config.vocab_size)
    return Example(BertModel(config), {"input_ids": ids, "attention_mask": mask})


def _gpt2(batch: int, *, small: bool) -> Example:
    shrunk: dict[str, Any] = (
        dict(vocab_size=1000, n_embd=64, n_layer=2, n_head=4, n_positions=64)
        | dict(bos_token_id=0, eos_token_id=0)
        if small
        else {}
    )
    config = GPT2Config(use_cache=False, **shrunk)
    ids = _tokens(batch, 16 if small else 128, config.vocab_size)
    return Example(GPT2LMHeadModel(config), {"input_ids": ids})


def _llama(batch: int, *, small: bool) -> Example:
    size: dict[str, Any] = (
        dict(vocab_size=1000, hidden_size=64, intermediate_size=128, num_hidden_layers=2)
        | dict(num_attention_heads=4, num_key_value_heads=2)
        if small
        else dict(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30)
        | dict(num_attention_heads=9, num_key_value_heads=3)
    )
    config = LlamaConfig(use_cache=False, tie_word_embeddings=True, **size)
    ids = _tokens(batch, 16 if small else 128, config.vocab_size)
    return Example(LlamaForCausalLM(config), {"input_ids": ids})


def large_llama(batch: int, *, small: bool) -> Example:
    """1.3 thousand million parameters, 5.2 GB."""
    if small:
        return _llama(batch, small=True)
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=28,
        num_attention_heads=32,
        num_key_value_heads=4,
        use_cache=False,
        tie_word_embeddings=True,
    )
    return Example(LlamaForCausalLM(config), {"input_ids": _tokens(batch, 128, config.vocab_size)})


def _vit(batch: int, *, small: bool) -> Example:
    shrunk: dict[str, Any] = (
        dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128)
        | dict(image_size=32, patch_size=8)
        if small
        else {}
    )
    config = ViTConfig(**shrunk)
    return Example(ViTModel(config), {"pixel_values": _image(batch, 32 if small else 224)})


def _resnet50(batch: int, *, small: bool) -> Example:
    shrunk: dict[str, Any] = (
        dict(embedding_size=16, hidden_sizes=[32, 64, 64, 128], depths=[2, 2, 1, 1])
        if small
        else {}
    )
    module = ResNetForImageClassification(ResNetConfig(**shrunk))
    return Example(module, {"pixel_values": _image(batch, 64 if small else 224)})


def _convnext_tiny(batch: int, *, small: bool) -> Example:
    shrunk: dict[str, Any] = (
        dict(hidden_sizes=[16, 32, 64, 64], depths=[1, 2, 1, 1]) if small else {}
    )
    module = ConvNextForImageClassification(ConvNextConfig(**shrunk))
    return Example(module, {"pixel_values": _image(batch, 64 if small else 224)})


def _mobilenet_v2(batch: int, *, small: bool) -> Example:
    shrunk: dict[str, Any] = dict(depth_multiplier=0.25, image_size=64) if small else {}
    module = MobileNetV2ForImageClassification(MobileNetV2Config(**shrunk))
    return Example(module, {"pixel_values": _image(batch, 64 if small else 224)})


def _swin_tiny(batch: int, *, small: bool) -> Example:
    shrunk: dict[str, Any] = (
        dict(embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4, image_size=64)
        if small
        else {}
    )
    module = SwinModel(SwinConfig(**shrunk))
    return Example(module, {"pixel_values": _image(batch, 64 if small else 224)})


def _t5_small(batch: int, *, small: bool) -> Example:
    shrunk: dict[str, Any] = (
        dict(vocab_size=1000, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4)
        if small
        else {}
    )
    config = T5Config(use_cache=False, **shrunk)
    encoder, decoder = (16, 8) if small else (128, 32)
    return Example(
        T5Model(config),
        {
            "input_ids": _tokens(batch, encoder, config.vocab_size),
            "decoder_input_ids": _tokens(batch, decoder, config.vocab_size),
        },
    )


def _whisper_tiny(batch: int, *, small: bool) -> Example:
    layers, width, heads, frames = (2, 64, 4, 100) if small else (4, 384, 6, 3000)
    shrunk: dict[str, Any] = (
        dict(vocab_size=1000, max_target_positions=32, pad_token_id=0, bos_token_id=0)
        | dict(eos_token_id=0, decoder_start_token_id=1)
        if small
        else {}
    )
    config = WhisperConfig(
        use_cache=False,
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        max_source_positions=frames // 2,
        **shrunk,
    )
    return Example(
        WhisperModel(config),
        {
            "input_features": torch.randn(batch, config.num_mel_bins, frames),
            "decoder_input_ids": _tokens(batch, 8 if small else 32, config.vocab_size),
        },
    )


_ALL = (
    Model("bert-base", _bert),
    Model("gpt2", _gpt2),
    Model("llama-30x576", _llama),
    Model("vit-base", _vit),
    Model("resnet50", _resnet50),
    Model("convnext-tiny", _convnext_tiny),
    Model("mobilenet_v2", _mobilenet_v2),
    Model("swin-tiny", _swin_tiny),
    Model("t5-small", _t5_small),
    Model("whisper-tiny", _whisper_tiny),
)
MODELS: dict[str, Model] = {model.name: model for model in _ALL}
