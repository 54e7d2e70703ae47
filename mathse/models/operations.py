"""Floating-point operations by what a model works on, as numbers alone: no torch, so that a plan can use them too.

``mathse.models.flops`` reads ``Operations`` off a model, which may be one without numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

JOINED = 4  # patches of the tower that become one token: 2 x 2 in all families


@dataclass(frozen=True)
class Amounts:
    """The work of a model; amounts of several batches or rows add up.

    Attributes:
        tokens: of its rows, those of their pictures among them, without padding and rows that only fill up.
        slots: positions that the device works through, padding among them.
        targets: tokens whose logits are computed: in a fit those of responses, which have a loss.
        squares: of the rows' lengths, summed.
        patches: of all pictures, as the tower sees them.
        patch_squares: summed over what attends to itself: a picture, or a tile of one.
        rows: how many there are.
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
    """Operations a unit of each amount."""

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
        image_tokens = amounts.patches // JOINED
        return (
            self.token * amounts.tokens
            + self.image_token * image_tokens
            + self.text_token * (amounts.tokens - image_tokens)
            + self.target * amounts.targets
            + self.patch * amounts.patches
            + self.square * amounts.squares
            + self.patch_square * amounts.patch_squares
        )


def prompt_amounts(length: int, features: Mapping[str, Any], patch_size: int) -> Amounts:
    """A prompt of ``length`` tokens with its images' tensors, which is read up to its last token's logits."""
    patches = patches_of(features, patch_size)
    return Amounts(
        tokens=length,
        slots=length,
        squares=length**2,
        patches=sum(patches),
        patch_squares=sum(n**2 for n in patches),
        rows=1,
    )


def written_behind(prompt: int, given: int, sampled: int) -> Amounts:
    """A response behind ``prompt`` tokens: ``given`` ids are read, then ``sampled`` ones written. The last of these is
    not read again, and the first comes from the logits behind what was read before it."""
    read = given + max(0, sampled - 1)
    return Amounts(tokens=read, slots=read, targets=sampled, squares=(prompt + read) ** 2 - prompt**2)


def patches_of(features: Mapping[str, Any], patch_size: int) -> list[int]:
    """Patches of each picture, or of each of its tiles, by the tensors that the model gets of it.

    ``patch_size``: a patch's side in pixels.
    """
    if "pixel_values" not in features:  # no picture, or the tower's features are kept and it does not run
        return []
    if "image_grid_thw" in features:  # Qwen2-VL: (pictures, 3)
        return [t * h * w for t, h, w in features["image_grid_thw"].tolist()]
    pixels = features["pixel_values"]
    if pixels.ndim < 4:  # cut into patches already: (..., patches, numbers of one)
        return [pixels.shape[-2]] * (pixels.numel() // (pixels.shape[-2] * pixels.shape[-1]))
    n, _, height, width = pixels.flatten(0, -4).shape
    return [(height // patch_size) * (width // patch_size)] * n


def picture_amounts(tokens: int, tile: int | None = None) -> Amounts:
    """The work of a tower for a picture that comes to so many tokens, by itself. ``tile``: patches of a tile of
    it, where it is cut into such."""
    patches = tokens * JOINED
    tiles = 1 if tile is None else max(1, round(patches / tile))
    return Amounts(patches=patches, patch_squares=patches**2 // tiles)
