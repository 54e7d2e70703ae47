"""What a fit trains, and about how much memory it takes: counted in the model that is open, before its first step.

What a whole run takes is estimated by the same rules before anything is opened: ``mathse.models.needs``.

Memory is estimated, a device:

weights     bytes of all parameters, as they are held
gradients   bytes of the parameters that train
optimiser   AdamW's two moments of each, in the parameter's dtype
activations what autograd keeps of one micro-batch whose rows all have the longest row's length, counted operation by
            operation as in Korthikanti et al. 2022 (arXiv 2205.05198, section 4.1), for the decoder and the tower that
            we have: a layer of width h, key and value width k and inner width f keeps, a token,

            two norms     2 h in float32 (RMSNorm turns its input into float32), and what they hand on, 2 h or 4 h
            attention     2 h + 2 k: queries, keys, values, result; without sdpa also its probabilities, heads x T
            the MLP       4 f: gate, its activation, up, their product (a tower's: 2 f)
            adapters      the input of every adapted matrix, in float32, and its dropout mask

            With activation checkpointing each layer keeps its input h alone, and one layer at a time all of the above.
            A frozen part, or the lower layers that a fit leaves as they are, keep nothing where no trained weight lies
            below them; where a part keeps something, what only its own weights' gradients need is left out. On top come
            float32 logits of the response's tokens, and under bf16-mixed bfloat16 copies of float32 matrices (not where
            they lie in shards: FSDP gathers them in bfloat16, a layer at a time).

Not in it: the framework itself, buffers of the communication between devices, fragmentation.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor, nn

from mathse.models.base import Backbone, Encoded
from mathse.models.lower_layers import layer_numbers
from mathse.models.needs import in_bytes
from mathse.models.parts import PARTS, is_adapter, named_parts, part_of
from mathse.models.shapes import HALF, LOGITS_AT_ONCE, SINGLE, Stack


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
    activations: int

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
    parameters = [p for _, _, p in named_parts(backbone)]
    # in bytes as they are held: float32 where a full fit trains in mixed precision, bfloat16 under an adapter
    weights = sum(p.numel() * p.element_size() for p in parameters)
    trained = sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)
    for_backward = activations(backbone, longest, rows, precision, checkpointing)
    if precision == "bf16-mixed" and shards == 1:
        for_backward += copies(backbone, checkpointing)
    return Memory(weights // shards, trained // shards, 2 * trained // shards, for_backward)


def activations(backbone: Backbone, longest: Encoded, rows: int, precision: str, checkpointing: bool) -> int:
    """Bytes that autograd keeps of a micro-batch, autocast's copies of weights left out; see above."""
    config = backbone.model.config
    total = 0
    for part, tokens in (("language", len(longest.ids)), ("tower", patches(config, longest.features))):
        if has_graph(backbone, part) and tokens:
            stack = Stack.of(config, part)
            if part == "language" and not has_lower_graph(backbone):
                stack = replace(stack, layers=stack.layers - backbone.frozen_layers)
            # a part's adapters are spread evenly over its layers
            adapted = adapted_inputs(backbone, part) // stack.layers * adapted_bytes(backbone, precision)
            total += rows * stack.kept_bytes(tokens, precision, checkpointing, frozen(backbone, part), adapted)
    # (response tokens, vocabulary): float32 logits and their gradient, and what the head itself put out; of more than
    # LOGITS_AT_ONCE a chunk at a time
    text = config.get_text_config()
    logits = min(rows * len(longest.response) * text.vocab_size, LOGITS_AT_ONCE // SINGLE)
    return total + logits * (SINGLE * 2 + (0 if precision == "32-true" else HALF))


def has_graph(backbone: Backbone, part: str) -> bool:
    """Whether a backward pass goes through a part's layers: always the decoder's, which are on top of all else."""
    return part == "language" or any(p.requires_grad for p_part, _, p in named_parts(backbone) if p_part == part)


def has_lower_graph(backbone: Backbone) -> bool:
    """Whether a backward pass goes through the frozen lower layers, to a tower or a connector that trains."""
    return any(p.requires_grad for part, _, p in named_parts(backbone) if part != "language")


def frozen(backbone: Backbone, part: str) -> bool:
    """Whether a part's own weights, adapters aside, stay as they are."""
    base = (p for p_part, name, p in named_parts(backbone) if p_part == part and not is_adapter(name))
    return not any(p.requires_grad for p in base)


def adapted_inputs(backbone: Backbone, part: str) -> int:
    """Summed input widths of a part's adapted matrices."""
    # an adapter's A is (rank, input width)
    return sum(p.shape[1] for p_part, name, p in named_parts(backbone) if p_part == part and ".lora_A." in name)


def adapted_bytes(backbone: Backbone, precision: str) -> int:
    """Bytes kept of a number that goes into an adapter: a copy of its own, but in float32 without dropout."""
    if backbone.adapter is not None and any(c.lora_dropout for c in backbone.adapter.peft_config.values()):
        return SINGLE + 1
    return {"32-true": 0, "bf16-mixed": HALF}.get(precision, SINGLE)


def copies(backbone: Backbone, checkpointing: bool) -> int:
    """Autocast's bfloat16 copies of float32 matrices, kept for the backward pass."""
    passed = [part for part in PARTS if has_graph(backbone, part)]
    number, lower = layer_numbers(backbone), 0 if has_lower_graph(backbone) else backbone.frozen_layers
    linear = ((name, m.weight) for name, m in backbone.model.named_modules() if isinstance(m, nn.Linear))
    return HALF * sum(
        weight.numel()
        for name, weight in linear
        if weight.element_size() == SINGLE
        and (weight.requires_grad or not checkpointing)
        and part_of(backbone, name) in passed
        and number(name) >= lower
    )


def patches(config: Any, features: dict[str, Tensor]) -> int:
    """Patches of a row's images, as many as the tower has tokens (class tokens aside)."""
    if "pixel_values" not in features:
        return 0
    vision = config.vision_config
    side = vision.patch_size if isinstance(vision.patch_size, int) else vision.patch_size[0]
    return features["pixel_values"].numel() // (3 * side**2 * getattr(vision, "temporal_patch_size", 1))
