"""The sampler and the trainer as two policies: their log-probabilities, and weights for the difference.

An engine computes in another precision, with other kernels, and perhaps with older weights. So the log-probabilities
that the sampler had when it drew (``sampler``) and those that the trainer computes for the same token ids at the start
of the update (``old``) differ. The weight old / sampler, a constant, makes up for it; the loss's own ratio is
student / old. A loss whose ratio is student / sampler needs no weight: it would count the difference twice.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Level = Literal["token", "sequence", "sequence_mean"]
Bound = Literal["truncate", "mask"]

MAX_LOG_RATIO = 20.0
FIGURES = ("tokens", "kl", "difference", "weight", "weight_squared", "masked")  # the order in ``mismatch_sums``


def sampling_log_probs(
    logits: Tensor, tokens: Tensor, temperature: float = 1.0, allowed: Tensor | None = None
) -> Tensor:
    """log p of each token under the distribution that it was drawn from, (N,) in float32.

    Args:
        logits: (N, vocabulary), before the temperature.
        tokens: (N,) the drawn ids.
        temperature: the sampler divides its logits by it, so the trainer has to as well: at 0.6 the ratio of one
            and the same model would else be 2 and more at a token.
        allowed: (vocabulary,) or (N, vocabulary), False for ids that were not drawn from (tokens of images, or what
            top_p and top_k cut). A sampler normalises over the rest. Without it each ratio is multiplied by the
            probability of the rest.
    """
    scores = logits.float() / temperature
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -torch.inf)
    return scores.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]


@torch.no_grad()
def ratio_to_sampler(old: Tensor, sampler: Tensor, mask: Tensor, level: Level) -> Tensor:
    """old / sampler, (rows, tokens), 1 on padding.

    ``level``: token: of each token, with little variance and a bias that grows with the length; sequence: the product
    over the response, without bias, whose variance explodes with the length; sequence_mean: the geometric mean over the
    response, of a size that does not depend on the length.
    """
    differences = (old - sampler) * mask
    if level != "token":
        differences = differences.sum(1, keepdim=True).expand_as(old)
        if level == "sequence_mean":
            differences = differences / mask.sum(1, keepdim=True).clamp(min=1)
    ratios = differences.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    return torch.where(mask.bool(), ratios, 1.0)


@torch.no_grad()
def bound_weights(ratios: Tensor, bound: Bound, low: float, high: float) -> Tensor:
    """The weights of tokens from ``ratio_to_sampler``. They have no gradient: it would add a bias.

    ``bound``: truncate: at most ``high`` (TIS, arXiv 1606.02647); mask: 0 outside of [``low``, ``high``] (IcePop,
    2510.18855).
    """
    if bound == "truncate":
        return ratios.clamp(max=high)
    return torch.where((ratios >= low) & (ratios <= high), ratios, 0.0)


@torch.no_grad()
def mismatch_sums(old: Tensor, sampler: Tensor, mask: Tensor, ratios: Tensor, weights: Tensor) -> Tensor:
    """The sums behind ``mismatch_figures``, (6,) in float64: they add up over micro-batches and ranks."""
    d = ((old - sampler) * mask).double()
    k3 = d.exp() - d - 1  # of KL(sampler || old), on the sampler's tokens
    of_tokens = mask.double()
    squared = ratios.double().square() * of_tokens
    masked = (weights == 0) & mask.bool()
    parts = (of_tokens, k3 * of_tokens, d.abs(), ratios.double() * of_tokens, squared, masked.double())
    return torch.stack([part.sum() for part in parts])


def mismatch_figures(sums: Tensor) -> dict[str, float]:
    """What a log has about a step's difference of sampler and trainer, from the sums over its tokens.

    ``kl``: KL(sampler || old) per token; below 0.001 is usual. ``difference``: mean |log old - log sampler|.
    ``effective_sample_size``: the share of tokens that equally weighted tokens of the same precision would be, 1
    without a difference. ``masked``: the share of tokens with weight 0.
    """
    tokens, kl, difference, weight, squared, masked = sums.tolist()
    if not tokens:
        return {}
    return {
        "kl": kl / tokens,
        "difference": difference / tokens,
        "effective_sample_size": weight**2 / (tokens * squared),
        "masked": masked / tokens,
    }
