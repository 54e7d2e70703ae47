"""Qwen2-VL through transformers' own classes. The tiny backbone is made of the same classes.

A picture of any shape becomes a grid of patches, and 2 x 2 patches become a token, so the number of tokens follows the
picture's area. Source: transformers' ``modeling_qwen2_vl`` (M-RoPE positions, merging of 2 x 2 patches).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import Qwen2VLForConditionalGeneration

from mathse.config.backbones import Qwen2VLBackboneConfig
from mathse.models.architecture import Architecture
from mathse.models.base import Features
from mathse.models.chat import DECODER_SCOPE, ChatBackbone
from mathse.models.checkpoint import as_dtype, expect_family, open_model, open_processor, resolve, wrap_library_errors

MAX_ASPECT = 200  # largest ratio of an image's sides that Qwen2-VL's image processor accepts

Family = TypeVar("Family", bound="Qwen2VLBackbone")


class Qwen2VLBackbone(ChatBackbone):
    """A ``Qwen2VLForConditionalGeneration`` with its ``Qwen2VLProcessor``.

    Qwen2.5-VL and Qwen3-VL, which have other towers, are subclasses.
    """

    family: ClassVar[str] = "qwen2vl"
    model_class: ClassVar[Any] = Qwen2VLForConditionalGeneration
    max_pixels: ClassVar[int] = 12_845_056  # area of the largest picture of the published checkpoint
    parts: Mapping[str, str] = {
        "connector": r"model\.visual\.merger(\.|$)",
        "tower": r"model\.visual\.(?!merger(\.|$))",
    }
    lora_scopes: Mapping[str, str] = {
        "language": DECODER_SCOPE,
        "tower": r"model\.visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])",
    }

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__(model, processor)
        config = model.config
        self.image_id = config.image_token_id
        # A path with a mark of an image would need an image.
        marks = (config.image_token_id, config.video_token_id, config.vision_start_token_id, config.vision_end_token_id)
        self.never_sampled = [i for i in marks if i is not None]

    def misshapen(self, image: object, width: int, height: int) -> str | None:
        if max(width, height) <= MAX_ASPECT * min(width, height):
            return None
        size = f"{width} x {height} pixels"
        return f"image {image}: {size}; a side may be at most {MAX_ASPECT} times the other; crop or pad it"

    def prepare(self, pictures: Sequence[Image]) -> list[Features]:
        """Return ``pixel_values`` (patches, 1176) and ``image_grid_thw`` (1, 3) of each picture."""
        batch = self.processor.image_processor(list(pictures), return_tensors="pt")
        grids = batch["image_grid_thw"]
        pixels = batch["pixel_values"].split(grids.prod(-1).tolist())
        return [{"pixel_values": p, "image_grid_thw": g[None]} for p, g in zip(pixels, grids, strict=True)]

    def expand(self, features: Features) -> str:
        merged = self.processor.image_processor.merge_size**2
        return self.processor.image_token * (int(features["image_grid_thw"].prod()) // merged)

    def extras(self, prompt: list[int], response: list[int], features: Features) -> dict[str, Tensor]:
        """Return M-RoPE positions (3, T), computed once for a row and not in each step, and the image tokens (T,)."""
        ids = prompt + response
        images = torch.tensor([i == self.image_id for i in ids]).int()
        return {"position_ids": self.positions(ids, features), "mm_token_type_ids": images}

    def positions(self, ids: list[int], features: Features) -> Tensor:
        """Return M-RoPE positions (3, len(ids)): text counts up, image tokens have (time, row, column)."""
        # A Python loop over images, not over tokens: a row has few images.
        grids = features["image_grid_thw"].tolist() if features else []  # (time, height, width) in patches
        merge = self.model.config.vision_config.spatial_merge_size
        parts, start, token = [], 0, 0
        for time, height, width in grids:
            rows, columns = height // merge, width // merge
            begin = ids.index(self.image_id, token)
            # The text before the image: all three axes count up together.
            parts.append(torch.arange(start, start + begin - token).expand(3, -1))
            start += begin - token
            # The image: its tokens row by row, counted from the end of the text.
            cells = torch.cartesian_prod(*(torch.arange(n) for n in (time, rows, columns))).view(-1, 3).T
            parts.append(cells + start)
            # The next text starts after the longer side of the image, independent of its number of tokens.
            start, token = start + max(height, width) // merge, begin + time * rows * columns
        parts.append(torch.arange(start, start + len(ids) - token).expand(3, -1))
        return torch.cat(parts, dim=1)

    def tower(self, image: Features) -> Tensor:
        """Return (patches, C). Each 2 x 2 patches that will become a token are neighbours."""
        visual = self.model.model.visual
        seen: Tensor = visual(
            image["pixel_values"].to(visual.dtype), grid_thw=image["image_grid_thw"]
        ).last_hidden_state
        return seen

    def connector(self, seen: Tensor) -> Tensor:
        """Convert (patches, C) to (tokens, H)."""
        tokens: Tensor = self.model.model.visual.merger(seen)
        return tokens

    def pooled(self, tokens: Tensor, batch: Mapping[str, Tensor]) -> Any:
        merged = self.processor.image_processor.merge_size**2
        return tokens.split((batch["image_grid_thw"].prod(-1) // merged).tolist())  # tokens of each image

    def image_tokens(self, width: int, height: int, trained: bool = False) -> int:
        return self.processor._get_num_multimodal_tokens(image_sizes=[(height, width)])["num_image_tokens"][0]

    @property
    def max_image_tokens(self) -> int:
        images = self.processor.image_processor
        return images.size["longest_edge"] // (images.patch_size * images.merge_size) ** 2


def architecture(settings: Qwen2VLBackboneConfig) -> Architecture:
    """Return the model of a folder's config.json, without weights."""
    return read_architecture(Qwen2VLBackbone, settings)


def read_architecture(family: type[Qwen2VLBackbone], settings: Qwen2VLBackboneConfig) -> Architecture:
    """Return the model of the family that a folder's config.json describes, without weights."""
    folder = Path(settings.path)
    expect_family(folder, family.family, (family.model_class.config_class.model_type,))
    model = open_model(family.model_class, folder, attention=settings.attention, weights=False)
    return describe_architecture(family, model, settings.dtype, settings.max_pixels)


def describe_architecture(
    family: type[Qwen2VLBackbone], model: Any, dtype: str | None, max_pixels: int | None
) -> Architecture:
    """Return a model of the family with the sizes of its largest picture, which has the area ``max_pixels``."""
    vision = model.config.vision_config
    most = max(1, (max_pixels or family.max_pixels) // vision.patch_size**2)  # patches
    merged = vision.spatial_merge_size**2  # patches for each token
    tokens = most // merged + 2  # with the marks before and after a picture
    return Architecture(
        family.bare(model),
        dtype,
        (most, most),
        (tokens, tokens),
        lambda width, height: min(tokens, width * height / vision.patch_size**2 / merged + 2),
    )


@wrap_library_errors
def load(settings: Qwen2VLBackboneConfig, weights: bool = True) -> Qwen2VLBackbone:
    """Open a Qwen2-VL checkpoint; ``weights`` False: only for prompts, see ``mathse.models.prompt_reader``."""
    return open_family(Qwen2VLBackbone, settings, weights)


def open_family(family: type[Family], settings: Qwen2VLBackboneConfig, weights: bool) -> Family:
    """Open a checkpoint of the family."""
    folder = resolve(settings.path, settings.revision, weights)
    expect_family(folder, family.family, (family.model_class.config_class.model_type,))
    model = open_model(
        family.model_class,
        folder,
        dtype=as_dtype(settings.dtype),
        attention=settings.attention,
        weights=weights,
    )
    processor = open_processor(folder)
    saved = processor.image_processor.size  # areas; in the published checkpoint a picture has up to 16,384 tokens
    processor.image_processor.size = {
        "shortest_edge": saved["shortest_edge"] if settings.min_pixels is None else settings.min_pixels,
        "longest_edge": saved["longest_edge"] if settings.max_pixels is None else settings.max_pixels,
    }
    return family(model, processor)
