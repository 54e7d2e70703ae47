"""The decoder: Llama's layers with two experts each, for the tokens of text and of images.

Attention mixes all tokens causally; only the projections and the MLP differ between the experts. Names of modules are
the published tensor names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from mathse.models.cogvlm2.attention import attend
from mathse.models.cogvlm2.configuration import CogVLM2Config
from mathse.models.cogvlm2.layout import Routing

Expert = Callable[[Tensor], Tensor]
Angles = tuple[Tensor, Tensor]  # cos and sin, each (B, 1, T, head_dim / 2)


def compute_rotary_angles(positions: Tensor, config: CogVLM2Config, dtype: torch.dtype) -> Angles:
    """Return cos and sin of (B, T) positions.

    They are computed again in each pass. A buffer could be lost on the meta device, cast with the model, or read from a
    checkpoint (the published checkpoints store their frequencies in bfloat16).
    """
    if config.rope_precision == "float32":
        dtype = torch.float32
    # (D / 2,): a frequency for each pair of dimensions.
    exponents = torch.arange(0, config.head_dim, 2, device=positions.device).float() / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    angles = positions[:, None, :, None].to(dtype) * frequencies.to(dtype)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, angles: Angles) -> Tensor:
    """Rotate (B, heads, T, D) in float32. Dimension i rotates with i + D / 2 (halves, not neighbours)."""
    cos, sin = (table.float() for table in angles)
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


def apply_experts(hidden: Tensor, routing: Routing | None, vision: Expert, language: Expert) -> Tensor:
    """Convert (B, T, H) to (B, T, O), each token by its expert; without a routing all by the language expert."""
    if routing is None:
        return language(hidden)
    flat = hidden.flatten(0, 1)
    seen, read = vision(flat.index_select(0, routing.vision)), language(flat.index_select(0, routing.language))
    return torch.cat([seen, read]).index_select(0, routing.back).unflatten(0, hidden.shape[:2])


class CogVLM2RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        """Scale in float32, then cast. Llama casts first, which makes a difference in bfloat16."""
        exact = hidden.float()
        normed = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + self.eps)
        return (self.weight * normed).to(hidden.dtype)


class ExpertAttention(nn.Module):
    is_causal = True

    def __init__(self, config: CogVLM2Config, layer: int) -> None:
        super().__init__()
        self.config, self.layer, self.head_dim = config, layer, config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_multi_query_heads
        kv_size = config.num_multi_query_heads * self.head_dim
        self.sizes = [config.hidden_size, kv_size, kv_size]
        size, joint = config.hidden_size, sum(self.sizes)
        self.vision_expert_query_key_value = nn.Linear(size, joint, bias=True)
        self.vision_expert_dense = nn.Linear(size, size, bias=False)
        self.language_expert_query_key_value = nn.Linear(size, joint, bias=False)
        self.language_expert_dense = nn.Linear(size, size, bias=False)

    def forward(
        self, hidden: Tensor, angles: Angles, mask: Tensor | None, routing: Routing | None, cache: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Convert (B, T, H) to (B, T, H); with eager attention also return the weights (B, heads, T, S)."""
        # (B, T, H + 2 * kv heads * D): queries, then keys, then values.
        joint = apply_experts(hidden, routing, self.vision_expert_query_key_value, self.language_expert_query_key_value)
        query, key, value = (
            part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in joint.split(self.sizes, dim=-1)
        )
        # Rotated before they enter the cache: a token's position never changes.
        query, key = rotate(query, angles), rotate(key, angles)
        if cache is not None:
            key, value = cache.update(key, value, self.layer)
        mixed, weights = attend(self, query, key, value, mask)
        return apply_experts(mixed, routing, self.vision_expert_dense, self.language_expert_dense), weights


class MLP(nn.Module):
    def __init__(self, config: CogVLM2Config) -> None:
        super().__init__()
        self.activation = ACT2FN[config.hidden_act]
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down_proj(self.activation(self.gate_proj(hidden)) * self.up_proj(hidden))


class ExpertMLP(nn.Module):
    def __init__(self, config: CogVLM2Config) -> None:
        super().__init__()
        self.vision_mlp = MLP(config)
        self.language_mlp = MLP(config)

    def forward(self, hidden: Tensor, routing: Routing | None) -> Tensor:
        return apply_experts(hidden, routing, self.vision_mlp, self.language_mlp)


class CogVLM2DecoderLayer(GradientCheckpointingLayer):
    def __init__(self, config: CogVLM2Config, layer: int) -> None:
        super().__init__()
        self.input_layernorm = CogVLM2RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = ExpertAttention(config, layer)
        self.post_attention_layernorm = CogVLM2RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = ExpertMLP(config)

    def forward(
        self,
        hidden: Tensor,
        angles: Angles,
        mask: Tensor | None = None,
        routing: Routing | None = None,
        cache: Any = None,
    ) -> Tensor:
        """Convert (B, T, H) to (B, T, H)."""
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), angles, mask, routing, cache)[0]
        return hidden + self.mlp(self.post_attention_layernorm(hidden), routing)
