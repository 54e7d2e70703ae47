"""Two students on the same problems: the paired difference, McNemar's test, and the transitions of Figure 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mathse.evaluation.compare.results import RunResults
from mathse.scoring.metrics import Interval, transitions
from mathse.scoring.resampling import difference_interval, mcnemar


@dataclass(frozen=True)
class PairedComparison:
    """Two runs on the problems that both were scored on."""

    before: str  # the runs' labels
    after: str
    problems: int
    difference: float  # of the accuracies, a fraction
    interval: Interval  # 95 %, bootstrap over problems
    p: float  # McNemar's exact test
    changes: Mapping[str, int]  # correct_correct, correct_wrong, wrong_correct, wrong_wrong
    left_out: int  # problems that only one of the two was scored on

    @property
    def accuracy_before(self) -> float:
        """Accuracy of ``before`` on the shared problems."""
        return (self.changes["correct_correct"] + self.changes["correct_wrong"]) / self.problems

    @property
    def accuracy_after(self) -> float:
        """Accuracy of ``after`` on the shared problems."""
        return (self.changes["correct_correct"] + self.changes["wrong_correct"]) / self.problems


def pairs_of(results: Sequence[RunResults], benchmark: str, seed: int) -> list[PairedComparison]:
    """Compare each run with the first run that has the benchmark. Pairs without shared scored problems are left out."""
    with_benchmark = [run for run in results if benchmark in run.scores]
    pairs = [compare(with_benchmark[0], run, benchmark, seed) for run in with_benchmark[1:]]
    return [pair for pair in pairs if pair is not None]


def compare(before: RunResults, after: RunResults, benchmark: str, seed: int) -> PairedComparison | None:
    """Compare two runs on a benchmark. Returns None if no problem was scored for both."""
    old, new = before.scores[benchmark].marks, after.scores[benchmark].marks
    shared = [i for i in old if old[i] is not None and new.get(i) is not None]
    was, now = [bool(old[i]) for i in shared], [bool(new[i]) for i in shared]
    interval = difference_interval(was, now, seed)
    if interval is None:  # no shared problem
        return None
    changes = transitions(dict(zip(shared, was, strict=True)), dict(zip(shared, now, strict=True)))
    return PairedComparison(
        before.label,
        after.label,
        len(shared),
        (sum(now) - sum(was)) / len(shared),
        interval,
        mcnemar(changes["correct_wrong"], changes["wrong_correct"]),
        changes,
        len(old.keys() | new.keys()) - len(shared),
    )
