"""Selectors choose the answer that counts among several answers to a problem; curves show accuracy against N answers.

    first         the first answer, as without further samples
    majority      the most frequent answer (self-consistency, Wang et al. 2023)
    orm           the answer with the highest P(correct): best of N
    orm_weighted  the answer with the largest sum of P(correct) over its samples
    oracle        a right answer if there is one: pass@N, an upper bound rather than a selector; over all ways to take N
                  of the answers (the unbiased estimator of Chen et al. 2021, arXiv 2107.03374)

All use the same samples. Ties go to the earliest answer; an empty prediction gets no vote.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

from mathse.data.domains import same_answers
from mathse.evaluation.grading import GradedAnswer
from mathse.scoring.metrics import wilson

ORACLE = "oracle"


def choose(answers: Sequence[GradedAnswer], selector: str, groups: Sequence[int] | None = None) -> int:
    """Return the position of the answer that counts.

    Args:
        answers: the answers to a problem.
        selector: see above.
        groups: the result of ``same_groups`` if it is known.
    """
    if selector == "first":
        return 0
    if selector == "orm":
        return max(range(len(answers)), key=lambda k: (answers[k].p_correct or 0.0, -k))
    groups = same_groups(answers) if groups is None else groups
    weights: dict[int, float] = {}  # group -> votes, or sum of P(correct)
    for answer, group in zip(answers, groups, strict=False):
        if group >= 0:
            weight = 1.0 if selector == "majority" else answer.p_correct or 0.0
            weights[group] = weights.get(group, 0.0) + weight
    # A group's number is the position of its first answer, so a tie goes to the earliest answer.
    return max(weights, key=lambda group: (weights[group], -group), default=0)


def same_groups(answers: Sequence[GradedAnswer]) -> list[int]:
    """Return for each answer the position of the first answer with an equal prediction; -1 for an empty prediction."""
    groups: list[int] = []
    predictions = [answer.scored.prediction or "" for answer in answers]
    for k, (answer, prediction) in enumerate(zip(answers, predictions, strict=True)):
        if not prediction:
            groups.append(-1)
            continue
        group = k
        for first in dict.fromkeys(groups):
            if first < 0:
                continue
            other = predictions[first]
            if prediction == other or same_answers(answer.item.problem, prediction, other):
                group = first
                break
        groups.append(group)
    return groups


def sample_sizes(n: int) -> list[int]:
    """Return 1, 2, 4, ... and n itself."""
    return sorted({*(2**k for k in range(n.bit_length()) if 2**k <= n), n})


def selector_curves(problems: Sequence[Sequence[GradedAnswer]]) -> dict[str, Any]:
    """Return accuracy against N: {"n": [...], selector: [{"accuracy", "correct", "total", "ci95" (Wilson)}, ...]}.

    Selectors choose among the first N answers to each problem; the oracle has ``pass_at`` N. Selectors by the ORM are
    left out unless every answer has its P(correct). An accuracy that depends on an unscored answer is None.
    """

    def accuracy_of(marks: Sequence[float | None]) -> dict[str, Any]:
        is_known = None not in marks and bool(marks)
        correct = math.fsum(mark or 0 for mark in marks)
        return {
            "accuracy": correct / len(marks) if is_known else None,
            "correct": int(correct) if correct.is_integer() else correct,
            "total": len(marks),
            "ci95": list(wilson(correct, len(marks))) if is_known else None,
        }

    groups = [same_groups(answers) for answers in problems]
    has_rewards = all(answer.p_correct is not None for answer in chain.from_iterable(problems))
    selectors = ("first", "majority", "orm", "orm_weighted") if has_rewards else ("first", "majority")
    ns = sample_sizes(max(map(len, problems), default=1))
    curves: dict[str, Any] = {"n": ns, **{selector: [] for selector in selectors}, ORACLE: []}
    for n in ns:
        for selector in selectors:
            marks = []
            for answers, answer_groups in zip(problems, groups, strict=True):
                position = choose(answers[:n], selector, answer_groups[:n])
                marks.append(answers[position].scored.correct)
            curves[selector].append(accuracy_of(marks))
        passes = [pass_at(n, [answer.scored.correct for answer in answers]) for answers in problems]
        curves[ORACLE].append(accuracy_of(passes))
    return curves


def pass_at(k: int, marks: Sequence[bool | None]) -> float | None:
    """Return the probability that k of a problem's n answers, drawn without replacement, contain a right answer.

    With c right answers it is 1 - C(n-c, k) / C(n, k), an unbiased estimate of pass@k; the first k answers would be a
    single draw. With fewer than k answers, all are drawn. Returns None if an unscored answer (mark None) matters.
    """
    n, k = len(marks), min(k, len(marks))
    least, most = marks.count(True), n - marks.count(False)  # bounds of the number of right answers
    low, high = (1 - math.comb(n - right, k) / math.comb(n, k) for right in (least, most))
    return low if low == high else None
