"""Which families the model sweep builds, by the class that stands for each, and from what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from .model_inputs import (
    Maker,
    captioned,
    features,
    ids,
    illustrated,
    image,
    plain_text,
    prompt,
    speech,
    text,
    translation,
    video,
)


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture. `config` overrides sizes; `generates` also compares greedy generation."""

    cls: str
    kind: str
    inputs: Maker
    config: Mapping[str, Any] = field(default_factory=dict)
    generates: bool = False


def _all(kind: str, inputs: Maker, classes: str, *, generates: bool = False) -> list[Family]:
    return [Family(name, kind, inputs, generates=generates) for name in classes.split()]


_ENCODERS = [
    *_all(
        "text encoder",
        text,
        """AlbertForMaskedLM BertForMaskedLM BigBirdForMaskedLM CamembertForMaskedLM
        ConvBertForMaskedLM Data2VecTextForMaskedLM DebertaForMaskedLM DebertaV2ForMaskedLM
        DistilBertForMaskedLM ElectraForMaskedLM ErnieForMaskedLM EuroBertForMaskedLM
        FlaubertWithLMHeadModel FunnelForMaskedLM GteForMaskedLM IBertForMaskedLM
        JinaEmbeddingsV3ForMaskedLM LayoutLMForMaskedLM LongformerForMaskedLM
        MegatronBertForMaskedLM MobileBertForMaskedLM ModernBertForMaskedLM MPNetForMaskedLM
        MraForMaskedLM NomicBertForMaskedLM NystromformerForMaskedLM RemBertForMaskedLM
        RobertaForMaskedLM RobertaPreLayerNormForMaskedLM RoFormerForMaskedLM TapasForMaskedLM
        XLMWithLMHeadModel XLMRobertaForMaskedLM XLMRobertaXLForMaskedLM YosoForMaskedLM
        CLIPTextModel DPRQuestionEncoder""",
    ),
    Family("FNetForMaskedLM", "text encoder", plain_text),
    Family("EsmForMaskedLM", "text encoder", text, {"vocab_size": 512, "pad_token_id": 1}),
    Family("SqueezeBertForMaskedLM", "text encoder", text, {"embedding_size": 64}),
    Family("CanineModel", "text encoder", text),
    Family("SplinterModel", "text encoder", text),
    Family(
        "BrosModel",
        "text encoder",
        lambda model: {**text(model), "bbox": torch.rand(2, 16, 4)},
    ),
    Family("XmodForMaskedLM", "text encoder", text, {"default_language": "en_XX"}),
]
# The decoders that also generate: each way of attending, caching and positioning once.
_GENERATORS = _all(
    "decoder",
    prompt,
    """LlamaForCausalLM GPT2LMHeadModel MistralForCausalLM Qwen2ForCausalLM Qwen3ForCausalLM
    GemmaForCausalLM Gemma2ForCausalLM Gemma3ForCausalLM PhiForCausalLM Phi3ForCausalLM
    GPTNeoXForCausalLM GPTJForCausalLM OPTForCausalLM BloomForCausalLM FalconForCausalLM
    MptForCausalLM StableLmForCausalLM Starcoder2ForCausalLM OlmoForCausalLM Olmo2ForCausalLM
    CohereForCausalLM GraniteForCausalLM SmolLM3ForCausalLM GPTBigCodeForCausalLM""",
    generates=True,
) + _all("mixture of experts", prompt, "MixtralForCausalLM Qwen2MoeForCausalLM", generates=True)
_DECODERS = [
    *_all(
        "decoder",
        prompt,
        """ApertusForCausalLM ArceeForCausalLM BertGenerationDecoder BioGptForCausalLM
        BitNetForCausalLM CodeGenForCausalLM Cohere2ForCausalLM DiffLlamaForCausalLM
        Ernie4_5ForCausalLM Exaone4ForCausalLM GlmForCausalLM Glm4ForCausalLM
        HeliumForCausalLM Lfm2ForCausalLM ModernBertDecoderForCausalLM Ministral3ForCausalLM
        NanoChatForCausalLM Olmo3ForCausalLM OpenAIGPTLMHeadModel PersimmonForCausalLM
        SeedOssForCausalLM VaultGemmaForCausalLM XGLMForCausalLM XLNetLMHeadModel
        CTRLLMHeadModel TrOCRForCausalLM""",
    ),
    Family("NemotronForCausalLM", "decoder", prompt, {"num_key_value_heads": 2}),
    Family("GPTNeoForCausalLM", "decoder", prompt, {"attention_types": [[["global", "local"], 1]]}),
    *_all(
        "mixture of experts",
        prompt,
        """AfmoeForCausalLM DeepseekV3ForCausalLM Ernie4_5_MoeForCausalLM
        FlexOlmoForCausalLM Glm4MoeForCausalLM GptOssForCausalLM GraniteMoeForCausalLM
        GraniteMoeSharedForCausalLM JetMoeForCausalLM Llama4ForCausalLM MiniMaxForCausalLM
        MiniMaxM2ForCausalLM OlmoeForCausalLM PhimoeForCausalLM Qwen3MoeForCausalLM""",
    ),
    Family("DeepseekV2ForCausalLM", "mixture of experts", prompt, {"num_experts_per_tok": 2}),
    *_all(
        "state space",
        plain_text,
        "MambaForCausalLM FalconMambaForCausalLM RwkvForCausalLM",
    ),
    Family(
        "Mamba2ForCausalLM",
        "state space",
        plain_text,
        {"num_heads": 8, "head_dim": 16, "state_size": 16, "n_groups": 2},
    ),
    Family(
        "BambaForCausalLM", "state space", prompt, {"attn_layer_indices": [1], "mamba_n_groups": 2}
    ),
    Family(
        "JambaForCausalLM",
        "state space",
        prompt,
        {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
    ),
    Family(
        "Qwen3NextForCausalLM",
        "state space",
        prompt,
        {"layer_types": ["linear_attention", "full_attention"]}
        | {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
        | {"linear_key_head_dim": 16, "linear_value_head_dim": 16},
    ),
    Family(
        "RecurrentGemmaForCausalLM",
        "state space",
        prompt,
        {"block_types": ["recurrent", "attention"], "lru_width": 64, "attention_window_size": 16},
    ),
]
_ENCODER_DECODERS = [
    *_all(
        "encoder-decoder",
        translation,
        """BartForConditionalGeneration BigBirdPegasusForConditionalGeneration
        BlenderbotForConditionalGeneration BlenderbotSmallForConditionalGeneration
        EncoderDecoderModel FSMTForConditionalGeneration LEDForConditionalGeneration
        LongT5ForConditionalGeneration M2M100ForConditionalGeneration MarianMTModel
        MBartForConditionalGeneration MT5ForConditionalGeneration MvpForConditionalGeneration
        PegasusForConditionalGeneration PegasusXForConditionalGeneration
        PLBartForConditionalGeneration ProphetNetForConditionalGeneration
        SwitchTransformersForConditionalGeneration T5ForConditionalGeneration
        T5GemmaForConditionalGeneration UMT5ForConditionalGeneration
        NllbMoeForConditionalGeneration""",
    ),
]
_STAGES = {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 32, 64]}
_WINDOWS = {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
_VISION = [
    *_all(
        "vision",
        image(),
        """Aimv2VisionModel BeitForImageClassification Data2VecVisionForImageClassification
        DeiTForImageClassification Dinov2ForImageClassification
        Dinov2WithRegistersForImageClassification DINOv3ViTModel IJepaForImageClassification
        MLCDVisionModel MobileNetV1ForImageClassification
        SiglipVisionModel ViTForImageClassification ViTMAEModel ViTMSNForImageClassification
        VitDetModel YolosForObjectDetection CLIPVisionModel""",
    ),
    *(
        Family(name, "vision", image(64), _STAGES)
        for name in "ConvNextForImageClassification ConvNextV2ForImageClassification "
        "ResNetForImageClassification RegNetForImageClassification "
        "PoolFormerForImageClassification".split()
    ),
    Family("BitForImageClassification", "vision", image(64), _STAGES | {"num_groups": 4}),
    Family(
        "FocalNetForImageClassification",
        "vision",
        image(64),
        {"embed_dim": 16, "depths": [1, 1, 1, 1], "image_size": 64, "patch_size": 4},
    ),
    Family(
        "DPTForDepthEstimation",
        "vision",
        image(32),
        {"num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3]}
        | {"neck_hidden_sizes": [16, 16, 32, 32], "fusion_hidden_size": 16},
    ),
    Family("SwinForImageClassification", "vision", image(64), _WINDOWS | {"image_size": 64}),
    Family("Swinv2ForImageClassification", "vision", image(64), _WINDOWS | {"image_size": 64}),
    Family("MobileNetV2ForImageClassification", "vision", image(64), {"depth_multiplier": 0.25}),
    Family("MobileViTForImageClassification", "vision", image(64), {"image_size": 64}),
    Family("MobileViTV2ForImageClassification", "vision", image(64), {"image_size": 64}),
    Family(
        "SegformerForSemanticSegmentation",
        "vision",
        image(64),
        {"hidden_sizes": [16, 32, 32, 64], "depths": [1, 1, 1, 1], "decoder_hidden_size": 32},
    ),
    Family(
        "GLPNForDepthEstimation",
        "vision",
        image(64),
        {"hidden_sizes": [16, 32, 40, 64], "depths": [1, 1, 1, 1], "decoder_hidden_size": 32},
    ),
    Family(
        "PvtForImageClassification",
        "vision",
        image(64),
        {"image_size": 64, "hidden_sizes": [16, 32, 40, 64], "depths": [1, 1, 1, 1]},
    ),
    Family("SwiftFormerForImageClassification", "vision", image(64)),
    Family(
        "EfficientNetForImageClassification",
        "vision",
        image(64),
        {"width_coefficient": 0.25, "depth_coefficient": 1.0, "hidden_dim": 320},
    ),
    Family(
        "LevitForImageClassification",
        "vision",
        image(64),
        {"image_size": 64, "patch_size": 16, "hidden_sizes": [64, 96, 128], "depths": [1, 1, 1]},
    ),
    Family(
        "CvtForImageClassification",
        "vision",
        image(64),
        {"embed_dim": [16, 48, 96], "depth": [1, 2, 3]},
    ),
    Family(
        "HieraForImageClassification",
        "vision",
        image(64),
        {"image_size": [64, 64], "embed_dim": 16, "depths": [1, 1, 1, 1]},
    ),
    Family("Swin2SRForImageSuperResolution", "vision", image(16), _WINDOWS | {"image_size": 16}),
    Family("SuperPointForKeypointDetection", "vision", image(64)),
    Family("VivitModel", "video", video(4), {"num_frames": 4, "tubelet_size": [2, 8, 8]}),
    Family("VideoMAEModel", "video", video(4), {"num_frames": 4}),
    Family("TimesformerModel", "video", video(4), {"num_frames": 4}),
]
_WAVES = {
    "conv_dim": [32, 32, 32],
    "conv_stride": [5, 2, 2],
    "conv_kernel": [10, 3, 2],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "output_hidden_size": 64,
}
_AUDIO = [
    *(
        Family(name, "audio", speech(), _WAVES)
        for name in "Wav2Vec2ForCTC HubertForCTC WavLMForCTC UniSpeechForCTC UniSpeechSatForCTC "
        "Data2VecAudioForCTC".split()
    ),
    *(
        Family(name, "audio", speech(), _WAVES | {"squeeze_factor": 2})
        for name in "SEWForCTC SEWDForCTC".split()
    ),
    Family(
        "WhisperForConditionalGeneration",
        "audio",
        features(16, 64, target=8),
        {"max_source_positions": 32, "decoder_start_token_id": 1},
    ),
    Family(
        "Speech2TextForConditionalGeneration",
        "audio",
        features(64, 16, target=8),
        {"input_feat_per_channel": 16, "conv_channels": 32},
    ),
    Family(
        "ASTForAudioClassification",
        "audio",
        features(64, 16, name="input_values"),
        {"max_length": 64, "num_mel_bins": 16, "frequency_stride": 4, "time_stride": 4},
    ),
    Family(
        "Wav2Vec2BertForCTC",
        "audio",
        features(64, 160, mask=True),
        {"feature_projection_input_dim": 160, "vocab_size": 64},
    ),
    Family("Wav2Vec2ConformerForCTC", "audio", speech(), _WAVES | {"vocab_size": 64}),
    Family(
        "MoonshineForConditionalGeneration",
        "audio",
        lambda model: {**speech(3200)(model), "decoder_input_ids": ids(model, 8)},
    ),
    Family("EncodecModel", "audio", features(1, 3200, name="input_values"), {"num_filters": 8}),
    Family(
        "DacModel",
        "audio",
        features(1, 3200, name="input_values"),
        {"encoder_hidden_size": 16, "decoder_hidden_size": 128, "hidden_size": 256},
    ),
    Family(
        "MimiModel",
        "audio",
        features(1, 3840, name="input_values"),
        {"num_filters": 8, "upsample_groups": 64, "codebook_dim": 32}
        | {"vector_quantization_hidden_dimension": 32, "codebook_size": 64},
    ),
    Family(
        "VitsModel",
        "audio",
        lambda model: {"input_ids": torch.randint(1, 37, (1, 8))},
        {"flow_size": 32, "spectrogram_bins": 17, "upsample_initial_channel": 64},
    ),
]
_MULTIMODAL = [
    *_all(
        "multimodal",
        captioned(),
        """CLIPModel ChineseCLIPModel SiglipModel AltCLIPModel BlipModel CLIPSegModel
        MetaClip2Model GitForCausalLM""",
    ),
    Family(
        "AlignModel",
        "multimodal",
        captioned(64),
        {"vision_config": {"width_coefficient": 0.25, "depth_coefficient": 1.0, "hidden_dim": 320}}
        | {"projection_dim": 80},
    ),
    Family("FlavaModel", "multimodal", captioned()),
    Family("GroupViTModel", "multimodal", captioned()),
    Family("ViltModel", "multimodal", captioned()),
    Family(
        "VisionEncoderDecoderModel",
        "multimodal",
        lambda model: {**image()(model), "decoder_input_ids": ids(model, 8)},
    ),
    Family("LlavaForConditionalGeneration", "multimodal", illustrated(16)),
    Family("PaliGemmaForConditionalGeneration", "multimodal", illustrated(16)),
    Family(
        "Gemma3ForConditionalGeneration", "multimodal", illustrated(4), {"mm_tokens_per_image": 4}
    ),
    Family("InternVLForConditionalGeneration", "multimodal", illustrated(4)),
    Family("AyaVisionForConditionalGeneration", "multimodal", illustrated(4)),
    Family("OwlViTModel", "multimodal", captioned()),
]
_SERIES = [
    Family(
        "PatchTSTForPrediction",
        "time series",
        lambda model: {"past_values": torch.randn(2, 32, 3)},
        {"num_input_channels": 3, "context_length": 32},
    ),
    Family(
        "PatchTSMixerForPrediction",
        "time series",
        lambda model: {"past_values": torch.randn(2, 32, 3)},
        {"num_input_channels": 3, "context_length": 32},
    ),
    Family(
        "DecisionTransformerModel",
        "time series",
        lambda model: {
            "states": torch.randn(2, 5, 17),
            "actions": torch.randn(2, 5, 4),
            "returns_to_go": torch.randn(2, 5, 1),
            "timesteps": torch.arange(5).repeat(2, 1),
            "attention_mask": torch.ones(2, 5),
        },
    ),
]

FAMILIES: dict[str, Family] = {
    family.cls: family
    for family in (
        *_ENCODERS,
        *_GENERATORS,
        *_DECODERS,
        *_ENCODER_DECODERS,
        *_VISION,
        *_AUDIO,
        *_MULTIMODAL,
        *_SERIES,
    )
}
