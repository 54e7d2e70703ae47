"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290).

The student learns to prefer the accepted of two paths to a problem, relative to a reference: the model before the first
step. A row of such a training is a pair: ``response`` is the accepted path, ``rejected`` the other. A micro-batch of n
pairs has 2n rows, first the n accepted paths and then the n rejected paths in the same order.

The reference's log-probabilities are computed once, before the first step, and kept in the stage's folder. So training
holds one model, and a resumed training has the same reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mathse.config.evolution import DPO
from mathse.models.base import IGNORED, Backbone, Length
from mathse.models.row import Row, paths_of
from mathse.runs.store import read_jsonl, write_jsonl
from mathse.training import ranks
from mathse.training.batches import OnceStream
from mathse.training.loader import BatchRow, Counts, Made, RowEncoder, StepData, count_targets, remove_loss
from mathse.training.loss import token_log_probs
from mathse.training.sft import SFTModule


class DPOModule(SFTModule):
    """SFT's step with the mean of -log sigmoid(margin) over the pairs of a global batch as its loss.

    The margin is ``beta * (log p(accepted) - log p(rejected))`` minus the same term of the reference, with log p summed
    over response tokens. Validation is SFT's: the loss on reference solutions.

    Args:
        settings: ``beta``; ``label_smoothing``, the share of pairs assumed to have swapped labels (Chowdhury et al.
            2024, arXiv 2403.00409); ``nll_weight``, the weight of the accepted path's negative log-likelihood, a mean
            over its tokens, without which the margin can grow while both paths become less likely (Pang et al. 2024,
            arXiv 2404.19733).
    """

    def __init__(self, backbone: Backbone, settings: DPO, **sft_options: Any) -> None:
        super().__init__(backbone, **sft_options)
        self.settings = settings
        self._margins: list[Tensor] = []  # of each micro-batch of a step, (n,)

    def count_terms(self, counts: Counts) -> int:
        return counts.rows

    def step_loss(self, micro: dict[str, Tensor], normaliser: Tensor | float) -> Tensor:
        batch = {name: tensor for name, tensor in micro.items() if name != "reference"}
        targets_per_row = (batch["labels"][:, 1:] != IGNORED).sum(1)  # (2n,)
        reference = micro["reference"]  # (2n,)

        def measure(head: nn.Module, states: Tensor, targets: Tensor) -> Tensor:
            log_probs = sum_log_probs(head, states, targets, targets_per_row.tolist())  # (2n,)
            accepted, rejected = (log_probs - reference).chunk(2)  # (n,) each
            tokens = targets_per_row.chunk(2)[0]  # of the accepted paths
            learns = tokens > 0  # a pair that fills up a rank's micro-batch has no targets
            margins = self.settings.beta * (accepted - rejected)[learns]
            self._margins.append(margins.detach())

            smoothing = self.settings.label_smoothing
            losses = -(1 - smoothing) * F.logsigmoid(margins) - smoothing * F.logsigmoid(-margins)
            losses = losses - self.settings.nll_weight * (log_probs.chunk(2)[0][learns] / tokens[learns])
            # The zero term connects the loss to the model where no pair learns: each rank needs a backward pass.
            return (losses.sum() + 0 * states.sum()) / normaliser

        loss: Tensor = self(batch, measure)
        return loss

    def training_step(self, batch: dict[str, Any], step: int) -> dict[str, Tensor]:
        """Make SFT's step and log two more figures: the mean margin, and the share of pairs with a positive margin."""
        self._margins = []
        outputs = super().training_step(batch, step)
        margins = torch.cat(self._margins)
        sums = torch.stack([margins.sum(), (margins > 0).sum(), torch.tensor(len(margins), device=margins.device)])
        margin, preferred, pairs = ranks.current().all_reduce(sums.double())
        return {**outputs, "margin": margin / pairs, "preferred": preferred / pairs}


def sum_log_probs(head: nn.Module, states: Tensor, targets: Tensor, tokens_per_row: Sequence[int]) -> Tensor:
    """Return log p of each row's response, (rows,), from the states (N, h) of all rows' response tokens."""
    rows = token_log_probs(head, states, targets).split(list(tokens_per_row))
    return torch.stack([row.sum() for row in rows])


class PairEncoder(RowEncoder):
    """Item: n pairs -> their padded micro-batch of 2n rows with ``reference`` (2n,), and its counts in pairs."""

    def __getitem__(self, pairs: Sequence[BatchRow]) -> Made:
        paths = list_paths(pairs)
        encoded = self._encode(paths)
        rows = [row if path.learns else remove_loss(row) for path, row in zip(paths, encoded, strict=True)]
        tokens = sum(len(row.ids) for path, row in zip(paths, rows, strict=True) if path.learns)
        batch = self.encoder.pad(rows)
        learning = sum(pair.learns for pair in pairs)
        counts = Counts(learning, tokens, batch["input_ids"].numel(), count_targets(batch))
        reference = torch.tensor([pair.row.get("reference", (0.0, 0.0)) for pair in pairs])  # (n, 2)
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


def list_paths(pairs: Sequence[BatchRow]) -> list[BatchRow]:
    """Return the accepted paths of n pairs and then their rejected paths: 2n rows, each with its own cache key."""
    paths = []
    for k in (0, 1):
        for pair in pairs:
            key = None if pair.key is None else 2 * pair.key + k
            paths.append(pair._replace(key=key, row=paths_of(pair.row)[k]))
    return paths


# --- the reference ----------------------------------------------------------------------------------------------------


def add_reference(
    backbone: Backbone, pairs: Sequence[Row], file: Path, *, device: torch.device, precision: str, pairs_at_once: int
) -> list[Row]:
    """Return ``pairs`` with their ``reference``: the log-probability of each path before the first step.

    Args:
        backbone: the model, prepared for training.
        file: where the log-probabilities are kept. They are read from it if it has the same pairs, else computed and
            written to it.
        device, precision: of the computation.
        pairs_at_once: pairs per forward pass.
    """
    ids = [pair.get("id") for pair in pairs]
    reference = list(read_jsonl(file)) if file.exists() else []
    if [row["id"] for row in reference] != ids:
        log_probs = _compute_log_probs(backbone, pairs, device, precision, pairs_at_once)
        reference = [{"id": i, "chosen": a, "rejected": b} for i, (a, b) in zip(ids, log_probs, strict=True)]
        write_jsonl(file, reference)
    return [
        Row(**{**pair, "reference": (row["chosen"], row["rejected"])})
        for pair, row in zip(pairs, reference, strict=True)
    ]


@torch.no_grad()
def _compute_log_probs(
    backbone: Backbone, pairs: Sequence[Row], device: torch.device, precision: str, pairs_at_once: int
) -> list[tuple[float, float]]:
    """Return log p of the accepted and the rejected path of each pair.

    The precision is that of training, so the first margins are 0 up to rounding. Afterwards the model is on its earlier
    device again.
    """
    encoder = PairEncoder(backbone, torch.float32 if precision == "32-true" else torch.bfloat16)
    by_key: dict[int | None, tuple[float, float]] = {}
    earlier_device, was_training = backbone.device, backbone.model.training
    backbone.model.eval()  # without dropout
    if earlier_device.type == "cpu":
        backbone.to(device)
    try:
        for keyed_pairs in OnceStream(pairs, pairs_at_once).batches:
            batch, _ = encoder[[BatchRow(key, row) for key, row in keyed_pairs]]
            on_device = {name: tensor.to(backbone.device) for name, tensor in batch.items() if name != "reference"}
            targets_per_row = (batch["labels"][:, 1:] != IGNORED).sum(1).tolist()
            with torch.autocast(backbone.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
                sums = sum_log_probs(backbone.head, *backbone.answer_states(on_device), targets_per_row).tolist()
            for k, (key, _) in enumerate(keyed_pairs):
                by_key[key] = (sums[k], sums[len(keyed_pairs) + k])
    finally:
        if earlier_device.type == "cpu":
            backbone.to(earlier_device)
        backbone.model.train(was_training)
    return [by_key[k] for k in range(len(pairs))]
