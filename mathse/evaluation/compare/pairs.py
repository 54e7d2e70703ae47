"""Two students on the same problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mathse.evaluation.compare.sides import Side
from mathse.scoring.metrics import Interval, transitions
from mathse.scoring.resampling import difference_interval, mcnemar


@dataclass(frozen=True)
class Pair:
    """``changes``: correct_correct, correct_wrong, wrong_correct, wrong_wrong. ``left_out``: problems that only one of
    the two was scored on."""

    before: str
    after: str
    problems: int
    difference: float
    interval: Interval
    p: float
    changes: Mapping[str, int]
    left_out: int


def pairs_of(sides: Sequence[Side], benchmark: str, seed: int) -> list[Pair]:
    """Each side against the first that has the benchmark; left out where the two share no scored problem."""
    having = [side for side in sides if benchmark in side.scores]
    found = [compared(having[0], side, benchmark, seed) for side in having[1:]]
    return [pair for pair in found if pair is not None]


def compared(before: Side, after: Side, benchmark: str, seed: int) -> Pair | None:
    """None if no problem was scored for both."""
    old, new = before.scores[benchmark].marks, after.scores[benchmark].marks
    shared = [i for i in old if old[i] is not None and new.get(i) is not None]
    if not shared:
        return None
    was, now = [bool(old[i]) for i in shared], [bool(new[i]) for i in shared]
    changes = transitions(dict(zip(shared, was, strict=True)), dict(zip(shared, now, strict=True)))
    interval = difference_interval(was, now, seed)
    assert interval is not None  # there are shared problems
    return Pair(
        before.label,
        after.label,
        len(shared),
        (sum(now) - sum(was)) / len(shared),
        interval,
        mcnemar(changes["correct_wrong"], changes["wrong_correct"]),
        changes,
        len(old.keys() | new.keys()) - len(shared),
    )
