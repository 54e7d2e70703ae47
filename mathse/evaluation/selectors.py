"""Which of several answers to a problem counts, and how accuracy grows with their number, all from one sampling pass.

    first         the first: what a single answer gives
    majority      the answer given most often (self-consistency, Wang et al. 2023)
    orm           the answer with the highest P(correct): best of N
    orm_weighted  the answer whose givers' P(correct) add up to most
    oracle        a right one wherever there is one: pass@N, a bound and no selector

Ties go to the earliest answer; an empty prediction gets no vote where another has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mathse.evaluation.scoring import Graded
from mathse.scoring.answers import same_answer
from mathse.scoring.resampling import share_interval

SELECTORS = ("first", "majority", "orm", "orm_weighted")
ORACLE = "oracle"


def choose(answers: Sequence[Graded], selector: str, groups: Sequence[int] | None = None) -> int:
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
    # a group's number is the position of its first answer
    return max(weights, key=lambda group: (weights[group], -group), default=0)


def same_groups(answers: Sequence[Graded]) -> list[int]:
    """For each answer the position of the first that says the same; -1 where it says nothing."""
    groups: list[int] = []
    for k, answer in enumerate(answers):
        said = answer.scored.prediction
        firsts = (j for j in dict.fromkeys(groups) if j >= 0 and _same(answer, answers[j]))
        groups.append(next(firsts, k) if said else -1)
    return groups


def _same(one: Graded, other: Graded) -> bool:
    a, b = one.scored.prediction or "", other.scored.prediction or ""
    return a == b or same_answer(a, b, one.item.problem.choices)


def sizes(n: int) -> list[int]:
    """1, 2, 4, ... and n itself."""
    return sorted({*(2**k for k in range(n.bit_length()) if 2**k <= n), n})


def curve(problems: Sequence[Sequence[Graded]], seed: int) -> dict[str, Any]:
    """Accuracy against N, of the first N answers of each problem: {"n": [...], selector: [{"accuracy", "correct",
    "total", "ci95"}, ...]}; bootstrap intervals over problems. Selectors by the ORM only where it was asked; None for
    an accuracy that hangs on an answer that was not scored."""
    groups = [same_groups(answers) for answers in problems]
    weighed = all(answer.p_correct is not None for answers in problems for answer in answers)
    ns = sizes(max(map(len, problems), default=1))
    curves: dict[str, Any] = {"n": ns}
    for selector in SELECTORS if weighed else SELECTORS[:2]:
        curves[selector] = [
            _point(
                [a[choose(a[:n], selector, g[:n])].scored.correct for a, g in zip(problems, groups, strict=True)], seed
            )
            for n in ns
        ]
    curves[ORACLE] = [_point([_any(answer.scored.correct for answer in a[:n]) for a in problems], seed) for n in ns]
    return curves


def _any(marks: Any) -> bool | None:
    """True where one is right; None where none is, and one was not scored."""
    found = list(marks)
    return True if True in found else None if None in found else False


def _point(marks: Sequence[bool | None], seed: int) -> dict[str, Any]:
    right = [bool(mark) for mark in marks]
    known = None not in marks and bool(marks)
    return {
        "accuracy": sum(right) / len(right) if known else None,
        "correct": sum(right),
        "total": len(right),
        "ci95": list(share_interval(right, seed) or ()) if known else None,
    }
