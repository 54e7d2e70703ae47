"""Estimators of KL(student || reference) from the drawn tokens (J. Schulman, "Approximating KL divergence", 2020).

With d = log(reference / student) of a drawn token: k1 = -d, k2 = d^2 / 2, k3 = exp(d) - d - 1. The mean of k1 and of k3
over the student's samples is the divergence; k2 has a small bias and the smallest variance. As a loss only k2 has the
gradient of the divergence: that of k1 is 0 in expectation, and k3 leads to KL(reference || student).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Estimator = Literal["k1", "k2", "k3", "k3+"]

MAX_LOG_RATIO = 20.0
MAX_K3 = 10.0  # exp(d) explodes where the reference likes a token that the student has given up


def estimate_kl(log_probs: Tensor, reference: Tensor, estimator: Estimator) -> Tensor:
    """The divergence's estimate at each token, in the shape of ``log_probs``. k3+ has the value of k3 and the gradient
    of k2."""
    d = (reference.detach() - log_probs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    if estimator == "k1":
        return -d
    k2 = d.square() / 2
    if estimator == "k2":
        return k2
    k3 = (d.exp() - d - 1).clamp(max=MAX_K3)
    if estimator == "k3":
        return k3
    return k2 + (k3 - k2).detach()
