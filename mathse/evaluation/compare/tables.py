"""Rows of text: what was found, and the paper's tables with ours beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mathse.evaluation.compare.pairs import Pair
from mathse.evaluation.compare.sides import Scores, Side
from mathse.evaluation.figures import circumstances
from mathse.evaluation.mistakes import UNCLEAR
from mathse.reporting.report.svg import percent, points, span
from mathse.scoring import paper
from mathse.scoring.resampling import share_interval

NONE = "\N{EN DASH}"
GPS = "geometry problem solving"  # MathVista's task of 208 problems that Table 2 calls GPS
CHANGES = {
    "correct_correct": "stays right",
    "correct_wrong": "right to wrong",
    "wrong_correct": "wrong to right",
    "wrong_wrong": "stays wrong",
}

Rows = list[list[str]]


def accuracy_rows(sides: Sequence[Side], benchmark: str, seed: int) -> Rows:
    """Accuracy of each side with its bootstrap interval."""
    rows = [["run", "accuracy", "95% bootstrap interval", "right", "of", "measured with"]]
    for side in sides:
        if (scores := side.scores.get(benchmark)) is not None:
            protocol = scores.metrics.get("protocol")
            rows.append([side.label, *_accuracy(scores, seed), circumstances(protocol) if protocol else ""])
    return rows


def _accuracy(scores: Scores, seed: int) -> list[str]:
    marks = list(scores.marks.values())
    right, unknown = marks.count(True), marks.count(None)
    if unknown:
        return [NONE, f"{unknown:,} not scored", f"{right:,}", f"{len(marks):,}"]
    interval = share_interval([bool(mark) for mark in marks], seed)
    shown = span(interval) if interval else NONE
    return [percent(right / len(marks) if marks else None, 2), shown, f"{right:,}", f"{len(marks):,}"]


def pair_rows(pairs: Sequence[Pair]) -> Rows:
    """Paired differences in points, McNemar's p, and the transitions of Figure 2."""
    rows = [["run", "difference", "95% bootstrap interval", "McNemar p", *CHANGES.values(), "problems", "left out"]]
    for pair in pairs:
        low, high = pair.interval
        rows.append(
            [
                pair.after,
                points(pair.difference),
                f"{points(low)} to {points(high)}",
                p_text(pair.p),
                *(f"{pair.changes[kind]:,}" for kind in CHANGES),
                f"{pair.problems:,}",
                f"{pair.left_out:,}",
            ]
        )
    return rows


def p_text(p: float) -> str:
    """ "0.031", "< 0.0001"."""
    return f"{p:.4f}" if p >= 0.0001 else "< 0.0001"


# --- the paper's tables -----------------------------------------------------------------------------------------------


def table_1(sides: Sequence[Side]) -> Rows:
    """MathVL-test."""
    return _beside(paper.TABLE_1, paper.TABLE_1_HEAD, sides, lambda side: [_share(side, "mathvl_test")])


def table_2(sides: Sequence[Side]) -> Rows:
    """GPS, MathVista, MathVerse, MathVision, and their mean where there are all four."""
    return _beside(paper.TABLE_2, paper.TABLE_2_HEAD, sides, _public)


def _public(side: Side) -> list[float | None]:
    found = [_gps(side), *(_share(side, name) for name in ("mathvista", "mathverse", "mathvision"))]
    known = [value for value in found if value is not None]
    return [*found, sum(known) / len(found) if len(known) == len(found) else None]


def _share(side: Side, benchmark: str) -> float | None:
    """A whole benchmark's accuracy in percent; None where problems were left out or not scored."""
    metrics = side.scores[benchmark].metrics if benchmark in side.scores else {}
    if metrics.get("accuracy") is None or metrics.get("total") != paper.SIZES[benchmark]:
        return None
    return 100 * float(metrics["accuracy"])


def _gps(side: Side) -> float | None:
    """MathVista's geometry problem solving, in percent."""
    if _share(side, "mathvista") is None:
        return None
    found = side.scores["mathvista"].metrics["buckets"]["task"].get(GPS)
    return 100 * found["correct"] / found["total"] if found else None


def _beside(
    printed: Mapping[str, paper.Row],
    head: Sequence[str],
    sides: Sequence[Side],
    ours: Callable[[Side], list[float | None]],
) -> Rows:
    """The paper's rows, each followed by the runs that bear its name; runs of other names at the end."""
    rows = [["model", "whose", *head]]
    names = {name.casefold() for name in printed}
    for name, values in printed.items():
        rows.append([name, "paper", *map(_two, values)])
        rows += [[name, "ours", *map(_two, ours(s))] for s in sides if s.label.casefold() == name.casefold()]
    return rows + [[s.label, "ours", *map(_two, ours(s))] for s in sides if s.label.casefold() not in names]


def _two(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def error_rows(sides: Sequence[Side]) -> Rows:
    """Figure 4."""
    rows = [["model", "whose", *paper.ERROR_TYPES, UNCLEAR, "wrong answers"]]
    rows += [[n, "paper", *(f"{v:.1f}" for v in shares), NONE, NONE] for n, shares in paper.FIGURE_4.items()]
    for side in sides:
        for benchmark, scores in side.scores.items():
            if found := scores.error_types:
                shares = [f"{100 * found[kind] / found['total']:.1f}" for kind in (*paper.ERROR_TYPES, UNCLEAR)]
                rows.append([f"{side.label}, {benchmark}", "ours", *shares, f"{found['total']:,}"])
    return rows
