"""Floating-point operations that rows ask of a model: what a run spends, and what model FLOPs utilisation (MFU) is a
share of.

Counted as in PaLM (Chowdhery et al. 2022, arXiv 2204.02311, appendix B), and honestly where a part does not train:

matrices    a number of a matrix takes 2 operations a token forward, 2 more where the backward pass goes on to what lies
            below, and 2 more for its own gradient: 6 where a part trains, 4 in a frozen decoder under adapters, 2 in a
            frozen tower and in frozen layers below the lowest one that trains. The head works on response tokens alone;
            an embedding looks up and multiplies nothing.
attention   queries by keys and probabilities by values, 4 T^2 width a layer and row, half of that in the decoder, whose
            tokens see no later ones; three times as much with the backward pass.

Padding is no work of the model's, nor is what activation checkpointing does a second time: both lower MFU.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn

from mathse.data.image_decoding import pixels_sha256
from mathse.data.images import image_size
from mathse.models.base import IGNORED, Backbone
from mathse.models.memory import has_graph, numel
from mathse.models.needs import Stack
from mathse.models.operations import Amounts, Operations, patches_of, picture_amounts
from mathse.models.parts import PARTS, named_parts

LAYER = re.compile(r".*\blayers\.(\d+)\.")  # of the decoder, in a parameter's name


def amounts_of(batch: dict[str, Tensor], patch_size: int) -> Amounts:
    """Of a padded micro-batch. A row ends with the last token of its response, behind which there is only padding.

    ``patch_size``: a patch's side in pixels.
    """
    labels = batch["labels"]  # (B, T)
    answered = labels != IGNORED
    ends = torch.where(answered, torch.arange(1, labels.shape[1] + 1, device=labels.device), 0)
    lengths = ends.amax(dim=1)  # (B,)
    patches = patches_of(batch, patch_size)
    return Amounts(
        tokens=int(lengths.sum()),
        slots=labels.numel(),
        targets=int(answered[:, 1:].sum()),
        squares=int(lengths.square().sum()),
        patches=sum(patches),
        patch_squares=sum(n**2 for n in patches),
        rows=int((lengths > 0).sum()),
    )


def forward_flops(backbone: Backbone) -> Operations:
    """The operations of a backbone that reads and writes."""
    return _operations(backbone, lambda part, layer, parameter: 2, lambda layer: 1, 1)


def training_flops(backbone: Backbone, kept: bool = False) -> Operations:
    """The operations of a backbone in training, forward and backward; computed when it is prepared, before it is
    sharded. ``kept``: hidden states stand for all below the lowest layer that trains, which then does nothing."""
    passed = {part: has_graph(backbone, part) for part in PARTS}
    lowest = lowest_trained_layer(backbone)

    def operations(part: str, layer: int | None, parameter: Tensor) -> int:
        below = part == "language" and layer is not None and layer < lowest
        if kept and (below or part != "language"):
            return 0
        return 2 + 2 * (passed[part] and not below) + 2 * parameter.requires_grad

    of_lower = 0 if kept else 1
    of_tower = of_lower if kept or not passed["tower"] else 3
    return _operations(backbone, operations, lambda layer: 3 if layer >= lowest else of_lower, of_tower)


def kept_states_flops(backbone: Backbone) -> Operations:
    """The operations of the hidden states that are kept: a forward pass over all below the lowest layer that trains."""
    lowest = lowest_trained_layer(backbone)

    def operations(part: str, layer: int | None, parameter: Tensor) -> int:
        return 2 * (part != "language" or (layer is not None and layer < lowest))

    return _operations(backbone, operations, lambda layer: int(layer < lowest), 1)


def lowest_trained_layer(backbone: Backbone) -> int:
    """The decoder's layer at which a backward pass ends; 0 where something below the layers trains."""
    layers: dict[int, bool] = {}  # number -> whether a parameter of it trains
    tables = {id(m.weight) for m in backbone.model.modules() if isinstance(m, nn.Embedding)}
    for part, name, parameter in named_parts(backbone):
        if parameter.requires_grad and (part != "language" or id(parameter) in tables):
            return 0
        if part == "language" and (match := LAYER.match(name)) is not None:
            layers[int(match[1])] = layers.get(int(match[1]), False) or parameter.requires_grad
    return next((layer for layer in sorted(layers) if layers[layer]), len(layers))


def _operations(
    backbone: Backbone,
    operations: Callable[[str, int | None, Tensor], int],
    passes_of_layer: Callable[[int], int],
    tower_passes: int,
) -> Operations:
    """``operations`` a number of a matrix and unit, by part, the decoder's layer, and the parameter; passes count a
    forward pass over attention as 1, one with its backward pass as 3."""
    units = dict.fromkeys(("token", "image_token", "text_token", "target", "patch"), 0)
    model = backbone.model
    head = backbone.head.weight
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)} - {id(head)}
    # CogVLM2 has two sets of decoder matrices: one for an image's tokens, one for the text's
    experts = backbone.lora_scopes.get("vision_expert")
    for part, name, parameter in named_parts(backbone):
        if id(parameter) in tables:
            continue
        layer = LAYER.match(name)
        if parameter is head:
            unit = "target"
        elif part == "tower":
            unit = "patch"
        elif part == "connector" or (experts is not None and re.match(experts, name)):
            unit = "image_token"
        elif experts is not None and re.match(backbone.lora_scopes["language"], name):
            unit = "text_token"
        else:
            unit = "token"
        units[unit] += operations(part, int(layer[1]) if layer else None, parameter) * numel(parameter)
    config: Any = model.config
    decoder = Stack.of(config, "language")
    square = 2 * decoder.query_width * sum(map(passes_of_layer, range(decoder.layers)))
    patch_square = 0
    if hasattr(config, "vision_config"):
        tower, vision = Stack.of(config, "tower"), config.vision_config
        whole = len(getattr(vision, "fullatt_block_indexes", range(tower.layers)))
        patch_square = 4 * tower.width * whole * tower_passes
        if whole < tower.layers:  # Qwen2.5-VL: in the other layers a patch attends within its window
            window = (vision.window_size // vision.patch_size) ** 2
            units["patch"] += 4 * tower.width * (tower.layers - whole) * tower_passes * window
    return Operations(**units, square=square, patch_square=patch_square)


def picture_work(backbone: Backbone, image: Any, trained: bool = False) -> tuple[str, Amounts]:
    """The work of the tower for an image by itself, where its features are kept, and a name for that: equal
    names are computed once."""
    size = image.size if isinstance(image, Image) else image_size(str(image))
    side = getattr(getattr(backbone.model.config, "vision_config", None), "image_size", None)
    tile = None if side is None else (int(side if isinstance(side, int) else side[0]) // backbone.patch_size) ** 2
    tokens = backbone.image_tokens(*size, trained=trained)
    name = pixels_sha256(image) if isinstance(image, Image) else str(image)
    return f"{tokens} tokens of {name} by {model_name(backbone)}", picture_amounts(tokens, tile)


def model_name(backbone: Backbone) -> str:
    """A key that tells an ORM's own backbone from the student's: features of one are not those of the other."""
    return f"{backbone.family} {Stack.of(backbone.model.config, 'language')}"
