"""Qwen3-VL through transformers' own classes: Qwen2-VL's processor at 16 x 16 pixels a patch, a decoder with a norm of
queries and keys, and DeepStack: beside the tower's output, mergers read some of its layers below, and the first layers
of the decoder add what they make of them at the places of the pictures.

Source of the facts: transformers' ``modeling_qwen3_vl``; the Qwen team 2025, "Qwen3-VL Technical Report" (arXiv
2511.21631).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import (
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from mathse.config.backbones import Qwen3VLBackboneConfig
from mathse.models import tiny_tokenizer
from mathse.models.architecture import Architecture
from mathse.models.base import Features
from mathse.models.chat import DECODER_SCOPE
from mathse.models.checkpoint import wrap_library_errors
from mathse.models.qwen2vl import Qwen2VLBackbone, open_family, read_architecture
from mathse.models.tiny import decoder_config, draw_weights, find_vision_ids


class Qwen3VLBackbone(Qwen2VLBackbone):
    """A ``Qwen3VLForConditionalGeneration`` with its ``Qwen3VLProcessor``.

    The features of a picture are the tower's output and the D layers that DeepStack reads, side by side:
    (patches, (1 + D) C), and behind the connector (tokens, (1 + D) H).
    """

    family: ClassVar[str] = "qwen3_vl"
    model_class: ClassVar[Any] = Qwen3VLForConditionalGeneration
    max_pixels: ClassVar[int] = 16_777_216
    parts: Mapping[str, str] = {
        "connector": r"model\.visual\.(merger|deepstack_merger_list)(\.|$)",
        "tower": r"model\.visual\.(?!(merger|deepstack_merger_list)(\.|$))",
    }
    lora_scopes: Mapping[str, str] = {
        "language": DECODER_SCOPE,
        "tower": r"model\.visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.linear_fc[12])",
    }

    def tower(self, image: Features) -> Tensor:
        visual = self.model.model.visual
        read: list[Tensor] = []
        hooks = [
            merger.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
            for merger in visual.deepstack_merger_list
        ]
        try:
            last = super().tower(image)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.cat([last, *read], dim=-1)

    def connector(self, seen: Tensor) -> Tensor:
        visual = self.model.model.visual
        mergers = [visual.merger, *visual.deepstack_merger_list]
        layers = [layer.contiguous() for layer in seen.chunk(len(mergers), dim=-1)]
        return torch.cat([merger(layer) for merger, layer in zip(mergers, layers, strict=True)], dim=-1)

    def pooled(self, tokens: Tensor, batch: Mapping[str, Tensor]) -> Any:
        """Return the embeddings of each picture, (tokens, H)."""
        return super().pooled(tokens[:, : tokens.shape[1] // self._layers], batch)

    def make_encoder_output(self, tokens: Tensor, batch: Mapping[str, Tensor]) -> Any:
        output = super().make_encoder_output(tokens, batch)
        _, *added = tokens.chunk(self._layers, dim=-1)
        output.deepstack_features = [super(Qwen3VLBackbone, self).pooled(layer, batch) for layer in added]
        return output

    @property
    def _layers(self) -> int:
        """Number of tower layers that the decoder reads, with the last layer."""
        return 1 + len(self.model.config.vision_config.deepstack_visual_indexes)


def architecture(settings: Qwen3VLBackboneConfig) -> Architecture:
    """Return the model of a folder's config.json, without weights."""
    return read_architecture(Qwen3VLBackbone, settings)


@wrap_library_errors
def load(settings: Qwen3VLBackboneConfig, weights: bool = True) -> Qwen3VLBackbone:
    """Open a Qwen3-VL checkpoint; ``weights`` False: only for prompts, see ``mathse.models.prompt_reader``."""
    return open_family(Qwen3VLBackbone, settings, weights)


def make_tiny(seed: int, heads: int = 4) -> Qwen3VLBackbone:
    """What ``mathse tiny qwen3_vl DST`` saves: a few hundred thousand random parameters, DeepStack from one layer."""
    tokenizer = tiny_tokenizer.build_tokenizer()
    half = (64 // heads // 2 - 2) // 2  # frequencies of rows, and of columns; time has 2
    rope: dict[str, Any] = {"mrope_section": [2, half, half], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config={
            **decoder_config(tokenizer, 64, 128, layers=2, heads=heads, kv_heads=2, **rope),
            "head_dim": 64 // heads,
            "tie_word_embeddings": False,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 64,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
            "initializer_range": 0.05,
        },
        tie_word_embeddings=False,
        **find_vision_ids(tokenizer),
    )
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(
            size={"shortest_edge": 32 * 32, "longest_edge": 128 * 128},
            patch_size=16,
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        ),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=tiny_tokenizer.CHAT_TEMPLATE,
    )
    model = draw_weights(seed, lambda: Qwen3VLForConditionalGeneration(config), tokenizer)
    return Qwen3VLBackbone(model.eval(), processor)
