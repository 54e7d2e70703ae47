"""``backbone=tiny``: Qwen2-VL's own classes with about 0.8 million random parameters and a compact tokenizer.

It learns the synthetic task on a CPU in a minute, and it has the true architecture: pixels, grids, M-RoPE, KV cache,
processor and chat template are those of a 7B checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from mathse.config.backbones import TinyBackboneConfig
from mathse.models import tiny_tokenizer
from mathse.models.architecture import Architecture
from mathse.models.causal_lm import CausalLMBackbone
from mathse.models.checkpoint import as_dtype, expect_family, expect_files, open_model, open_processor, resolve
from mathse.models.placement import META
from mathse.models.qwen2vl import Qwen2VLBackbone, describe_architecture
from mathse.seeds import derive
from mathse.types import PromptStyle

Model = TypeVar("Model")
PATCH, MERGE = 14, 2  # pixels on a side of a patch; patches on a side of a token
FILES = ("config.json", "processor_config.json", "chat_template.jinja", "tokenizer.json",
         "tokenizer_config.json")  # fmt: skip
_REMEDY = "make one with `python -m mathse tiny DST`, or name a run's checkpoint folder"


class TinyBackbone(Qwen2VLBackbone):
    """A small Qwen2-VL: from a checkpoint folder (``path``), or with random weights from ``init_seed``.

    ``weights`` False opens a folder only for prompts.
    """

    family: ClassVar[str] = "tiny"
    prompt_style: PromptStyle = TinyBackboneConfig.prompt_style

    def __init__(self, settings: TinyBackboneConfig, init_seed: int = 0, weights: bool = True) -> None:
        if settings.path is None:
            processor = build_processor(settings.min_pixels, settings.max_pixels)
            tokenizer = processor.tokenizer
            config = build_config(settings, tokenizer)
            model = draw_weights(init_seed, lambda: Qwen2VLForConditionalGeneration(config), tokenizer)
            # Parameters only: the rotary frequencies are buffers and stay float32, as in a checkpoint.
            for weight in model.parameters():
                weight.data = weight.data.to(as_dtype(settings.dtype))
        else:
            folder = Path(settings.path)
            if folder.is_dir():
                folder = resolve(folder)
            expect_files(folder, FILES, _REMEDY)
            expect_family(folder, self.family, (Qwen2VLConfig.model_type,))
            model = open_model(Qwen2VLForConditionalGeneration, folder, dtype=as_dtype(settings.dtype), weights=weights)
            processor = open_processor(folder)
        # Attention over text only. On the CPU eager is faster than SDPA at these lengths (0.18 s a step, 0.26 s).
        model.set_attn_implementation({"text_config": settings.attention, "vision_config": "sdpa"})
        super().__init__(model, processor)


def build_config(settings: TinyBackboneConfig, tokenizer: Any) -> Qwen2VLConfig:
    """Return the config of a model with random weights, with the sizes of the settings."""
    # M-RoPE: one frequency for time, one for the row, all others for the column, which distinguishes the digits.
    sections = [1, 1, settings.hidden_size // settings.heads // 2 - 2]
    decoder = decoder_config(
        tokenizer,
        settings.hidden_size,
        settings.mlp_size,
        settings.layers,
        settings.heads,
        settings.heads,
        settings.initializer_range,
        mrope_section=sections,
    )
    return Qwen2VLConfig(
        text_config={**decoder, "tie_word_embeddings": False},
        vision_config={
            "depth": settings.vision_layers,
            "embed_dim": settings.vision_size,
            "hidden_size": settings.hidden_size,
            "num_heads": 4,
            "mlp_ratio": 4,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "initializer_range": settings.initializer_range,
        },
        tie_word_embeddings=False,
        initializer_range=settings.initializer_range,
        **find_vision_ids(tokenizer),
    )


def find_vision_ids(tokenizer: Any) -> dict[str, int]:
    """Return the ids in the configs of Qwen's vision-language models."""
    tokens = {
        "image": tiny_tokenizer.IMAGE,
        "video": tiny_tokenizer.VIDEO,
        "vision_start": tiny_tokenizer.VISION_START,
        "vision_end": tiny_tokenizer.VISION_END,
    }
    return {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()}


def architecture(settings: TinyBackboneConfig) -> Architecture:
    """Return the model of the settings or of a folder's config.json, without weights."""
    if settings.path is None:
        with META:
            model = Qwen2VLForConditionalGeneration(build_config(settings, tiny_tokenizer.build_tokenizer()))
    else:
        expect_family(Path(settings.path), TinyBackbone.family, (Qwen2VLConfig.model_type,))
        model = open_model(Qwen2VLForConditionalGeneration, Path(settings.path), weights=False)
    model.set_attn_implementation({"text_config": settings.attention, "vision_config": "sdpa"})
    return describe_architecture(TinyBackbone, model, settings.dtype, settings.max_pixels)


def tiny(seed: int) -> TinyBackbone:
    """Return the model that ``python -m mathse tiny DST`` saves."""
    return TinyBackbone(TinyBackboneConfig(), init_seed=seed)


def tiny_qwen2vl(seed: int, heads: int = 4) -> Qwen2VLBackbone:
    """Return a Qwen2-VL for tests of ``backbone=qwen2vl``: it writes full prompts, mostly with a token per byte.

    vLLM supports it with 2 ``heads``; it has no heads of size 16.
    """
    sizes = TinyBackboneConfig(hidden_size=64, layers=2, heads=heads, mlp_size=128, vision_size=32)
    small = TinyBackbone(sizes, init_seed=seed)
    return Qwen2VLBackbone(small.model, small.processor)


def tiny_causal_lm(seed: int) -> CausalLMBackbone:
    """Return a language model for tests of ``backbone=causal_lm``, mostly with a token per byte."""
    tokenizer = tiny_tokenizer.build_tokenizer()
    tokenizer.chat_template = tiny_tokenizer.CHAT_TEMPLATE
    config = LlamaConfig(**decoder_config(tokenizer, hidden_size=64, mlp_size=128, layers=2, heads=4, kv_heads=2))
    model = draw_weights(seed, lambda: LlamaForCausalLM(config), tokenizer)
    return CausalLMBackbone(model, tokenizer)


def build_processor(min_pixels: int, max_pixels: int) -> Qwen2VLProcessor:
    """Return the Qwen2-VL processor with the compact tokenizer. Pixel bounds are areas."""
    return Qwen2VLProcessor(
        # Mean and deviation of bright strokes on black. With CLIP's the digits were not read after 250 steps.
        image_processor=Qwen2VLImageProcessor(
            size={"shortest_edge": min_pixels, "longest_edge": max_pixels}, image_mean=[0.3] * 3, image_std=[0.35] * 3
        ),
        tokenizer=tiny_tokenizer.build_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=tiny_tokenizer.CHAT_TEMPLATE,
    )


def decoder_config(
    tokenizer: Any,
    hidden_size: int,
    mlp_size: int,
    layers: int,
    heads: int,
    kv_heads: int,
    initializer_range: float = 0.05,  # measured: with 0.02 the loss of a model this small stays on a plateau
    **rope: Any,
) -> dict[str, Any]:
    """Return a small decoder as transformers' ``text_config``. A rotary base of 1,000 suffices for 2,048 tokens."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden_size,
        "intermediate_size": mlp_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 2048,
        "initializer_range": initializer_range,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, **rope},
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }


def draw_weights(seed: int, make: Callable[[], Model], tokenizer: Any = None) -> Model:
    """Return the model of ``make`` with random weights from the seed. torch's global generator is not changed.

    ``tokenizer``: sampling stops at its end token and pads with its padding token; None: as the model says.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights") % 2**32)
        model: Any = make()
    if tokenizer is not None:
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    drawn: Model = model
    return drawn
