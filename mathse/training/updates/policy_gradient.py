"""``evolution.update=grpo`` and its kin: a policy gradient whose parts are settings.

A method is an advantage per response and a loss per token. The trainer does the rest: it computes the log-probabilities
of the token ids that the sampler drew, adds up the weighted token losses over micro-batches and ranks, and steps.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mathse.config.updates import PolicyGradientConfig
from mathse.training.updates.advantages import find_mixed_groups, group_advantages
from mathse.training.updates.kl import estimate_kl
from mathse.training.updates.losses import (
    clipped_loss,
    sequence_log_ratios,
    token_log_ratios,
    weighted_log_prob_loss,
)
from mathse.training.updates.online import OnlineSettings
from mathse.training.updates.sampler import bound_weights, ratio_to_sampler


@dataclass(frozen=True)
class ResponseTokens:
    """Log-probabilities of the tokens of sampled responses, each (rows, tokens), padded behind the response.

    ``log_probs`` are the student's, with a gradient. The others have none: ``old`` are the student's at the start of
    the update, ``sampler`` those that the sampler drew by, ``reference`` those of the student at the start of the
    stage. ``mask`` is 1 on the tokens that learn.
    """

    log_probs: Tensor
    old: Tensor
    mask: Tensor
    sampler: Tensor | None = None
    reference: Tensor | None = None


class PolicyGradient:
    data = "groups"

    def __init__(self, settings: PolicyGradientConfig) -> None:
        self.settings, self.lr_scale, self.epochs = settings, settings.lr_scale, settings.epochs
        self.online = OnlineSettings.of(settings)
        self.aggregation, self.mismatch_level = settings.aggregation, settings.mismatch_level
        self.needs_reference = settings.beta > 0
        self.needs_old = settings.ratio != "none" or settings.beta > 0

    def find_informative(self, rewards: Tensor, judged: Tensor) -> Tensor:
        """Return the groups that the update learns from, (groups,) of bool: those whose rewards differ."""
        return find_mixed_groups(rewards, judged)

    def advantages(self, rewards: Tensor, judged: Tensor) -> Tensor:
        """(groups, samples) of rewards, and whether a response was judged -> the advantage of each response."""
        return group_advantages(rewards, judged, self.settings.baseline, self.settings.scale)

    def token_losses(self, tokens: ResponseTokens, advantages: Tensor) -> Tensor:
        """The loss of each token, (rows, tokens), for the advantages (rows,)."""
        settings, log_probs, old = self.settings, tokens.log_probs, tokens.old.detach()
        clip = (settings.clip_low, settings.clip_high)
        if settings.ratio == "none":
            losses = -advantages[:, None] * log_probs
        elif settings.ratio == "weight":
            losses = weighted_log_prob_loss(log_probs, token_log_ratios(log_probs, old), advantages, *clip)
        else:
            by_token = settings.ratio == "token"
            ratios = token_log_ratios(log_probs, old) if by_token else sequence_log_ratios(log_probs, old, tokens.mask)
            losses = clipped_loss(ratios, advantages, *clip, settings.dual_clip).expand_as(log_probs)

        if settings.mismatch != "none" and tokens.sampler is not None:
            to_sampler = ratio_to_sampler(old, tokens.sampler, tokens.mask, settings.mismatch_level)
            losses = losses * bound_weights(
                to_sampler, settings.mismatch, settings.mismatch_low, settings.mismatch_high
            )
        if settings.beta:
            if tokens.reference is None:
                raise ValueError("beta > 0 needs the reference's log-probabilities")
            losses = losses + settings.beta * estimate_kl(log_probs, tokens.reference, settings.kl)
        return losses
