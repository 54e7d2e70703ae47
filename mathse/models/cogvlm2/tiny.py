"""A small random CogVLM2: the true architecture and tensor names, for tests and smoke runs."""

from __future__ import annotations

from mathse.models import tiny_tokenizer
from mathse.models.cogvlm2.backbone import CogVLM2Backbone
from mathse.models.cogvlm2.configuration import CogVLM2Config
from mathse.models.cogvlm2.modeling import CogVLM2ForConditionalGeneration
from mathse.models.cogvlm2.processing import CogVLM2Processor, square_image_processor
from mathse.models.tiny import drawn

IMAGE_SIZE, PATCH = 56, 14
SPREAD = 0.05  # of the random weights


def tiny_cogvlm2(seed: int) -> CogVLM2Backbone:
    """A CogVLM2 small enough for tests of ``backbone=cogvlm2``: it writes full prompts, at bytes a token."""
    tokenizer = tiny_tokenizer.build_tokenizer()
    tokenizer.bos_token = tiny_tokenizer.USER  # the compact tokenizer's prompts start with it
    config = CogVLM2Config(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_multi_query_heads=1,
        max_position_embeddings=2048,
        initializer_range=SPREAD,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_heads": 2,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH,
            "num_positions": (IMAGE_SIZE // PATCH) ** 2 + 1,
            "initializer_range": SPREAD,
        },
    )
    model = drawn(seed, lambda: CogVLM2ForConditionalGeneration(config))
    return CogVLM2Backbone(model, CogVLM2Processor(square_image_processor(IMAGE_SIZE), tokenizer, PATCH))
