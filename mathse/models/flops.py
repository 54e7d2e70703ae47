"""Floating-point operations that the rows of a fit ask for: what model FLOPs utilisation (MFU) is a share of.

Counted as in PaLM (Chowdhery et al. 2022, arXiv 2204.02311, appendix B), and honestly where a part does not train:

matrices    a number of a matrix takes 2 operations a token forward, 2 more where the backward pass goes on to what lies
            below, and 2 more for its own gradient: 6 where a part trains, 4 in a frozen decoder under adapters, 2 in a
            frozen tower. The head works on response tokens alone; an embedding looks up and multiplies nothing.
attention   queries by keys and probabilities by values, 4 T^2 width a layer and row, half of that in the decoder, whose
            tokens see no later ones; three times as much with the backward pass.

Padding is no work of the model's, nor is what activation checkpointing does a second time: both lower MFU.
"""

from __future__ import annotations

import re
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mathse.models.base import IGNORED, Backbone
from mathse.models.lower_layers import layer_numbers
from mathse.models.memory import Stack, has_graph, has_lower_graph, numel
from mathse.models.parts import PARTS, named_parts

JOINED = 4  # patches of the tower that become one token: 2 x 2 in all families


@dataclass(frozen=True)
class Amounts:
    """What a padded micro-batch holds; amounts of several add up.

    Attributes:
        tokens: of its rows, those of their pictures among them, without padding and rows that only fill up.
        slots: positions that the device works through, padding among them.
        targets: response tokens, which have a loss.
        squares: of the rows' lengths, summed.
        patches: of all pictures, as the tower sees them.
        patch_squares: summed over what attends to itself: a picture, or a tile of one.
    """

    tokens: int = 0
    slots: int = 0
    targets: int = 0
    squares: int = 0
    patches: int = 0
    patch_squares: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def amounts_of(batch: dict[str, Tensor], patch_size: int) -> Amounts:
    """Of a padded micro-batch. A row ends with the last token of its response, behind which there is only padding.

    ``patch_size``: a patch's side in pixels.
    """
    labels = batch["labels"]  # (B, T)
    answered = labels != IGNORED
    ends = torch.where(answered, torch.arange(1, labels.shape[1] + 1, device=labels.device), 0)
    lengths = ends.amax(dim=1)  # (B,)
    patches = _patches(batch, patch_size)
    return Amounts(
        tokens=int(lengths.sum()),
        slots=labels.numel(),
        targets=int(answered[:, 1:].sum()),
        squares=int(lengths.square().sum()),
        patches=int(patches.sum()),
        patch_squares=int(patches.square().sum()),
    )


def _patches(batch: dict[str, Tensor], patch_size: int) -> Tensor:
    """Patches of each picture, or of each of its tiles: (n,)."""
    if "pixel_values" not in batch:  # no picture, or the tower's features are kept and it does not run
        return torch.zeros(0, dtype=torch.long)
    if "image_grid_thw" in batch:  # Qwen2-VL: (pictures, 3)
        return batch["image_grid_thw"].prod(dim=-1)
    n, _, height, width = batch["pixel_values"].flatten(0, -4).shape
    return torch.full((n,), (height // patch_size) * (width // patch_size))


def patch_size(backbone: Backbone) -> int:
    """A patch's side in pixels; 1 where there is no tower."""
    side = getattr(getattr(backbone.model.config, "vision_config", None), "patch_size", 1)
    return int(side if isinstance(side, int) else side[0])


class TrainingFlops:
    """Of a backbone as its fit trains it; made when it is prepared for the fit, and before it is sharded. ``kept``:
    hidden states stand for its frozen lower layers, which then do nothing."""

    def __init__(self, backbone: Backbone, kept: bool = False) -> None:
        # operations a unit of work, by what the matrices work on
        self.token = self.image_token = self.text_token = self.target = self.patch = 0
        model = backbone.model
        head = backbone.head.weight
        tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)} - {id(head)}
        # CogVLM2 has two sets of decoder matrices: one for an image's tokens, one for the text's
        experts = backbone.lora_scopes.get("vision_expert")
        passed = {part: has_graph(backbone, part) for part in PARTS}
        number, lower = layer_numbers(backbone), backbone.frozen_layers
        # of a number in a frozen lower layer, and of its attention, in forward passes
        of_lower, attended = (0, 0) if kept else (4, 3) if has_lower_graph(backbone) else (2, 1)
        for part, name, parameter in named_parts(backbone):
            if id(parameter) in tables:
                continue
            each = of_lower if number(name) < lower else 2 + 2 * passed[part] + 2 * parameter.requires_grad
            operations = each * numel(parameter)
            if parameter is head:
                self.target += operations
            elif part == "tower":
                self.patch += operations
            elif part == "connector" or (experts is not None and re.match(experts, name)):
                self.image_token += operations
            elif experts is not None and re.match(backbone.lora_scopes["language"], name):
                self.text_token += operations
            else:
                self.token += operations
        # operations a squared length
        config: Any = model.config
        decoder = Stack.of(config, "language")
        self.square = 2 * decoder.width * (3 * (decoder.layers - lower) + attended * lower)
        self.patch_square = 0
        if hasattr(config, "vision_config"):
            tower = Stack.of(config, "tower")
            self.patch_square = 4 * tower.width * tower.layers * (3 if passed["tower"] else 1)

    def of(self, amounts: Amounts) -> float:
        """Of a forward and a backward pass over so much."""
        image_tokens = amounts.patches // JOINED
        return float(
            self.token * amounts.tokens
            + self.image_token * image_tokens
            + self.text_token * (amounts.tokens - image_tokens)
            + self.target * amounts.targets
            + self.patch * amounts.patches
            + self.square * amounts.squares
            + self.patch_square * amounts.patch_squares
        )
