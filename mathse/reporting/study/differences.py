"""How far two variants are apart: paired by seed, and by problem where a measure is a share of problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mathse.reporting.study.collect import value
from mathse.reporting.study.marks import marks
from mathse.runs.reader import Run
from mathse.scoring.metrics import Interval, mean_interval
from mathse.scoring.resampling import paired_interval


@dataclass(frozen=True)
class Difference:
    """``after`` less ``before``, in shares. ``interval``: 95 %; None for a single seed without marks."""

    mean: float
    interval: Interval | None
    bootstrap: bool  # over seeds and problems; else Student's t over seeds


def difference(before: Sequence[Run], after: Sequence[Run], place: str, before_place: str = "") -> Difference | None:
    """Between runs of equal seeds, in that order; None where one side lacks the measure."""
    pairs = [(value(b, before_place or place), value(a, place)) for b, a in zip(before, after, strict=True)]
    gains = [a - b for b, a in pairs if a is not None and b is not None]
    if len(gains) < len(pairs):
        return None
    mean, by_seeds = mean_interval(gains)
    counted = [_counts(b, a, place, before_place or place) for b, a in zip(before, after, strict=True)]
    if all(counted):
        return Difference(mean, paired_interval([c for c in counted if c]), bootstrap=True)
    return Difference(mean, by_seeds, bootstrap=False)


def _counts(before: Run, after: Run, place: str, before_place: str) -> tuple[int, int, int] | None:
    """(gained, lost, all) of what both sides answered; None where they did not answer the same."""
    was, now = marks(before, before_place), marks(after, place)
    if not was or not now or was.keys() != now.keys():
        return None
    gained = sum(now[k] and not was[k] for k in was)
    lost = sum(was[k] and not now[k] for k in was)
    return gained, lost, len(was)
