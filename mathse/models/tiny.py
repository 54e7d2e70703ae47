"""``backbone=tiny``: Qwen2-VL's own classes at about 0.8 million random parameters, with a compact tokenizer.

Small enough to learn the embedded world on a CPU in a minute, and the true architecture: pixels, grids, M-RoPE, KV
cache, processor and chat template are the ones a 7B checkpoint goes through.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import (
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from mathse.models import tiny_tokenizer as words
from mathse.models.checkpoint import as_dtype, expect_family, expect_files, open_model, open_processor
from mathse.models.qwen2vl import Qwen2VLBackbone
from mathse.seeds import derive
from mathse.types import PromptStyle

PATCH, MERGE = 14, 2
FILES = ("config.json", "processor_config.json", "chat_template.jinja", "tokenizer.json",
         "tokenizer_config.json")  # fmt: skip
_REMEDY = "make one with `python -m mathse tiny DST`, or name a run's checkpoint folder"


class TinyBackbone(Qwen2VLBackbone):
    """With ``path`` it opens a checkpoint folder; without, it draws the weights from ``init_seed``."""

    family: ClassVar[str] = "tiny"
    prompt_style: ClassVar[PromptStyle] = "compact"

    def __init__(
        self,
        path: str | None = None,
        dtype: str | torch.dtype = "float32",
        attention: str = "eager",
        min_pixels: int = 784,
        max_pixels: int = 12544,
        hidden_size: int = 128,
        layers: int = 3,
        heads: int = 4,
        mlp_size: int = 320,
        vision_size: int = 64,
        vision_layers: int = 1,
        initializer_range: float = 0.05,
        init_seed: int = 0,
    ) -> None:
        if path is None:
            processor = build_processor(min_pixels, max_pixels)
            config = _config(
                processor.tokenizer, hidden_size, layers, heads, mlp_size, vision_size, vision_layers, initializer_range
            )
            model = _random_model(config, processor.tokenizer, init_seed)
            for weight in model.parameters():  # the rotary frequencies stay float32, as in a checkpoint that is opened
                weight.data = weight.data.to(as_dtype(dtype))
        else:
            model, processor = _open(Path(path), as_dtype(dtype))
        # attention over text alone: on the CPU eager beats SDPA at these lengths (0.18 s a step, 0.26 s)
        model.set_attn_implementation({"text_config": attention, "vision_config": "sdpa"})
        super().__init__(model, processor)


def tiny(seed: int) -> TinyBackbone:
    """What ``python -m mathse tiny DST`` saves."""
    return TinyBackbone(init_seed=seed)


def tiny_qwen2vl(seed: int) -> Qwen2VLBackbone:
    """A Qwen2-VL small enough for tests of ``backbone=qwen2vl``: it writes full prompts, at bytes a token."""
    small = TinyBackbone(init_seed=seed, hidden_size=64, layers=2, mlp_size=128, vision_size=32)
    return Qwen2VLBackbone(small.model, small.processor)


def build_processor(min_pixels: int, max_pixels: int) -> Qwen2VLProcessor:
    """The Qwen2-VL processor with the compact tokenizer; pixel bounds are areas."""
    return Qwen2VLProcessor(
        # centred on bright strokes on black; with CLIP's mean and deviation the digits were not read after 250 steps
        image_processor=Qwen2VLImageProcessor(
            size={"shortest_edge": min_pixels, "longest_edge": max_pixels}, image_mean=[0.3] * 3, image_std=[0.35] * 3
        ),
        tokenizer=words.build_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=words.CHAT_TEMPLATE,
    )


def _config(
    tokenizer: Any,
    hidden: int,
    layers: int,
    heads: int,
    mlp: int,
    vision: int,
    vision_layers: int,
    init_range: float,
) -> Qwen2VLConfig:
    return Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden,
            "intermediate_size": mlp,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": 2048,
            "initializer_range": init_range,
            "tie_word_embeddings": False,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1000.0,
                "mrope_section": [1, 1, hidden // heads // 2 - 2],
            },  # columns tell the digits apart
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None,
        },
        vision_config={
            "depth": vision_layers,
            "embed_dim": vision,
            "hidden_size": hidden,
            "num_heads": 4,
            "mlp_ratio": 4,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "initializer_range": init_range,
        },
        tie_word_embeddings=False,
        initializer_range=init_range,
        **_vision_ids(tokenizer),
    )


def _vision_ids(tokenizer: Any) -> dict[str, int]:
    return {
        name: tokenizer.convert_tokens_to_ids(token)
        for name, token in {
            "image_token_id": words.IMAGE,
            "video_token_id": words.VIDEO,
            "vision_start_token_id": words.VISION_START,
            "vision_end_token_id": words.VISION_END,
        }.items()
    }


def _random_model(config: Qwen2VLConfig, tokenizer: Any, seed: int) -> Qwen2VLForConditionalGeneration:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights") % 2**32)
        model = Qwen2VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def _open(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    expect_files(folder, FILES, _REMEDY)
    expect_family(folder, "tiny", (Qwen2VLConfig.model_type,))
    model = open_model(Qwen2VLForConditionalGeneration, folder, dtype=dtype)
    return model, open_processor(folder)
