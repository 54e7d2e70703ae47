"""Floating-point operations of a model, for the cost of a run and for model FLOPs utilisation (MFU).

Counted as in PaLM (Chowdhery et al. 2022, arXiv 2204.02311, appendix B), with exact terms for frozen parts:

matrices    for each weight and token 2 operations in the forward pass, 2 more if the backward pass continues to the
            layers below, and 2 more for the weight's own gradient: 6 where a part is trained, 4 in a frozen decoder
            under adapters, 2 in a frozen tower and in frozen layers below the lowest trained layer. The head is counted
            for response tokens only. The embedding is a lookup without operations.
attention   queries x keys and probabilities x values, 4 T^2 width for each layer and row; half of that in the decoder,
            where tokens do not attend to later tokens; three times as much with the backward pass.

Padding is not counted, and neither is the second forward pass of activation checkpointing: both lower the MFU.
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
from mathse.models.operations import Amounts, Operations, count_patches, count_picture
from mathse.models.parts import PARTS, iterate_parameters

DECODER_LAYER = re.compile(r".*\blayers\.(\d+)\.")  # the name of a parameter in a layer of the decoder


def count_amounts(batch: dict[str, Tensor], patch_size: int) -> Amounts:
    """Count the tokens and patches of a padded micro-batch.

    A row ends with the last token of its response; only padding follows.

    Args:
        patch_size: side of a patch in pixels.
    """
    labels = batch["labels"]  # (B, T)
    answered = labels != IGNORED
    ends = torch.where(answered, torch.arange(1, labels.shape[1] + 1, device=labels.device), 0)
    lengths = ends.amax(dim=1)  # (B,)
    patches = count_patches(batch, patch_size)
    return Amounts(
        tokens=int(lengths.sum()),
        slots=labels.numel(),
        targets=int(answered[:, 1:].sum()),
        squares=int(lengths.square().sum()),
        patches=sum(patches),
        patch_squares=sum(n**2 for n in patches),
        rows=int((lengths > 0).sum()),
    )


def count_forward_flops(backbone: Backbone) -> Operations:
    """Return the operations of a backbone in a forward pass."""
    return _sum_operations(backbone, lambda part, layer, parameter: 2, lambda layer: 1, 1)


def count_training_flops(backbone: Backbone, kept: bool = False) -> Operations:
    """Return the operations of a backbone in training, forward and backward.

    The backbone must be prepared for training and not yet sharded.

    Args:
        kept: stored hidden states replace everything below the lowest trained layer, which then costs nothing.
    """
    passed = {part: has_graph(backbone, part) for part in PARTS}
    lowest = find_lowest_trained_layer(backbone)

    def operations(part: str, layer: int | None, parameter: Tensor) -> int:
        below = part == "language" and layer is not None and layer < lowest
        if kept and (below or part != "language"):
            return 0
        return 2 + 2 * (passed[part] and not below) + 2 * parameter.requires_grad

    # Passes over attention: 3 with a backward pass, 1 without, 0 where stored states replace it.
    lower_passes = 0 if kept else 1
    tower_passes = 3 if passed["tower"] and not kept else lower_passes
    return _sum_operations(backbone, operations, lambda layer: 3 if layer >= lowest else lower_passes, tower_passes)


def count_kept_states_flops(backbone: Backbone) -> Operations:
    """Return the operations of the stored hidden states: a forward pass below the lowest trained layer."""
    lowest = find_lowest_trained_layer(backbone)

    def operations(part: str, layer: int | None, parameter: Tensor) -> int:
        return 2 * (part != "language" or (layer is not None and layer < lowest))

    return _sum_operations(backbone, operations, lambda layer: int(layer < lowest), 1)


def find_lowest_trained_layer(backbone: Backbone) -> int:
    """Return the decoder layer at which a backward pass ends; 0 if anything below the layers is trained."""
    layers: dict[int, bool] = {}  # number -> whether any of its parameters is trained
    tables = {id(m.weight) for m in backbone.model.modules() if isinstance(m, nn.Embedding)}
    for part, name, parameter in iterate_parameters(backbone):
        if parameter.requires_grad and (part != "language" or id(parameter) in tables):
            return 0
        if part == "language" and (match := DECODER_LAYER.match(name)) is not None:
            layers[int(match[1])] = layers.get(int(match[1]), False) or parameter.requires_grad
    return next((layer for layer in sorted(layers) if layers[layer]), len(layers))


def _sum_operations(
    backbone: Backbone,
    operations: Callable[[str, int | None, Tensor], int],
    passes_of_layer: Callable[[int], int],
    tower_passes: int,
) -> Operations:
    """Sum the operations of all matrices and of attention.

    Args:
        operations: (part, decoder layer, parameter) -> operations for each weight and each of its units.
        passes_of_layer: decoder layer -> passes over its attention: forward 1, forward and backward 3.
        tower_passes: the same for all layers of the tower.
    """
    # The unit of a matrix: the part of the input that it multiplies.
    units = dict.fromkeys(("token", "image_token", "text_token", "target", "patch"), 0)
    model = backbone.model
    head = backbone.head.weight
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)} - {id(head)}
    # CogVLM2 has two sets of decoder matrices: for the tokens of images and for the tokens of text.
    experts = backbone.lora_scopes.get("vision_expert")
    for part, name, parameter in iterate_parameters(backbone):
        if id(parameter) in tables:
            continue
        layer = DECODER_LAYER.match(name)
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


def count_picture_work(backbone: Backbone, image: Any, trained: bool = False) -> tuple[str, Amounts]:
    """Return the tower's work for a single image with a name for it. Work with equal names is done only once."""
    size = image.size if isinstance(image, Image) else image_size(str(image))
    # Patches of a tile, for a family that cuts images into tiles of a fixed size.
    side = getattr(getattr(backbone.model.config, "vision_config", None), "image_size", None)
    tile = None
    if side is not None:
        tile = (int(side if isinstance(side, int) else side[0]) // backbone.patch_size) ** 2
    tokens = backbone.image_tokens(*size, trained=trained)
    name = pixels_sha256(image) if isinstance(image, Image) else str(image)
    return f"{tokens} tokens of {name} by {name_model(backbone)}", count_picture(tokens, tile)


def name_model(backbone: Backbone) -> str:
    """Return a key that distinguishes models: an ORM with its own backbone cannot use the student's features."""
    return f"{backbone.family} {Stack.of(backbone.model.config, 'language')}"
