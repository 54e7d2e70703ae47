"""metrics.json of benchmark=orm_test.

Shares have Wilson's intervals, all else bootstrap intervals over problems (None with one problem). What a judge does
not give (a binary one's steps, or a score where it has none) is null, and ``notes`` says why.

positive_accuracy, negative_accuracy   right paths accepted; wrong paths rejected (an unparsed verdict rejects)
overall_accuracy, balanced_accuracy    paths judged rightly; the mean of the two above
error_step_exact, error_step_within_one   of wrong paths whose label names a step: the verdict names the same one, or a
                                       neighbour; an accepted or unparsed one is a miss
auroc, average_precision               of P(correct); a verdict without one ranks by its status
brier, ece, calibration                of the verdicts with a P(correct)
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
from mathse.evaluation.orm_test.statistics import Marks
from mathse.scoring.metrics import accepted, first_step, reliability, wilson
from mathse.scoring.paper import TABLE_5, TABLE_5_HEAD
from mathse.scoring.ranking import rank_of
from mathse.types import Verdict

THRESHOLDS = tuple(k / 20 for k in range(21))
SCORED = {
    "auroc": statistics.auroc,
    "average_precision": statistics.average_precision,
    "brier": statistics.brier,
    "ece": statistics.ece,
}
Share = tuple[int, int]


@dataclass(frozen=True)
class JudgedPath:
    """A labelled path with the verdict on it."""

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
        """How sure the judge was of its decision: 1 where it gave no score, 0 of an unparsed verdict."""
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


def judged(labelled: Sequence[LabelledPath], verdicts: Sequence[Verdict], threshold: float) -> list[JudgedPath]:
    """Each path with its verdict, in the order of the paths."""
    verdict_on = {verdict.path_id: verdict for verdict in verdicts}
    pairs = [(row, verdict_on[row.path.id]) for row in labelled]
    return [JudgedPath(row, verdict, accepted(verdict, threshold)) for row, verdict in pairs]


def metrics(rows: Sequence[JudgedPath], threshold: float, *, writes_steps: bool, seed: int = 0) -> dict[str, Any]:
    """All figures of the judged paths. ``writes_steps``: whether the judge is one that names the wrong step."""
    headline = partial(_headline, threshold=threshold, writes_steps=writes_steps, seed=seed)
    marks = marks_of(rows)
    calibration = thresholds = None
    if any(marks.scored):
        bins = reliability([r.labelled.label for r in rows], [r.verdict for r in rows], statistics.BINS)
        calibration = [{**b, "ci95": _wilson((round(b["correct"] * b["n"]), int(b["n"])))} for b in bins]
        # Twentieths, and the deciles of the scores of paths called correct: a sure judge's lie all above 0.95.
        scores = marks.acceptance[marks.scored & (marks.acceptance >= 0)]
        deciles = np.quantile(scores, np.arange(1, 10) / 10, method="lower").tolist() if len(scores) else []
        thresholds = [_at(marks, t, seed) for t in sorted({*THRESHOLDS, *deciles})]
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


def marks_of(rows: Sequence[JudgedPath]) -> Marks:
    """The rows as numbers."""
    rank = [rank_of(r.verdict) for r in rows]
    called = [r.verdict.status == "correct" for r in rows]
    return Marks(
        right=np.array([r.is_right for r in rows], dtype=bool),
        rank=np.array(rank, dtype=float),
        acceptance=np.where(called, rank, -1.0),
        scored=np.array([r.verdict.score is not None for r in rows], dtype=bool),
        problems=[r.labelled.problem.id for r in rows],
    )


def _headline(rows: Sequence[JudgedPath], threshold: float, writes_steps: bool, seed: int) -> dict[str, Any]:
    right, wrong = ([r for r in rows if r.is_right == kind] for kind in (True, False))
    # Steps between the one that the verdict names and the true one, of wrong paths whose true one is known; None where
    # the path was not called wrong, or no step is named.
    apart: list[int | None] = []
    for row in wrong if writes_steps else ():
        named, true = first_step(row.verdict.error_step), first_step(row.labelled.label.error_step)
        if true is not None:
            is_miss = row.accepted or row.verdict.status == "unparsed"
            apart.append(None if is_miss or named is None else abs(named - true))
    shares: dict[str, Share] = {
        "positive_accuracy": (sum(r.accepted for r in right), len(right)),
        "negative_accuracy": (sum(not r.accepted for r in wrong), len(wrong)),
        "overall_accuracy": (sum(r.judged_rightly for r in rows), len(rows)),
        "error_step_exact": (sum(a == 0 for a in apart), len(apart)),
        "error_step_within_one": (sum(a is not None and a <= 1 for a in apart), len(apart)),
    }
    marks = marks_of(rows)
    scored = SCORED if any(marks.scored) else {}
    computed = {"balanced_accuracy": statistics.balanced_accuracy(threshold), **scored}
    return {
        "paths": len(rows),
        "right": len(right),
        "wrong": len(wrong),
        "unparsed": sum(r.verdict.status == "unparsed" for r in rows),
        **{name: part / whole if whole else None for name, (part, whole) in shares.items()},
        **dict.fromkeys(SCORED),
        **{name: statistics.estimate(statistic, marks) for name, statistic in computed.items()},
        "ci95": {
            **{name: _wilson(share) for name, share in shares.items()},
            **dict.fromkeys(SCORED),
            **{name: _pair(statistics.interval(statistic, marks, seed)) for name, statistic in computed.items()},
        },
    }


def _at(marks: Marks, threshold: float, seed: int) -> dict[str, Any]:
    """Acceptance at a threshold."""
    taken = marks.acceptance >= threshold
    hits = int((taken & marks.right).sum())
    precision, recall = (hits, int(taken.sum())), (hits, int(marks.right.sum()))
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
    """How the judge's decisions, and the labels, agree with answer matching; None where no row has a reference."""
    known = [r for r in rows if r.labelled.problem.answer]
    if not known:
        return None
    matches = np.array(
        [is_right(r.labelled.problem, r.labelled.path.text) for r in known],
        dtype=bool,
    )
    marks = marks_of(known)
    by_label = Marks(marks.right, marks.rank, np.where(marks.right, 1.0, -1.0), marks.scored, marks.problems)
    return {
        "paths": len(known),
        "matches": int(matches.sum()),
        "decisions": _agreed(marks, matches, threshold, seed),
        "labels": _agreed(by_label, matches, threshold, seed),
    }


def _agreed(marks: Marks, other: np.ndarray, threshold: float, seed: int) -> dict[str, Any]:
    taken, kappa = marks.acceptance >= threshold, statistics.kappa(other, threshold)
    agreed = (int((taken == other).sum()), len(other))
    return {
        "agreement": agreed[0] / agreed[1],
        "kappa": statistics.estimate(kappa, marks),
        "both": int((taken & other).sum()),
        "accepted_alone": int((taken & ~other).sum()),
        "matched_alone": int((other & ~taken).sum()),
        "neither": int((~taken & ~other).sum()),
        "ci95": {"agreement": _wilson(agreed), "kappa": _pair(statistics.interval(kappa, marks, seed))},
    }


def _by_length(rows: Sequence[JudgedPath]) -> Iterator[tuple[int, int, list[JudgedPath]]]:
    """(shortest, longest, paths) of each quartile of lengths; equal lengths stay together."""
    lengths = np.array([len(r.labelled.path.text) for r in rows])
    quartiles = np.searchsorted(np.quantile(lengths, (0.25, 0.5, 0.75)), lengths)  # 0 to 3, a path each
    for quartile in range(4):
        if part := [rows[k] for k in np.flatnonzero(quartiles == quartile).tolist()]:
            part_lengths = lengths[quartiles == quartile]
            yield int(part_lengths.min()), int(part_lengths.max()), part


def _notes(rows: Sequence[JudgedPath], writes_steps: bool) -> Iterator[str]:
    """What a reader of the figures must know."""
    for status, name in (("correct", "positive"), ("wrong", "negative")):
        if not any(r.labelled.label.status == status for r in rows):
            yield f"No path is labelled {status}: {name} accuracy, AUROC and what else compares the two are not known."
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


def sentence(figures: Mapping[str, Any]) -> str:
    """The result in a line, for the screen."""
    shares = ", ".join(
        f"{name.removesuffix('_accuracy')} {figures[name]:.4f}"
        for name in ("positive_accuracy", "negative_accuracy", "overall_accuracy")
        if figures[name] is not None
    )
    auroc = f", AUROC {figures['auroc']:.4f}" if figures["auroc"] is not None else ""
    paths = f"{figures['paths']:,} paths of {figures['problems']:,} problems"
    return f"{paths}: {shares}{auroc}, {figures['unparsed']:,} unparsed"
