"""The vision tower and its connector: an image becomes boi, its tokens and eoi, with the decoder's width.

Names of modules are the published tensor names.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from mathse.models.cogvlm2.attention import attend
from mathse.models.cogvlm2.configuration import CogVLM2VisionConfig


class PatchEmbedding(nn.Module):
    def __init__(self, config: CogVLM2VisionConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(config.in_channels, config.hidden_size, config.patch_size, stride=config.patch_size)
        self.cls_embedding = nn.Parameter(torch.zeros(1, config.hidden_size))
        self.position_embedding = nn.Embedding(config.num_positions, config.hidden_size)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Convert (N, 3, S, S) to (N, 1 + patches, C): the class token, then the patches row by row."""
        # The convolution's stride equals its size, so each patch is projected separately.
        patches = self.proj(pixel_values).flatten(2).transpose(1, 2)
        cls = self.cls_embedding.expand(len(patches), -1, -1)
        return torch.cat([cls, patches], dim=1) + self.position_embedding.weight


class TowerAttention(nn.Module):
    is_causal = False

    def __init__(self, config: CogVLM2VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_heads
        self.num_key_value_groups = 1
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """Convert (N, L, C) to (N, L, C); with eager attention also return the weights."""
        joint = self.query_key_value(hidden).unflatten(-1, (3, self.config.num_heads, self.head_dim))
        query, key, value = joint.permute(2, 0, 3, 1, 4)  # each (N, heads, L, head_dim)
        mixed, weights = attend(self, query, key, value, None)
        out = F.dropout(self.dense(mixed), self.config.dropout_prob, self.training)
        return out, weights


class TowerMLP(nn.Module):
    def __init__(self, config: CogVLM2VisionConfig) -> None:
        super().__init__()
        self.activation = ACT2FN[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(hidden)))


class CogVLM2TowerLayer(GradientCheckpointingLayer):
    """Post-norm: the output of a branch is normalised, not its input, despite the published names."""

    def __init__(self, config: CogVLM2VisionConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = TowerAttention(config)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = TowerMLP(config)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self.input_layernorm(self.attention(hidden)[0])
        return hidden + self.post_attention_layernorm(self.mlp(hidden))


class Tower(nn.Module):
    def __init__(self, config: CogVLM2VisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CogVLM2TowerLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, hidden: Tensor) -> Tensor:
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


class Adapter(nn.Module):
    """Converts the tower's width to the decoder's: a projection with norm and GELU, then a gated MLP."""

    def __init__(self, tower_size: int, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.linear_proj = nn.Linear(tower_size, hidden_size, bias=False)
        self.norm1 = nn.LayerNorm(hidden_size)
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.dense_h_to_4h = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.dense_4h_to_h = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Convert (N, tokens, C) to (N, tokens, H)."""
        hidden = F.gelu(self.norm1(self.linear_proj(features)))
        return self.dense_4h_to_h(F.silu(self.gate_proj(hidden)) * self.dense_h_to_4h(hidden))
