"""KL estimators by enumeration: their values and their gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from enumeration import TablePolicy
from torch import Tensor

from mathse.training.updates.kl import estimate_kl


def policies(by: float = 0.4) -> tuple[TablePolicy, TablePolicy, Tensor]:
    """Student, reference, and the exact KL(student || reference), with a gradient."""
    student = TablePolicy(1)
    reference = student.perturbed(by)
    divergence = (student.probabilities() * (student.log_probs() - reference.log_probs().detach()).sum(1)).sum()
    return student, reference, divergence


def mean_estimate(estimator: Any, student: TablePolicy, reference: TablePolicy) -> Tensor:
    """Over the student's responses, which are drawn before the step: their chances have no gradient. Per response, so
    the log-probabilities are those of whole responses."""
    log_probs, of_reference = (policy.log_probs().sum(1) for policy in (student, reference))
    return (student.probabilities().detach() * estimate_kl(log_probs, of_reference, estimator)).sum()


@pytest.mark.parametrize(("estimator", "rel"), [("k1", 1e-9), ("k3", 1e-9), ("k3+", 1e-9), ("k2", 0.2)])
def test_the_mean_of_an_estimator_is_the_divergence(estimator: str, rel: float) -> None:
    student, reference, divergence = policies()
    found = mean_estimate(estimator, student, reference)
    assert found.item() == pytest.approx(divergence.item(), rel=rel)


@pytest.mark.parametrize("estimator", ["k2", "k3+"])
def test_the_gradient_of_k2_and_of_k3_with_it_is_that_of_the_divergence(estimator: str) -> None:
    student, reference, divergence = policies()
    found = student.gradient(mean_estimate(estimator, student, reference))
    assert torch.allclose(found, student.gradient(divergence), atol=1e-9)


def test_k1_has_no_gradient_in_expectation() -> None:
    student, reference, divergence = policies()
    found = student.gradient(mean_estimate("k1", student, reference))
    assert found.abs().max() < 1e-9 < student.gradient(divergence).abs().max()


def test_the_gradient_of_k3_is_that_of_the_reverse_divergence() -> None:
    student, reference, divergence = policies()
    found = student.gradient(mean_estimate("k3", student, reference))
    reverse = reference.probabilities().detach() * (reference.log_probs().detach() - student.log_probs()).sum(1)
    assert torch.allclose(found, student.gradient(reverse.sum()), atol=1e-9)
    assert not torch.allclose(found, student.gradient(divergence), rtol=0.05)


def test_k3_is_never_negative_and_the_reference_gets_no_gradient() -> None:
    student, reference, _ = policies(2.0)
    log_probs, of_reference = student.log_probs(), reference.log_probs()
    for estimator in ("k2", "k3", "k3+"):
        values = estimate_kl(log_probs, of_reference, estimator)
        assert (values >= 0).all() and values.shape == log_probs.shape
        (gradient,) = torch.autograd.grad(values.sum(), reference.logits, allow_unused=True, retain_graph=True)
        assert gradient is None


def test_a_token_that_the_reference_never_gives_leaves_a_number() -> None:
    log_probs = torch.tensor([-1.0, -400.0, -1.0], requires_grad=True)
    reference = torch.tensor([-400.0, -1.0, -1.0])
    for estimator in ("k1", "k2", "k3", "k3+"):
        values = estimate_kl(log_probs, reference, estimator)
        (gradient,) = torch.autograd.grad(values.sum(), log_probs)
        assert values.isfinite().all() and gradient.isfinite().all() and values[2] == 0
    assert estimate_kl(log_probs, reference, "k3").max() <= 10
