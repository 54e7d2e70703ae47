"""Tables as rows of text: accuracies, pairs, and the paper's tables with the runs beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mathse.evaluation.compare.pairs import PairedComparison
from mathse.evaluation.compare.results import RunResults
from mathse.evaluation.error_types import UNCLEAR
from mathse.evaluation.metrics import circumstances
from mathse.reporting.progress.costs import CURRENCY_NAMES, TIME_COLUMN, cost_cells, device_time
from mathse.reporting.progress.wording import gain, percent, points, span
from mathse.reporting.report.run import control_rows
from mathse.scoring import paper
from mathse.scoring.metrics import wilson

NONE = "\N{EN DASH}"
GPS = "geometry problem solving"  # MathVista's task of 208 problems that Table 2 calls GPS
CHANGES = {
    "correct_correct": "stays right",
    "correct_wrong": "right to wrong",
    "wrong_correct": "wrong to right",
    "wrong_wrong": "stays wrong",
}

Rows = list[list[str]]


def accuracy_rows(results: Sequence[RunResults], benchmark: str) -> Rows:
    """Return the accuracy of each run with the interval of the run's own table."""
    rows = [["run", "accuracy", "95% interval", "right", "of", "measured with"]]
    for run in results:
        if (scores := run.scores.get(benchmark)) is None:
            continue
        marks = list(scores.marks.values())
        right, unknown = marks.count(True), marks.count(None)
        if unknown:
            accuracy, interval = NONE, f"{unknown:,} not scored"
        else:
            accuracy = percent(right / len(marks) if marks else None, 2)
            interval = span(wilson(right, len(marks))) if marks else NONE
        protocol = scores.metrics.get("protocol")
        measured_with = circumstances(protocol) if protocol else ""
        rows.append([run.label, accuracy, interval, f"{right:,}", f"{len(marks):,}", measured_with])
    return rows


def pair_rows(pairs: Sequence[PairedComparison]) -> Rows:
    """Return paired differences in points, McNemar's p, and the transitions of Figure 2."""
    rows = [["run", "difference", "95% bootstrap interval", "McNemar p", *CHANGES.values(), "problems", "left out"]]
    for pair in pairs:
        low, high = pair.interval
        rows.append(
            [
                pair.after,
                gain(pair.accuracy_before, pair.accuracy_after, 2),
                f"{points(low, 2)} to {points(high, 2)}",
                p_text(pair.p),
                *(f"{pair.changes[kind]:,}" for kind in CHANGES),
                f"{pair.problems:,}",
                f"{pair.left_out:,}",
            ]
        )
    return rows


def cost_rows(results: Sequence[RunResults]) -> Rows:
    """Return the cost of each student of a training run, in every currency; empty without a training run."""
    rows = [[run.label, *cost_cells(run.spent), device_time(run.seconds)] for run in results if run.spent is not None]
    return [["run", *CURRENCY_NAMES.values(), TIME_COLUMN], *rows] if rows else []


def controls_rows(results: Sequence[RunResults]) -> Rows:
    """Return each run beside its controls; empty if no run has controls."""
    rows: Rows = []
    for run in results:
        for row in control_rows(run.controls) if run.controls is not None else ():
            if not rows:
                rows.append(["run", *row])
            rows.append([run.label, *map(str, row.values())])
    return rows


def p_text(p: float) -> str:
    """Write "0.0310" or "< 0.0001"."""
    return f"{p:.4f}" if p >= 0.0001 else "< 0.0001"


# --- the paper's tables -----------------------------------------------------------------------------------------------


def table_1(results: Sequence[RunResults]) -> Rows:
    """Return Table 1: MathVL-test."""
    return _beside_paper(paper.TABLE_1, paper.TABLE_1_HEAD, results, lambda run: [_percent_of(run, "mathvl_test")])


def table_2(results: Sequence[RunResults]) -> Rows:
    """Return Table 2: GPS, MathVista, MathVerse, MathVision, and their mean if all four are known."""

    def public(run: RunResults) -> list[float | None]:
        mathvista = _percent_of(run, "mathvista")
        gps = None
        if mathvista is not None and (counts := run.scores["mathvista"].metrics["buckets"]["task"].get(GPS)):
            gps = 100 * counts["correct"] / counts["total"]
        values = [gps, mathvista, _percent_of(run, "mathverse"), _percent_of(run, "mathvision")]
        known = [value for value in values if value is not None]
        return [*values, sum(known) / len(values) if len(known) == len(values) else None]

    return _beside_paper(paper.TABLE_2, paper.TABLE_2_HEAD, results, public)


def _percent_of(run: RunResults, benchmark: str) -> float | None:
    """Return the accuracy on all problems of a benchmark, in percent; None if a problem is missing or not scored."""
    metrics = run.scores[benchmark].metrics if benchmark in run.scores else {}
    if metrics.get("accuracy") is None or metrics.get("total") != paper.SIZES[benchmark]:
        return None
    return 100 * float(metrics["accuracy"])


def _beside_paper(
    printed: Mapping[str, paper.Cells],
    head: Sequence[str],
    results: Sequence[RunResults],
    ours: Callable[[RunResults], list[float | None]],
) -> Rows:
    """Return the paper's rows, each followed by the runs with its name; runs with other names come last."""

    def row(name: str, source: str, values: Sequence[float | None]) -> list[str]:
        return [name, source, *(NONE if value is None else f"{value:.2f}" for value in values)]

    rows = [["model", "source", *head]]
    names = {name.casefold() for name in printed}
    for name, values in printed.items():
        rows.append(row(name, "paper", values))
        rows += [row(name, "ours", ours(run)) for run in results if run.label.casefold() == name.casefold()]
    return rows + [row(run.label, "ours", ours(run)) for run in results if run.label.casefold() not in names]


def error_rows(results: Sequence[RunResults]) -> Rows:
    """Return Figure 4 as a table: shares of the kinds of mistakes, in percent of the wrong answers."""
    rows = [["model", "source", *paper.ERROR_TYPES, UNCLEAR, "wrong answers"]]
    for name, printed in paper.FIGURE_4.items():
        rows.append([name, "paper", *(f"{share:.1f}" for share in printed), NONE, NONE])
    for run in results:
        for benchmark, scores in run.scores.items():
            if counts := scores.error_types:
                shares = [f"{100 * counts[kind] / counts['total']:.1f}" for kind in (*paper.ERROR_TYPES, UNCLEAR)]
                rows.append([f"{run.label}, {benchmark}", "ours", *shares, f"{counts['total']:,}"])
    return rows
