"""Updates from pairs and verdicts: DPO, MPO (DPO with BCO and SFT), KTO.

All compare the student with a reference, the model before the first step. A response is ``ahead`` by its
log-probability minus the reference's, both summed over its tokens. beta * ahead is DPO's implicit reward.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mathse.config.updates import DPOUpdateConfig, KTOUpdateConfig, MPOUpdateConfig


@dataclass(frozen=True)
class Responses:
    """Whole responses, each tensor (n,): log p of the student, with a gradient, log p of the reference, both summed
    over the tokens, and the number of tokens."""

    log_probs: Tensor
    reference: Tensor
    tokens: Tensor

    @property
    def ahead(self) -> Tensor:
        return self.log_probs - self.reference

    @property
    def mean_nll(self) -> Tensor:
        """SFT's loss on each response: its mean over the tokens."""
        return -(self.log_probs / self.tokens)


class DPOUpdate:
    """Direct preference optimisation. The margin of a pair is beta * (ahead of chosen - ahead of rejected)."""

    data = "pairs"

    def __init__(self, settings: DPOUpdateConfig) -> None:
        self.settings, self.beta = settings, settings.beta
        self.lr_scale, self.epochs, self.sft_first = settings.lr_scale, settings.epochs, settings.sft_first
        self.pairs_per_problem = settings.pairs_per_problem

    def pair_losses(self, chosen: Responses, rejected: Responses, mean_reward: float) -> Tensor:
        losses = dpo_losses(self.beta * (chosen.ahead - rejected.ahead), self.settings.label_smoothing)
        # Without this term the margin can grow while both paths become less likely (arXiv 2404.19733).
        return losses + self.settings.nll_weight * chosen.mean_nll


class MPOUpdate:
    """Mixed preference optimisation (arXiv 2411.10442): which path of a pair is better (DPO), how good each is (BCO),
    and how the better path is written (SFT)."""

    data = "pairs"

    def __init__(self, settings: MPOUpdateConfig) -> None:
        self.settings, self.beta = settings, settings.beta
        self.lr_scale, self.epochs, self.sft_first = settings.lr_scale, settings.epochs, settings.sft_first
        self.pairs_per_problem = settings.pairs_per_problem

    def pair_losses(self, chosen: Responses, rejected: Responses, mean_reward: float) -> Tensor:
        settings, beta = self.settings, self.beta
        preference = dpo_losses(beta * (chosen.ahead - rejected.ahead), settings.label_smoothing)
        quality = bco_losses(beta * chosen.ahead, beta * rejected.ahead, mean_reward)
        return (
            settings.preference_weight * preference
            + settings.quality_weight * quality
            + settings.generation_weight * chosen.mean_nll
        )


class KTOUpdate:
    """Kahneman-Tversky optimisation: each judged path is a row, without a partner."""

    data = "verdicts"

    def __init__(self, settings: KTOUpdateConfig) -> None:
        self.settings, self.lr_scale, self.epochs = settings, settings.lr_scale, settings.epochs

    def verdict_losses(self, responses: Responses, right: Tensor, divergence: Tensor) -> Tensor:
        settings = self.settings
        weights = (settings.right_weight, settings.wrong_weight)
        return kto_losses(responses.ahead, right, divergence, settings.beta, *weights)


# --- losses -----------------------------------------------------------------------------------------------------------


def dpo_losses(margins: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """-log sigmoid(margin) of each pair (arXiv 2305.18290).

    With ``label_smoothing`` a share of the pairs is assumed to have swapped labels (2403.00409).
    """
    return -(1 - label_smoothing) * F.logsigmoid(margins) - label_smoothing * F.logsigmoid(-margins)


def bco_losses(chosen: Tensor, rejected: Tensor, shift: Tensor | float) -> Tensor:
    """Binary classifier optimisation (arXiv 2404.04656) of each pair.

    ``chosen`` and ``rejected`` are implicit rewards. ``shift`` is the mean implicit reward of the earlier steps, a
    constant.
    """
    return -F.logsigmoid(chosen - shift) - F.logsigmoid(shift - rejected)


def kto_losses(
    ahead: Tensor,
    right: Tensor,
    divergence: Tensor | float,
    beta: float,
    right_weight: float = 1.0,
    wrong_weight: float = 1.0,
) -> Tensor:
    """KTO (arXiv 2402.01306) of each judged response.

    The value of a response is sigmoid(beta * (ahead - divergence)) if it is right and sigmoid(beta * (divergence -
    ahead)) if it is wrong; its loss is weight * (1 - value). A response that is far ahead or far behind has nearly no
    gradient.

    Args:
        right: (n,) of bool.
        divergence: see ``kto_divergence``.
    """
    signs = torch.where(right, 1.0, -1.0)
    weights = torch.where(right, right_weight, wrong_weight)
    return weights * (1 - torch.sigmoid(beta * signs * (ahead - divergence)))


@torch.no_grad()
def kto_divergence(total: Tensor, responses: Tensor | float) -> Tensor:
    """The divergence from the reference that KTO compares with, a constant: the mean of ``ahead`` over responses to
    *other* problems, at least 0. ``total`` and ``responses`` are of the global batch."""
    return (total / responses).clamp(min=0)
