"""The two layouts of an InternVL2.5 checkpoint: as published (``internvl_chat``) and transformers' own (``internvl``).

Every published tensor becomes one native tensor, or three (queries, keys, values); no other arithmetic is done.
Source of the facts: the published modules ``InternVLChatModel``, ``InternVisionModel``, ``InternLM2ForCausalLM`` and
transformers' ``modeling_internvl``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import InternVLConfig, InternVLForConditionalGeneration

from mathse.errors import CheckpointError

ORIGINAL, NATIVE = "internvl_chat", "internvl"
TEMPLATE = "internvl2_5"  # of conversations; earlier InternVL checkpoints talk in others
LANGUAGE, PIXEL_SHUFFLE = "InternLM2ForCausalLM", "v2"

Split = Callable[[Tensor], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Move:
    """What one published tensor becomes: native names, and how its rows are shared out among them."""

    names: tuple[str, ...]
    split: Split

    def shapes(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(part.shape) for part in self.split(torch.empty(shape, device="meta")))


# --- tensors ---------------------------------------------------------------------------------------------------------

_VISION, _TEXT, _PROJECTOR = "model.vision_tower", "model.language_model", "model.multi_modal_projector"
_QKV = ("q_proj", "k_proj", "v_proj")

# (published name, native name); N stands for the number of a layer, * for weight or bias.
_RENAMED = (
    ("vision_model.embeddings.class_embedding", f"{_VISION}.embeddings.cls_token"),
    ("vision_model.embeddings.position_embedding", f"{_VISION}.embeddings.position_embeddings"),
    ("vision_model.embeddings.patch_embedding.*", f"{_VISION}.embeddings.patch_embeddings.projection.*"),
    ("vision_model.encoder.layers.N.norm1.*", f"{_VISION}.encoder.layer.N.layernorm_before.*"),
    ("vision_model.encoder.layers.N.norm2.*", f"{_VISION}.encoder.layer.N.layernorm_after.*"),
    ("vision_model.encoder.layers.N.ls1", f"{_VISION}.encoder.layer.N.lambda_1"),
    ("vision_model.encoder.layers.N.ls2", f"{_VISION}.encoder.layer.N.lambda_2"),
    ("vision_model.encoder.layers.N.attn.proj.*", f"{_VISION}.encoder.layer.N.attention.projection_layer.*"),
    ("vision_model.encoder.layers.N.attn.q_norm.*", f"{_VISION}.encoder.layer.N.attention.q_norm.*"),
    ("vision_model.encoder.layers.N.attn.k_norm.*", f"{_VISION}.encoder.layer.N.attention.k_norm.*"),
    ("vision_model.encoder.layers.N.mlp.fc1.*", f"{_VISION}.encoder.layer.N.mlp.fc1.*"),
    ("vision_model.encoder.layers.N.mlp.fc2.*", f"{_VISION}.encoder.layer.N.mlp.fc2.*"),
    ("mlp1.0.*", f"{_PROJECTOR}.layer_norm.*"),
    ("mlp1.1.*", f"{_PROJECTOR}.linear_1.*"),
    ("mlp1.3.*", f"{_PROJECTOR}.linear_2.*"),
    ("language_model.model.tok_embeddings.*", f"{_TEXT}.embed_tokens.*"),
    ("language_model.model.norm.*", f"{_TEXT}.norm.*"),
    ("language_model.model.layers.N.attention_norm.*", f"{_TEXT}.layers.N.input_layernorm.*"),
    ("language_model.model.layers.N.ffn_norm.*", f"{_TEXT}.layers.N.post_attention_layernorm.*"),
    ("language_model.model.layers.N.attention.wo.*", f"{_TEXT}.layers.N.self_attn.o_proj.*"),
    ("language_model.model.layers.N.feed_forward.w1.*", f"{_TEXT}.layers.N.mlp.gate_proj.*"),
    ("language_model.model.layers.N.feed_forward.w3.*", f"{_TEXT}.layers.N.mlp.up_proj.*"),
    ("language_model.model.layers.N.feed_forward.w2.*", f"{_TEXT}.layers.N.mlp.down_proj.*"),
    ("language_model.output.*", "lm_head.*"),
)
_VISION_QKV = ("vision_model.encoder.layers.N.attn.qkv.*", f"{_VISION}.encoder.layer.N.attention.*")
_TEXT_QKV = ("language_model.model.layers.N.attention.wqkv.*", f"{_TEXT}.layers.N.self_attn.*")
_COMPUTED = re.compile(r".*\.rotary_emb\.inv_freq")  # worked out from the config, never read


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace("N", r"(?P<layer>\d+)").replace(r"\*", "(?P<kind>weight|bias)"))


_RENAME_RULES = [(_pattern(old), new) for old, new in _RENAMED]
_VISION_RULE, _TEXT_RULE = (_pattern(old) for old, _ in (_VISION_QKV, _TEXT_QKV))


def move(name: str, config: InternVLConfig) -> Move | None:
    """Where a published tensor goes; None for a tensor that is not needed.

    Raises KeyError for a name that no InternVL2.5 checkpoint has.
    """
    for rule, native in _RENAME_RULES:
        if found := rule.fullmatch(name):
            return Move((_filled(native, found),), lambda t: (t,))
    if found := _VISION_RULE.fullmatch(name):
        return Move(_filled_qkv(_VISION_QKV[1], found), lambda t: t.chunk(3))
    if found := _TEXT_RULE.fullmatch(name):
        text = config.text_config
        return Move(
            _filled_qkv(_TEXT_QKV[1], found),
            lambda t: split_grouped(t, text.num_key_value_heads, text.num_attention_heads),
        )
    if _COMPUTED.fullmatch(name):
        return None
    raise KeyError(name)


def split_grouped(rows: Tensor, kv_heads: int, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """``wqkv`` (or its bias) as queries, keys and values.

    Its rows are grouped by key-value head: the queries that share it, its key, its value, ``head_dim`` rows each.
    """
    groups = rows.unflatten(0, (kv_heads, heads // kv_heads + 2, -1))  # (kv, g + 2, head_dim, ...)
    return groups[:, :-2].flatten(0, 2), groups[:, -2].flatten(0, 1), groups[:, -1].flatten(0, 1)


def _filled(native: str, found: re.Match[str]) -> str:
    parts = found.groupdict()
    return native.replace(".N.", f".{parts.get('layer')}.").replace("*", str(parts.get("kind")))


def _filled_qkv(native: str, found: re.Match[str]) -> tuple[str, ...]:
    return tuple(_filled(native.replace("*", f"{part}.*"), found) for part in _QKV)


def expected_shapes(config: InternVLConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of the native model, without any memory for it."""
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del shapes["lm_head.weight"]
    return shapes


def saved_name(native: str) -> str:
    """The name under which transformers saves a tensor of the native model, which servers know too."""
    for inner, outer in (
        (f"{_TEXT}.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
        ("model.", ""),
    ):
        if native.startswith(inner):
            return outer + native.removeprefix(inner)
    return native


# --- config ----------------------------------------------------------------------------------------------------------


def native_config(published: dict[str, Any], *, image_token_id: int, where: str) -> InternVLConfig:
    """The native config that says what a published ``config.json`` says.

    Raises CheckpointError, with ``where`` as the file's name, for a setting that is missing or that transformers'
    InternVL does not have.
    """
    try:
        _refuse_other_kinds(published, where)
        vision, text = published["vision_config"], published["llm_config"]
        return InternVLConfig(
            vision_config=_vision(vision),
            text_config=_text(text),
            image_token_id=image_token_id,
            image_seq_length=tokens_per_tile(published),
            downsample_ratio=float(published["downsample_ratio"]),
            vision_feature_layer=published.get("select_layer", -1),
            tie_word_embeddings=text.get("tie_word_embeddings", False),
            architectures=["InternVLForConditionalGeneration"],
        )
    except KeyError as e:
        raise CheckpointError(f"{where}: the setting {e} is missing; download the file again") from None
    except CheckpointError:
        raise
    except (TypeError, ValueError, AttributeError, StrictDataclassError) as e:
        raise CheckpointError(f"{where}: a setting cannot be used ({' '.join(str(e).split())[:300]})") from None


def _refuse_other_kinds(published: dict[str, Any], where: str) -> None:
    text, vision = published["llm_config"], published["vision_config"]
    needed = (
        ("llm_config.architectures", text.get("architectures"), [LANGUAGE]),
        ("template", published["template"], TEMPLATE),
        ("ps_version", published["ps_version"], PIXEL_SHUFFLE),
        ("use_thumbnail", published.get("use_thumbnail", True), True),
        ("dynamic_image_size", published.get("dynamic_image_size", True), True),
        ("vision_config.hidden_act", vision.get("hidden_act", "gelu"), "gelu"),
    )
    for setting, found, known in needed:
        if found != known:
            raise CheckpointError(
                f"{where}: {setting} is {found!r}, and only {known!r} can be converted; "
                "name an InternVL2.5 checkpoint with an InternLM2.5 language model, such as OpenGVLab/InternVL2_5-8B"
            )


def tile_size(published: dict[str, Any]) -> int:
    """Side of a tile in pixels."""
    return published.get("force_image_size") or published["vision_config"]["image_size"]


def tokens_per_tile(published: dict[str, Any]) -> int:
    patches = tile_size(published) // published["vision_config"]["patch_size"]
    return int((patches * published["downsample_ratio"]) ** 2)


def _vision(published: dict[str, Any]) -> dict[str, Any]:
    return {
        "hidden_size": published["hidden_size"],
        "intermediate_size": published["intermediate_size"],
        "num_hidden_layers": published["num_hidden_layers"],
        "num_attention_heads": published["num_attention_heads"],
        # where these four are missing, the published class's own defaults
        "attention_bias": published.get("qkv_bias", False),
        "use_qk_norm": published.get("qk_normalization", True),
        "norm_type": published.get("norm_type", "rms_norm"),
        "layer_norm_eps": published.get("layer_norm_eps", 1e-6),
        "hidden_act": "gelu",
        "hidden_dropout_prob": published.get("dropout", 0.0),
        "attention_dropout": published.get("attention_dropout", 0.0),
        "initializer_range": published.get("initializer_range", 0.02),
        "image_size": published["image_size"],
        "patch_size": published["patch_size"],
        "num_channels": published.get("num_channels", 3),
        "layer_scale_init_value": float(published.get("initializer_factor", 0.1)),
        "use_mean_pooling": True,  # the published tower has no norm after its last layer; False would add one
    }


def _text(published: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "vocab_size": published["vocab_size"],
        "hidden_size": published["hidden_size"],
        "intermediate_size": published["intermediate_size"],
        "num_hidden_layers": published["num_hidden_layers"],
        "num_attention_heads": published["num_attention_heads"],
        "num_key_value_heads": published.get("num_key_value_heads") or published["num_attention_heads"],
        "hidden_act": published["hidden_act"],
        "max_position_embeddings": published["max_position_embeddings"],
        "initializer_range": published.get("initializer_range", 0.02),
        "rms_norm_eps": published["rms_norm_eps"],
        "attention_bias": published.get("bias", True),  # of wqkv and wo; the published class has it on by default
        "mlp_bias": False,
        "rope_parameters": _rope(published),
        "pad_token_id": published.get("pad_token_id"),
        "bos_token_id": published.get("bos_token_id"),
        "eos_token_id": published.get("eos_token_id"),
        "tie_word_embeddings": published.get("tie_word_embeddings", False),
    }


def _rope(published: dict[str, Any]) -> dict[str, Any]:
    scaling = published.get("rope_scaling") or {}
    parameters: dict[str, Any] = {
        "rope_type": scaling.get("type", scaling.get("rope_type", "default")),
        "rope_theta": float(published["rope_theta"]),
    }
    if "factor" in scaling:
        parameters["factor"] = float(scaling["factor"])
    return parameters
