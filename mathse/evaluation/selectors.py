"""Which of several answers to a problem counts, and how accuracy grows with their number, all from one sampling pass.

    first         the first: what a single answer gives
    majority      the answer given most often (self-consistency, Wang et al. 2023)
    orm           the answer with the highest P(correct): best of N
    orm_weighted  the answer with the largest sum of P(correct) over the samples that give it
    oracle        a right one wherever there is one: pass@N, a bound rather than a selector; over all ways to take N of
                  the answers (the unbiased estimator of Chen et al. 2021, arXiv 2107.03374)

Ties go to the earliest answer; an empty prediction gets no vote where another has one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mathse.data.domains import same_answers
from mathse.evaluation.grading import GradedAnswer
from mathse.scoring.metrics import wilson

SELECTORS = ("first", "majority", "orm", "orm_weighted")
ORACLE = "oracle"


def choose(answers: Sequence[GradedAnswer], selector: str, groups: Sequence[int] | None = None) -> int:
    """The position of the answer that counts. ``groups``: as ``same_groups`` gives, where they are known already."""
    if selector == "first":
        return 0
    if selector == "orm":
        return max(range(len(answers)), key=lambda k: (answers[k].p_correct or 0.0, -k))
    groups = same_groups(answers) if groups is None else groups
    weights: dict[int, float] = {}
    for answer, group in zip(answers, groups, strict=False):
        if group >= 0:
            weights[group] = weights.get(group, 0.0) + (1.0 if selector == "majority" else answer.p_correct or 0.0)
    # A group's number is the position of its first answer, so a tie goes to the earliest.
    return max(weights, key=lambda group: (weights[group], -group), default=0)


def same_groups(answers: Sequence[GradedAnswer]) -> list[int]:
    """For each answer the position of the first with an equal prediction; -1 where its own is empty."""
    groups: list[int] = []
    predictions = [answer.scored.prediction or "" for answer in answers]
    for k, (answer, prediction) in enumerate(zip(answers, predictions, strict=True)):
        problem = answer.item.problem
        firsts = (
            j
            for j in dict.fromkeys(groups)
            if j >= 0 and (prediction == predictions[j] or same_answers(problem, prediction, predictions[j]))
        )
        groups.append(next(firsts, k) if prediction else -1)
    return groups


def sizes(n: int) -> list[int]:
    """1, 2, 4, ... and n itself."""
    return sorted({*(2**k for k in range(n.bit_length()) if 2**k <= n), n})


def curve(problems: Sequence[Sequence[GradedAnswer]]) -> dict[str, Any]:
    """Accuracy against N: {"n": [...], selector: [{"accuracy", "correct", "total", "ci95" (Wilson)}, ...]}.

    Selectors choose among the first N answers of each problem, the oracle has ``pass_at`` N. Selectors by the ORM only
    where every answer has its P(correct); None for an accuracy that depends on an answer that was not scored.
    """

    def accuracy_of(marks: Sequence[float | None]) -> dict[str, Any]:
        known = None not in marks and bool(marks)
        correct = math.fsum(mark or 0 for mark in marks)
        return {
            "accuracy": correct / len(marks) if known else None,
            "correct": int(correct) if correct.is_integer() else correct,
            "total": len(marks),
            "ci95": list(wilson(correct, len(marks))) if known else None,
        }

    groups = [same_groups(answers) for answers in problems]
    weighed = all(answer.p_correct is not None for answers in problems for answer in answers)
    ns = sizes(max(map(len, problems), default=1))
    curves: dict[str, Any] = {"n": ns}
    for selector in SELECTORS if weighed else SELECTORS[:2]:
        curves[selector] = [
            accuracy_of(
                [a[choose(a[:n], selector, g[:n])].scored.correct for a, g in zip(problems, groups, strict=True)]
            )
            for n in ns
        ]
    curves[ORACLE] = [
        accuracy_of([pass_at(n, [answer.scored.correct for answer in answers]) for answers in problems]) for n in ns
    ]
    return curves


def pass_at(k: int, marks: Sequence[bool | None]) -> float | None:
    """The probability that k of a problem's n answers, drawn without replacement, hold a right one: with c right ones
    1 - C(n-c, k) / C(n, k). Unbiased for pass@k, where the first k of the answers would be a single draw.

    None where an answer was not scored (mark None) and could change it. Of fewer than k answers, all are drawn.
    """
    n, k = len(marks), min(k, len(marks))
    least, most = marks.count(True), n - marks.count(False)  # of right ones
    low, high = (1 - math.comb(n - right, k) / math.comb(n, k) for right in (least, most))
    return low if low == high else None
