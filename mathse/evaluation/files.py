"""The files of a benchmark's folder."""

from __future__ import annotations

from pathlib import Path

from mathse.runs.store import read_jsonl

PREDICTIONS = "predictions.jsonl"
UNASKED = "unasked.jsonl"  # problems that the model cannot take, with the reason
SCORED, SAMPLES, METRICS = "scored.jsonl", "samples.jsonl", "metrics.json"
DISAGREEMENTS, CONTAMINATED = "disagreements.jsonl", "contamination.jsonl"
IDENTITY = "identity.json"  # what the answers were made with
SETTINGS = "evaluation.json"  # in the run folder


def answered(folder: Path) -> list[str]:
    """The ids in ``predictions.jsonl``, in the order they were answered."""
    return list(dict.fromkeys(row["id"] for row in read_jsonl(folder / PREDICTIONS)))


def count_unasked(folder: Path) -> int:
    """How many problems the model could not take."""
    return len(list(read_jsonl(folder / UNASKED))) if (folder / UNASKED).exists() else 0
