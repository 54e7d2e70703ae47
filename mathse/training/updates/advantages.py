"""Advantages: how much better a response is than the other responses to its problem.

Sources: GRPO (arXiv 2402.03300) divides by the group's standard deviation; Dr. GRPO (2503.20783) does not; RLOO
(2402.14740) compares with the mean of the other responses; Lite PPO (2508.08221) divides by the deviation of the batch.
In expectation REINFORCE with a baseline maximises p, the share of right responses, GRPO arcsin(sqrt(p)), and learning
from right responses only (RAFT) log p (2510.13651).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Baseline = Literal["mean", "leave_one_out", "none"]
Scale = Literal["group_std", "batch_std", "none"]

EPSILON = 1e-4  # added to a standard deviation, as TRL does


def group_advantages(rewards: Tensor, judged: Tensor, baseline: Baseline = "mean", scale: Scale = "none") -> Tensor:
    """The advantage of each response, (groups, samples) in float32. All tokens of a response have its advantage.

    Args:
        rewards: (groups, samples); a group has the responses to one problem.
        judged: (groups, samples), False where the verdict is ``unparsed`` or a group has fewer responses. Such a
            response has advantage 0 and is in no mean and no deviation: a reward of 0 would lower the others' baseline.
        baseline: the reward that a response is compared with: the mean of its group, the mean of the other responses
            of its group, or 0.
        scale: the standard deviation (of a sample, n - 1) that the advantage is divided by.
    """
    # In float64 the sums of rewards 0 and 1 are exact, so the order of the samples changes nothing.
    values = torch.where(judged, rewards.double(), 0.0)
    count = judged.sum(1, keepdim=True)  # (groups, 1)
    mean = values.sum(1, keepdim=True) / count.clamp(min=1)
    centred = torch.where(judged, values - mean, 0.0)

    advantages = values if baseline == "none" else centred
    if baseline == "leave_one_out":
        # r_i - mean of the others = n / (n - 1) * (r_i - mean); without others there is no baseline, and centred is 0
        advantages = centred * count / (count - 1).clamp(min=1)

    if scale == "group_std":
        deviation = (centred.square().sum(1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
        advantages = advantages / (deviation + EPSILON)
    elif scale == "batch_std":
        total = judged.sum()
        from_batch_mean = torch.where(judged, values - values.sum() / total.clamp(min=1), 0.0)
        deviation = (from_batch_mean.square().sum() / (total - 1).clamp(min=1)).sqrt()
        advantages = advantages / (deviation + EPSILON)
    return advantages.float()


def find_mixed_groups(outcomes: Tensor, judged: Tensor, tolerance: float = 1e-6) -> Tensor:
    """The groups whose judged responses differ in their outcome, (groups,) of bool. Only these have something to learn.

    Args:
        outcomes: (groups, samples), right (1) or wrong (0). Not the shaped reward: with a bonus for form or length, a
            group of wrong responses would differ and be kept.
        tolerance: a scored outcome has the noise of floats, so equality is no test.
    """
    values = outcomes.double()
    highest = torch.where(judged, values, -torch.inf).amax(1)
    lowest = torch.where(judged, values, torch.inf).amin(1)
    return highest - lowest > tolerance  # -inf where no response is judged
