"""Metrics of a run: accuracy with its interval, transitions between two students, and the quality of a judge.

Every share is a fraction in [0, 1]. A share without cases is ``None``, never 0 and never an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

from mathse.errors import DataError
from mathse.types import Verdict

Interval = tuple[float, float]
Decision = Literal["accepted", "rejected", "unparsed"]


def wilson(correct: float, total: int, z: float = 1.96) -> Interval:
    """Compute Wilson's score interval of a share (Wilson 1927); (0, 1) for a total of 0.

    ``correct`` may be a sum of probabilities. Probabilities vary less than marks of 0 and 1, so the interval is then
    never too narrow. Raises DataError if ``correct`` is not between 0 and ``total``.
    """
    if not 0 <= correct <= total:
        raise DataError(f"wilson({correct}, {total}): the number right must lie between 0 and the number counted")
    if total == 0:
        return 0.0, 1.0
    # (centre +- spread) / scale: the shares p with |share - p| <= z sqrt(p (1 - p) / total).
    share = correct / total
    scale = 1 + z * z / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # At 0 and 1 the bound is exact; rounding would move it slightly inside.
    low = 0.0 if correct == 0 else (centre - spread) / scale
    high = 1.0 if correct == total else (centre + spread) / scale
    return low, high


@lru_cache
def student_t(freedom: int, level: float = 0.95) -> float:
    """Compute the two-sided quantile of Student's t: P(|T| < t) = ``level``.

    For whole degrees of freedom this probability is a finite sum of powers of the cosine of atan(t / sqrt(freedom))
    (Abramowitz & Stegun 1964, 26.7.3 and 26.7.4). It rises with the angle, so bisection finds the angle.
    Raises DataError for less than one degree of freedom.
    """
    if freedom < 1:
        raise DataError(f"student_t({freedom}): needs one degree of freedom or more, which is two values")
    # Halve [0, pi/2] until no floating-point number lies between its ends.
    low, high = 0.0, math.pi / 2
    while (angle := (low + high) / 2) not in (low, high):
        term = math.sin(angle) * (math.cos(angle) if freedom % 2 else 1.0)
        within = 0.0
        for n in range(2 + freedom % 2, freedom + 1, 2):  # cos^n, n = 1, 3, ... or 0, 2, ..., below freedom
            within += term
            term *= math.cos(angle) ** 2 * (n - 1) / n
        if freedom % 2:
            within = (angle + within) * 2 / math.pi
        low, high = (angle, high) if within < level else (low, angle)
    return math.tan(angle) * math.sqrt(freedom)


def mean_interval(values: Sequence[float]) -> tuple[float, Interval | None]:
    """Compute the mean over seeds and its 95 % interval by Student's t; no interval (None) for a single value."""
    if not values:
        raise DataError("mean_interval([]): there is no mean of no values; pass at least one")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
    # Three decimals, as in statistical tables: the published figures in experiments/ were computed so.
    half = round(student_t(len(values) - 1), 3) * math.sqrt(variance / len(values))
    return mean, (mean - half, mean + half)


def mean_share(shares: Sequence[float]) -> tuple[float, Interval | None]:
    """Compute ``mean_interval`` of shares, and clip the interval to [0, 1]."""
    mean, interval = mean_interval(shares)
    return mean, interval and (max(0.0, interval[0]), min(1.0, interval[1]))


def transitions(before: Mapping[str, bool], after: Mapping[str, bool]) -> dict[str, int]:
    """Count the transitions of the paper's Figure 2 between two students: correct_wrong is a problem unlearned.

    ``before`` and ``after`` hold by problem id whether the answer is right. Raises DataError if their problems differ.
    """
    if unmatched := sorted(before.keys() ^ after.keys()):
        raise DataError(
            f"transitions need the same problems on both sides; {len(unmatched)} differ, for example {unmatched[0]!r}; "
            "score both students on the same test set"
        )
    names = {True: "correct", False: "wrong"}
    counts = dict.fromkeys(("correct_correct", "correct_wrong", "wrong_correct", "wrong_wrong"), 0)
    for problem_id, correct in before.items():
        counts[f"{names[correct]}_{names[after[problem_id]]}"] += 1
    return counts


def accuracy(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Compute the accuracy of prediction rows from their key ``correct``: {"accuracy", "correct", "total", "ci95"}."""
    marks = [bool(row["correct"]) for row in rows]
    return {
        "accuracy": _share(sum(marks), len(marks)),
        "correct": sum(marks),
        "total": len(marks),
        "ci95": list(wilson(sum(marks), len(marks))),
    }


def accepted(verdict: Verdict, threshold: float) -> bool:
    """Whether a path with this verdict joins D_SFT: status correct, and P(correct) >= threshold if it has a score."""
    return verdict.status == "correct" and (verdict.score is None or verdict.score >= threshold)


def decide(verdict: Verdict | None, threshold: float) -> Decision | None:
    """Decide about the path with this verdict; None without a verdict."""
    if verdict is None:
        return None
    if verdict.status == "unparsed":
        return "unparsed"
    return "accepted" if accepted(verdict, threshold) else "rejected"


def first_step(error_step: str | None) -> int | None:
    """Read the first step number in a text such as "Step 2" or "Steps 2 and 4"."""
    number = re.search(r"\d{1,9}", error_step or "")
    return int(number.group()) if number else None


def orm_metrics(
    labels: Sequence[Verdict], verdicts: Sequence[Verdict], threshold: float, *, names_steps: bool = True
) -> dict[str, Any]:
    """Measure a judge against labels of the same paths (Table 5).

    Args:
        labels: true verdicts, correct or wrong.
        verdicts: the judge's verdict on the path at the same position.
        threshold: P(correct) from which a path is accepted.
        names_steps: whether this kind of judge names wrong steps at all.

    Returns:
        positive_accuracy: share of right paths that the judge accepts.
        negative_accuracy: share of wrong paths that it rejects; an unparsed verdict rejects.
        overall_accuracy: share of paths with the right decision.
        error_step_accuracy: share of ALL wrong paths with a verdict that names the label's first step; an accepted path
            or an unparsed verdict is a miss. None if no label names a step, or without ``names_steps``.
        n, unparsed, auroc, ci95 (Wilson's interval for each share) and reliability (see ``reliability``).

    Raises DataError unless the two lists have the same paths, and for an unparsed label.
    """
    if len(labels) != len(verdicts):
        raise DataError(f"{len(labels)} labels but {len(verdicts)} verdicts; pass one verdict for each label")
    pairs = list(zip(labels, verdicts, strict=True))
    for label, verdict in pairs:
        if label.path_id != verdict.path_id:
            raise DataError(
                f"a label of path {label.path_id!r} is paired with a verdict on {verdict.path_id!r}; sort both by path"
            )
        if label.status == "unparsed":
            raise DataError(f"the label of path {label.path_id!r} is 'unparsed'; a label is 'correct' or 'wrong'")

    # An unparsed verdict counts as a rejection, but never as a named step.
    right = [v for label, v in pairs if label.status == "correct"]
    wrong = [(label, v) for label, v in pairs if label.status == "wrong"]
    accepted_right = sum(accepted(v, threshold) for v in right)
    rejected_wrong = [(label, v) for label, v in wrong if not accepted(v, threshold)]
    steps_named = 0
    for label, v in rejected_wrong:
        true_step = first_step(label.error_step)
        steps_named += v.status != "unparsed" and true_step is not None and true_step == first_step(v.error_step)
    steps_known = names_steps and any(first_step(label.error_step) is not None for label, _ in wrong)
    shares = {
        "positive_accuracy": (accepted_right, len(right)),
        "negative_accuracy": (len(rejected_wrong), len(wrong)),
        "overall_accuracy": (accepted_right + len(rejected_wrong), len(pairs)),
        "error_step_accuracy": (steps_named, len(wrong) if steps_known else 0),
    }
    return {
        **{name: _share(*counts) for name, counts in shares.items()},
        "n": len(pairs),
        "unparsed": sum(v.status == "unparsed" for v in verdicts),
        "auroc": auroc(labels, verdicts),
        "ci95": {name: list(wilson(*counts)) if counts[1] else None for name, counts in shares.items()},
        "reliability": reliability(labels, verdicts),
    }


def like_chance(figures: Mapping[str, Any]) -> bool:
    """Whether a judge is no better than chance: its 95 % intervals allow equal acceptance of right and wrong paths.

    ``figures``: the result of ``orm_metrics``. False unless there are right and wrong paths.
    """
    right, wrong = figures["ci95"]["positive_accuracy"], figures["ci95"]["negative_accuracy"]
    return right is not None and wrong is not None and right[0] <= 1 - wrong[0]


def auroc(labels: Sequence[Verdict], verdicts: Sequence[Verdict]) -> float | None:
    """Compute the area under the ROC curve of P(correct), ties count half; None without scores or with one class."""
    if all(v.score is None for v in verdicts):
        return None
    import numpy as np  # late, because the callers of ``accepted`` need no numpy

    from mathse.scoring import ranking

    rank = np.array([ranking.rank_of(v) for v in verdicts])
    right = np.array([label.status == "correct" for label in labels])
    area = ranking.auroc(rank, right, np.ones((1, len(rank))))[0]
    return None if np.isnan(area) else float(area)


def reliability(labels: Sequence[Verdict], verdicts: Sequence[Verdict], bins: int = 10) -> list[dict[str, float]]:
    """Sort scored paths into equal-width bins of P(correct), and leave empty bins out.

    Each bin: {"low", "high", "n", "mean_score", "correct"}, where "correct" is the share of right paths.
    """
    filled: dict[int, list[tuple[float, bool]]] = {}  # (P(correct), whether the path is right), by number of the bin
    for label, verdict in zip(labels, verdicts, strict=True):
        if verdict.score is not None:
            number = min(int(verdict.score * bins), bins - 1)  # the last bin includes 1.0
            filled.setdefault(number, []).append((verdict.score, label.status == "correct"))
    return [
        {
            "low": number / bins,
            "high": (number + 1) / bins,
            "n": len(rows),
            "mean_score": math.fsum(score for score, _ in rows) / len(rows),
            "correct": sum(right for _, right in rows) / len(rows),
        }
        for number, rows in sorted(filled.items())
    ]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
