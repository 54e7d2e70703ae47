"""The files of a benchmark's folder, as evaluate.py writes it; names that training runs use too are theirs."""

from __future__ import annotations

from pathlib import Path

from mathse.runs.layout import METRICS, PREDICTIONS, REPORT, VERDICTS
from mathse.runs.store import read_jsonl

__all__ = ["CONTAMINATED", "DISAGREEMENTS", "IDENTITY", "JUDGED", "METRICS", "PREDICTIONS", "REPORT", "SAMPLES",
           "SCORED", "SETTINGS", "UNASKED", "VERDICTS", "answered", "count_unasked"]  # fmt: skip

UNASKED = "unasked.jsonl"  # problems that the model cannot take, with the reason
SCORED, SAMPLES = "scored.jsonl", "samples.jsonl"
DISAGREEMENTS, CONTAMINATED = "disagreements.jsonl", "contamination.jsonl"
JUDGED = "judged.jsonl"  # of benchmark=orm_test
IDENTITY = "identity.json"  # what the answers were made with
SETTINGS = "evaluation.json"  # in the output folder


def answered(folder: Path) -> list[str]:
    """The ids in ``predictions.jsonl``, in the order they were answered."""
    return list(dict.fromkeys(row["id"] for row in read_jsonl(folder / PREDICTIONS)))


def count_unasked(folder: Path) -> int:
    """How many problems the model could not take."""
    return len(list(read_jsonl(folder / UNASKED))) if (folder / UNASKED).exists() else 0
