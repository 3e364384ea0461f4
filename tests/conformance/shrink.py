"""Small configurations of any architecture: the same structure with every size cut down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig

HIDDEN, HEADS, LAYERS, VOCABULARY = 64, 4, 2, 512

# By attribute name, wherever a configuration (or one inside it) has it as an int.
SIZES: dict[str, int] = {
    **dict.fromkeys("hidden_size d_model n_embd dim embed_dim decoder_hidden_size".split(), HIDDEN),
    **dict.fromkeys(
        "projection_dim out_hidden_size encoder_hidden_size hidden_dim emb_dim".split(), HIDDEN
    ),
    **dict.fromkeys("embedding_size hidden_size_per_layer_input word_embed_proj_dim".split(), 32),
    **dict.fromkeys(
        "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers".split(),
        LAYERS,
    ),
    **dict.fromkeys(
        "num_encoder_layers num_decoder_layers depth decoder_num_hidden_layers".split(), LAYERS
    ),
    **dict.fromkeys(
        "num_attention_heads n_head n_heads num_heads encoder_attention_heads".split(), HEADS
    ),
    **dict.fromkeys(
        "decoder_attention_heads decoder_num_attention_heads attention_heads".split(), HEADS
    ),
    **dict.fromkeys("num_key_value_heads num_kv_heads n_head_kv multi_query_group_num".split(), 2),
    **dict.fromkeys("head_dim d_kv v_head_dim qk_nope_head_dim attention_head_dim".split(), 16),
    **dict.fromkeys("global_head_dim kv_channels".split(), 16),
    "qk_rope_head_dim": 16,
    "rotary_dim": 8,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    **dict.fromkeys(
        "intermediate_size ffn_dim encoder_ffn_dim decoder_ffn_dim d_ff ffn_hidden_size".split(),
        128,
    ),
    **dict.fromkeys("d_inner n_inner decoder_intermediate_size mlp_dim".split(), 128),
    **dict.fromkeys("moe_intermediate_size expert_ffn_hidden_size".split(), 32),
    **dict.fromkeys("shared_expert_intermediate_size shared_intermediate_size".split(), 32),
    **dict.fromkeys("num_experts num_local_experts n_routed_experts moe_num_experts".split(), 4),
    **dict.fromkeys("num_experts_per_tok moe_topk moe_k top_k_experts".split(), 2),
    "n_group": 1,
    "topk_group": 1,
    **dict.fromkeys("vocab_size decoder_vocab_size vocab_size_per_layer_input".split(), VOCABULARY),
    **dict.fromkeys("max_position_embeddings n_positions max_target_positions n_ctx".split(), 128),
    **dict.fromkeys("max_source_positions".split(), 128),
    **dict.fromkeys("sliding_window attention_window local_attention".split(), 16),
    "image_size": 32,
    "patch_size": 8,
    "spatial_merge_size": 2,
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_state": 16,
    "state_size": 16,
    "ssm_state_size": 16,
    "time_step_rank": 4,
    "chunk_size": 16,
    "num_mel_bins": 16,
}


def shrunk(config_class: type[PretrainedConfig], overrides: Mapping[str, Any]) -> PretrainedConfig:
    """A small configuration. `overrides` win; those of a configuration inside are a dict there.

    The sizes go through the constructor, since it derives others (types of layers, head sizes).
    """
    return config_class(**arguments(config_class(), overrides))


def arguments(default: PretrainedConfig, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments that shrink this configuration."""
    chosen: dict[str, Any] = {}
    specials = iter(range(VOCABULARY - 1, 0, -1))
    for name, value in vars(default).items():
        if isinstance(value, PretrainedConfig):
            inner = arguments(value, overrides.get(name, {}))
            chosen[name] = inner | {"model_type": value.model_type}
        elif name in SIZES and _is_int(value):
            chosen[name] = min(value, SIZES[name])
        elif name in ("image_size", "patch_size") and _is_pair(value):
            chosen[name] = [min(v, SIZES[name]) for v in value]
        elif name.endswith(("token_id", "token_index")) and _is_int(value) and value >= VOCABULARY:
            chosen[name] = next(specials)
    own = vars(default)
    grouped = own.get("num_key_value_heads"), own.get("num_attention_heads")
    if grouped[0] is not None and grouped[0] == grouped[1]:
        chosen["num_key_value_heads"] = chosen["num_attention_heads"]
    kinds = own.get("layer_types")
    if kinds and len(set(kinds)) > 1:  # one layer of each kind
        chosen["layer_types"] = list(dict.fromkeys(kinds))
        chosen["num_hidden_layers"] = len(chosen["layer_types"])
    for name in type(default).attribute_map:  # an alias says nothing that its target does not
        chosen.pop(name, None)
    inside = {k for k, v in overrides.items() if isinstance(v, dict) and k in chosen}
    return chosen | {k: v for k, v in overrides.items() if k not in inside}


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_pair(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2
