"""Training on paths with advantages: ``evolution.update=grpo`` and its kin, and a user's own.

The advantage of a path is computed by its update from the verdicts on all paths of its problem, before the first step.
A row has the path (``response``), its ``advantage`` and, where the update needs it, the log-probability of each of its
tokens before the first step (``reference``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mathse.models.base import Backbone
from mathse.training.loader import BatchRow, Counts, Made, StepData
from mathse.training.loss import LogProbsOf
from mathse.training.paths import PathEncoder, count_targets_per_row, split_log_probs
from mathse.training.sft import SFTModule
from mathse.training.updates.losses import Aggregation, aggregation_weights
from mathse.training.updates.policy_gradient import ResponseTokens
from mathse.training.updates.sampler import sampling_log_probs

OF_ROWS = ("advantages", "old", "sampler", "teacher")  # tensors that the model does not take


@dataclass(frozen=True)
class Sampling:
    """How paths were sampled: the temperature, and the most tokens of a path."""

    temperature: float
    max_new_tokens: int


def log_probs_of_sampler(backbone: Backbone, update: Any, sampling: Sampling | None) -> LogProbsOf | None:
    """Return the log-probabilities of the distribution that paths were drawn from, for an update that compares them.

    The sampler divides logits by its temperature and leaves out the tokens that no path may have, such as an image's.
    None: the update compares none, so its log-probabilities are those of the model itself.
    """
    if sampling is None or not getattr(update, "needs_old", False):
        return None
    return find_sampling_log_probs(backbone, sampling)


def find_sampling_log_probs(backbone: Backbone, sampling: Sampling) -> LogProbsOf:
    """Return the log-probabilities of the distribution that the sampler draws from."""
    allowed = torch.ones(int(backbone.head.out_features), dtype=torch.bool)
    allowed[backbone.never_sampled] = False

    def log_probs_of(logits: Tensor, targets: Tensor) -> Tensor:
        return sampling_log_probs(logits, targets, sampling.temperature, allowed.to(logits.device))

    return log_probs_of


class GroupModule(SFTModule):
    """SFT's step with the update's ``token_losses``, averaged over a global batch by its ``aggregation``, as its loss.

    Validation is SFT's: the loss on reference solutions.

    Args:
        update: has ``token_losses``.
        sampling: of the paths; None: log-probabilities are those of the model itself.
    """

    def __init__(self, backbone: Backbone, update: Any, sampling: Sampling | None, **sft_options: Any) -> None:
        super().__init__(backbone, **sft_options)
        self.update = update
        self.longest = None if sampling is None else sampling.max_new_tokens
        self.log_probs_of = log_probs_of_sampler(backbone, update, sampling)
        self.aggregation: Aggregation = getattr(update, "aggregation", "tokens")

    def count_terms(self, counts: Counts) -> Tensor:
        return torch.tensor([counts.rows, counts.targets], device=self.device)

    def step_loss(self, micro: dict[str, Tensor], normaliser: Tensor | float) -> Tensor:
        batch = {name: tensor for name, tensor in micro.items() if name not in OF_ROWS}
        targets_per_row = count_targets_per_row(batch).tolist()
        assert isinstance(normaliser, Tensor)
        rows, tokens = normaliser  # of the global batch

        def measure(head: nn.Module, states: Tensor, targets: Tensor) -> Tensor:
            of_rows = split_log_probs(head, states, targets, targets_per_row, self.log_probs_of)
            log_probs = pad_sequence(of_rows, batch_first=True)  # (n, T)
            mask = pad_sequence([torch.ones_like(row) for row in of_rows], batch_first=True)
            old = micro["old"][:, : log_probs.shape[1]] if "old" in micro else log_probs.detach()
            # Offline, the model before the first step is also the reference.
            reference = micro.get("teacher", micro.get("old"))
            responses = ResponseTokens(log_probs, old, mask, micro.get("sampler"), reference)
            self.observe(responses)
            losses = self.update.token_losses(responses, micro["advantages"])
            weights = aggregation_weights(mask, self.aggregation, rows, tokens, self.longest)
            # The zero term connects the loss to the model where no row learns: each rank needs a backward pass.
            return (weights * losses).sum() + 0 * states.sum()

        loss: Tensor = self(batch, measure)
        return loss

    def observe(self, tokens: ResponseTokens) -> None:
        """Called with the tokens of each micro-batch, before their losses are computed."""


class GroupEncoder(PathEncoder):
    """Item: n rows -> their padded micro-batch with ``advantages`` (n,) and ``old`` (n, T), and its counts."""

    def __getitem__(self, batch_rows: Sequence[BatchRow]) -> Made:
        batch, counts = super().__getitem__(batch_rows)
        tensors = {**batch, "advantages": torch.tensor([batch_row.row["advantage"] for batch_row in batch_rows])}
        if all("reference" in batch_row.row for batch_row in batch_rows):
            of_rows = [torch.tensor(batch_row.row["reference"][0]) for batch_row in batch_rows]
            tensors["old"] = pad_sequence(of_rows, batch_first=True)
        return tensors, counts


class GroupData(StepData):
    """``StepData`` of paths with advantages."""

    def __init__(self, stream: Any, backbone: Backbone, *sizes: Any, **options: Any) -> None:
        super().__init__(stream, backbone, *sizes, **options)
        self.rows = GroupEncoder(backbone, self.rows.pixels, self.rows.kept)
