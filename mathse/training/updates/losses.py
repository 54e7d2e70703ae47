"""Losses of a response's tokens, and how a batch averages them.

Shapes: log-probabilities, masks and losses are (rows, tokens), padded behind the response; advantages are (rows,).
``old`` is the student at the start of the update, which has no gradient. Where it equals the student, every loss here
has the gradient of REINFORCE, -A * grad log p.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Aggregation = Literal["tokens", "sequences", "constant"]

MAX_LOG_RATIO = 20.0  # exp(20) is 5e8
MAX_SEQUENCE_LOG_RATIO = 10.0  # of a sequence's mean log ratio, from above only, as verl has it


def token_log_ratios(log_probs: Tensor, old: Tensor) -> Tensor:
    """log(student / old) of each token."""
    return (log_probs - old).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def sequence_log_ratios(log_probs: Tensor, old: Tensor, mask: Tensor) -> Tensor:
    """The mean over a response's tokens of log(student / old), (rows, 1): GSPO (arXiv 2507.18071).

    A mean and not a sum: the sum grows with the length, so a bound would cut long responses. With the aggregation
    ``sequences`` the gradient is that of the sequence's ratio.
    """
    mean = ((log_probs - old) * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
    return mean.clamp(max=MAX_SEQUENCE_LOG_RATIO)


def clipped_loss(
    log_ratios: Tensor, advantages: Tensor, clip_low: float, clip_high: float, dual_clip: float | None = None
) -> Tensor:
    """PPO's loss (arXiv 1707.06347) with a bound for each side, as DAPO (2503.14476) has it.

    A ratio that has left [1 - clip_low, 1 + clip_high] in the advantage's direction has no gradient any more; one that
    moved the other way keeps it. ``dual_clip``: the loss of a response with a negative advantage is at most that many
    times its absolute advantage, so a single ratio cannot dominate a step (1912.09729). null: no such bound.
    """
    ratios = log_ratios.exp()
    signed = advantages[:, None]  # (rows, 1)
    losses = -torch.minimum(ratios * signed, ratios.clamp(1 - clip_low, 1 + clip_high) * signed)
    if dual_clip is not None:
        losses = torch.where(signed < 0, torch.minimum(losses, -dual_clip * signed), losses)
    return losses


def weighted_log_prob_loss(
    log_probs: Tensor, log_ratios: Tensor, advantages: Tensor, clip_low: float, clip_high: float
) -> Tensor:
    """CISPO (arXiv 2506.13585): REINFORCE with the clipped ratio as a weight. The weight is a constant, so no token
    loses its gradient."""
    weights = log_ratios.exp().clamp(1 - clip_low, 1 + clip_high).detach()
    return -weights * advantages[:, None] * log_probs


def aggregation_weights(
    mask: Tensor, aggregation: Aggregation, rows: Tensor | float, tokens: Tensor | float, length: int | None = None
) -> Tensor:
    """The weight of each token, (rows, tokens): a batch's loss is the sum of its weighted token losses.

    Args:
        mask: 1 on the tokens that learn.
        aggregation: tokens: the mean over all tokens of the batch (DAPO); sequences: the mean over the responses of
            the mean over their tokens (GRPO as published), where a long wrong response is punished less per token;
            constant: the sum over the tokens, divided by responses times ``length`` (Dr. GRPO), without a length bias.
        rows, tokens: the responses and tokens of the *global* batch, over all micro-batches and ranks. Counted in a
            micro-batch they would let the split of the batch change the step.
        length: the longest response that the sampler may write, in tokens.
    """
    weights = mask.to(torch.get_default_dtype())
    if aggregation == "tokens":
        return weights / tokens
    if aggregation == "sequences":
        return weights / mask.sum(1, keepdim=True).clamp(min=1) / rows
    if length is None:
        raise ValueError("aggregation=constant needs the length of the longest response")
    return weights / (rows * length)
