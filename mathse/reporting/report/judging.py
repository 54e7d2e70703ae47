"""The sections about the judge: what it let through, and how good the ORM is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mathse.reporting.report import svg
from mathse.reporting.report.bars import Bar, Part, bars
from mathse.reporting.report.orm_charts import FIGURES, orm_panels, reliability
from mathse.reporting.report.sections import count, figure, section, table
from mathse.runs.layout import title
from mathse.runs.reader import Run
from mathse.scoring.metrics import wilson


def acceptance(run: Run) -> str:
    """What the judge took, stage by stage, and how much of it was right."""
    judged = [e for e in run.entries if e.get("accepted") is not None]
    rows = [Bar(title(e["stage"]), _acceptance_parts(e), svg.percent(e.get("acceptance_precision"))) for e in judged]
    numbers = [
        (
            title(e["stage"]),
            *(count(e.get(k)) for k in ("accepted", "rejected", "unparsed")),
            _precision(e),
            svg.percent(e.get("step_precision")),
        )
        for e in judged
    ]
    head = ("stage", "accepted", "rejected", "unparsed", "precision (95% interval)", "all steps right too")
    finding = "Precision is the share of accepted paths that end in the reference answer."
    if run.config.get("judge", {}).get("name") == "orm" and not run.config.get("orm", {}).get("see_answer"):
        finding += " The judge does not see that answer."
    return section(
        "acceptance",
        "What the judge let through",
        finding,
        figure(bars(rows, "Paths judged", "precision")) + table(head, numbers) if judged else "",
    )


def _acceptance_parts(entry: Mapping[str, Any]) -> list[Part]:
    taken, precision = entry["accepted"], entry.get("acceptance_precision")
    wrong = 0 if precision is None else taken - round(taken * precision)
    return [
        Part("accepted" if precision is None else "accepted, right", taken - wrong, f"{taken - wrong:,}", "accent"),
        Part("accepted, wrong", wrong, f"{wrong:,}", "signal"),
        Part("rejected", entry.get("rejected") or 0, f"{entry.get('rejected') or 0:,}", "quiet"),
        Part("unparsed", entry.get("unparsed") or 0, f"{entry.get('unparsed') or 0:,}", "faint"),
    ]


def _precision(entry: Mapping[str, Any]) -> str:
    precision, taken = entry.get("acceptance_precision"), entry["accepted"]
    if precision is None or not taken:
        return "\N{EN DASH}"
    return f"{svg.percent(precision)} ({svg.span(wilson(round(precision * taken), taken))})"


def orm(run: Run) -> str:
    """The ORM on held-out paths: its own students', then each newer student's."""
    series = ([("orm", run.orm)] if run.orm else []) + run.orm_by_student
    if not series:
        return ""
    rows = [
        (
            "own held-out" if stage == "orm" else title(stage),
            count(f.get("n")),
            *(_with_interval(f, name) for name in FIGURES),
            _decimals(f.get("auroc")),
            count(f.get("unparsed")),
        )
        for stage, f in series
    ]
    head = ("paths by the student", "paths", *FIGURES.values(), "AUROC", "unparsed")
    charts = orm_panels(series)
    diagrams = "".join(
        f'<figure class="half"><figcaption>{svg.safe(words)}</figcaption>{reliability(bins)}</figure>'
        for words, bins in _reliability_pair(run, series)
        if bins
    )
    return section(
        "orm",
        "How good the ORM is, and how it holds up",
        _orm_finding(series),
        figure(charts) + table(head, rows) + (f'<div class="pair">{diagrams}</div>' if diagrams else ""),
    )


def _orm_finding(series: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    words = (
        "Held-out paths on unseen problems. The ORM learned from weak students. Filled: paths by students like those; "
        "rings: paths by the students that it went on to judge."
    )
    first, last = series[0][1].get("overall_accuracy"), series[-1][1].get("overall_accuracy")
    if len(series) > 1 and first is not None and last is not None:
        words += f" From the first to the last, overall accuracy changes by {svg.points(last - first)} points."
    return svg.safe(words)


def _reliability_pair(run: Run, series: Sequence[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, Any]]:
    pairs = [("Share of paths that are right, own held-out", (run.orm or {}).get("reliability"))]
    if run.orm_by_student:
        stage, figures = run.orm_by_student[-1]
        pairs.append((f"The same, paths by the student of {title(stage)}", figures.get("reliability")))
    return pairs


def _with_interval(figures: Mapping[str, Any], name: str) -> str:
    interval = (figures.get("ci95") or {}).get(name)
    return svg.percent(figures.get(name)) + (f" ({svg.span(interval)})" if interval else "")


def _decimals(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:.3f}"
