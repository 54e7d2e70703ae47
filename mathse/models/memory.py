"""What a fit trains, and about how much memory it takes: counted in the model's own parameters, before its first step.

The model may be open, or lie on the meta device (``mathse.models.architecture``); ``mathse.models.needs`` has the terms
and the arithmetic, for a fit that begins and for a plan alike.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor, nn

from mathse.models.base import Backbone, Encoded
from mathse.models.lower_layers import layer_numbers
from mathse.models.needs import HALF, SINGLE, Prepared, Stack, activations, copies, in_bytes, loss
from mathse.models.parts import PARTS, is_adapter, named_parts, part_of


@dataclass(frozen=True)
class PartRow:
    """A line of the table."""

    part: str
    parameters: int
    trainable: int
    learning_rate: float | None  # at the top of the schedule; None where nothing trains


@dataclass(frozen=True)
class Memory:
    """Estimated bytes on one device."""

    weights: int
    gradients: int
    optimiser: int
    activations: int  # the loss among them

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimiser + self.activations


@dataclass(frozen=True)
class Trained:
    """What a fit trains, and what it is estimated to take."""

    method: str
    precision: str  # what ``fastest`` came to
    parts: list[PartRow]
    estimated: Memory

    def to_json(self) -> dict[str, Any]:
        record = asdict(self)
        return {**record, "estimated": {"unit": "bytes", **record["estimated"], "total": self.estimated.total}}

    def cells(self) -> list[tuple[str, ...]]:
        """The table, its heading first."""
        cells: list[tuple[str, ...]] = [("part", "parameters", "trainable", "learning rate")]
        for row in self.parts:
            rate = "-" if row.learning_rate is None else f"{row.learning_rate:.3g}"
            cells.append((row.part, f"{row.parameters:,}", f"{row.trainable:,}", rate))
        return cells

    def __str__(self) -> str:
        each = ", ".join(f"{name} {in_bytes(value)}" for name, value in asdict(self.estimated).items())
        how, total = f"method={self.method}, precision={self.precision}", in_bytes(self.estimated.total)
        return f"what trains ({how}); estimated memory on a device {total}: {each}"


# --- what trains ----------------------------------------------------------------------------------------------------


def part_rows(backbone: Backbone, lr: float, vision_lr_scale: float) -> list[PartRow]:
    """A row a part, and one for the adapters in each part that has some."""
    counts: dict[str, list[int]] = {part: [0, 0] for part in PARTS}
    for part, name, parameter in named_parts(backbone):
        row = counts.setdefault(f"adapters in {part}" if is_adapter(name) else part, [0, 0])
        row[0] += numel(parameter)
        row[1] += numel(parameter) * parameter.requires_grad
    rates = {part: lr * (1 if part.endswith("language") else vision_lr_scale) for part in counts}
    return [PartRow(part, n, trained, rates[part] if trained else None) for part, (n, trained) in counts.items() if n]


def numel(parameter: Tensor) -> int:
    """Numbers in a parameter; a matrix in 4 bit holds two a byte and remembers its shape."""
    # bitsandbytes' Params4bit
    packed = getattr(parameter, "quant_state", None)
    return packed.shape.numel() if packed is not None else parameter.numel()


# --- memory ---------------------------------------------------------------------------------------------------------


def estimate(
    backbone: Backbone, longest: Encoded, rows: int, precision: str, checkpointing: bool, shards: int = 1
) -> Memory:
    """Bytes on a device whose micro-batches are ``rows`` rows like ``longest``; weights, gradients and moments lie in
    ``shards`` equal pieces on as many devices (FSDP)."""
    prepared, config = count(backbone), backbone.model.config
    tokens = {"language": len(longest.ids), "tower": patches(config, longest.features)}
    kept = activations(prepared, tokens, rows, precision, checkpointing)
    if shards == 1:
        kept += copies(prepared, precision, checkpointing)
    kept += loss(rows * len(longest.response) * config.get_text_config().vocab_size, precision)
    trained = prepared.trained // shards
    return Memory(prepared.weights // shards, trained, 2 * prepared.trained // shards, kept)


def count(backbone: Backbone) -> Prepared:
    """A model that a fit has made ready, counted in its parameters."""
    parameters = list(named_parts(backbone))
    trained = [(part, name, p) for part, name, p in parameters if p.requires_grad]
    passed = {"language", *(part for part, _, _ in trained)}
    # a backward pass ends above the lower layers, unless a tower or a connector trains below them
    lower = backbone.frozen_layers if passed == {"language"} else 0
    stacks: dict[str, Stack] = {}
    adapted: dict[str, int] = {}
    for part in ("language", "tower"):
        if part in passed:
            stack = Stack.of(backbone.model.config, part)
            stacks[part] = replace(stack, layers=stack.layers - lower) if part == "language" else stack
            # an adapter's A is (rank, input width); a part's adapters are spread evenly over its layers
            widths = sum(p.shape[1] for of, name, p in parameters if of == part and ".lora_A." in name)
            adapted[part] = widths // stacks[part].layers
    # float32 matrices of linear modules that a backward pass goes through, by whether they train
    number = layer_numbers(backbone)
    matrices = {True: 0, False: 0}
    for name, module in backbone.model.named_modules():
        if isinstance(module, nn.Linear) and part_of(backbone, name) in passed and number(name) >= lower:
            weight = module.weight
            matrices[weight.requires_grad] += weight.numel() * (weight.element_size() == SINGLE)
    adapters = backbone.adapter.peft_config.values() if backbone.adapter is not None else ()
    return Prepared(
        # in bytes as they are held: float32 where a full fit trains in mixed precision, bfloat16 under an adapter
        weights=sum(p.numel() * p.element_size() for _, _, p in parameters),
        trained=sum(p.numel() * p.element_size() for _, _, p in trained),
        numbers=sum(p.numel() for _, _, p in trained),
        stacks=stacks,
        bases_that_train=frozenset(part for part, name, _ in trained if not is_adapter(name)),
        adapted=adapted,
        dropout=any(config.lora_dropout for config in adapters),
        trained_copies=HALF * matrices[True],
        frozen_copies=HALF * matrices[False],
    )


def has_graph(backbone: Backbone, part: str) -> bool:
    """Whether a backward pass goes through a part's layers: always the decoder's, which are on top of all else."""
    return part == "language" or any(p.requires_grad for p_part, _, p in named_parts(backbone) if p_part == part)


def patches(config: Any, features: dict[str, Tensor]) -> int:
    """Patches of a row's images, as many as the tower has tokens (class tokens aside)."""
    if "pixel_values" not in features:
        return 0
    return features["pixel_values"].numel() // patch_numbers(config)


def patch_numbers(config: Any) -> int:
    """Numbers in a patch: colours by frames by pixels."""
    vision = config.vision_config
    side = vision.patch_size if isinstance(vision.patch_size, int) else vision.patch_size[0]
    return int(3 * side**2 * getattr(vision, "temporal_patch_size", 1))
