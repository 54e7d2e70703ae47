"""A policy so small that every response can be enumerated: 3 tokens over a vocabulary of 4, a softmax per prefix."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import comb

import torch
from torch import Tensor

VOCABULARY, LENGTH = 4, 3
END = 3  # the token that ends a response, in a policy with an end
PREFIXES = [p for n in range(LENGTH) for p in product(range(VOCABULARY), repeat=n)]  # 1 + 4 + 16


def all_responses(with_end: bool = False) -> tuple[Tensor, Tensor]:
    """Every response (R, 3) and its mask; with an end token those that have ended are padded behind it."""
    rows = list(product(range(VOCABULARY), repeat=LENGTH))
    if with_end:
        cut = sorted({row[: row.index(END) + 1] if END in row else row for row in rows})
        mask = [[1.0] * len(row) + [0.0] * (LENGTH - len(row)) for row in cut]
        return torch.tensor([row + (0,) * (LENGTH - len(row)) for row in cut]), torch.tensor(mask).double()
    return torch.tensor(rows), torch.ones(len(rows), LENGTH).double()


class TablePolicy:
    """The logits behind each prefix are parameters."""

    def __init__(self, seed: int, with_end: bool = False) -> None:
        self.tokens, self.mask = all_responses(with_end)
        values = torch.randn(len(PREFIXES), VOCABULARY, generator=torch.Generator().manual_seed(seed))
        self.logits = values.double().requires_grad_()
        self.prefixes = torch.tensor(
            [[PREFIXES.index(tuple(row[:n])) for n in range(LENGTH)] for row in self.tokens.tolist()]
        )

    def perturbed(self, by: float, seed: int = 7) -> TablePolicy:
        other = TablePolicy(seed)
        other.tokens, other.mask, other.prefixes = self.tokens, self.mask, self.prefixes
        other.logits = (self.logits + by * other.logits).detach().requires_grad_()
        return other

    def log_probs(self) -> Tensor:
        """(R, 3) of each response's tokens, 0 on padding."""
        table = self.logits.log_softmax(-1)[self.prefixes]  # (R, 3, 4)
        return table.gather(-1, self.tokens[..., None])[..., 0] * self.mask

    def probabilities(self) -> Tensor:
        """(R,) of the whole responses: they sum to 1."""
        return self.log_probs().sum(1).exp()

    def gradient(self, value: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(value, self.logits, retain_graph=True)
        return gradient


def right_responses(policy: TablePolicy) -> Tensor:
    """Rewards (R,) of 1 and 0 without a pattern that the policy's form could share."""
    return (torch.rand(len(policy.tokens), generator=torch.Generator().manual_seed(3)) < 0.3).double()


def expected_gradient(
    policy: TablePolicy,
    rewards: Tensor,
    group: int,
    advantages: Callable[[Tensor, Tensor], Tensor],
    response_losses: Callable[[Tensor], Tensor],
) -> Tensor:
    """The exact mean gradient over all groups of ``group`` responses that the policy may draw.

    A group counts by its number k of right responses, which is binomial; given k, each right response is drawn from
    the policy's right responses, and each wrong one from the others.

    Args:
        advantages: the update's, of (groups, samples) rewards and judged.
        response_losses: advantages (cases, R) -> their losses (cases, R) in a batch of ``group`` responses.
    """
    chances, right = policy.probabilities().detach(), rewards > 0
    p = float(chances[right].sum())
    counts = torch.arange(group + 1)
    groups = (torch.arange(group) < counts[:, None]).float()  # (group + 1, group), k right responses first
    given = advantages(groups, torch.ones_like(groups).bool()).double()
    binomial = torch.tensor([comb(group, k) * p**k * (1 - p) ** (group - k) for k in range(group + 1)]).double()

    # (group + 1, R): the advantage of each response in a group with k right responses, and how often it is there
    of_response = torch.where(right, given[:, :1], given[:, -1:])
    often = torch.where(right, counts[:, None] * chances / p, (group - counts)[:, None] * chances / (1 - p))
    return policy.gradient((binomial[:, None] * often * response_losses(of_response)).sum())
