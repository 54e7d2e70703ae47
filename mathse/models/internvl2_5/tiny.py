"""An InternVL2.5 with a few hundred thousand random parameters, in transformers' layout, for tests and dry runs."""

from __future__ import annotations

import torch
from transformers import (
    GenerationConfig,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from mathse.config.backbones import InternVL25BackboneConfig
from mathse.models import tiny_tokenizer
from mathse.models.internvl2_5.backbone import InternVL25Backbone
from mathse.models.tiny import decoder_config, draw_weights

TILE, PATCH, RATIO = 28, 14, 0.5  # pixels, pixels, downsampling; a tile is a single token
# Without marks around the image, which the processor writes itself.
CHAT_TEMPLATE = tiny_tokenizer.CHAT_TEMPLATE.replace(
    f"{tiny_tokenizer.VISION_START}{tiny_tokenizer.IMAGE}{tiny_tokenizer.VISION_END}", tiny_tokenizer.IMAGE
)


def tiny_internvl2_5(seed: int, heads: int = 4) -> InternVL25Backbone:
    """Return the model that ``python -m mathse tiny internvl2_5 DST`` saves.

    vLLM supports it with 2 ``heads``; it has no heads of size 16.
    """
    return InternVL25Backbone(*build_model(seed, heads, "llama"), InternVL25BackboneConfig())


def build_model(seed: int, heads: int, language: str) -> tuple[InternVLForConditionalGeneration, InternVLProcessor]:
    """Return a small model with random weights and its processor. ``language``: ``model_type`` of the decoder."""
    processor = _build_processor()
    tokenizer = processor.tokenizer
    config = InternVLConfig(
        text_config={
            "model_type": language,
            **decoder_config(tokenizer, hidden_size=64, mlp_size=128, layers=2, heads=heads, kv_heads=2),
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "attention_bias": True,
            "image_size": TILE,
            "patch_size": PATCH,
            "initializer_range": 0.05,
        },
        image_token_id=tokenizer.convert_tokens_to_ids(tiny_tokenizer.IMAGE),
        image_seq_length=processor.image_seq_length,
        downsample_ratio=RATIO,
        tie_word_embeddings=False,
    )

    def make() -> InternVLForConditionalGeneration:
        model = InternVLForConditionalGeneration(config)
        # They start at zero; then pictures of equal colours would make no difference.
        embeddings = model.model.vision_tower.embeddings
        for parameter in (embeddings.cls_token, embeddings.position_embeddings):
            torch.nn.init.normal_(parameter, std=config.text_config.initializer_range)
        return model

    model = draw_weights(seed, make)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    return model.eval(), processor


def _build_processor() -> InternVLProcessor:
    pixels = {"size": {"height": TILE, "width": TILE}, "image_mean": [0.3] * 3, "image_std": [0.35] * 3, "resample": 3}
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessorPil(**pixels, crop_to_patches=True, min_patches=1, max_patches=12),
        # The compact tokenizer, with its tokens under the names in InternVL's processor.
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tiny_tokenizer.build_tokenizer().backend_tokenizer,
            pad_token=tiny_tokenizer.PAD,
            eos_token=tiny_tokenizer.END,
            start_image_token=tiny_tokenizer.VISION_START,
            end_image_token=tiny_tokenizer.VISION_END,
            context_image_token=tiny_tokenizer.IMAGE,
            video_token=tiny_tokenizer.VIDEO,
            extra_special_tokens=[tiny_tokenizer.USER, tiny_tokenizer.ASSISTANT],
            model_max_length=2048,
            padding_side="left",
        ),
        video_processor=InternVLVideoProcessor(**pixels),
        image_seq_length=int((TILE // PATCH * RATIO) ** 2),
        chat_template=CHAT_TEMPLATE,
    )
