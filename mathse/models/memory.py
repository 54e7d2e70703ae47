"""The parameters that a training run trains, and an estimate of its memory, counted in the model before its first step.

The model may be open or on the meta device (``mathse.models.architecture``). ``mathse.models.needs`` has the terms and
the arithmetic, for a run that starts and for a plan.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor, nn

from mathse.models.base import Backbone, Encoded
from mathse.models.lower_layers import make_layer_numbering
from mathse.models.needs import (
    BFLOAT16_BYTES,
    FLOAT32_BYTES,
    PreparedCounts,
    Stack,
    estimate_activations,
    estimate_copies,
    estimate_loss,
    format_bytes,
)
from mathse.models.parts import PARTS, find_part, is_adapter, iterate_parameters


@dataclass(frozen=True)
class PartRow:
    """A line of the table of parameters."""

    part: str
    parameters: int
    trainable: int
    learning_rate: float | None  # the largest of the schedule; None: nothing is trained


@dataclass(frozen=True)
class Memory:
    """Estimated bytes on each device."""

    weights: int
    gradients: int
    optimiser: int
    activations: int  # with the loss

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimiser + self.activations


@dataclass(frozen=True)
class TrainingSummary:
    """The parameters that a training run trains, and its estimated memory."""

    method: str
    precision: str  # the chosen precision, never "fastest"
    parts: list[PartRow]
    estimated: Memory

    def to_json(self) -> dict[str, Any]:
        record = asdict(self)
        return {**record, "estimated": {"unit": "bytes", **record["estimated"], "total": self.estimated.total}}

    def cells(self) -> list[tuple[str, ...]]:
        """Return the cells of the table, with its heading as the first row."""
        cells: list[tuple[str, ...]] = [("part", "parameters", "trainable", "learning rate")]
        for row in self.parts:
            rate = "-" if row.learning_rate is None else f"{row.learning_rate:.3g}"
            cells.append((row.part, f"{row.parameters:,}", f"{row.trainable:,}", rate))
        return cells

    def __str__(self) -> str:
        terms = ", ".join(f"{name} {format_bytes(value)}" for name, value in asdict(self.estimated).items())
        settings = f"method={self.method}, precision={self.precision}"
        total = format_bytes(self.estimated.total)
        return f"trained parameters ({settings}); estimated memory on a device {total}: {terms}"


# --- parameters -----------------------------------------------------------------------------------------------------


def count_parts(backbone: Backbone, lr: float, vision_lr_scale: float) -> list[PartRow]:
    """Return a row for each part, and a row for the adapters in each part that has some."""
    counts: dict[str, list[int]] = {part: [0, 0] for part in PARTS}  # all parameters, trained parameters
    for part, name, parameter in iterate_parameters(backbone):
        row = counts.setdefault(f"adapters in {part}" if is_adapter(name) else part, [0, 0])
        row[0] += numel(parameter)
        row[1] += numel(parameter) * parameter.requires_grad
    rates = {part: lr * (1 if part.endswith("language") else vision_lr_scale) for part in counts}
    return [PartRow(part, n, trained, rates[part] if trained else None) for part, (n, trained) in counts.items() if n]


def numel(parameter: Tensor) -> int:
    """Return the number of weights of a parameter. bitsandbytes' Params4bit packs two of them in a byte."""
    packed = getattr(parameter, "quant_state", None)  # it has the shape before packing
    return packed.shape.numel() if packed is not None else parameter.numel()


# --- memory ---------------------------------------------------------------------------------------------------------


def estimate(
    backbone: Backbone, longest: Encoded, rows: int, precision: str, checkpointing: bool, shards: int = 1
) -> Memory:
    """Estimate the memory of each device.

    Args:
        longest: every row of a micro-batch is assumed to be as long as this row.
        rows: of a micro-batch.
        checkpointing: activation checkpointing.
        shards: number of devices over which FSDP shards weights, gradients and moments.
    """
    prepared, config = count_prepared(backbone), backbone.model.config
    tokens = {"language": len(longest.ids), "tower": count_patches(config, longest.features)}
    activations = estimate_activations(prepared, tokens, rows, precision, checkpointing)
    if shards == 1:
        activations += estimate_copies(prepared, precision, checkpointing)
    activations += estimate_loss(rows * len(longest.response) * config.get_text_config().vocab_size, precision)
    trained = prepared.trained // shards
    return Memory(prepared.weights // shards, trained, 2 * prepared.trained // shards, activations)


def count_prepared(backbone: Backbone) -> PreparedCounts:
    """Count the parameters of a model that is prepared for training."""
    parameters = list(iterate_parameters(backbone))
    trained = [(part, name, p) for part, name, p in parameters if p.requires_grad]
    # Parts that a backward pass goes through. It ends above the frozen lower layers, unless a tower or a connector
    # below them is trained.
    passed = {"language", *(part for part, _, _ in trained)}
    lower = backbone.frozen_layers if passed == {"language"} else 0
    stacks: dict[str, Stack] = {}
    adapted: dict[str, int] = {}
    for part in ("language", "tower"):
        if part in passed:
            stack = Stack.of(backbone.model.config, part)
            stacks[part] = replace(stack, layers=stack.layers - lower) if part == "language" else stack
            # A is (rank, input width). The adapters of a part are spread evenly over its layers.
            widths = sum(p.shape[1] for p_part, name, p in parameters if p_part == part and ".lora_A." in name)
            adapted[part] = widths // stacks[part].layers
    # Weights of float32 matrices that a backward pass goes through, by whether they are trained.
    number_of = make_layer_numbering(backbone)
    matrices = {True: 0, False: 0}
    for name, module in backbone.model.named_modules():
        if isinstance(module, nn.Linear) and find_part(backbone, name) in passed and number_of(name) >= lower:
            weight = module.weight
            matrices[weight.requires_grad] += weight.numel() * (weight.element_size() == FLOAT32_BYTES)
    adapters = backbone.adapter.peft_config.values() if backbone.adapter is not None else ()
    return PreparedCounts(
        # Bytes as stored: float32 where mixed precision trains all weights, bfloat16 under adapters.
        weights=sum(p.numel() * p.element_size() for _, _, p in parameters),
        trained=sum(p.numel() * p.element_size() for _, _, p in trained),
        numbers=sum(p.numel() for _, _, p in trained),
        stacks=stacks,
        bases_that_train=frozenset(part for part, name, _ in trained if not is_adapter(name)),
        adapted=adapted,
        dropout=any(config.lora_dropout for config in adapters),
        trained_copies=BFLOAT16_BYTES * matrices[True],
        frozen_copies=BFLOAT16_BYTES * matrices[False],
    )


def has_graph(backbone: Backbone, part: str) -> bool:
    """Return whether a backward pass goes through a part's layers. It always goes through the decoder's."""
    if part == "language":
        return True
    return any(p.requires_grad for p_part, _, p in iterate_parameters(backbone) if p_part == part)


def count_patches(config: Any, features: dict[str, Tensor]) -> int:
    """Return the number of patches of a row's images: the tower's tokens without class tokens."""
    if "pixel_values" not in features:
        return 0
    return features["pixel_values"].numel() // count_patch_numbers(config)


def count_patch_numbers(config: Any) -> int:
    """Return the number of values in a patch: colours x frames x pixels."""
    vision = config.vision_config
    side = vision.patch_size if isinstance(vision.patch_size, int) else vision.patch_size[0]
    return int(3 * side**2 * getattr(vision, "temporal_patch_size", 1))
