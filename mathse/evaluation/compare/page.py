"""A comparison as a page, with Figure 2's flow and Figure 4's bars; ``page.html.j2`` has its sections and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mathse.evaluation.compare import tables
from mathse.evaluation.compare.pairs import pairs_of
from mathse.evaluation.compare.results import RunResults, benchmarks_of
from mathse.evaluation.page import mistakes_chart
from mathse.reporting.charts import flow
from mathse.reporting.pages import render, write_page
from mathse.scoring.paper import SLIPS


def write_comparison(results: Sequence[RunResults], seed: int, out: Path) -> Path:
    """Write the page and return ``out``."""
    benchmarks = []
    for name in benchmarks_of(results):
        pairs = pairs_of(results, name, seed)
        charts = []
        for pair in pairs:
            # Figure 2 of the paper for two students.
            stages: list[dict[str, Any]] = [
                {"stage": "before", "transitions": None},
                {"stage": "after", "transitions": dict(pair.changes)},
            ]
            charts.append((pair, partial(flow, stages)))
        benchmarks.append(
            {
                "name": name,
                "accuracies": tables.accuracy_rows(results, name),
                "differences": tables.pair_rows(pairs) if pairs else [],
                "pairs": charts,
            }
        )

    counts = {}  # "run, benchmark" -> kinds of mistakes
    for run in results:
        for name, scores in run.scores.items():
            if scores.error_types:
                counts[f"{run.label}, {name}"] = scores.error_types
    names = ", ".join(run.label for run in results)
    page = render(
        "evaluation/compare/page.html.j2",
        f"comparison: {names}",
        names=names,
        benchmarks=benchmarks,
        costs=tables.cost_rows(results),
        controls=tables.controls_rows(results),
        table_1=tables.table_1(results),
        table_2=tables.table_2(results),
        mistakes=partial(mistakes_chart, counts) if counts else None,
        slips=SLIPS,
    )
    return write_page(page, out)
