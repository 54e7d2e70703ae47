"""Floating-point operations as arithmetic over counts. This module does not import torch, so a plan can use it.

``mathse.models.flops`` computes ``Operations`` from a model, which may be on the meta device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

PATCHES_PER_TOKEN = 4  # patches of the tower that are merged into a token: 2 x 2 in all families


@dataclass(frozen=True)
class Amounts:
    """The size of a model's input and output; amounts of several batches or rows can be added.

    Attributes:
        tokens: tokens of text and pictures, without padding and without rows that fill up a batch.
        slots: positions that the device computes, with padding.
        targets: tokens with computed logits; in training the tokens of responses, which have a loss.
        squares: sum of the squared lengths of the rows.
        patches: patches of all pictures in the tower.
        patch_squares: sum of the squared numbers of patches that attend to each other: of a picture or of a tile.
        rows: number of rows.
    """

    tokens: int = 0
    slots: int = 0
    targets: int = 0
    squares: int = 0
    patches: int = 0
    patch_squares: int = 0
    rows: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Operations:
    """Operations for each unit of the amounts."""

    token: int = 0
    image_token: int = 0
    text_token: int = 0
    target: int = 0
    patch: int = 0
    square: int = 0
    patch_square: int = 0

    def __add__(self, other: Operations) -> Operations:
        return Operations(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def of(self, amounts: Amounts) -> int:
        """Return the operations of these amounts."""
        image_tokens = amounts.patches // PATCHES_PER_TOKEN
        return (
            self.token * amounts.tokens
            + self.image_token * image_tokens
            + self.text_token * (amounts.tokens - image_tokens)
            + self.target * amounts.targets
            + self.patch * amounts.patches
            + self.square * amounts.squares
            + self.patch_square * amounts.patch_squares
        )


def count_prompt(length: int, features: Mapping[str, Any], patch_size: int) -> Amounts:
    """Return the amounts of a prompt of ``length`` tokens with the tensors of its images."""
    patches = count_patches(features, patch_size)
    return Amounts(
        tokens=length,
        slots=length,
        squares=length**2,
        patches=sum(patches),
        patch_squares=sum(n**2 for n in patches),
        rows=1,
    )


def count_response(prompt: int, given: int, sampled: int) -> Amounts:
    """Return the amounts of a response after ``prompt`` tokens.

    ``given`` ids are read, then ``sampled`` tokens are sampled. The first is sampled from the logits of the last token
    that was read, and the last is not read again.
    """
    read = given + max(0, sampled - 1)
    return Amounts(tokens=read, slots=read, targets=sampled, squares=(prompt + read) ** 2 - prompt**2)


def count_patches(features: Mapping[str, Any], patch_size: int) -> list[int]:
    """Return the number of patches of each picture, or of each tile, from the model's input tensors.

    Args:
        patch_size: side of a patch in pixels.
    """
    if "pixel_values" not in features:  # no picture, or stored features replace the tower
        return []
    if "image_grid_thw" in features:  # Qwen2-VL: (pictures, 3)
        return [t * h * w for t, h, w in features["image_grid_thw"].tolist()]
    pixels = features["pixel_values"]
    if pixels.ndim < 4:  # already cut into patches: (..., patches, values of a patch)
        return [pixels.shape[-2]] * (pixels.numel() // (pixels.shape[-2] * pixels.shape[-1]))
    n, _, height, width = pixels.flatten(0, -4).shape
    return [(height // patch_size) * (width // patch_size)] * n


def count_picture(tokens: int, tile: int | None = None) -> Amounts:
    """Return the tower's amounts for a picture of ``tokens`` tokens.

    Args:
        tile: patches of a tile, if pictures are cut into tiles.
    """
    patches = tokens * PATCHES_PER_TOKEN
    tiles = 1 if tile is None else max(1, round(patches / tile))
    return Amounts(patches=patches, patch_squares=patches**2 // tiles)
