"""Training on pairs of an accepted and a rejected path: ``evolution.update=dpo``, ``mpo`` and a user's own.

A row is a pair: ``response`` is the accepted path, ``rejected`` the other. A micro-batch of n pairs has 2n rows, first
the n accepted paths and then the n rejected paths in the same order. The reference is the model before the first step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mathse.models.base import Backbone, Length
from mathse.training import ranks
from mathse.training.loader import BatchRow, Counts, Made, StepData
from mathse.training.paths import PathEncoder, count_targets_per_row, list_paths, sum_log_probs
from mathse.training.sft import SFTModule
from mathse.training.updates.preferences import Responses


class PairModule(SFTModule):
    """SFT's step with the mean of the update's ``pair_losses`` over the pairs of a global batch as its loss.

    Validation is SFT's: the loss on reference solutions.

    Args:
        update: has ``pair_losses``, and ``beta``, the factor of implicit rewards (1 where it has none).
    """

    def __init__(self, backbone: Backbone, update: Any, **sft_options: Any) -> None:
        super().__init__(backbone, **sft_options)
        self.update, self.beta = update, getattr(update, "beta", 1.0)
        # Over all pairs of the earlier steps: the sum of their two implicit rewards, and their number.
        self.earlier = torch.zeros(2, dtype=torch.float64)
        self._margins: list[Tensor] = []  # of each micro-batch of a step, (n,)
        self._rewards: list[Tensor] = []  # of each micro-batch of a step, the sum

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["earlier"] = self.earlier.tolist()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.earlier = torch.tensor(checkpoint["earlier"], dtype=torch.float64)

    def count_terms(self, counts: Counts) -> int:
        return counts.rows

    def step_loss(self, micro: dict[str, Tensor], normaliser: Tensor | float) -> Tensor:
        batch = {name: tensor for name, tensor in micro.items() if name != "reference"}
        targets_per_row = count_targets_per_row(batch)  # (2n,)
        mean_reward = self.earlier[0] / (2 * self.earlier[1]).clamp(min=1)

        def measure(head: nn.Module, states: Tensor, targets: Tensor) -> Tensor:
            log_probs = sum_log_probs(head, states, targets, targets_per_row.tolist())  # (2n,)
            columns = [tensor.chunk(2) for tensor in (log_probs, micro["reference"], targets_per_row)]
            learns = targets_per_row.chunk(2)[0] > 0  # a pair that fills up a rank's micro-batch has no targets
            chosen, rejected = (Responses(*(column[k][learns] for column in columns)) for k in (0, 1))
            losses = self.update.pair_losses(chosen, rejected, mean_reward)

            rewards = [self.beta * paths.ahead.detach() for paths in (chosen, rejected)]
            self._margins.append((self.beta * (chosen.ahead - rejected.ahead)).detach())
            self._rewards.append(rewards[0].sum() + rewards[1].sum())
            # The zero term connects the loss to the model where no pair learns: each rank needs a backward pass.
            return (losses.sum() + 0 * states.sum()) / normaliser

        loss: Tensor = self(batch, measure)
        return loss

    def training_step(self, batch: dict[str, Any], step: int) -> dict[str, Tensor]:
        """Make SFT's step and log two more figures: the mean margin, and the share of pairs with a positive margin."""
        self._margins, self._rewards = [], []
        outputs = super().training_step(batch, step)
        margins, rewards = torch.cat(self._margins), torch.stack(self._rewards)
        pairs = torch.tensor(len(margins), device=margins.device)
        sums = torch.stack([margins.sum(), (margins > 0).sum(), pairs, rewards.sum()])
        margin, preferred, count, reward = ranks.current().all_reduce(sums.double())
        self.earlier = self.earlier.to(margins.device) + torch.stack([reward, count])
        return {**outputs, "margin": margin / count, "preferred": preferred / count}


class PairEncoder(PathEncoder):
    """Item: n pairs -> their padded micro-batch of 2n rows with ``reference`` (2n,), and its counts in pairs."""

    def __getitem__(self, batch_rows: Sequence[BatchRow]) -> Made:
        batch, counts = super().__getitem__(batch_rows)
        reference = torch.tensor([pair.row.get("reference", (0.0, 0.0)) for pair in batch_rows])  # (n, 2)
        return {**batch, "reference": reference.T.flatten()}, counts


class PairData(StepData):
    """``StepData`` of pairs: a micro-batch of n pairs is 2n rows of a forward pass."""

    def __init__(self, stream: Any, backbone: Backbone, *sizes: Any, **options: Any) -> None:
        super().__init__(stream, backbone, *sizes, **options)
        self.rows = PairEncoder(backbone, self.rows.pixels, self.rows.kept)

    def _count_lengths(self, rows: Sequence[BatchRow]) -> list[Length]:
        """A pair is as long as two rows of its longer path, because both are padded to this length."""
        lengths = super()._count_lengths(list_paths(rows))
        pairs = []
        for accepted, rejected in zip(lengths[: len(rows)], lengths[len(rows) :], strict=True):
            response = accepted.response + rejected.response
            pairs.append(Length(2 * max(accepted.total, rejected.total) - response, response))
        return pairs
