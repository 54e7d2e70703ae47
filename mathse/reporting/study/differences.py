"""How far two variants are apart: paired by seed, and answer by answer where a measure is a share of answers.

Two students answer the same test problems, so what differs is counted problem by problem: a paired interval is narrower
than the one of two independent shares. Where the run's files were not copied with it, the seeds alone are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from mathse.errors import DataError
from mathse.reporting.study.collect import entry_of, value
from mathse.runs.layout import ORM_HELD, PREDICTIONS, SUMMARY
from mathse.runs.reader import FinishedStage, Run
from mathse.scoring.metrics import Interval, accepted, mean_interval
from mathse.scoring.resampling import paired_interval
from mathse.types import Verdict


@dataclass(frozen=True)
class PairedDifference:
    """``after`` less ``before``: means over seeds, of shares or of counts. ``interval``: 95 %; None for a single seed
    without its answers."""

    before: float
    after: float
    interval: Interval | None
    bootstrap: bool  # over seeds and answers; else Student's t over seeds


def difference(
    before: Sequence[Run], after: Sequence[Run], measure: str, before_measure: str = ""
) -> PairedDifference | None:
    """Between runs of equal seeds, in that order; None where one side lacks the measure."""
    before_measure = before_measure or measure
    pairs = [(value(b, before_measure), value(a, measure)) for b, a in zip(before, after, strict=True)]
    known = [(b, a) for b, a in pairs if a is not None and b is not None]
    if len(known) < len(pairs):
        return None
    means = fmean(b for b, _ in known), fmean(a for _, a in known)
    _, by_seeds = mean_interval([a - b for b, a in known])

    # (gained, lost, all) of each pair of runs that answered the same; all pairs are read, so that a damaged file of any
    # is named.
    counts = []
    for run_before, run_after in zip(before, after, strict=True):
        was, now = right_answers(run_before, before_measure), right_answers(run_after, measure)
        if was and now and was.keys() == now.keys():
            counts.append((sum(now[k] and not was[k] for k in was), sum(was[k] and not now[k] for k in was), len(was)))
    if len(counts) == len(pairs):
        return PairedDifference(*means, paired_interval(counts), bootstrap=True)
    return PairedDifference(*means, by_seeds, bootstrap=False)


def right_answers(run: Run, measure: str) -> dict[str, bool] | None:
    """Problem or held-out path -> whether it was answered or judged rightly: what an accuracy is a share of.

    None where a measure is no share of answers, or the run's files are not here. Raises RunError or DataError where a
    file does not hold the answers that the run's summary counts.
    """
    name, _, key = measure.partition(".")
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
