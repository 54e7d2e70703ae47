"""Policy gradients by enumeration: the expected gradient of each loss is that of its objective."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from enumeration import LENGTH, TablePolicy, expected_gradient, right_responses
from torch import Tensor

from mathse.config.updates import PolicyGradientConfig
from mathse.training.updates.advantages import find_mixed_groups, group_advantages
from mathse.training.updates.losses import aggregation_weights
from mathse.training.updates.policy_gradient import PolicyGradient, ResponseTokens

UPDATES: dict[str, dict[str, Any]] = {
    "grpo": {},
    "dr_grpo": {"scale": "none", "aggregation": "constant"},
    "rloo": {"baseline": "leave_one_out", "scale": "none", "aggregation": "constant"},
    "gspo": {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4, "aggregation": "sequences"},
    "cispo": {"ratio": "weight", "clip_low": 1.0, "clip_high": 4.0},
}
OBJECTIVES: dict[str, Callable[[Tensor], Tensor]] = {
    "p": lambda p: p,
    "arcsin sqrt p": lambda p: 2 * p.sqrt().arcsin(),
    "log p": lambda p: p.log(),
}


def update(name: str, **changed: Any) -> PolicyGradient:
    return PolicyGradient(PolicyGradientConfig(**{**UPDATES[name], **changed}))


def batch_loss(of: PolicyGradient, tokens: ResponseTokens, advantages: Tensor, rows: Any = None) -> Tensor:
    """The weighted losses (R, 3) of a batch. ``rows``: responses and tokens of a larger batch that it is part of."""
    mask = tokens.mask
    count, total = (len(mask), mask.sum()) if rows is None else rows
    weights = aggregation_weights(mask, of.settings.aggregation, count, total, LENGTH)
    return weights * of.token_losses(tokens, advantages)


def of_policy(policy: TablePolicy, **others: Tensor) -> ResponseTokens:
    log_probs = policy.log_probs()
    return ResponseTokens(log_probs, others.pop("old", log_probs.detach()), policy.mask, **others)


def losses_in_groups(of: PolicyGradient, policy: TablePolicy, group: int) -> Callable[[Tensor], Tensor]:
    """For ``expected_gradient``. Responses of 3 tokens have the same average in every aggregation."""

    def response_losses(advantages: Tensor) -> Tensor:
        log_probs, mask = (tensor.repeat(len(advantages), 1) for tensor in (policy.log_probs(), policy.mask))
        tokens = ResponseTokens(log_probs, log_probs.detach(), mask)
        losses = batch_loss(of, tokens, advantages.ravel(), (group, torch.tensor(3.0 * group)))
        return losses.sum(1).view_as(advantages)

    return response_losses


def gradient_of_objective(policy: TablePolicy, rewards: Tensor, objective: str) -> Tensor:
    return policy.gradient(OBJECTIVES[objective]((policy.probabilities() * rewards).sum()))


# --- the objective of each loss ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "objective", "group", "share", "rtol"),
    [
        ("dr_grpo", "p", 4, 3 / 4, 1e-5),  # (G - 1) / G, since a response is in its own baseline
        ("rloo", "p", 2, 1.0, 1e-5),
        ("rloo", "p", 5, 1.0, 1e-5),
        ("grpo", "arcsin sqrt p", 400, 1.0, 1e-2),  # in the limit of large groups
        ("gspo", "arcsin sqrt p", 400, 1.0, 1e-2),
        ("cispo", "arcsin sqrt p", 400, 1.0, 1e-2),
    ],
)
def test_the_expected_gradient_of_a_loss_is_that_of_its_objective(
    name: str, objective: str, group: int, share: float, rtol: float
) -> None:
    policy, of = TablePolicy(1), update(name)
    rewards = right_responses(policy)
    found = expected_gradient(policy, rewards, group, of.advantages, losses_in_groups(of, policy, group))
    wanted = -share / LENGTH * gradient_of_objective(policy, rewards, objective)
    assert torch.allclose(found, wanted, rtol=rtol, atol=rtol * float(wanted.abs().max()))


def test_learning_from_right_responses_only_maximises_log_p() -> None:
    policy = TablePolicy(1)
    rewards = right_responses(policy)
    of = update("grpo", baseline="none", scale="none")
    log_probs = of_policy(policy)
    advantages = of.advantages(rewards[None], torch.ones(1, len(rewards)).bool())[0].double()
    # rejection sampling: the mean is over the accepted responses, which are drawn from the policy's right responses
    chances = policy.probabilities().detach() * rewards
    losses = of.token_losses(log_probs, advantages).sum(1)
    found = policy.gradient((chances / chances.sum() * losses).sum())
    assert torch.allclose(found, -gradient_of_objective(policy, rewards, "log p"), atol=1e-9)


@pytest.mark.parametrize("name", ["dr_grpo", "grpo"])
def test_all_pairs_of_responses_by_hand_give_the_same_gradient(name: str) -> None:
    policy, of = TablePolicy(2), update(name)
    rewards, chances = right_responses(policy), policy.probabilities().detach()
    pairs = torch.tensor(list(product(range(len(rewards)), repeat=2)))  # (4096, 2) responses
    advantages = of.advantages(rewards[pairs], torch.ones(len(pairs), 2).bool()).double()
    tokens = of_policy(policy)
    total = torch.zeros(())
    for k in range(2):
        of_rows = ResponseTokens(tokens.log_probs[pairs[:, k]], tokens.old[pairs[:, k]], tokens.mask[pairs[:, k]])
        losses = batch_loss(of, of_rows, advantages[:, k], (2, torch.tensor(6.0))).sum(1)
        total = total + (chances[pairs].prod(1) * losses).sum()
    by_count = expected_gradient(policy, rewards, 2, of.advantages, losses_in_groups(of, policy, 2))
    assert torch.allclose(policy.gradient(total), by_count, atol=1e-9)


def test_with_responses_of_several_lengths_only_the_constant_average_follows_p() -> None:
    policy = TablePolicy(4, with_end=True)
    rewards, group = right_responses(policy), 3
    wanted = -gradient_of_objective(policy, rewards, "p") / LENGTH
    found = {}
    for aggregation in ("constant", "sequences"):
        of = update("rloo", aggregation=aggregation)
        losses = losses_in_groups(of, policy, group)
        found[aggregation] = expected_gradient(policy, rewards, group, of.advantages, losses)
    assert torch.allclose(found["constant"], wanted, atol=1e-7)
    cosine = torch.nn.functional.cosine_similarity(found["sequences"].ravel(), wanted.ravel(), dim=0)
    assert cosine < 0.999  # the length bias turns the direction


# --- off-policy: ratios and clips -------------------------------------------------------------------------------------


def plain_losses(
    settings: PolicyGradientConfig, log_probs: Any, at: Any, old: Any, advantages: Any, mask: Any
) -> np.ndarray:
    """The formulas once more, a token at a time; ``at``: the log-probabilities at which detached factors are held."""
    losses = np.zeros_like(mask)
    for i, j in zip(*np.nonzero(mask), strict=True):
        a, low, high = advantages[i], 1 - settings.clip_low, 1 + settings.clip_high
        if settings.ratio == "weight":
            held = min(max(math.exp(at[i, j] - old[i, j]), low), high)
            losses[i, j] = -held * a * log_probs[i, j]
            continue
        ratio = math.exp(log_probs[i, j] - old[i, j])
        if settings.ratio == "sequence":
            n = int(mask[i].sum())
            ratio = math.exp(sum(log_probs[i, t] - old[i, t] for t in range(n)) / n)
        losses[i, j] = -min(ratio * a, min(max(ratio, low), high) * a)
        if settings.dual_clip is not None and a < 0:
            losses[i, j] = min(losses[i, j], -settings.dual_clip * a)
    return losses


OFF_POLICY: dict[str, dict[str, Any]] = {
    **UPDATES,
    "clip higher": {"clip_low": 0.2, "clip_high": 0.28},
    "dual clip": {"dual_clip": 1.5},
    "wide gspo": {**UPDATES["gspo"], "clip_low": 0.2, "clip_high": 0.3},
    "tight cispo": {**UPDATES["cispo"], "clip_low": 0.3, "clip_high": 0.3},
}


@pytest.mark.parametrize("name", OFF_POLICY)
def test_values_and_gradients_away_from_the_old_policy_are_those_of_the_formulas(name: str) -> None:
    of = PolicyGradient(PolicyGradientConfig(**OFF_POLICY[name]))
    draw = torch.Generator().manual_seed(11)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]]).double()
    old = -2 * torch.rand(5, 4, generator=draw).double()
    moved = 0.8 * torch.randn(5, 4, generator=draw).double()
    log_probs = ((old + moved) * mask).requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 0.7, -0.4, -2.0]).double()
    losses = of.token_losses(ResponseTokens(log_probs, old * mask, mask), advantages)
    weights = aggregation_weights(mask, of.settings.aggregation, 5, mask.sum(), 4)
    (gradient,) = torch.autograd.grad((weights * losses).sum(), log_probs)

    at, before = log_probs.detach().numpy(), (old * mask).numpy()
    numbers = (before, advantages.numpy(), mask.numpy())
    assert np.allclose((losses.detach() * mask).numpy(), plain_losses(of.settings, at, at, *numbers), atol=1e-12)
    for i, j in product(range(5), range(4)):
        step = np.zeros_like(at)
        step[i, j] = 1e-6
        ends = [plain_losses(of.settings, at + sign * step, at, *numbers) for sign in (1, -1)]
        slope = (weights.numpy() * (ends[0] - ends[1])).sum() / 2e-6
        assert gradient[i, j] * mask[i, j] == pytest.approx(slope * mask[i, j].item(), abs=1e-7)


def test_a_clipped_ratio_has_no_gradient_and_one_that_moved_back_keeps_it() -> None:
    of = update("grpo")
    log_probs = torch.tensor([[0.5], [0.5], [-0.5], [-0.5]], requires_grad=True)
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    losses = of.token_losses(ResponseTokens(log_probs, torch.zeros(4, 1), torch.ones(4, 1)), advantages)
    (gradient,) = torch.autograd.grad(losses.sum(), log_probs)
    assert [bool(g) for g in gradient[:, 0]] == [False, True, True, False]


def test_cispo_keeps_the_gradient_of_every_token() -> None:
    log_probs = torch.tensor([[3.0], [-3.0]], requires_grad=True)
    tokens = ResponseTokens(log_probs, torch.zeros(2, 1), torch.ones(2, 1))
    (gradient,) = torch.autograd.grad(update("cispo").token_losses(tokens, torch.ones(2)).sum(), log_probs)
    assert gradient[:, 0].tolist() == pytest.approx([-5.0, -math.exp(-3)])


def test_a_ratio_that_overflows_stays_a_number() -> None:
    log_probs = torch.tensor([[200.0], [-200.0]], requires_grad=True)
    for name in UPDATES:
        tokens = ResponseTokens(log_probs, torch.zeros(2, 1), torch.ones(2, 1))
        losses = update(name).token_losses(tokens, torch.tensor([-1.0, -1.0]))
        (gradient,) = torch.autograd.grad(losses.sum(), log_probs)
        assert losses.isfinite().all() and gradient.isfinite().all()


# --- advantages -------------------------------------------------------------------------------------------------------

EVERY = torch.ones(3, 4).bool()
REWARDS = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0]])


def test_advantages_are_those_of_the_papers_formulas() -> None:
    for rewards in (REWARDS, torch.rand(3, 4, generator=torch.Generator().manual_seed(0))):
        numbers = rewards.double().numpy()
        centred = numbers - numbers.mean(1, keepdims=True)
        others = (numbers.sum(1, keepdims=True) - numbers) / 3
        wanted: dict[tuple[Any, Any], Any] = {
            ("mean", "none"): centred,
            ("mean", "group_std"): centred / (numbers.std(1, ddof=1, keepdims=True) + 1e-4),
            ("mean", "batch_std"): centred / (numbers.std(ddof=1) + 1e-4),
            ("leave_one_out", "none"): numbers - others,
            ("none", "none"): numbers,
        }
        for (baseline, scale), values in wanted.items():
            found = group_advantages(rewards, EVERY, baseline, scale)
            assert np.allclose(found.numpy(), values, atol=1e-6), (baseline, scale)


def test_leave_one_out_is_the_centred_reward_times_n_over_n_minus_1() -> None:
    rloo, centred = (group_advantages(REWARDS, EVERY, baseline) for baseline in ("leave_one_out", "mean"))
    assert torch.allclose(rloo * 3 / 4, centred)


def test_a_rare_success_weighs_more_the_rarer_it_is() -> None:
    found = group_advantages(REWARDS[:2], EVERY[:2], "mean", "group_std")
    for group, p, right in ((0, 1 / 4, 0), (1, 3 / 4, 0)):
        assert float(found[group, right]) == pytest.approx(math.sqrt((1 - p) / p) * math.sqrt(3 / 4), rel=1e-3)


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
@pytest.mark.parametrize("scale", ["none", "group_std", "batch_std"])
def test_a_group_without_a_difference_and_a_group_of_one_have_no_advantage(baseline: Any, scale: Any) -> None:
    assert not group_advantages(REWARDS[2:], EVERY[2:], baseline, scale).any()
    assert not group_advantages(torch.ones(3, 1), torch.ones(3, 1).bool(), baseline, scale).any()
    one_judged = torch.tensor([[True, False, False, False]])
    assert not group_advantages(REWARDS[:1], one_judged, baseline, scale).any()


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out", "none"])
@pytest.mark.parametrize("scale", ["none", "group_std", "batch_std"])
def test_an_unparsed_response_has_no_advantage_and_leaves_that_of_the_others(baseline: Any, scale: Any) -> None:
    rewards = torch.tensor([[1.0, math.nan, 0, 0], [math.nan, 1, 0, math.nan]])
    found = group_advantages(rewards, rewards.isfinite(), baseline, scale)
    assert not found[~rewards.isfinite()].any()
    if scale == "batch_std":  # which both groups share
        return
    for group, responses in zip(found, rewards, strict=True):
        judged = responses.isfinite()
        (without,) = group_advantages(responses[judged][None], torch.ones(1, int(judged.sum())).bool(), baseline, scale)
        assert torch.allclose(group[judged], without)


def test_the_deviation_of_a_batch_has_no_part_in_unparsed_responses() -> None:
    rewards = torch.tensor([[1.0, 0, 0, 1], [1, 1, 0, 1]])
    padded = torch.cat([rewards, torch.full((2, 1), math.nan)], 1)
    wanted = group_advantages(rewards, rewards.isfinite(), "mean", "batch_std")
    assert torch.equal(group_advantages(padded, padded.isfinite(), "mean", "batch_std")[:, :4], wanted)


def test_the_order_of_samples_and_of_groups_changes_no_advantage() -> None:
    rewards = torch.rand(6, 5, generator=torch.Generator().manual_seed(1)).round(decimals=1)
    judged = torch.rand(6, 5, generator=torch.Generator().manual_seed(2)) < 0.8
    rows, samples = torch.tensor([3, 1, 5, 0, 2, 4]), torch.tensor([4, 2, 0, 1, 3])
    for scale in ("none", "group_std", "batch_std"):
        whole = group_advantages(rewards, judged, "mean", scale)
        moved = group_advantages(rewards[rows][:, samples], judged[rows][:, samples], "mean", scale)
        assert torch.allclose(moved, whole[rows][:, samples], atol=1e-6)


def test_only_groups_of_mixed_outcomes_are_kept_whatever_their_shaped_rewards_and_float_noise() -> None:
    noisy = [0.3, 0.3 + 1e-8, 0.3, 0.3]
    outcomes = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0], noisy], dtype=torch.float64)
    judged = torch.ones(5, 4).bool()
    judged[3, 0] = False  # its only right response is unparsed
    assert find_mixed_groups(outcomes, judged).tolist() == [True, False, False, False, False]
    assert find_mixed_groups(outcomes, torch.zeros(5, 4).bool()).tolist() == [False] * 5


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aggregation", ["tokens", "sequences", "constant"])
@pytest.mark.parametrize("name", UPDATES)
def test_micro_batches_and_the_order_of_rows_change_no_step(name: str, aggregation: Any) -> None:
    policy = TablePolicy(5, with_end=True)
    old, of = policy.perturbed(0.3).log_probs().detach(), update(name, aggregation=aggregation)
    rows = torch.randperm(len(policy.tokens), generator=torch.Generator().manual_seed(0))
    advantages = torch.randn(len(rows), generator=torch.Generator().manual_seed(1)).double()
    batch = (len(rows), policy.mask.sum())

    def loss(chosen: Tensor) -> Tensor:
        tokens = ResponseTokens(policy.log_probs()[chosen], old[chosen], policy.mask[chosen], sampler=old[chosen] - 0.1)
        return batch_loss(of, tokens, advantages[chosen], batch).sum()

    whole = policy.gradient(loss(torch.arange(len(rows))))
    for sizes in ([len(rows)], [1] * len(rows), [7, 20, len(rows) - 27]):
        parts = torch.stack([policy.gradient(loss(part)) for part in rows.split(sizes)])
        assert torch.allclose(parts.sum(0), whole, atol=1e-12)


def test_padding_has_no_loss_and_the_three_averages_are_those_of_their_names() -> None:
    mask = torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0]])
    losses = torch.tensor([[1.0, 2, 3, 6], [5, 100, 100, 100]])
    found = {
        name: float((aggregation_weights(mask, name, 2, mask.sum(), 8) * losses).sum())
        for name in ("tokens", "sequences", "constant")
    }
    assert found == pytest.approx({"tokens": 17 / 5, "sequences": (3 + 5) / 2, "constant": 17 / 16})


def test_the_divergence_from_the_reference_is_added_and_the_mismatch_does_not_weigh_it() -> None:
    policy = TablePolicy(6)
    reference = policy.perturbed(0.5).log_probs().detach()
    tokens = of_policy(policy, sampler=policy.log_probs().detach() - 0.2, reference=reference)
    no_advantage = torch.zeros(len(policy.tokens))
    losses = update("grpo", beta=0.1).token_losses(tokens, no_advantage)
    d = reference - policy.log_probs()
    assert torch.allclose(losses, 0.1 * (d.exp() - d - 1)) and (losses >= 0).all()
    without = replace(tokens, reference=None)
    assert not update("grpo").token_losses(without, no_advantage).any()
    with pytest.raises(ValueError, match="reference"):
        update("grpo", beta=0.1).token_losses(without, no_advantage)
