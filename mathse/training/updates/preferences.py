"""Losses of pairs and verdicts: DPO, BCO and their mix MPO, KTO.

``ahead`` is log p of a response, summed over its tokens, less the same of the reference: by how much the student has
come to prefer it. Its product with beta is the implicit reward of DPO.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dpo_losses(margins: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """-log sigmoid(margin) of each pair (arXiv 2305.18290); margin = beta * (ahead of chosen - ahead of rejected).

    With ``label_smoothing`` a share of the pairs is taken to be the wrong way round (2403.00409).
    """
    return -(1 - label_smoothing) * F.logsigmoid(margins) - label_smoothing * F.logsigmoid(-margins)


def bco_losses(chosen: Tensor, rejected: Tensor, shift: Tensor | float) -> Tensor:
    """Binary classifier optimisation (arXiv 2404.04656), the quality part of MPO (2411.10442), of each pair.

    ``chosen`` and ``rejected`` are implicit rewards, beta * ahead. ``shift`` is the mean implicit reward of the earlier
    steps; it has no gradient.
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
    """KTO (arXiv 2402.01306) of each judged response; it needs no pairs.

    The value of a response is sigmoid(beta * (ahead - divergence)) if it is right and sigmoid(beta * (divergence -
    ahead)) if it is wrong; its loss is weight * (1 - value). So a right response has to gain on the divergence from the
    reference, and a response that is far ahead or far behind has nearly no gradient.

    Args:
        right: (rows,) of bool.
        divergence: see ``kto_divergence``.
    """
    towards = torch.where(right, 1.0, -1.0)
    weights = torch.where(right, right_weight, wrong_weight)
    return weights * (1 - torch.sigmoid(beta * towards * (ahead - divergence)))


@torch.no_grad()
def kto_divergence(total: Tensor, rows: Tensor | float) -> Tensor:
    """The divergence that KTO compares with: the mean of ``ahead`` over responses to *other* problems, at least 0,
    without a gradient. ``total`` and ``rows`` are of the global batch."""
    return (total / rows).clamp(min=0)
