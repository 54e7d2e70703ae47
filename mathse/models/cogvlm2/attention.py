"""Attention by transformers' implementations (eager, SDPA, flash), for decoder and tower."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Compute attention with the implementation in ``module.config``.

    Args:
        module: has ``config``, ``is_causal`` (used without a mask), ``num_key_value_groups`` and ``head_dim``.
        query: (B, heads, T, D)
        key, value: (B, kv heads, S, D)
        mask: the output of ``create_causal_mask``, or None

    Returns:
        (B, T, heads * D), and the attention weights if the implementation returns them.

    Positions are not passed: flash attention would read the equal positions of an image as packed rows.
    """
    name = module.config._attn_implementation if len(query) else "eager"  # the others refuse an empty batch
    function = ALL_ATTENTION_FUNCTIONS.get_interface(name, attend_eagerly)
    mixed, weights = function(module, query, key, value, mask, dropout=0.0, scaling=module.head_dim**-0.5)
    return mixed.flatten(2), weights


def attend_eagerly(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float, **_: Any
) -> tuple[Tensor, Tensor]:
    """Compute attention without a fused kernel. Query head i uses key and value head i // groups."""
    groups = module.num_key_value_groups
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2), weights
