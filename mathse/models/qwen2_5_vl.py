"""Qwen2.5-VL through transformers' own classes: Qwen2-VL's processor, positions and decoder with another tower, most of
whose layers attend within windows of 8 x 8 patches.

Source of the facts: transformers' ``modeling_qwen2_5_vl``; Bai et al. 2025, "Qwen2.5-VL Technical Report" (arXiv
2502.13923).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from mathse.config.backbones import Qwen25VLBackboneConfig
from mathse.models import tiny_tokenizer
from mathse.models.architecture import Architecture
from mathse.models.base import Features
from mathse.models.chat import DECODER_SCOPE
from mathse.models.checkpoint import wrap_library_errors
from mathse.models.qwen2vl import Qwen2VLBackbone, open_family, read_architecture
from mathse.models.tiny import decoder_config, draw_weights, find_vision_ids


class Qwen25VLBackbone(Qwen2VLBackbone):
    """A ``Qwen2_5_VLForConditionalGeneration`` with its ``Qwen2_5_VLProcessor``."""

    family: ClassVar[str] = "qwen2_5_vl"
    model_class: ClassVar[Any] = Qwen2_5_VLForConditionalGeneration
    lora_scopes: Mapping[str, str] = {
        "language": DECODER_SCOPE,
        "tower": r"model\.visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(gate|up|down)_proj)",
    }

    def tower(self, image: Features) -> Tensor:
        """(patches, C) in the order of the picture's tokens."""
        seen = super().tower(image)
        # The tower puts the tokens of a window together, window by window; within a window their order stays.
        vision, (_, height, width) = self.model.config.vision_config, image["image_grid_thw"][0].tolist()
        merge = vision.spatial_merge_size
        side = vision.window_size // vision.patch_size // merge  # of a window, in tokens
        rows, columns = torch.meshgrid(torch.arange(height // merge), torch.arange(width // merge), indexing="ij")
        windows = (rows // side) * width + columns // side  # a number that rises from window to window
        order = torch.argsort(windows.flatten(), stable=True)  # tokens of the picture as the tower has them
        tokens = seen.unflatten(0, (-1, merge**2))  # (tokens, patches of a token, C)
        return tokens[torch.argsort(order).to(seen.device)].flatten(0, 1)


def architecture(settings: Qwen25VLBackboneConfig) -> Architecture:
    """Return the model of a folder's config.json, without weights."""
    return read_architecture(Qwen25VLBackbone, settings)


@wrap_library_errors
def load(settings: Qwen25VLBackboneConfig, weights: bool = True) -> Qwen25VLBackbone:
    """Open a Qwen2.5-VL checkpoint; ``weights`` False: only for prompts, see ``mathse.models.prompt_reader``."""
    return open_family(Qwen25VLBackbone, settings, weights)


def make_tiny(seed: int, heads: int = 4) -> Qwen25VLBackbone:
    """What ``mathse tiny qwen2_5_vl DST`` saves: a few hundred thousand random parameters, windows of 2 x 2 tokens."""
    tokenizer = tiny_tokenizer.build_tokenizer()
    half = (64 // heads // 2 - 2) // 2  # frequencies of rows, and of columns; time has 2
    config = Qwen2_5_VLConfig(
        text_config={
            **decoder_config(tokenizer, 64, 128, layers=2, heads=heads, kv_heads=2, mrope_section=[2, half, half]),
            "tie_word_embeddings": False,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 64,
            "window_size": 56,
            "fullatt_block_indexes": [1],
            "initializer_range": 0.05,
        },
        tie_word_embeddings=False,
        **find_vision_ids(tokenizer),
    )
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size={"shortest_edge": 28 * 28, "longest_edge": 112 * 112}),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=tiny_tokenizer.CHAT_TEMPLATE,
    )
    model = draw_weights(seed, lambda: Qwen2_5_VLForConditionalGeneration(config), tokenizer)
    return Qwen25VLBackbone(model.eval(), processor)
