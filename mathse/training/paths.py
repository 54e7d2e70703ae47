"""Rows of one or two paths as micro-batches, and the log-probabilities of paths before the first step.

The log-probabilities before the first step are computed once and kept in the stage's folder. So training holds one
model, and a resumed training compares with the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mathse.models.base import IGNORED, Backbone
from mathse.models.row import Row, list_row_paths
from mathse.runs.store import read_jsonl, write_jsonl
from mathse.training.batches import OnceStream
from mathse.training.loader import BatchRow, Counts, Made, RowEncoder, count_targets, remove_loss
from mathse.training.loss import LogProbsOf, token_log_probs

Lengths = Sequence[int]


def list_paths(rows: Sequence[BatchRow]) -> list[BatchRow]:
    """Return the first paths of n rows and then their second paths, if rows have two, each with its own cache key."""
    paths = [list_row_paths(batch_row.row) for batch_row in rows]
    count = len(paths[0])  # of a row
    listed = []
    for k in range(count):
        for batch_row, of_row in zip(rows, paths, strict=True):
            key = None if batch_row.key is None else count * batch_row.key + k
            listed.append(batch_row._replace(key=key, row=of_row[k]))
    return listed


class PathEncoder(RowEncoder):
    """Item: n rows -> the padded micro-batch of their paths in the order of ``list_paths``, and its counts in rows."""

    def __getitem__(self, batch_rows: Sequence[BatchRow]) -> Made:
        paths = list_paths(batch_rows)
        encoded = self._encode(paths)
        rows = [row if path.learns else remove_loss(row) for path, row in zip(paths, encoded, strict=True)]
        tokens = sum(len(row.ids) for path, row in zip(paths, rows, strict=True) if path.learns)
        batch = self.encoder.pad(rows)
        learning = sum(batch_row.learns for batch_row in batch_rows)
        return batch, Counts(learning, tokens, batch["input_ids"].numel(), count_targets(batch))


def count_targets_per_row(batch: dict[str, Tensor]) -> Tensor:
    """Return the response tokens of each row of a padded batch, (rows,)."""
    return (batch["labels"][:, 1:] != IGNORED).sum(1)


def split_log_probs(
    head: nn.Module,
    states: Tensor,
    targets: Tensor,
    tokens_per_row: Lengths,
    log_probs_of: LogProbsOf | None = None,
) -> list[Tensor]:
    """Return the log-probabilities of each row's response tokens, from the states (N, h) of all rows' tokens.

    ``log_probs_of``: see ``token_log_probs``.
    """
    return list(token_log_probs(head, states, targets, log_probs_of).split(list(tokens_per_row)))


def sum_log_probs(head: nn.Module, states: Tensor, targets: Tensor, tokens_per_row: Lengths) -> Tensor:
    """Return log p of each row's response, (rows,)."""
    return torch.stack([row.sum() for row in split_log_probs(head, states, targets, tokens_per_row)])


# --- before the first step --------------------------------------------------------------------------------------------


def add_reference(
    backbone: Backbone,
    rows: Sequence[Row],
    file: Path,
    *,
    names: Sequence[str],
    device: torch.device,
    precision: str,
    rows_at_once: int,
    log_probs_of: LogProbsOf | None = None,
) -> list[Row]:
    """Return ``rows`` with their ``reference``: the log-probability of each path before the first step.

    Args:
        backbone: the model, prepared for training.
        file: where the log-probabilities are kept. They are read from it if it has the same rows, else computed and
            written to it.
        names: in the file, of each path of a row. ("tokens",): of each token of the only path.
        device, precision: of the computation.
        rows_at_once: rows per forward pass.
        log_probs_of: see ``token_log_probs``.
    """
    ids = [row.get("id") for row in rows]
    reference = list(read_jsonl(file)) if file.exists() else []
    if [row["id"] for row in reference] != ids:
        per_token = tuple(names) == ("tokens",)
        log_probs = _compute_log_probs(backbone, rows, device, precision, rows_at_once, per_token, log_probs_of)
        reference = [{"id": i, **dict(zip(names, row, strict=True))} for i, row in zip(ids, log_probs, strict=True)]
        write_jsonl(file, reference)
    return [
        Row(**{**row, "reference": tuple(kept[name] for name in names)})
        for row, kept in zip(rows, reference, strict=True)
    ]


@torch.no_grad()
def _compute_log_probs(
    backbone: Backbone,
    rows: Sequence[Row],
    device: torch.device,
    precision: str,
    rows_at_once: int,
    per_token: bool,
    log_probs_of: LogProbsOf | None,
) -> list[list[Any]]:
    """Return log p of each path of each row; of its tokens, with ``per_token``.

    The precision is that of training, so the first ratios are 1 up to rounding. Afterwards the model is on its earlier
    device again.
    """
    encoder = PathEncoder(backbone, torch.float32 if precision == "32-true" else torch.bfloat16)
    by_key: dict[int | None, list[Any]] = {}
    earlier_device, was_training = backbone.device, backbone.model.training
    backbone.model.eval()  # without dropout
    if earlier_device.type == "cpu":
        backbone.to(device)
    try:
        for keyed_rows in OnceStream(rows, rows_at_once).batches:
            batch, _ = encoder[[BatchRow(key, row) for key, row in keyed_rows]]
            on_device = {name: tensor.to(backbone.device) for name, tensor in batch.items()}
            targets_per_row = count_targets_per_row(batch).tolist()
            with torch.autocast(backbone.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
                states, targets = backbone.answer_states(on_device)
                of_paths = split_log_probs(backbone.head, states, targets, targets_per_row, log_probs_of)
            values = [path.tolist() if per_token else path.sum().item() for path in of_paths]
            for k, (key, _) in enumerate(keyed_rows):
                by_key[key] = values[k :: len(keyed_rows)]
    finally:
        if earlier_device.type == "cpu":
            backbone.to(earlier_device)
        backbone.model.train(was_training)
    return [by_key[k] for k in range(len(rows))]
