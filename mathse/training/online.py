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
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mathse.models.base import IGNORED, Backbone
from mathse.models.row import Row
from mathse.training.loader import Counts, Entry, Made, RowEncoder, StepData
from mathse.training.loss import token_log_probs
from mathse.training.sft import SFTModule
from mathse.training.updates.losses import aggregation_weights
from mathse.training.updates.policy_gradient import ResponseTokens
from mathse.training.updates.sampler import mismatch_figures, mismatch_sums, ratio_to_sampler


class OnlineBatches(Protocol):
    """The source of an online training run's batches.

    Attributes:
        update: the policy gradient (mathse/training/updates/policy_gradient.py).
        temperature: of sampling.
        max_new_tokens: the longest response, in tokens.
    """

    update: Any
    temperature: float
    max_new_tokens: int

    def rows(self, step: int, backbone: Backbone) -> Sequence[Row]:
        """Sample and judge the responses that a step learns from, each a row with its advantage.

        They are on the disk when this returns, and a resumed training run reads them there.
        """
        ...

    def figures(self, step: int) -> Mapping[str, float]:
        """The step's figures for the log: reward, length, groups with a difference."""
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
def response_log_probs(
    backbone: Backbone, rows: Sequence[Row], temperature: float, rows_at_once: int
) -> list[list[float]]:
    """log p of each response token of ``rows``, by row: what a reference gives responses of the student."""
    values: list[list[float]] = []
    for start in range(0, len(rows), rows_at_once):
        encoded = backbone.encode(rows[start : start + rows_at_once])
        batch = {name: tensor.to(backbone.device) for name, tensor in backbone.pad(encoded).items()}
        states, targets = backbone.answer_states(batch)
        flat = token_log_probs(backbone.head, states, targets, temperature, backbone.never_sampled)
        values += [row.tolist() for row in flat.split([len(row.response) for row in encoded])]
    return values


class ResponseEncoder(RowEncoder):
    """Item: entries -> their padded micro-batch, shortest row first, with ``advantages`` (rows,), ``sampler`` (N,), the
    log-probability that the sampler gave each of the N response tokens, and perhaps ``reference`` (N,)."""

    def __getitem__(self, entries: Sequence[Entry]) -> Made:
        encoded = self._encode(entries)
        order = sorted(range(len(entries)), key=lambda k: len(encoded[k].ids))
        batch = self.encoder.pad([encoded[k] for k in order])
        rows = [entries[k].row for k in order]
        batch["advantages"] = torch.tensor([row["advantage"] for row in rows])
        batch["sampler"] = torch.tensor([value for row in rows for value in row["log_probs"]])
        if all("reference_log_probs" in row for row in rows):
            batch["reference"] = torch.tensor([value for row in rows for value in row["reference_log_probs"]])
        tokens = sum(len(row.ids) for row in encoded)
        targets = sum(len(row.response) for row in encoded)
        return batch, Counts(len(rows), tokens, batch["input_ids"].numel(), targets)


class ResponseData(StepData):
    """``StepData`` of sampled responses."""

    def __init__(self, stream: Any, backbone: Backbone, *sizes: Any, **options: Any) -> None:
        super().__init__(stream, backbone, *sizes, **options)
        self.rows = ResponseEncoder(backbone, self.rows.pixels)


class OnlineModule(SFTModule):
    """SFT's optimiser step with the losses of a policy gradient. The averages of ``aggregation_weights`` are over the
    whole batch of a step, so its cut into micro-batches changes nothing."""

    EXTRAS = ("advantages", "sampler", "reference")

    def __init__(self, backbone: Backbone, batches: OnlineBatches, **fit: Any) -> None:
        super().__init__(backbone, **fit)
        self.batches, self.settings = batches, batches.update.settings
        self._mismatch: list[Tensor] = []  # sums of a step's micro-batches

    def terms(self, counts: Counts) -> int:
        return counts.targets if self.settings.aggregation == "tokens" else counts.rows

    def step_loss(self, micro: dict[str, Tensor], normaliser: Tensor | float) -> Tensor:
        batch = {name: tensor for name, tensor in micro.items() if name not in self.EXTRAS}
        lengths = (batch["labels"][:, 1:] != IGNORED).sum(1).tolist()  # response tokens of each row

        def by_row(flat: Tensor) -> Tensor:
            """(N,) -> (rows, tokens), padded with 0."""
            return pad_sequence(list(flat.split(lengths)), batch_first=True)

        def measure(head: nn.Module, states: Tensor, targets: Tensor) -> Tensor:
            log_probs = by_row(self._log_probs(head, states, targets))
            mask = by_row(torch.ones_like(targets, dtype=log_probs.dtype))
            tokens = ResponseTokens(
                log_probs=log_probs,
                old=log_probs.detach(),  # a batch makes one optimiser step, so the student is the old student
                mask=mask,
                sampler=by_row(micro["sampler"]),
                reference=by_row(micro["reference"]) if "reference" in micro else None,
            )
            self._count_mismatch(tokens)
            losses = self.batches.update.token_losses(tokens, micro["advantages"])
            weights = aggregation_weights(
                mask, self.settings.aggregation, normaliser, normaliser, self.batches.max_new_tokens
            )
            return (losses * weights).sum()

        loss: Tensor = self(batch, measure)
        return loss

    def _log_probs(self, head: nn.Module, states: Tensor, targets: Tensor) -> Tensor:
        """log p of each response token, (N,), under the distribution that the sampler drew from."""
        return token_log_probs(head, states, targets, self.batches.temperature, self.backbone.never_sampled)

    def _count_mismatch(self, tokens: ResponseTokens) -> None:
        assert tokens.sampler is not None
        ratios = ratio_to_sampler(tokens.old, tokens.sampler, tokens.mask, self.settings.mismatch_level)
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
