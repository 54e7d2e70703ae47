"""Current vision-language models of their true classes and processors, with a few hundred thousand random parameters.

For tests and dry runs of ``backbone=hf``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers import PreTrainedTokenizerFast

from mathse.config.backbones import HFBackboneConfig, InternVL3BackboneConfig
from mathse.models import import_beside_target, tiny_tokenizer
from mathse.models.any_model import apply_settings
from mathse.models.hf import HFBackbone
from mathse.models.tiny import decoder_config, draw_weights

TEXT: dict[str, Any] = {"hidden_size": 64, "mlp_size": 128, "layers": 2, "heads": 4, "kv_heads": 2}
IMAGE = tiny_tokenizer.IMAGE
MARKED_IMAGE = f"{tiny_tokenizer.VISION_START}{IMAGE}{tiny_tokenizer.VISION_END}"
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "vision_use_head": False,
}
BLOCKS = {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "out_hidden_size": 64}
PIXELS = {"shortest_edge": 28 * 28, "longest_edge": 112 * 112}  # areas


def tiny(name: str, seed: int) -> HFBackbone:
    """Return the model of a class with its processor. ``name`` is its ``model_type``, a key of ``CLASSES``."""
    processor, model_class, config = CLASSES[name]()
    model = draw_weights(seed, lambda: model_class(config), processor.tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Gemma 3's connector and LLaVA's newline start at zero: without a draw, pictures would make no difference.
        for parameter_name, weight in model.named_parameters():
            if parameter_name.endswith(("_projection_weight", "image_newline")):
                weight.data.normal_(std=0.05)
    backbone = HFBackbone(model.eval(), processor)
    apply_settings(backbone, HFBackboneConfig(), name)
    return backbone


Built = tuple[Any, Any, Any]  # processor, model class, config


def _build_glm4v() -> Built:
    tokenizer = _build_tokenizer({"image_token": IMAGE, "video_token": tiny_tokenizer.VIDEO})
    config = transformers.Glm4vConfig(
        text_config=_build_text_config(tokenizer, mrope_section=[2, 3, 3]),
        vision_config={**BLOCKS, "image_size": 56, "patch_size": 14},
        tie_word_embeddings=False,
        image_start_token_id=tokenizer.convert_tokens_to_ids(tiny_tokenizer.VISION_START),
        image_end_token_id=tokenizer.convert_tokens_to_ids(tiny_tokenizer.VISION_END),
        **_find_ids(tokenizer, "image", "video"),
    )
    processor = transformers.Glm4vProcessor(
        image_processor=transformers.Glm4vImageProcessor(size=PIXELS),
        tokenizer=tokenizer,
        video_processor=transformers.Glm4vVideoProcessor(),
        chat_template=_build_template(MARKED_IMAGE),
    )
    return processor, transformers.Glm4vForConditionalGeneration, config


def _build_internvl() -> Built:
    backbone = import_beside_target(InternVL3BackboneConfig(), "make_tiny")(0)
    return backbone.processor, type(backbone.model), backbone.model.config


def _build_llava() -> Built:
    """LLaVA with DINOv2's tower, as in ``backbone=smollm2_vision``."""
    tokenizer = _build_tokenizer({"image_token": IMAGE})
    config = transformers.LlavaConfig(
        text_config={"model_type": "llama", **_build_text_config(tokenizer)},
        vision_config={
            "model_type": "dinov2",
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
            "use_mask_token": False,
        },
        vision_feature_layer=-1,
        tie_word_embeddings=False,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
    )
    size = {"height": 28, "width": 56}
    processor = transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessor(size=size, crop_size=size, do_center_crop=False),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_build_template(IMAGE),
    )
    return processor, transformers.LlavaForConditionalGeneration, config


def _build_llava_onevision() -> Built:
    tokenizer = _build_tokenizer({"image_token": IMAGE, "video_token": tiny_tokenizer.VIDEO})
    pinpoints = [[28, 28], [28, 56], [56, 28], [56, 56]]
    config = transformers.LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **_build_text_config(tokenizer)},
        vision_config=SIGLIP,
        image_grid_pinpoints=pinpoints,
        tie_word_embeddings=False,
        **_find_ids(tokenizer, "image", "video"),
    )
    processor = transformers.LlavaOnevisionProcessor(
        image_processor=transformers.LlavaOnevisionImageProcessor(
            size={"height": 28, "width": 28}, image_grid_pinpoints=pinpoints
        ),
        tokenizer=tokenizer,
        video_processor=transformers.LlavaOnevisionVideoProcessor(),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=_build_template(IMAGE),
    )
    return processor, transformers.LlavaOnevisionForConditionalGeneration, config


def _build_idefics(classes: str) -> Built:
    tokenizer = _build_tokenizer()
    marks = ["<fake_token_around_image>", "<image>", "<end_of_utterance>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    images = getattr(transformers, f"{classes}ImageProcessor")(
        size={"longest_edge": 56}, max_image_size={"longest_edge": 28}
    )
    videos = {"video_processor": transformers.SmolVLMVideoProcessor()} if classes == "SmolVLM" else {}
    processor = getattr(transformers, f"{classes}Processor")(
        image_processor=images, tokenizer=tokenizer, image_seq_len=4, **videos
    )
    processor.chat_template = _build_template(processor.image_token)
    tokenizer = processor.tokenizer
    config = getattr(transformers, f"{classes}Config")(
        text_config={"model_type": "llama", **_build_text_config(tokenizer)},
        vision_config={
            **{k: v for k, v in SIGLIP.items() if k not in ("model_type", "vision_use_head")},
            "patch_size": 7,
        },
        scale_factor=2,
        tie_word_embeddings=False,
        image_token_id=tokenizer.convert_tokens_to_ids(processor.image_token),
        pad_token_id=tokenizer.pad_token_id,
    )
    return processor, getattr(transformers, f"{classes}ForConditionalGeneration"), config


def _build_gemma3() -> Built:
    marks = {"boi_token": tiny_tokenizer.VISION_START, "eoi_token": tiny_tokenizer.VISION_END, "image_token": IMAGE}
    tokenizer = _build_tokenizer(marks)
    config = transformers.Gemma3Config(
        text_config={**_build_text_config(tokenizer), "head_dim": 16, "sliding_window": 512},
        vision_config=SIGLIP,
        mm_tokens_per_image=4,
        tie_word_embeddings=False,
        boi_token_index=tokenizer.convert_tokens_to_ids(tiny_tokenizer.VISION_START),
        eoi_token_index=tokenizer.convert_tokens_to_ids(tiny_tokenizer.VISION_END),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
    )
    processor = transformers.Gemma3Processor(
        image_processor=transformers.Gemma3ImageProcessor(size={"height": 28, "width": 28}),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=_build_template(tiny_tokenizer.VISION_START),
    )
    return processor, transformers.Gemma3ForConditionalGeneration, config


CLASSES: dict[str, Callable[[], Built]] = {
    "internvl": _build_internvl,
    "llava": _build_llava,
    "llava_onevision": _build_llava_onevision,
    "smolvlm": lambda: _build_idefics("SmolVLM"),
    "gemma3": _build_gemma3,
    "glm4v": _build_glm4v,
    "idefics3": lambda: _build_idefics("Idefics3"),
}


def _build_tokenizer(marks: dict[str, str] | None = None) -> PreTrainedTokenizerFast:
    """Return the compact tokenizer, with ``marks``: name in the processor -> token."""
    tokenizer = tiny_tokenizer.build_tokenizer()
    for name, token in (marks or {}).items():
        tokenizer._set_model_specific_special_tokens({name: token})
    return tokenizer


def _build_text_config(tokenizer: Any, **rope: Any) -> dict[str, Any]:
    return {**decoder_config(tokenizer, **TEXT, **rope), "tie_word_embeddings": False}


def _find_ids(tokenizer: Any, *names: str) -> dict[str, int]:
    """Return {NAME_token_id: id} for names of the compact tokenizer's special tokens."""
    tokens = {name: getattr(tiny_tokenizer, name.upper()) for name in names}
    return {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()}


def _build_template(mark: str) -> str:
    """Return the compact chat template with the placeholder of an image that the processor needs."""
    return tiny_tokenizer.CHAT_TEMPLATE.replace(MARKED_IMAGE, mark)
