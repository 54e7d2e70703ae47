"""How a model answers: greedily, or several times by sampling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mathse.config import build
from mathse.config.schema import EvaluateConfig


@dataclass(frozen=True)
class Decoding:
    """``sampling``: temperature, top_p, top_k; empty is greedy."""

    n: int
    batch_size: int  # problems
    max_new_tokens: int
    seed: int
    sampling: Mapping[str, Any] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        drawn = {**self.sampling, "seed": self.seed} if self.sampling else {}
        how = "sampling" if self.sampling else "greedy"
        return {"decoding": how, **drawn, "n_samples": self.n, "max_new_tokens": self.max_new_tokens}


def decoding_of(config: EvaluateConfig) -> Decoding:
    """Greedy answers have ``evaluation``'s lengths and batches, samples have ``generator``'s."""
    settings = config.evaluation
    if config.decoding != "sampling" and config.n_samples == 1:
        return Decoding(1, settings.batch_size, settings.max_new_tokens, config.seed)
    generator = build(config.generator)
    return Decoding(
        config.n_samples, generator.batch_size, generator.max_new_tokens, config.seed, dict(generator.sampling)
    )
