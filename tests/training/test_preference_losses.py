"""Losses of pairs and verdicts by hand: DPO, BCO, KTO."""

from __future__ import annotations

import math

import pytest
import torch

from mathse.training.updates.preferences import bco_losses, dpo_losses, kto_divergence, kto_losses


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def slope(values: torch.Tensor, of: torch.Tensor) -> list[float]:
    (gradient,) = torch.autograd.grad(values.sum(), of, retain_graph=True)
    return list(gradient.tolist())


def test_dpo_is_minus_log_sigmoid_of_the_margin() -> None:
    margins = torch.tensor([0.0, 1.0, -2.0], requires_grad=True)
    assert dpo_losses(margins).tolist() == pytest.approx([-math.log(sigmoid(m)) for m in (0, 1, -2)])
    assert slope(dpo_losses(margins), margins) == pytest.approx([sigmoid(m) - 1 for m in (0, 1, -2)])
    smoothed = dpo_losses(margins, 0.2)
    assert smoothed.tolist() == pytest.approx(
        [-0.8 * math.log(sigmoid(m)) - 0.2 * math.log(sigmoid(-m)) for m in (0, 1, -2)]
    )


def test_bco_classifies_each_response_of_a_pair_against_the_shift() -> None:
    chosen, rejected = torch.tensor([0.5], requires_grad=True), torch.tensor([-0.2], requires_grad=True)
    losses = bco_losses(chosen, rejected, 0.1)
    assert losses.tolist() == pytest.approx([-math.log(sigmoid(0.4)) - math.log(sigmoid(0.3))])
    assert slope(losses, chosen) == pytest.approx([sigmoid(0.4) - 1])  # the chosen response rises
    assert slope(losses, rejected) == pytest.approx([1 - sigmoid(0.3)])  # the rejected response falls


def test_kto_values_right_and_wrong_responses_from_the_divergence_on() -> None:
    ahead = torch.tensor([2.0, 2.0], requires_grad=True)
    right = torch.tensor([True, False])
    losses = kto_losses(ahead, right, torch.tensor(1.0), 0.5, 1.0, 1.5)
    assert losses.tolist() == pytest.approx([1 - sigmoid(0.5), 1.5 * (1 - sigmoid(-0.5))])
    bend = 0.5 * sigmoid(0.5) * sigmoid(-0.5)
    assert slope(losses, ahead) == pytest.approx([-bend, 1.5 * bend])


def test_a_response_far_ahead_or_far_behind_has_nearly_no_gradient() -> None:
    ahead = torch.tensor([300.0, -300.0, 0.0], requires_grad=True)
    gradient = slope(kto_losses(ahead, torch.tensor([True, True, True]), 0.0, 0.1), ahead)
    assert abs(gradient[0]) < 1e-8 and abs(gradient[1]) < 1e-8 < abs(gradient[2])


def test_the_divergence_is_a_mean_of_the_batch_at_least_0_and_has_no_gradient() -> None:
    ahead = torch.tensor([1.0, 3.0], requires_grad=True)
    divergence = kto_divergence(ahead.sum(), 2)
    assert float(divergence) == 2 and not divergence.requires_grad
    assert float(kto_divergence(-ahead.sum(), 2)) == 0
