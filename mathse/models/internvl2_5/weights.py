"""Published InternVL2.5 weights, converted by transformers' own conversion of weights while it reads them.

transformers has a list of conversions for each model type and applies it to every name in a weight file. This module
adds the published names to the list of ``internvl``, so ``from_pretrained`` of transformers' class opens both layouts,
a tensor at a time, without a second copy of 16 GB on the disk. The added entries come first in the list and lead to the
names that transformers saves (servers know these); its own entries follow.

Every published tensor becomes one native tensor, or three (queries, keys, values), without arithmetic. Source: the
published modules ``InternVLChatModel``, ``InternVisionModel``, ``InternLM2ForCausalLM`` and transformers'
``modeling_internvl``.
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor
from transformers import InternVLConfig
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.core_model_loading import Chunk, ConversionOps, WeightConverter, WeightRenaming

# Published name -> the name that transformers saves. N is the number of a layer; the rest after a final dot stays.
RENAMED = (
    ("vision_model.embeddings.class_embedding", "vision_tower.embeddings.cls_token"),
    ("vision_model.embeddings.position_embedding", "vision_tower.embeddings.position_embeddings"),
    ("vision_model.embeddings.patch_embedding.", "vision_tower.embeddings.patch_embeddings.projection."),
    ("vision_model.encoder.layers.N.norm1.", "vision_tower.encoder.layer.N.layernorm_before."),
    ("vision_model.encoder.layers.N.norm2.", "vision_tower.encoder.layer.N.layernorm_after."),
    ("vision_model.encoder.layers.N.ls1", "vision_tower.encoder.layer.N.lambda_1"),
    ("vision_model.encoder.layers.N.ls2", "vision_tower.encoder.layer.N.lambda_2"),
    ("vision_model.encoder.layers.N.attn.proj.", "vision_tower.encoder.layer.N.attention.projection_layer."),
    ("vision_model.encoder.layers.N.attn.", "vision_tower.encoder.layer.N.attention."),  # qkv, q_norm, k_norm
    ("vision_model.encoder.layers.N.mlp.", "vision_tower.encoder.layer.N.mlp."),
    ("mlp1.0.", "multi_modal_projector.layer_norm."),
    ("mlp1.1.", "multi_modal_projector.linear_1."),
    ("mlp1.3.", "multi_modal_projector.linear_2."),  # mlp1.2 is the GELU
    ("language_model.model.tok_embeddings.", "language_model.model.embed_tokens."),
    ("language_model.model.layers.N.attention_norm.", "language_model.model.layers.N.input_layernorm."),
    ("language_model.model.layers.N.ffn_norm.", "language_model.model.layers.N.post_attention_layernorm."),
    ("language_model.model.layers.N.attention.wo.", "language_model.model.layers.N.self_attn.o_proj."),
    ("language_model.model.layers.N.attention.wqkv.", "language_model.model.layers.N.self_attn.wqkv."),
    ("language_model.model.layers.N.feed_forward.w1.", "language_model.model.layers.N.mlp.gate_proj."),
    ("language_model.model.layers.N.feed_forward.w3.", "language_model.model.layers.N.mlp.up_proj."),
    ("language_model.model.layers.N.feed_forward.w2.", "language_model.model.layers.N.mlp.down_proj."),
    ("language_model.output.", "language_model.lm_head."),
)


class ReadOnlyRenaming(WeightRenaming):
    """A renaming that applies only when weights are read.

    transformers reverses conversions when it saves. This one is its own reverse and matches no native name, so a model
    that was opened from the published layout is saved in transformers' layout.
    """

    __slots__ = ()

    def reverse_transform(self) -> ReadOnlyRenaming:
        return self


class ReadOnlyConverter(WeightConverter):
    """A conversion that applies only when weights are read, see ``ReadOnlyRenaming``."""

    __slots__ = ()

    def reverse_transform(self) -> ReadOnlyConverter:
        return self


class SplitGrouped(ConversionOps):
    """Splits ``wqkv`` (or its bias) into queries, keys and values."""

    def convert(
        self,
        input_dict: dict[str, Any],
        source_patterns: list[str],
        target_patterns: list[str],
        *,
        config: InternVLConfig,
        **_: Any,
    ) -> dict[str, Tensor]:
        (stored,) = input_dict.values()
        # ((heads + 2 kv heads) * head_dim, ...)
        rows: Tensor = stored[0] if isinstance(stored, list) else stored
        text = config.get_text_config()
        if len(rows) % (text.num_attention_heads + 2 * text.num_key_value_heads):
            return dict.fromkeys(target_patterns, rows)  # unsplit: transformers then reports the wrong shape
        parts = split_grouped(rows, text.num_key_value_heads, text.num_attention_heads)
        return {name: part.contiguous() for name, part in zip(target_patterns, parts, strict=True)}


def split_grouped(rows: Tensor, kv_heads: int, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split rows that are grouped by key-value head into queries, keys and values.

    Each group has the queries that share a key, then the key, then the value, ``head_dim`` rows each.
    """
    groups = rows.unflatten(0, (kv_heads, heads // kv_heads + 2, -1))  # (kv, g + 2, head_dim, ...)
    return groups[:, :-2].flatten(0, 2), groups[:, -2].flatten(0, 1), groups[:, -1].flatten(0, 1)


def register() -> None:
    """Add the published names to transformers' conversions for ``internvl``. No native name matches any of them."""
    renamed = [
        ReadOnlyRenaming("^" + re.escape(published).replace("N", r"(\d+)"), saved.replace("N", r"\1"))
        for published, saved in RENAMED
    ]
    qkv = ("q_proj", "k_proj", "v_proj")
    # transformers first applies all renamings in order and then the splits, which see the renamed names.
    split = [
        ReadOnlyConverter(r"attention\.qkv\.", [f"attention.{part}." for part in qkv], [Chunk(dim=0)]),
        ReadOnlyConverter(r"self_attn\.wqkv\.", [f"self_attn.{part}." for part in qkv], [SplitGrouped()]),
    ]
    native = get_checkpoint_conversion_mapping(InternVLConfig.model_type)
    register_checkpoint_conversion_mapping(InternVLConfig.model_type, [*renamed, *native, *split], overwrite=True)
