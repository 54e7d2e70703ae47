"""metrics.json of benchmark=orm_test.

Shares have Wilson's intervals, all other figures bootstrap intervals over problems (None with a single problem). A
figure that the judge cannot give is null (the steps of a binary judge, scores of a judge without P(correct)), and
``notes`` has the reason.

positive_accuracy, negative_accuracy   right paths accepted; wrong paths rejected (an unparsed verdict rejects)
overall_accuracy, balanced_accuracy    paths judged rightly; the mean of the two above
error_step_exact, error_step_within_one   wrong paths with a labelled step: the verdict names the same step, or the same
                                       step or a neighbour; an accepted or unparsed path is a miss
auroc, average_precision               of P(correct); a verdict without P(correct) ranks by its status
brier, ece, calibration                of the verdicts with P(correct)
thresholds                             precision, recall and F1 of acceptance, by threshold: twentieths, and deciles of
                                       the scores of paths called correct
agreement                              with answer matching: of the judge's decisions, and of the labels
by_subject, by_length                  the first ten figures of parts; lengths in characters, by quartile
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mathse.data.domains import is_right
from mathse.data.labelled_paths import LabelledPath
from mathse.evaluation.orm_test import statistics
from mathse.evaluation.orm_test.statistics import PathMarks
from mathse.scoring.metrics import accepted, first_step, reliability, wilson
from mathse.scoring.paper import TABLE_5, TABLE_5_HEAD
from mathse.scoring.ranking import rank_of
from mathse.types import Verdict

# Figures of P(correct) -> their statistics.
SCORE_FIGURES = {
    "auroc": statistics.auroc,
    "average_precision": statistics.average_precision,
    "brier": statistics.brier,
    "ece": statistics.ece,
}
Share = tuple[int, int]  # (part, whole)


@dataclass(frozen=True)
class JudgedPath:
    """A labelled path with its verdict."""

    labelled: LabelledPath
    verdict: Verdict
    accepted: bool

    @property
    def is_right(self) -> bool:
        return self.labelled.label.status == "correct"

    @property
    def judged_rightly(self) -> bool:
        return self.accepted == self.is_right

    @property
    def confidence(self) -> float:
        """The judge's confidence in its decision: 1 without a score, 0 for an unparsed verdict."""
        if self.verdict.status == "unparsed":
            return 0.0
        if self.verdict.score is None:
            return 1.0
        return self.verdict.score if self.verdict.status == "correct" else 1 - self.verdict.score

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.labelled.path.id,
            "problem_id": self.labelled.problem.id,
            "subject": self.labelled.subject,
            "length": len(self.labelled.path.text),
            "label": self.labelled.label,
            "verdict": self.verdict,
            "accepted": self.accepted,
            "right": self.judged_rightly,
        }


def add_verdicts(labelled: Sequence[LabelledPath], verdicts: Sequence[Verdict], threshold: float) -> list[JudgedPath]:
    """Join each path with its verdict, in the order of the paths."""
    verdict_on = {verdict.path_id: verdict for verdict in verdicts}
    pairs = [(row, verdict_on[row.path.id]) for row in labelled]
    return [JudgedPath(row, verdict, accepted(verdict, threshold)) for row, verdict in pairs]


def orm_metrics(rows: Sequence[JudgedPath], threshold: float, *, writes_steps: bool, seed: int = 0) -> dict[str, Any]:
    """Compute all figures of the judged paths.

    Args:
        rows: the paths with their verdicts.
        threshold: the least P(correct) of an accepted path.
        writes_steps: whether the judge names the first wrong step.
        seed: random seed of the bootstrap.
    """
    headline = partial(_headline, threshold=threshold, writes_steps=writes_steps, seed=seed)
    marks = marks_of(rows)
    calibration = thresholds = None
    if any(marks.scored):
        bins = reliability([r.labelled.label for r in rows], [r.verdict for r in rows], statistics.BINS)
        calibration = [{**b, "ci95": _wilson((round(b["correct"] * b["n"]), int(b["n"])))} for b in bins]
        # Twentieths, and the deciles of the scores of paths called correct: a confident judge's scores are above 0.95.
        scores = marks.acceptance[marks.scored & (marks.acceptance >= 0)]
        deciles = np.quantile(scores, np.arange(1, 10) / 10, method="lower").tolist() if len(scores) else []
        twentieths = [k / 20 for k in range(21)]
        thresholds = [_at_threshold(marks, t, seed) for t in sorted({*twentieths, *deciles})]
    subjects = sorted({row.labelled.subject for row in rows if row.labelled.subject is not None})
    return {
        "problems": len(set(marks.problems)),
        "threshold": threshold,
        **headline(rows),
        "calibration": calibration,
        "thresholds": thresholds,
        "agreement": _agreement(rows, threshold, seed),
        "by_subject": {name: headline([r for r in rows if r.labelled.subject == name]) for name in subjects},
        "by_length": [{"from": low, "to": high, **headline(part)} for low, high, part in _by_length(rows)],
        "paper": {name: dict(zip(TABLE_5_HEAD, row, strict=True)) for name, row in TABLE_5.items()},
        "notes": list(_notes(rows, writes_steps)),
    }


def marks_of(rows: Sequence[JudgedPath]) -> PathMarks:
    """Return the rows as arrays."""
    rank = [rank_of(r.verdict) for r in rows]
    is_called_correct = [r.verdict.status == "correct" for r in rows]
    return PathMarks(
        right=np.array([r.is_right for r in rows], dtype=bool),
        rank=np.array(rank, dtype=float),
        acceptance=np.where(is_called_correct, rank, -1.0),
        scored=np.array([r.verdict.score is not None for r in rows], dtype=bool),
        problems=[r.labelled.problem.id for r in rows],
    )


def _headline(rows: Sequence[JudgedPath], threshold: float, writes_steps: bool, seed: int) -> dict[str, Any]:
    right = [r for r in rows if r.is_right]
    wrong = [r for r in rows if not r.is_right]
    # Distance in steps between the named and the true wrong step, for wrong paths with a labelled step. None: the path
    # was not called wrong, or no step is named.
    distances: list[int | None] = []
    for row in wrong if writes_steps else ():
        named, true = first_step(row.verdict.error_step), first_step(row.labelled.label.error_step)
        if true is not None:
            is_miss = row.accepted or row.verdict.status == "unparsed"
            distances.append(None if is_miss or named is None else abs(named - true))
    shares: dict[str, Share] = {
        "positive_accuracy": (sum(r.accepted for r in right), len(right)),
        "negative_accuracy": (sum(not r.accepted for r in wrong), len(wrong)),
        "overall_accuracy": (sum(r.judged_rightly for r in rows), len(rows)),
        "error_step_exact": (sum(d == 0 for d in distances), len(distances)),
        "error_step_within_one": (sum(d is not None and d <= 1 for d in distances), len(distances)),
    }
    marks = marks_of(rows)
    computed = {"balanced_accuracy": statistics.balanced_accuracy(threshold)}
    if any(marks.scored):
        computed |= SCORE_FIGURES
    return {
        "paths": len(rows),
        "right": len(right),
        "wrong": len(wrong),
        "unparsed": sum(r.verdict.status == "unparsed" for r in rows),
        **{name: part / whole if whole else None for name, (part, whole) in shares.items()},
        **dict.fromkeys(SCORE_FIGURES),
        **{name: statistics.estimate(statistic, marks) for name, statistic in computed.items()},
        "ci95": {
            **{name: _wilson(share) for name, share in shares.items()},
            **dict.fromkeys(SCORE_FIGURES),
            **{name: _pair(statistics.interval(statistic, marks, seed)) for name, statistic in computed.items()},
        },
    }


def _at_threshold(marks: PathMarks, threshold: float, seed: int) -> dict[str, Any]:
    """Compute precision, recall and F1 of acceptance at a threshold."""
    is_accepted = marks.acceptance >= threshold
    hits = int((is_accepted & marks.right).sum())
    precision, recall = (hits, int(is_accepted.sum())), (hits, int(marks.right.sum()))
    f1 = statistics.f1(threshold)
    return {
        "threshold": threshold,
        "accepted": precision[1],
        "precision": hits / precision[1] if precision[1] else None,
        "recall": hits / recall[1] if recall[1] else None,
        "f1": statistics.estimate(f1, marks),
        "ci95": {
            "precision": _wilson(precision),
            "recall": _wilson(recall),
            "f1": _pair(statistics.interval(f1, marks, seed)),
        },
    }


def _agreement(rows: Sequence[JudgedPath], threshold: float, seed: int) -> dict[str, Any] | None:
    """Compare the judge's decisions, and the labels, with answer matching; None if no row has a reference."""
    with_reference = [r for r in rows if r.labelled.problem.answer]
    if not with_reference:
        return None
    matches = np.array([is_right(r.labelled.problem, r.labelled.path.text) for r in with_reference], dtype=bool)
    marks = marks_of(with_reference)
    by_label = PathMarks(marks.right, marks.rank, np.where(marks.right, 1.0, -1.0), marks.scored, marks.problems)
    return {
        "paths": len(with_reference),
        "matches": int(matches.sum()),
        "decisions": _agreement_with(matches, marks, threshold, seed),
        "labels": _agreement_with(matches, by_label, threshold, seed),
    }


def _agreement_with(matches: np.ndarray, marks: PathMarks, threshold: float, seed: int) -> dict[str, Any]:
    """Compare acceptance with ``matches``, an array of a bool for each path."""
    is_accepted, kappa = marks.acceptance >= threshold, statistics.kappa(matches, threshold)
    equal = (int((is_accepted == matches).sum()), len(matches))
    return {
        "agreement": equal[0] / equal[1],
        "kappa": statistics.estimate(kappa, marks),
        "both": int((is_accepted & matches).sum()),
        "accepted_alone": int((is_accepted & ~matches).sum()),
        "matched_alone": int((matches & ~is_accepted).sum()),
        "neither": int((~is_accepted & ~matches).sum()),
        "ci95": {"agreement": _wilson(equal), "kappa": _pair(statistics.interval(kappa, marks, seed))},
    }


def _by_length(rows: Sequence[JudgedPath]) -> Iterator[tuple[int, int, list[JudgedPath]]]:
    """Yield (shortest, longest, paths) of each quartile of lengths. Equal lengths are in the same quartile."""
    lengths = np.array([len(r.labelled.path.text) for r in rows])
    quartiles = np.searchsorted(np.quantile(lengths, (0.25, 0.5, 0.75)), lengths)  # (paths,), 0 to 3
    for quartile in range(4):
        if part := [rows[k] for k in np.flatnonzero(quartiles == quartile).tolist()]:
            part_lengths = lengths[quartiles == quartile]
            yield int(part_lengths.min()), int(part_lengths.max()), part


def _notes(rows: Sequence[JudgedPath], writes_steps: bool) -> Iterator[str]:
    """Yield the reasons of figures that are null."""
    for status, name in (("correct", "positive"), ("wrong", "negative")):
        if not any(r.labelled.label.status == status for r in rows):
            yield (
                f"No path is labelled {status}: {name} accuracy, AUROC and all figures that compare right and wrong "
                "paths are not known."
            )
    if not any(r.verdict.score is not None for r in rows):
        none_read = all(r.verdict.status == "unparsed" for r in rows)
        why = "No verdict could be read" if none_read else "The judge gave no P(correct)"
        yield f"{why}: AUROC, average precision, Brier, ECE and thresholds are not known."
    if not writes_steps:
        yield "The judge writes no step: how often it names the wrong one is not measured."
    elif not any(first_step(r.labelled.label.error_step) is not None for r in rows if not r.is_right):
        yield "No label of a wrong path names a step: how often the judge finds it is not known."


def _wilson(share: Share) -> list[float] | None:
    return list(wilson(*share)) if share[1] else None


def _pair(interval: Sequence[float] | None) -> list[float] | None:
    return None if interval is None else list(interval)


def result_line(figures: Mapping[str, Any]) -> str:
    """Write the result as a line for the screen."""
    shares = []
    for name in ("positive", "negative", "overall"):
        if (share := figures[f"{name}_accuracy"]) is not None:
            shares.append(f"{name} {share:.4f}")
    auroc = f", AUROC {figures['auroc']:.4f}" if figures["auroc"] is not None else ""
    paths = f"{figures['paths']:,} paths of {figures['problems']:,} problems"
    return f"{paths}: {', '.join(shares)}{auroc}, {figures['unparsed']:,} unparsed"
