"""A comparison as a page, with Figure 2's flow and Figure 4's bars drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mathse.evaluation.compare import tables
from mathse.evaluation.compare.pairs import Pair, pairs_of
from mathse.evaluation.compare.sides import Side, benchmarks_of
from mathse.evaluation.page import mistakes_chart
from mathse.reporting.report import write_page
from mathse.reporting.report.flow import flow
from mathse.reporting.report.page import html
from mathse.reporting.report.sections import figure, section, table
from mathse.reporting.report.svg import safe
from mathse.scoring.paper import SLIPS


def write_comparison(sides: Sequence[Side], seed: int, out: Path) -> Path:
    """Write the page; returns ``out``."""
    parts = [_benchmark(sides, name, seed, k) for k, name in enumerate(benchmarks_of(sides))]
    parts += [_paper(sides), _mistakes(sides)]
    names = ", ".join(side.label for side in sides)
    header = f'<p class="eyebrow">MathSE · comparison</p><h1>{safe(names)}</h1>'
    return write_page(html(f"comparison: {names}", header, parts), out)


def _benchmark(sides: Sequence[Side], name: str, seed: int, number: int) -> str:
    pairs = pairs_of(sides, name, seed)
    body = _open(tables.accuracy_rows(sides, name, seed))
    if pairs:
        body += _open(tables.pair_rows(pairs)) + "".join(map(_flow, pairs))
    finding = "Bootstrap intervals over problems; McNemar's exact test; each run against the first, as in Figure 2."
    return section("compared" if number == 0 else f"compared-{number}", name, finding, body)


def _flow(pair: Pair) -> str:
    """Figure 2 for two students."""
    entries: list[dict[str, Any]] = [
        {"stage": "before", "transitions": None},
        {"stage": "after", "transitions": dict(pair.changes)},
    ]
    return f'<p class="finding">{safe(pair.before)}, then {safe(pair.after)}</p>{figure(flow(entries))}'


def _paper(sides: Sequence[Side]) -> str:
    body = _open(tables.table_2(sides)) + _open(tables.table_1(sides))
    finding = f"Percent. Table 2, then Table 1. {SLIPS['Table 2']} {SLIPS['Table 1']}"
    return section("tables", "The paper's tables, ours beside them", safe(finding), body)


def _mistakes(sides: Sequence[Side]) -> str:
    counted = {
        f"{side.label}, {name}": scores.error_types
        for side in sides
        for name, scores in side.scores.items()
        if scores.error_types
    }
    if not counted:
        return ""
    body = figure(mistakes_chart({name: found for name, found in counted.items() if found}))
    return section("mistakes", "Kinds of mistakes", safe(f"Figure 4. {SLIPS['Figure 4']}"), body)


def _open(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = rows
    return table(head, rest, "")
