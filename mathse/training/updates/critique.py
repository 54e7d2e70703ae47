"""``evolution.update=critique``: self-distillation from the critique of a failed response.

The teacher is the student itself, shown the judge's critique of the response (the first wrong step and its analysis)
and the picture, and never the reference answer. On each token of the failed response the student moves towards the
teacher: the gradient of KL(student || teacher) with the sampled tokens, log(teacher / student) * grad log p. It takes
two log-probabilities a token and no logits of a vocabulary. SDPO (arXiv 2601.20802) does this for text; here the prompt
has the picture too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mathse.config.updates import CritiqueUpdateConfig
from mathse.training.updates.online import OnlineSettings
from mathse.training.updates.policy_gradient import ResponseTokens
from mathse.training.updates.sampler import bound_weights, ratio_to_sampler


class CritiqueDistillation:
    data = "groups"
    needs_critique = True

    def __init__(self, settings: CritiqueUpdateConfig) -> None:
        self.settings, self.lr_scale, self.shuffled = settings, settings.lr_scale, settings.shuffled
        self.online = OnlineSettings.of(settings)
        self.aggregation, self.mismatch_level = settings.aggregation, settings.mismatch_level

    def find_informative(self, rewards: Tensor, judged: Tensor) -> Tensor:
        """Return the groups that have a failed response, (groups,) of bool."""
        return (judged & (rewards == 0)).any(1)

    def advantages(self, rewards: Tensor, judged: Tensor) -> Tensor:
        """Return 1 for a response that was judged wrong, which learns, and 0 for the others. (groups, samples)."""
        return (judged & (rewards == 0)).float()

    def token_losses(self, tokens: ResponseTokens, advantages: Tensor) -> Tensor:
        """The loss of each token, (rows, tokens); ``tokens.reference`` are the teacher's log-probabilities."""
        if tokens.reference is None:
            raise ValueError("self-distillation needs the teacher's log-probabilities")
        old = tokens.old.detach()
        signal = (tokens.reference.detach() - old).clamp(-self.settings.max_signal, self.settings.max_signal)
        losses = -signal * advantages[:, None] * tokens.log_probs
        settings = self.settings
        if settings.mismatch != "none" and tokens.sampler is not None:
            ratios = ratio_to_sampler(old, tokens.sampler, tokens.mask, settings.mismatch_level)
            losses = losses * bound_weights(ratios, settings.mismatch, settings.mismatch_low, settings.mismatch_high)
        return torch.where(tokens.mask.bool(), losses, 0.0)
