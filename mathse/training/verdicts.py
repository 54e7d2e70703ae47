"""Training on judged paths, each with its verdict: ``evolution.update=kto`` and a user's own.

A row has a judged path (``response``), whether it is right, and the path of another problem (``mismatched``). The
divergence of the student from the reference is estimated from the mismatched paths: the mean of their log-probability
minus the reference's. It is a mean over the global batch, so it is computed in a pass of its own before the step's
losses, without a gradient and without dropout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mathse.models.base import Backbone, Length
from mathse.models.lower_layers import disable_lower_dropout
from mathse.training import ranks, strategies
from mathse.training.loader import (
    BatchRow,
    Counts,
    Made,
    MicroBatches,
    RowEncoder,
    StepData,
    count_targets,
    remove_loss,
)
from mathse.training.paths import count_targets_per_row, list_paths, sum_log_probs
from mathse.training.sft import SFTModule
from mathse.training.updates.preferences import Responses, kto_divergence

OTHER = "mismatched."  # before the names of the tensors of the mismatched paths
OF_ROWS = ("right", "reference", f"{OTHER}reference")  # tensors that the model does not take


class HeldBatches(list[dict[str, Tensor]]):
    """The micro-batches of a step, which can be iterated twice, and their ``counts`` together."""

    def __init__(self, micro_batches: MicroBatches) -> None:
        super().__init__(micro_batches)
        self.counts = micro_batches.counts


class VerdictModule(SFTModule):
    """SFT's step with the mean of the update's ``verdict_losses`` over the rows of a global batch as its loss.

    Validation is SFT's: the loss on reference solutions.
    """

    def __init__(self, backbone: Backbone, update: Any, **sft_options: Any) -> None:
        super().__init__(backbone, **sft_options)
        self.update = update
        self.divergence = torch.zeros(())  # of the current step
        self._ahead: list[tuple[Tensor, Tensor]] = []  # of each micro-batch of a step: ahead (n,), right (n,)

    def count_terms(self, counts: Counts) -> int:
        return counts.rows

    def training_step(self, batch: dict[str, Any], step: int) -> dict[str, Tensor]:
        """Estimate the divergence and make SFT's step. Logs the divergence, and by how much right and wrong paths are
        ahead of the reference."""
        held = HeldBatches(batch["micro"])
        self.divergence = self._estimate_divergence(held)
        self._ahead = []
        outputs = super().training_step({**batch, "micro": held}, step)

        sums = torch.zeros(4, dtype=torch.float64, device=self.device)  # of right paths: sum, number; of wrong paths
        for ahead, right in self._ahead:
            for k, chosen in enumerate((right, ~right)):
                sums[2 * k] += ahead[chosen].sum()
                sums[2 * k + 1] += chosen.sum()
        right_sum, n_right, wrong_sum, n_wrong = ranks.current().all_reduce(sums)
        return {
            **outputs,
            "divergence": self.divergence,
            "right_ahead": right_sum / n_right.clamp(min=1),
            "wrong_ahead": wrong_sum / n_wrong.clamp(min=1),
        }

    @torch.no_grad()
    def _estimate_divergence(self, micro_batches: Sequence[dict[str, Tensor]]) -> Tensor:
        self.model.eval()
        total = torch.zeros(2, dtype=torch.float64, device=self.device)  # sum of ahead, number of rows
        for micro in micro_batches:
            on_device = strategies.on_device(self.trainer, micro)
            batch = {name.removeprefix(OTHER): t for name, t in on_device.items() if name.startswith(OTHER)}
            reference = batch.pop("reference")
            tokens = count_targets_per_row(batch)

            def measure(head: nn.Module, states: Tensor, targets: Tensor, tokens: Tensor = tokens) -> Tensor:
                return sum_log_probs(head, states, targets, tokens.tolist())

            ahead = (self(batch, measure) - reference)[tokens > 0]
            total += torch.stack([ahead.double().sum(), (tokens > 0).sum().double()])
        self.model.train()
        disable_lower_dropout(self.backbone)
        total = ranks.current().all_reduce(total)
        return kto_divergence(total[0], total[1]).float()

    def step_loss(self, micro: dict[str, Tensor], normaliser: Tensor | float) -> Tensor:
        batch = {name: t for name, t in micro.items() if name not in OF_ROWS and not name.startswith(OTHER)}
        targets_per_row = count_targets_per_row(batch)  # (n,)

        def measure(head: nn.Module, states: Tensor, targets: Tensor) -> Tensor:
            log_probs = sum_log_probs(head, states, targets, targets_per_row.tolist())
            learns = targets_per_row > 0  # a row that fills up a rank's micro-batch has no targets
            responses = Responses(log_probs[learns], micro["reference"][learns], targets_per_row[learns])
            right = micro["right"][learns]
            losses = self.update.verdict_losses(responses, right, self.divergence)
            self._ahead.append((responses.ahead.detach().double(), right))
            # The zero term connects the loss to the model where no row learns: each rank needs a backward pass.
            return (losses.sum() + 0 * states.sum()) / normaliser

        loss: Tensor = self(batch, measure)
        return loss


class VerdictEncoder(RowEncoder):
    """Item: n rows -> their padded micro-batch with ``right`` and ``reference`` (n,), the same of their mismatched
    paths under other names, and the counts of the rows."""

    def __getitem__(self, batch_rows: Sequence[BatchRow]) -> Made:
        paths, n = list_paths(batch_rows), len(batch_rows)
        encoded = self._encode(paths)
        rows = [row if path.learns else remove_loss(row) for path, row in zip(paths, encoded, strict=True)]
        batch, mismatched = self.encoder.pad(rows[:n]), self.encoder.pad(rows[n:])
        reference = torch.tensor([batch_row.row.get("reference", (0.0, 0.0)) for batch_row in batch_rows])  # (n, 2)
        right = torch.tensor([batch_row.row["right"] for batch_row in batch_rows])
        tensors = {**batch, "right": right, "reference": reference[:, 0]}
        tensors |= {f"{OTHER}{name}": tensor for name, tensor in mismatched.items()}
        tensors[f"{OTHER}reference"] = reference[:, 1]

        learning = [len(row.ids) for batch_row, row in zip(batch_rows, rows[:n], strict=True) if batch_row.learns]
        return tensors, Counts(len(learning), sum(learning), batch["input_ids"].numel(), count_targets(batch))


class VerdictData(StepData):
    """``StepData`` of judged paths, each with a mismatched path."""

    def __init__(self, stream: Any, backbone: Backbone, *sizes: Any, **options: Any) -> None:
        super().__init__(stream, backbone, *sizes, **options)
        self.rows = VerdictEncoder(backbone, self.rows.pixels, self.rows.kept)

    def _count_lengths(self, rows: Sequence[BatchRow]) -> list[Length]:
        """The length of a row is that of its longer path: the two are in different forward passes."""
        lengths = super()._count_lengths(list_paths(rows))
        pairs = zip(lengths[: len(rows)], lengths[len(rows) :], strict=True)
        return [Length(max(a.total, b.total) - a.response, a.response) for a, b in pairs]
