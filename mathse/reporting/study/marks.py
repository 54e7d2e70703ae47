"""What an accuracy is a share of, answer by answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mathse.errors import DataError
from mathse.runs.reader import Run
from mathse.runs.store import read_jsonl
from mathse.scoring.metrics import accepted
from mathse.types import Verdict


def marks(run: Run, place: str) -> dict[str, bool] | None:
    """Problem or path -> right or wrong; None where a measure is no share of answers, or the run's files are not here.

    Raises DataError where a file does not hold all the answers that the run's summary counts.
    """
    stage, _, key = place.partition(".")
    if stage == "orm" and key == "overall_accuracy":
        return _read(run.folder / "orm" / "orm_held.jsonl", run.summary["orm"]["n"], run.threshold)
    entry = entry_of(run, stage)
    if key != "accuracy" or entry is None:
        return None
    return _read(run.folder / entry["stage"] / "predictions.jsonl", entry["n"], run.threshold)


def entry_of(run: Run, stage: str) -> Mapping[str, Any] | None:
    """A stage's figures in the run's summary (``last``: the last one's), or None."""
    entries = run.summary["stages"]
    return next((e for e in entries if e["stage"] == stage), entries[-1] if stage == "last" and entries else None)


def _read(file: Path, count: int, threshold: float) -> dict[str, bool] | None:
    if not file.is_file():
        return None
    found = {}
    for number, row in enumerate(read_jsonl(file), 1):
        try:
            name, right = _mark(row, threshold)
        except (KeyError, TypeError) as e:
            raise DataError(f"{file}:{number}: is no answer as a run writes it ({e!r}); put the file back") from None
        found[name] = right
    if len(found) != count:
        raise DataError(f"{file}: holds {len(found):,} answers, the run's summary.json counts {count:,}; copy it whole")
    return found


def _mark(row: Mapping[str, Any], threshold: float) -> tuple[str, bool]:
    if "verdict" not in row:
        return str(row["id"]), bool(row["correct"])
    right = row["label"]["status"] == "correct"
    return row["path"]["id"], accepted(Verdict(**row["verdict"]), threshold) == right
