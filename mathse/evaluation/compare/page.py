"""A comparison as a page, with Figure 2's flow and Figure 4's bars drawn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mathse.evaluation.compare import tables
from mathse.evaluation.compare.pairs import pairs_of
from mathse.evaluation.compare.results import RunResults, benchmarks_of
from mathse.evaluation.page import mistakes_chart
from mathse.reporting.report import write_page
from mathse.reporting.report.flow import flow
from mathse.reporting.report.page import figure, html, section, table
from mathse.reporting.report.svg import safe
from mathse.scoring.paper import SLIPS


def write_comparison(results: Sequence[RunResults], seed: int, out: Path) -> Path:
    """Write the page; returns ``out``."""
    parts = []
    for number, name in enumerate(benchmarks_of(results)):
        body = _table(tables.accuracy_rows(results, name))
        if pairs := pairs_of(results, name, seed):
            body += _table(tables.pair_rows(pairs))
            for pair in pairs:  # Figure 2 for two students
                stages: list[dict[str, Any]] = [
                    {"stage": "before", "transitions": None},
                    {"stage": "after", "transitions": dict(pair.changes)},
                ]
                caption = safe(f"{pair.before}, then {pair.after}")
                body += f'<p class="finding">{caption}</p>{figure(partial(flow, stages))}'
        finding = (
            "Accuracies: Wilson's intervals; differences: bootstrap intervals over problems. McNemar's exact test; "
            "each run against the first, as in Figure 2."
        )
        parts.append(section("compared" if number == 0 else f"compared-{number}", name, finding, body))

    if costs := tables.cost_rows(results):
        finding = "All stages that a student was made from; tokens and FLOPs without those of measuring."
        parts.append(section("costs", "What the students took", finding, _table(costs)))

    finding = f"Percent. Table 2, then Table 1. {SLIPS['Table 2']} {SLIPS['Table 1']}"
    body = _table(tables.table_2(results)) + _table(tables.table_1(results))
    parts.append(section("tables", "The paper's tables, ours beside them", safe(finding), body))

    counts = {
        f"{run.label}, {name}": scores.error_types
        for run in results
        for name, scores in run.scores.items()
        if scores.error_types
    }
    if counts:
        body = figure(partial(mistakes_chart, counts))
        parts.append(section("mistakes", "Kinds of mistakes", safe(f"Figure 4. {SLIPS['Figure 4']}"), body))

    names = ", ".join(run.label for run in results)
    header = f'<p class="eyebrow">MathSE · comparison</p><h1>{safe(names)}</h1>'
    return write_page(html(f"comparison: {names}", header, parts), out)


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = rows
    return table(head, rest, "")
