"""A small random CogVLM2 with the true architecture and tensor names, for tests and smoke runs."""

from __future__ import annotations

from mathse.models import tiny_tokenizer
from mathse.models.cogvlm2.backbone import CogVLM2Backbone
from mathse.models.cogvlm2.configuration import CogVLM2Config
from mathse.models.cogvlm2.modeling import CogVLM2ForConditionalGeneration
from mathse.models.cogvlm2.processing import CogVLM2Processor, make_square_image_processor
from mathse.models.tiny import draw_weights

IMAGE_SIZE, PATCH = 56, 14  # pixels
INITIALIZER_RANGE = 0.05  # standard deviation of the random weights


def tiny_cogvlm2(seed: int) -> CogVLM2Backbone:
    """Return a CogVLM2 for tests of ``backbone=cogvlm2``: it writes full prompts, mostly with a token per byte."""
    tokenizer = tiny_tokenizer.build_tokenizer()
    tokenizer.bos_token = tiny_tokenizer.USER  # the first token of the compact tokenizer's prompts
    config = CogVLM2Config(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_multi_query_heads=1,
        max_position_embeddings=2048,
        initializer_range=INITIALIZER_RANGE,
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
            "initializer_range": INITIALIZER_RANGE,
        },
    )
    model = draw_weights(seed, lambda: CogVLM2ForConditionalGeneration(config))
    return CogVLM2Backbone(model, CogVLM2Processor(make_square_image_processor(IMAGE_SIZE), tokenizer, PATCH))
