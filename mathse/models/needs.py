"""About how much memory a fit, sampling or judging takes, from a model's shape alone: before anything is opened.

A fit's terms are those of ``mathse.models.memory``. Beside them:

gathered    under FSDP2: what is whole for a while, in the precision of the pass: all that is around the layers (it
            stays until the backward pass is over) and two layers, and the gradients of the larger of the two before
            they are spread
whole       under FSDP2, in a step of several passes: float32 gradients of all that trains, which wait for the last
gradients   pass where a device has room for them
loss        float32 logits of a row's response with their gradient, a chunk at a time
KV cache    of sampling and judging: keys and values of all sequences at their full length, and a layer's twice (a
            longer tensor is made before the shorter one goes)
passing     what a forward pass without gradients works on, of one layer at a time: the tower's over all pictures of a
            batch, the decoder's over all prompts; and the logits of the next token

Host memory, of a machine with all its ranks: in a fit the model as rank 0 reads it and gathers it for the export
(deepspeed: as each rank reads it), and the micro-batches that loader processes hold ready. To sample and to judge, each
rank reads the weights straight onto its GPU.

Not in it: CUDA itself, buffers of the communication between devices, fragmentation; ``USABLE`` leaves room for these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mathse.config.fits import Fit
from mathse.config.schema import Trainer
from mathse.models.shapes import HALF, LOGITS_AT_ONCE, SINGLE, Shape

FOUR_BITS = 4.127 / 8  # bytes a weight of a qlora base: NF4 with double quantisation
USABLE = 0.92  # of a GPU's memory
ROOM = 0.7  # of a GPU's memory, that whole gradients may fill up; the rest is left to what FSDP gathers beside them
AHEAD = 2  # micro-batches that a loader process makes ahead of time, as in mathse.training.loader


@dataclass(frozen=True)
class RowSize:
    """The longest row that is reckoned with: one picture of the most tokens that the backbone allows, and text."""

    prompt: int  # tokens of text
    response: int
    pictures: int = 1


@dataclass(frozen=True)
class Need:
    """Bytes by what takes them: on each device, and in the memory of each machine."""

    device: Mapping[str, int]
    host: Mapping[str, int]

    @property
    def on_device(self) -> int:
        return sum(self.device.values())

    @property
    def on_host(self) -> int:
        return sum(self.host.values())


def frozen_parts(fit: Fit) -> tuple[str, ...]:
    """The parts whose output a fit leaves as it is, from the picture on: tower, or tower and connector."""
    if fit.method == "full":
        frozen = ("tower", "connector") if "connector" in fit.freeze else ("tower",)
        return frozen if "tower" in fit.freeze else ()
    return () if "tower" in fit.lora.scopes else ("tower", "connector")  # no adapter lies in a connector


def feature_bytes(shape: Shape, fit: Fit) -> int:
    """What the store keeps on the disk of a picture of the most tokens (``sft.tower_features``); 0 without one."""
    if not fit.tower_features:
        return 0
    connected = "connector" in frozen_parts(fit)
    return HALF * (shape.image_tokens[0] * shape.decoder.width if connected else shape.patches[0] * shape.tower.width)


def whole_gradients_fit(on_device: int, gradients: int, memory: int) -> bool:
    """Whether FSDP2 keeps whole gradients until a step's last pass, and so reduces them once a step: where these bytes
    have room beside what a fit holds without them, ``on_device``."""
    return on_device + gradients <= ROOM * memory


def planned_precision(trainer: Trainer) -> str:
    """``trainer.precision`` of fits that may run elsewhere: a CPU is not tried, and what is larger there is planned."""
    if trainer.precision != "fastest":
        return trainer.precision
    return "32-true" if trainer.accelerator == "cpu" else "bf16-mixed"


def of_fit(shape: Shape, fit: Fit, trainer: Trainer, row: RowSize, memory: int | None = None) -> Need:
    """Of a fit whose micro-batches are full of such rows. ``memory``: bytes of a GPU, where that is what it runs on."""
    full, precision = fit.method == "full", planned_precision(trainer)
    sharded = trainer.strategy == "fsdp2"
    shards = trainer.devices if sharded else 1
    half = HALF if precision == "bf16-true" else SINGLE
    base = half if full or precision == "32-true" else HALF  # adapters lie on a base that is read in bfloat16

    # Weights, and what of them trains.
    whole = {part: n * base for part, n in shape.parameters.items()}
    if fit.method == "qlora":
        packed = shape.decoder.layers * shape.layer_parameters["language"]
        whole["language"] -= round(packed * (base - FOUR_BITS))
    if full:
        trains = {part: n for part, n in shape.parameters.items() if part not in fit.freeze}
        if fit.freeze_layers and "language" in trains:
            still = shape.vocabulary * shape.decoder.width + fit.freeze_layers * shape.layer_parameters["language"]
            trains["language"] -= still
        trained = sum(trains.values()) * base
    else:
        adapters = shape.adapters(fit.lora.scopes, fit.lora.rank, fit.freeze_layers)
        trains = {part: n for part, n in adapters.items() if n}
        trained = sum(trains.values()) * SINGLE
    weights = sum(whole.values()) + (0 if full else trained)
    apart = trainer.devices if trainer.strategy == "deepspeed" else shards  # ZeRO-2 leaves the weights whole
    device = {"weights": weights // shards, "gradients": trained // apart, "optimiser": 2 * trained // apart}

    # What is gathered of shards for a pass.
    if sharded:
        passing = HALF if precision != "32-true" else SINGLE
        layer = max(shape.layer_parameters.values())
        in_layers = sum(shape.stack(part).layers * n for part, n in shape.layer_parameters.items())
        around = shape.total - in_layers
        # of a group that trains also its gradient, as the pass makes it and in float32 as it is summed up
        in_adapters = fit.lora.rank * sum(sum(matrix) for matrices in shape.adapted.values() for matrix in matrices)
        gradient = max(layer, around) if full else in_adapters
        device["gathered"] = (around + 2 * layer) * passing + gradient * (passing + SINGLE)

    # Activations of a micro-batch, and autocast's copies of float32 matrices.
    activations = 0
    image_tokens, patches = shape.image_tokens[0] * row.pictures, shape.patches[0] * row.pictures
    length = image_tokens + row.prompt + row.response
    if fit.max_length is not None:
        length = min(length, fit.max_length)
    rows = fit.rows_at_once(length)
    for part, tokens in (("language", length), ("tower", patches)):
        if part == "language" or part in trains:
            stack = shape.stack(part)
            if part == "language" and set(trains) <= {"language"}:  # nothing trains below its frozen layers
                stack = replace(stack, layers=stack.layers - fit.freeze_layers)
            scopes = [] if full else [s for s in fit.lora.scopes if (s == "tower") == (part == "tower")]
            inputs = sum(matrix[0] for scope in scopes for matrix in shape.adapted.get(scope, ()))
            adapted = inputs * adapter_bytes(precision, fit.lora.dropout > 0)
            frozen = not (full and part in trains)
            activations += rows * stack.kept_bytes(tokens, precision, fit.activation_checkpointing, frozen, adapted)
            if precision == "bf16-mixed" and shards == 1 and base == SINGLE:
                has_copies = part in trains or not fit.activation_checkpointing
                activations += HALF * stack.layers * shape.layer_parameters[part] * has_copies
    device["activations"] = activations
    logits = rows * row.response * shape.vocabulary
    # float32 logits, log-probabilities and gradient, and what the head put out
    at_once = logits * (3 * SINGLE + (0 if precision == "32-true" else HALF))
    device["loss"] = min(at_once, 4 * LOGITS_AT_ONCE)
    # In chunks a trained head's gradient is made in float32 for a backward pass, beside the one that is there; without
    # shards, whose ``gathered`` counts it, a float32 head's is added to that at once.
    apart_from_it = base == HALF or trainer.strategy == "deepspeed"
    if full and "language" in trains and not sharded and apart_from_it and at_once > device["loss"]:
        device["loss"] += SINGLE * shape.vocabulary * shape.decoder.width

    # Gradients of all shards, where they wait for the step's last pass.
    if sharded and memory is not None and fit.batch_size > shards * rows:
        gradients = SINGLE * sum(trains.values())
        if whole_gradients_fit(sum(device.values()) - device["gathered"], gradients, memory):
            device["whole gradients"] = gradients

    readers = trainer.devices if trainer.strategy == "deepspeed" else 1
    host = {"model": readers * shape.total * (SINGLE if full else HALF)}
    if trainer.workers:
        pixels = rows * patches * shape.patch * (SINGLE if precision == "32-true" else HALF)
        host["loader"] = trainer.devices * trainer.workers * AHEAD * pixels
    return Need(device, host)


def adapter_bytes(precision: str, dropout: bool) -> int:
    """Bytes kept of a number that goes into an adapter: a copy of its own, but in float32 without dropout."""
    return SINGLE + 1 if dropout else {"32-true": 0, "bf16-mixed": HALF}.get(precision, SINGLE)


def of_sampling(shape: Shape, trainer: Trainer, on_gpu: bool, sequences: int, prompts: int, row: RowSize) -> Need:
    """Of a batch of ``sequences`` answers of ``row.response`` tokens to ``prompts`` rows: sampled, judged or evaluated.

    Every device holds the whole model, however the fits are sharded.
    """
    size = HALF if on_gpu and planned_precision(trainer).startswith("bf16") else SINGLE
    image_tokens, patches = shape.image_tokens[1] * row.pictures, shape.patches[1] * row.pictures
    tokens = image_tokens + row.prompt + row.response
    cache = sequences * shape.decoder.cache_bytes(tokens, size)
    passing = max(
        prompts * shape.tower.passing_bytes(patches, size) if patches else 0,
        prompts * shape.decoder.passing_bytes(image_tokens + row.prompt, size),
    )
    # logits of the next token in float32; top_p sorts them and adds them up
    logits = sequences * shape.vocabulary * SINGLE * 4
    device = {
        "weights": shape.total * size,
        "KV cache": cache + cache // shape.decoder.layers,
        "passing": passing + logits,
    }
    return Need(device, {} if on_gpu else {"model": trainer.devices * shape.total * size})


def in_bytes(count: int) -> str:
    """ "512 B", "3.4 MiB", "61.2 GiB"."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
