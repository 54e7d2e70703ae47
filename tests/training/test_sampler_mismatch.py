"""Sampler and trainer as two policies: weights, their figures, temperature and truncated sampling."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from enumeration import TablePolicy, right_responses
from torch import Tensor
from transformers import TopKLogitsWarper, TopPLogitsWarper

from mathse.config.updates import PolicyGradientConfig
from mathse.training.updates.policy_gradient import PolicyGradient, ResponseTokens
from mathse.training.updates.sampler import (
    FIGURES,
    bound_weights,
    mismatch_figures,
    mismatch_sums,
    ratio_to_sampler,
    sampling_log_probs,
)

OPEN: dict[str, Any] = {"mismatch": "truncate", "mismatch_high": 1e9}  # a bound that no weight reaches


def gradients(level: str, drawn_by: float = 0.4, **settings: Any) -> tuple[TablePolicy, Tensor, Tensor]:
    """The student, and the exact mean gradients of its loss over the sampler's responses and over its own."""
    student = TablePolicy(1)
    sampler = student.perturbed(drawn_by)
    advantages = right_responses(student) - 0.3
    of = PolicyGradient(PolicyGradientConfig(**{**OPEN, "mismatch_level": level, **settings}))

    def mean(chances: Tensor, of_sampler: Tensor | None) -> Tensor:
        # old is given with its gradient: a weight that is not detached would differentiate it
        tokens = ResponseTokens(student.log_probs(), student.log_probs(), student.mask, of_sampler)
        return student.gradient((chances.detach() * of.token_losses(tokens, advantages).sum(1)).sum())

    weighted = mean(sampler.probabilities(), sampler.log_probs().detach())
    return student, weighted, mean(student.probabilities(), None)


@pytest.mark.parametrize("ratio", ["token", "weight"])
def test_sequence_weights_are_unbiased(ratio: str) -> None:
    _, weighted, own = gradients("sequence", ratio=ratio)
    assert torch.allclose(weighted, own, atol=1e-9)


def test_token_weights_have_a_bias_that_goes_with_the_difference() -> None:
    bias = []
    for drawn_by in (0.0, 0.01, 0.4):
        _, weighted, own = gradients("token", drawn_by)
        bias.append(float((weighted - own).norm() / own.norm()))
    assert bias[0] < 1e-9 < bias[1] < 0.02 < bias[2]
    _, unweighted, own = gradients("token", mismatch="none")
    assert float((unweighted - own).norm() / own.norm()) > bias[2]  # it is smaller than without weights


def test_weights_have_no_gradient() -> None:
    """A weight that is not detached adds loss * grad log weight to the gradient, which is another one."""
    student = TablePolicy(1)
    sampler = student.perturbed(0.4).log_probs().detach()
    attached = (student.log_probs() - sampler).sum(1, keepdim=True).exp()
    advantages = (right_responses(student) - 0.3)[:, None]
    chances = student.perturbed(0.4).probabilities().detach()[:, None]
    ratio = (student.log_probs() - student.log_probs().detach()).exp()
    biased = student.gradient((chances * attached * -advantages * ratio).sum())
    _, weighted, own = gradients("sequence")
    assert float((biased - own).norm() / own.norm()) > 0.1 and torch.allclose(weighted, own, atol=1e-9)
    weights = ratio_to_sampler(student.log_probs(), sampler, student.mask, "token")
    assert not weights.requires_grad and not bound_weights(weights, "truncate", 0.5, 2.0).requires_grad


def test_a_ratio_to_the_sampler_itself_gets_no_second_weight() -> None:
    """With old := sampler the loss's own ratio is student / sampler, and old / sampler is 1."""
    student = TablePolicy(1)
    sampler = student.perturbed(0.4)
    advantages = right_responses(student) - 0.3
    drawn = sampler.log_probs().detach()
    found = []
    for settings in (OPEN, {"mismatch": "none"}):
        of = PolicyGradient(PolicyGradientConfig(clip_low=1.0, clip_high=1e9, **settings))
        tokens = ResponseTokens(student.log_probs(), drawn, student.mask, drawn)
        found.append(of.token_losses(tokens, advantages))
    assert torch.equal(*found)


def test_the_product_masks_long_responses_and_the_geometric_mean_does_not() -> None:
    """0.012 a token is 3.3 after 100 tokens."""
    lengths = [10, 100]
    mask = torch.tensor([[1.0] * n + [0.0] * (100 - n) for n in lengths])
    old, sampler = torch.full((2, 100), -1.0), torch.full((2, 100), -1.012)
    shares = {}
    for level in ("token", "sequence", "sequence_mean"):
        ratios = ratio_to_sampler(old, sampler, mask, level)
        weights = bound_weights(ratios, "mask", 0.5, 3.0)
        shares[level] = [float((weights[k, :n] == 0).float().mean()) for k, n in enumerate(lengths)]
    assert shares == {"token": [0, 0], "sequence": [0, 1], "sequence_mean": [0, 0]}
    product = ratio_to_sampler(old, sampler, mask, "sequence")
    assert product[:, 0].tolist() == pytest.approx([1.012**10, 1.012**100], rel=0.01)
    assert product[0, 10:].eq(1).all()  # padding


def test_truncated_weights_stop_at_the_bound_and_masked_ones_are_0_outside_of_it() -> None:
    ratios = torch.tensor([0.1, 0.5, 1.0, 2.0, 9.0])
    assert bound_weights(ratios, "truncate", 0.5, 2.0).tolist() == pytest.approx([0.1, 0.5, 1, 2, 2])
    assert bound_weights(ratios, "mask", 0.5, 2.0).tolist() == pytest.approx([0, 0.5, 1, 2, 0])


def test_figures_are_those_of_the_formulas_and_add_up_over_micro_batches() -> None:
    student = TablePolicy(4, with_end=True)
    old, sampler, mask = student.log_probs().detach(), student.perturbed(0.3).log_probs().detach(), student.mask
    ratios = ratio_to_sampler(old, sampler, mask, "token")
    weights = bound_weights(ratios, "mask", 0.8, 1.2) * mask  # padding has no weight, and is not masked
    whole = mismatch_sums(old, sampler, mask, ratios, weights)
    parts = zip(*(tensor.split(9) for tensor in (old, sampler, mask, ratios, weights)), strict=True)
    assert torch.allclose(torch.stack([mismatch_sums(*part) for part in parts]).sum(0), whole)
    assert len(whole) == len(FIGURES)

    d, w = (old - sampler)[mask > 0], ratios[mask > 0]
    figures = mismatch_figures(whole)
    assert figures["kl"] == pytest.approx(float((d.exp() - d - 1).mean())) and figures["kl"] > 0
    assert figures["difference"] == pytest.approx(float(d.abs().mean()))
    assert figures["effective_sample_size"] == pytest.approx(float(w.mean() ** 2 / w.square().mean()))
    assert figures["masked"] == pytest.approx(float((weights[mask > 0] == 0).double().mean())) and figures["masked"] > 0


def test_a_sampler_that_is_the_trainer_has_no_difference() -> None:
    student = TablePolicy(4, with_end=True)
    old = student.log_probs().detach()
    ratios = ratio_to_sampler(old, old, student.mask, "sequence")
    figures = mismatch_figures(mismatch_sums(old, old, student.mask, ratios, ratios))
    assert figures == {"kl": 0, "difference": 0, "effective_sample_size": 1, "masked": 0}
    assert mismatch_figures(torch.zeros(6)) == {}


def test_the_divergence_from_the_sampler_is_that_of_the_sampled_side() -> None:
    """KL(sampler || old) of the first token, exactly, from the mean over the sampler's tokens."""
    old, sampler = TablePolicy(1), TablePolicy(1).perturbed(0.5)
    chances = sampler.probabilities().detach()[:, None] * torch.tensor([1.0, 0, 0])
    d = old.log_probs() - sampler.log_probs()
    of_first = (chances * (d.exp() - d - 1)).sum().item()
    p, q = sampler.logits[0].softmax(-1), old.logits[0].softmax(-1)
    assert of_first == pytest.approx((p * (p / q).log()).sum().item())


# --- the distribution that tokens were drawn from ---------------------------------------------------------------------

LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0, 0.5]])
VOCABULARY = LOGITS.shape[1]


def of_all_tokens(temperature: float = 1.0, allowed: Tensor | None = None) -> Tensor:
    every = torch.arange(VOCABULARY)
    return sampling_log_probs(LOGITS.expand(VOCABULARY, -1), every, temperature, allowed)


def test_the_trainer_divides_its_logits_by_the_temperature() -> None:
    assert torch.allclose(of_all_tokens(0.6), (LOGITS[0] / 0.6).log_softmax(-1))
    assert (of_all_tokens(1.0) - of_all_tokens(0.6)).exp().max() > 2  # the ratio of one model with itself, else


@pytest.mark.parametrize("warper", [TopPLogitsWarper(0.7), TopKLogitsWarper(2)], ids=["top_p", "top_k"])
def test_truncated_sampling_multiplies_each_ratio_by_the_kept_mass(warper: Any) -> None:
    scores = warper(None, LOGITS)[0]
    kept = scores.isfinite()
    drawn_by, mass = scores.softmax(-1), LOGITS[0].softmax(-1)[kept].sum()
    assert mass < 0.95
    without = (of_all_tokens() - drawn_by.log()).exp()[kept]
    assert torch.allclose(without, mass.expand_as(without))
    assert torch.allclose((drawn_by[kept] * without).sum(), mass)
    replayed = (of_all_tokens(allowed=kept) - drawn_by.log()).exp()[kept]
    assert torch.allclose(replayed, torch.ones_like(replayed))


def test_tokens_that_are_never_sampled_are_no_part_of_the_distribution() -> None:
    allowed = torch.tensor([True, True, True, False, True])
    found = of_all_tokens(allowed=allowed).exp()
    assert float(found.sum()) == pytest.approx(1) and found[3] == 0
