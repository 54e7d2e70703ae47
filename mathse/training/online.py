"""Online updates: each optimiser step learns from responses that the student of that step has just sampled.

A step, in order: ``OnlineBatches.rows`` samples groups of responses from the current weights and judges them; the
loader encodes the sampled token ids (their text is never tokenised again); the module computes the log-probability of
each id under the distribution that it was sampled from, and the update (mathse/training/updates) makes token losses.

The loader asks for a step's rows when Lightning asks for its batch, which is after the optimiser step before it: the
loader has a length, so Lightning fetches nothing ahead, and an online training run has no loader workers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mathse.models.base import Backbone
from mathse.models.row import Row
from mathse.training.groups import GroupEncoder, GroupModule, Sampling, find_sampling_log_probs
from mathse.training.loader import BatchRow, Made, StepData
from mathse.training.loss import token_log_probs
from mathse.training.updates.policy_gradient import ResponseTokens
from mathse.training.updates.sampler import Level, mismatch_figures, mismatch_sums, ratio_to_sampler


class OnlineBatches(Protocol):
    """The source of an online training run's batches."""

    def rows(self, step: int, backbone: Backbone) -> Sequence[Row]:
        """Sample and judge the responses that a step learns from, each a row with its advantage.

        They are on the disk when this returns, and a resumed training run reads them there.
        """
        ...

    def figures(self, step: int) -> Mapping[str, float]:
        """Return the step's figures for the log: reward, length, groups to learn from."""
        ...


class OnlineStream:
    """The rows of each step, sampled when they are asked for."""

    def __init__(self, batches: OnlineBatches, backbone: Backbone, precision: str) -> None:
        self.batches, self.backbone, self.precision = batches, backbone, precision

    def keyed_rows(self, step: int) -> Sequence[tuple[int | None, Row]]:
        device = self.backbone.device.type
        # Sample in the precision of the training step, so that the two differ as little as possible.
        with torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16-mixed"):
            return [(None, row) for row in self.batches.rows(step, self.backbone)]


@torch.no_grad()
def compute_response_log_probs(
    backbone: Backbone, rows: Sequence[Row], sampling: Sampling, rows_at_once: int
) -> list[list[float]]:
    """Return log p of each response token of ``rows``, by row, as a sampler would draw it: of a reference or a teacher.

    The model computes in evaluation mode, and is in its earlier mode afterwards.
    """
    values: list[list[float]] = []
    log_probs_of = find_sampling_log_probs(backbone, sampling)
    was_training = backbone.model.training
    backbone.model.eval()
    try:
        for start in range(0, len(rows), rows_at_once):
            encoded = backbone.encode(rows[start : start + rows_at_once])
            batch = {name: tensor.to(backbone.device) for name, tensor in backbone.pad(encoded).items()}
            states, targets = backbone.answer_states(batch)
            flat = token_log_probs(backbone.head, states, targets, log_probs_of)
            values += [row.tolist() for row in flat.split([len(row.response) for row in encoded])]
    finally:
        backbone.model.train(was_training)
    return values


class ResponseEncoder(GroupEncoder):
    """Item: n rows -> their padded micro-batch with ``advantages`` (n,), ``sampler`` (n, T), the log-probability of
    each response token as it was drawn, and perhaps ``teacher`` (n, T); and its counts."""

    def __getitem__(self, batch_rows: Sequence[BatchRow]) -> Made:
        batch, counts = super().__getitem__(batch_rows)
        rows = [batch_row.row for batch_row in batch_rows]
        batch["sampler"] = pad_sequence([torch.tensor(row["log_probs"]) for row in rows], batch_first=True)
        if all("teacher_log_probs" in row for row in rows):
            of_rows = [torch.tensor(row["teacher_log_probs"]) for row in rows]
            batch["teacher"] = pad_sequence(of_rows, batch_first=True)
        return batch, counts


class ResponseData(StepData):
    """``StepData`` of responses that the training run samples."""

    def __init__(self, stream: Any, backbone: Backbone, *sizes: Any, **options: Any) -> None:
        super().__init__(stream, backbone, *sizes, **options)
        self.rows = ResponseEncoder(backbone, self.rows.pixels)


class OnlineModule(GroupModule):
    """``GroupModule`` whose log has the figures of the samples and of the difference between sampler and trainer.

    A batch makes one optimiser step, so the student at the start of the update is the student itself.
    """

    def __init__(
        self, backbone: Backbone, update: Any, sampling: Sampling, batches: OnlineBatches, **sft_options: Any
    ) -> None:
        super().__init__(backbone, update, sampling, **sft_options)
        self.log_probs_of = find_sampling_log_probs(backbone, sampling)
        self.batches = batches
        self.level: Level = getattr(update, "mismatch_level", "token")
        self._mismatch: list[Tensor] = []  # sums of a step's micro-batches

    def observe(self, tokens: ResponseTokens) -> None:
        assert tokens.sampler is not None
        ratios = ratio_to_sampler(tokens.old, tokens.sampler, tokens.mask, self.level)
        self._mismatch.append(mismatch_sums(tokens.old, tokens.sampler, tokens.mask, ratios, ratios))

    def training_step(self, batch: dict[str, Any], step: int) -> dict[str, Any]:
        """Make a step. Its outputs also have figures of its samples and of the difference of sampler and trainer."""
        self._mismatch = []
        number = self.global_step  # training_step raises it
        outputs: dict[str, Any] = super().training_step(batch, step)
        mismatch = mismatch_figures(torch.stack(self._mismatch).sum(0))
        return {
            **outputs,
            **self.batches.figures(number),
            **{f"sampler_{name}": value for name, value in mismatch.items()},
        }
