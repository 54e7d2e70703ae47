"""The way to transformers' attention functions (eager, SDPA, flash), for decoder and tower alike."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Attention as ``module.config`` asks for it.

    Args:
        module: has ``config``, ``is_causal`` (used where there is no mask), ``num_key_value_groups`` and ``head_dim``.
        query: (B, heads, T, D)
        key, value: (B, kv heads, S, D)
        mask: what ``create_causal_mask`` made of the padding, or None
    Returns (B, T, heads * D), and the weights where the implementation gives them.

    Positions are not handed on: flash attention would read the repeats of an image's positions as packed rows.
    """
    name = module.config._attn_implementation if len(query) else "eager"  # the others take no empty batch
    function = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager)
    mixed, weights = function(module, query, key, value, mask, dropout=0.0, scaling=module.head_dim**-0.5)
    return mixed.flatten(2), weights


def eager(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float, **_: Any
) -> tuple[Tensor, Tensor]:
    """Attention written out; query head i uses key and value head i // groups."""
    groups = module.num_key_value_groups
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2), weights
