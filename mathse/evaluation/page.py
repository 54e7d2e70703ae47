"""report.html: a page for each benchmark, and a page over all; ``page.html.j2`` has their sections and sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mathse.evaluation.error_types import UNCLEAR
from mathse.evaluation.metrics import disagreements
from mathse.evaluation.results import BenchmarkResult
from mathse.evaluation.selectors import ORACLE
from mathse.reporting.charts import WIDE, Bar, BarPart, Curve, bars, curves
from mathse.reporting.formulas import answer_with_formulas, with_formulas
from mathse.reporting.pages import MAX_TABLE_ROWS, NONE, render, write_page
from mathse.reporting.progress.wording import percent, span
from mathse.runs.layout import REPORT
from mathse.scoring.paper import ERROR_TYPES, FIGURE_4, SLIPS

MAX_EXCERPT = 160  # characters of a text in a table
SELECTOR_TITLES = {"orm": "ORM, best of N", "orm_weighted": "ORM-weighted vote", ORACLE: "oracle (pass@N)"}

Row = dict[str, object]  # a row of a table: column -> cell


def write_pages(folder: Path, results: Sequence[BenchmarkResult]) -> None:
    """Write ``report.html`` of each benchmark and of the run. With a single benchmark both are the same page."""
    pages = [(result.opened.folder, render_results([result])) for result in results]
    pages.append((folder, pages[0][1] if len(results) == 1 else render_results(results)))
    for page_folder, text in pages:
        write_page(text, page_folder / REPORT)


def render_results(results: Sequence[BenchmarkResult]) -> str:
    """Return the report of a benchmark, or of several side by side."""
    accuracy = []
    for result in results:
        m = result.metrics
        accuracy.append(
            {
                "benchmark": result.opened.bench.title,
                "split": m["split"],
                "accuracy": percent(m["accuracy"], 2),
                "95% interval": span(m["ci95"]) if m["ci95"] else NONE,
                "right": f"{m['correct']:,}",
                "of": f"{m['total']:,}",
                "not scored": f"{m.get('not_scored', 0):,}",
                "as it stands": percent(m["raw"]["accuracy"], 2),
                "marker mapped": percent(m["mapped"]["accuracy"], 2),
                "math-verify": percent((m["math_verify"] or {}).get("accuracy"), 2),
            }
        )
    return render(
        "evaluation/page.html.j2",
        ", ".join(result.opened.bench.title for result in results),
        results=results,
        accuracy=accuracy,
        one=_benchmark_sections(results[0]) if len(results) == 1 else None,
    )


def _benchmark_sections(result: BenchmarkResult) -> dict[str, object]:
    """Return the values of a single benchmark's page. An empty value leaves its section out."""
    m = result.metrics
    contamination = m.get("contamination")
    without: list[Row] = []
    if contamination:
        for name, key in (
            ("all problems", "with"),
            ("without those in the training rows for sure", "without_sure"),
            ("without every one that may be", "without"),
        ):
            figures = contamination[key]
            without.append(
                {
                    "problems": name,
                    "accuracy": percent(figures["accuracy"], 2),
                    "right": f"{figures['correct']:,}",
                    "of": f"{figures['total']:,}",
                }
            )
    counts = m.get("error_types")
    differing = disagreements(result.graded)
    disagreeing = [
        {
            "id": g.answer.id,
            "official": "right" if g.scored.correct else "wrong",
            "math-verify": "right" if g.verified else "wrong",
            "prediction": _answer_cell(g.scored.prediction),
            "reference": _answer_cell(g.scored.answer),
            "end of the response": _excerpt(g.answer.response, from_end=True),
        }
        for g in differing[:MAX_TABLE_ROWS]
    ]
    wrong = [g for g in result.graded if not g.scored.correct]
    wrong_rows = [
        {
            "id": g.answer.id,
            "question": _excerpt(g.item.problem.question),
            "prediction": _answer_cell(g.scored.prediction),
            "reference": _answer_cell(g.scored.answer),
            "decided by": g.scored.note or g.scored.decided_by,
        }
        for g in wrong[:MAX_TABLE_ROWS]
    ]
    protocol = []
    for key, value in _flatten(m["protocol"], separator="."):
        protocol.append({"what": key, "value": NONE if value is None else value})
    return {
        **_selector_values(m.get("selectors")),
        "buckets": list(_bucket_rows(m["buckets"])),
        "contamination": contamination,
        "without": without,
        "mistakes": counts if counts and counts["total"] else None,
        "mistake_bars": partial(mistakes_chart, {"here": counts or {}}),
        "slips": SLIPS["Figure 4"],
        "differing": len(differing),
        "disagreements": disagreeing,
        "all_wrong": len(wrong),
        "wrong": wrong_rows,
        "protocol": protocol,
    }


def _selector_values(selectors: Mapping[str, Any] | None) -> dict[str, object]:
    """Return table and chart of accuracy against the number of samples, for every selector."""
    if selectors is None:
        return {"selectors": None}
    lines, rows = [], []
    for key, points in selectors.items():
        if key == "n":
            continue
        name = SELECTOR_TITLES.get(key, key)
        curve_points = []
        row: Row = {"selector": name}
        for n, point in zip(selectors["n"], points, strict=True):
            if point["accuracy"] is not None:
                curve_points.append((n, point["accuracy"], point["ci95"]))
            row[f"N = {n}"] = percent(point["accuracy"]) + (f" {span(point['ci95'])}" if point["ci95"] else "")
        lines.append(Curve(name, curve_points))
        rows.append(row)
    chart = partial(curves, lines, "samples a problem", "Accuracy against the number of samples")
    return {"selectors": rows, "samples": chart}


def _bucket_rows(buckets: Mapping[str, Any]) -> Iterator[Row]:
    """Yield a row for each group at any depth. MATH-Vision's groups are strings in its authors' format."""
    for name, value in _flatten(buckets, separator=": ", leaf="accuracy"):
        if isinstance(value, Mapping):
            share = value["accuracy"]
            yield {
                "group": name,
                "accuracy": percent(share, 2) if isinstance(share, float) else share,
                "right": value.get("correct", NONE),
                "of": value.get("total", NONE),
            }
        else:
            yield {"group": name, "accuracy": value, "right": NONE, "of": NONE}


def _flatten(values: Mapping[str, Any], separator: str, leaf: str = "", prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings with their joined keys. A mapping with the key ``leaf`` is a value."""
    for key, value in values.items():
        if isinstance(value, Mapping) and leaf not in value:
            yield from _flatten(value, separator, leaf, f"{prefix}{key}{separator}")
        else:
            yield f"{prefix}{key}", value


def mistakes_chart(counts_of: Mapping[str, Mapping[str, Any]], width: int = WIDE) -> Markup:
    """Draw Figure 4 of the paper: shares by kind of mistake, a bar for each run, and the paper's three bars.

    ``counts_of``: name of a run -> its counts by kind.
    """
    kinds = (*ERROR_TYPES, UNCLEAR)
    colours = ("accent", "accent-2", "quiet", "signal", "band-correct-wrong", "faint")  # CSS classes of the kinds
    entries = [
        (name, [100 * counts[kind] / counts["total"] for kind in kinds], f"{counts['total']:,} wrong")
        for name, counts in counts_of.items()
    ]
    entries += [(name, [*shares, 0.0], "paper") for name, shares in FIGURE_4.items()]
    rows = []
    for name, shares, remark in entries:
        short = name if len(name) <= 19 else f"…{name[-18:]}"  # 19 letters fit beside a bar
        parts = zip(kinds, shares, colours, strict=True)
        rows.append(
            Bar(short, [BarPart(kind, share, f"{share:.1f}%", colour) for kind, share, colour in parts], remark)
        )
    return bars(rows, "Shares of the wrong answers by kind of mistake", width=width)


def _answer_cell(text: str | None) -> Markup:
    return answer_with_formulas(text) if text is not None and len(text) <= MAX_EXCERPT else _excerpt(text)


def _excerpt(text: str | None, from_end: bool = False) -> Markup:
    """Return the beginning or the end of a text for a cell, with its formulas drawn."""
    line = NONE if text is None else " ".join(text.split())
    if len(line) > MAX_EXCERPT:
        line = "…" + line[-MAX_EXCERPT:] if from_end else line[:MAX_EXCERPT] + "…"
    return with_formulas(line)
