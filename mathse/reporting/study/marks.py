"""What an accuracy is a share of, answer by answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mathse.errors import DataError
from mathse.runs.layout import ORM_HELD, PREDICTIONS, SUMMARY
from mathse.runs.reader import FinishedStage, Run
from mathse.scoring.metrics import accepted
from mathse.types import Verdict


def marks(run: Run, place: str) -> dict[str, bool] | None:
    """Problem or path -> right or wrong; None where a measure is no share of answers, or the run's files are not here.

    Raises RunError or DataError where a file does not hold the answers that the run's summary counts.
    """
    name, _, key = place.partition(".")
    if name == "orm" and key == "overall_accuracy":
        stage, file, count = run.stage("orm"), ORM_HELD, run.summary["orm"]["n"]
    elif key == "accuracy" and (entry := entry_of(run, name)) is not None:
        stage, file, count = run.stage(entry["stage"]), PREDICTIONS, entry["n"]
    else:
        return None
    if stage is None or not stage.is_here(file):
        return None
    right = stage.solved() if file == PREDICTIONS else _judged_rightly(stage, run.threshold)
    if len(right) != count:
        raise DataError(
            f"{stage.folder / file}: holds {len(right):,} answers, the run's {SUMMARY} counts {count:,}; copy it whole"
        )
    return right


def entry_of(run: Run, stage: str) -> Mapping[str, Any] | None:
    """A stage's figures in the run's summary (``last``: the last one's), or None."""
    entries = run.summary["stages"]
    return next((e for e in entries if e["stage"] == stage), entries[-1] if stage == "last" and entries else None)


def _judged_rightly(orm: FinishedStage, threshold: float) -> dict[str, bool]:
    """Held-out path -> whether the ORM accepts a right one or refuses a wrong one."""
    right = {}
    for number, row in orm.lines(ORM_HELD):
        try:
            is_right = row["label"]["status"] == "correct"
            right[row["path"]["id"]] = accepted(Verdict.from_json(row["verdict"]), threshold) == is_right
        except (KeyError, TypeError) as e:
            raise DataError(
                f"{orm.folder / ORM_HELD}:{number}: is no judged path as a run writes it ({e!r}); put the file back"
            ) from None
    return right
