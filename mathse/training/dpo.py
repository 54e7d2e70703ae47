"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290): of two paths to a problem the student learns
to prefer the accepted one, by as much more than the model that the fit began with (its reference) as the data say.

A row of such a fit is a pair: ``response`` was accepted, ``rejected`` was not. In a micro-batch the accepted rows stand
first, and the rejected ones behind them in the same order. What the reference gives each path is computed once, before
the first step, and kept in the stage's folder: so a fit holds one model, and a resumed one has the same reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mathse.config.evolution import DPOConfig
from mathse.models.base import IGNORED, Backbone, Length
from mathse.models.row import Row, paths_of
from mathse.runs.store import read_jsonl, write_jsonl
from mathse.training import ranks
from mathse.training.batches import OnceStream
from mathse.training.loader import Counts, Entry, Made, RowEncoder, StepData, count_targets, without_loss
from mathse.training.loss import token_log_probs
from mathse.training.sft import SFTModule


class DPOModule(SFTModule):
    """SFT's step with another loss: the mean over the pairs of a global batch of -log sigmoid(margin).

    The margin is ``beta`` times (log p(accepted) - log p(rejected)), less the same of the reference; log p sums over
    response tokens. With ``label_smoothing`` a share of the pairs is taken to be the wrong way round (Chowdhury et al.
    2024, arXiv 2403.00409). ``nll_weight`` adds the accepted path's negative log-likelihood, a mean over its tokens,
    which keeps the margin from growing while both paths become less likely (Pang et al. 2024, arXiv 2404.19733).
    Validation is SFT's: the loss on reference solutions.
    """

    def __init__(self, backbone: Backbone, settings: DPOConfig, **fit: Any) -> None:
        super().__init__(backbone, **fit)
        self.settings = settings
        self._margins: list[Tensor] = []  # of a step's micro-batches

    def terms(self, counts: Counts) -> int:
        return counts.rows

    def step_loss(self, micro: dict[str, Tensor], normaliser: Tensor | float) -> Tensor:
        batch = {name: tensor for name, tensor in micro.items() if name != "reference"}
        targets_of_row = (batch["labels"][:, 1:] != IGNORED).sum(1)  # (2n,)
        reference = micro["reference"]  # (2n,)

        def measure(head: nn.Module, states: Tensor, targets: Tensor) -> Tensor:
            log_probs = row_log_probs(head, states, targets, targets_of_row.tolist())  # (2n,)
            accepted, rejected = (log_probs - reference).chunk(2)
            tokens = targets_of_row.chunk(2)[0]  # of the accepted paths
            learns = tokens > 0  # a pair that only fills up has no targets
            margins = self.settings.beta * (accepted - rejected)[learns]  # (n,)
            self._margins.append(margins.detach())
            wrong = self.settings.label_smoothing
            losses = -(1 - wrong) * F.logsigmoid(margins) - wrong * F.logsigmoid(-margins)
            losses = losses - self.settings.nll_weight * (log_probs.chunk(2)[0][learns] / tokens[learns])
            # states are counted in where no pair learns, so that every rank has something to go back through
            return (losses.sum() + 0 * states.sum()) / normaliser

        loss: Tensor = self(batch, measure)
        return loss

    def training_step(self, batch: dict[str, Any], step: int) -> dict[str, Tensor]:
        """Logs beside the loss the mean margin, and the share of pairs in which the accepted path is ahead."""
        self._margins = []
        outputs = super().training_step(batch, step)
        margins = torch.cat(self._margins)
        sums = torch.stack([margins.sum(), (margins > 0).sum(), torch.tensor(len(margins), device=margins.device)])
        margin, preferred, pairs = ranks.current().all_reduce(sums.double())
        return {**outputs, "margin": margin / pairs, "preferred": preferred / pairs}


def row_log_probs(head: nn.Module, states: Tensor, targets: Tensor, lengths: Sequence[int]) -> Tensor:
    """log p of each row's response, (rows,): ``lengths`` says how many of the tokens are each row's."""
    rows = token_log_probs(head, states, targets).split(list(lengths))
    return torch.stack([row.sum() for row in rows])


class PairEncoder(RowEncoder):
    """Item: entries of n pairs -> their padded micro-batch of 2n rows with ``reference`` (2n,), and its counts, whose
    rows are pairs."""

    def __getitem__(self, entries: Sequence[Entry]) -> Made:
        halves = [half(entry, k) for k in (0, 1) for entry in entries]
        encoded = self._encode(halves)
        rows = [row if entry.learns else without_loss(row) for entry, row in zip(halves, encoded, strict=True)]
        tokens = sum(len(row.ids) for entry, row in zip(halves, rows, strict=True) if entry.learns)
        batch = self.encoder.pad(rows)
        counts = Counts(
            sum(entry.learns for entry in entries), tokens, batch["input_ids"].numel(), count_targets(batch)
        )
        reference = [entry.row.get("reference", (0.0, 0.0))[k] for k in (0, 1) for entry in entries]
        return {**batch, "reference": torch.tensor(reference)}, counts


class PairData(StepData):
    """``StepData`` whose rows are pairs; a micro-batch of so many pairs is twice as many rows."""

    def __init__(self, stream: Any, backbone: Backbone, *sizes: Any, **options: Any) -> None:
        super().__init__(stream, backbone, *sizes, **options)
        self.rows = PairEncoder(backbone, self.rows.pixels, self.rows.kept)

    def _counted(self, entries: Sequence[Entry]) -> list[Length]:
        """A pair is as long as two rows of its longer path, since both are padded to that."""
        lengths = super()._counted([half(entry, k) for entry in entries for k in (0, 1)])
        pairs = zip(lengths[::2], lengths[1::2], strict=True)
        targets = [(a.response + b.response, 2 * max(a.total, b.total)) for a, b in pairs]
        return [Length(total - response, response) for response, total in targets]


def half(entry: Entry, which: int) -> Entry:
    """A pair's accepted path (0) or its rejected one (1) as a row of its own."""
    key = None if entry.key is None else 2 * entry.key + which
    return entry._replace(key=key, row=paths_of(entry.row)[which])


# --- the reference ----------------------------------------------------------------------------------------------------


def with_reference(
    backbone: Backbone, pairs: Sequence[Row], file: Path, *, device: torch.device, precision: str, at_once: int
) -> list[Row]:
    """``pairs`` with their ``reference``: what ``backbone``, ready to be fitted, gives each path before the first step.

    Read from ``file`` where that is of these pairs; else computed, ``at_once`` pairs in a pass, and written there.
    """
    ids = [pair.get("id") for pair in pairs]
    reference = list(read_jsonl(file)) if file.exists() else []
    if [row["id"] for row in reference] != ids:
        values = _log_probs(backbone, pairs, device, precision, at_once)
        reference = [{"id": i, "chosen": a, "rejected": b} for i, (a, b) in zip(ids, values, strict=True)]
        write_jsonl(file, reference)
    return [
        Row(**{**pair, "reference": (row["chosen"], row["rejected"])})
        for pair, row in zip(pairs, reference, strict=True)
    ]


@torch.no_grad()
def _log_probs(
    backbone: Backbone, pairs: Sequence[Row], device: torch.device, precision: str, at_once: int
) -> list[tuple[float, float]]:
    """In the fit's precision, so that margins begin at 0 to rounding. The model is where it was before, afterwards."""
    encoder = PairEncoder(backbone, torch.float32 if precision == "32-true" else torch.bfloat16)
    values: dict[int | None, tuple[float, float]] = {}
    before, training = backbone.device, backbone.model.training
    backbone.model.eval()  # no dropout
    if before.type == "cpu":
        backbone.to(device)
    try:
        for entries in OnceStream(pairs, at_once).batches:
            batch, _ = encoder[[Entry(key, row) for key, row in entries]]
            on_device = {name: tensor.to(backbone.device) for name, tensor in batch.items() if name != "reference"}
            lengths = (batch["labels"][:, 1:] != IGNORED).sum(1).tolist()
            with torch.autocast(backbone.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
                sums = row_log_probs(backbone.head, *backbone.answer_states(on_device), lengths).tolist()
            values |= {key: (sums[k], sums[len(entries) + k]) for k, (key, _) in enumerate(entries)}
    finally:
        if before.type == "cpu":
            backbone.to(before)
        backbone.model.train(training)
    return [values[k] for k in range(len(pairs))]
