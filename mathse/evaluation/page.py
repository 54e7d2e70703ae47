"""report.html: a page a benchmark, and one over all of them; ``page.html.j2`` has their sections and sentences."""

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
from mathse.reporting.charts import WIDE, Bar, Curve, Part, bars, curves
from mathse.reporting.formulas import answer_with_formulas, with_formulas
from mathse.reporting.pages import MAX_TABLE_ROWS, NONE, render, write_page
from mathse.reporting.progress.wording import percent, span
from mathse.runs.layout import REPORT
from mathse.scoring.paper import ERROR_TYPES, FIGURE_4, SLIPS

MAX_EXCERPT = 160  # characters of a text in a table
SELECTORS = {"orm": "ORM, best of N", "orm_weighted": "ORM-weighted vote", ORACLE: "oracle (pass@N)"}
# CSS classes of the kinds of mistakes, in the order of ERROR_TYPES and UNCLEAR.
COLOURS = ("accent", "accent-2", "quiet", "signal", "band-correct-wrong", "faint")

Row = dict[str, object]  # of a table: a column's name -> the cell


def write_pages(folder: Path, results: Sequence[BenchmarkResult]) -> None:
    """Write ``report.html`` of each benchmark, and of the run: the same page where there is one benchmark."""
    pages = [(result.opened.folder, page([result])) for result in results]
    pages.append((folder, pages[0][1] if len(results) == 1 else page(results)))
    for page_folder, text in pages:
        write_page(text, page_folder / REPORT)


def page(results: Sequence[BenchmarkResult]) -> str:
    """Return the report of one benchmark, or of several side by side."""
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
        one=_benchmark(results[0]) if len(results) == 1 else None,
    )


def _benchmark(result: BenchmarkResult) -> dict[str, object]:
    """The sections of a single benchmark's page; an empty value leaves its section out."""
    m = result.metrics
    contamination = m.get("contamination")
    without = [
        {
            "problems": name,
            "accuracy": percent(contamination[key]["accuracy"], 2),
            "right": f"{contamination[key]['correct']:,}",
            "of": f"{contamination[key]['total']:,}",
        }
        for name, key in (
            ("all problems", "with"),
            ("without those in the training rows for sure", "without_sure"),
            ("without every one that may be", "without"),
        )
        if contamination
    ]
    counts = m.get("error_types")
    differing = disagreements(result.graded)
    disagreeing = [
        {
            "id": g.answer.id,
            "official": "right" if g.scored.correct else "wrong",
            "math-verify": "right" if g.verified else "wrong",
            "prediction": _answer(g.scored.prediction),
            "reference": _answer(g.scored.answer),
            "end of the response": _cut(g.answer.response, end=True),
        }
        for g in differing[:MAX_TABLE_ROWS]
    ]
    wrong = [g for g in result.graded if not g.scored.correct]
    wrong_rows = [
        {
            "id": g.answer.id,
            "question": _cut(g.item.problem.question),
            "prediction": _answer(g.scored.prediction),
            "reference": _answer(g.scored.answer),
            "decided by": g.scored.note or g.scored.decided_by,
        }
        for g in wrong[:MAX_TABLE_ROWS]
    ]
    protocol = [{"what": key, "value": NONE if value is None else value} for key, value in _flat(m["protocol"], ".")]
    return {
        **_samples(m.get("selectors")),
        "buckets": list(_buckets(m["buckets"])),
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


def _samples(selectors: Mapping[str, Any] | None) -> dict[str, object]:
    """Accuracy against the number of samples, for every selector."""
    if selectors is None:
        return {"selectors": None}
    lines, rows = [], []
    for key, points in selectors.items():
        if key == "n":
            continue
        name = SELECTORS.get(key, key)
        known = zip(selectors["n"], points, strict=True)
        lines.append(Curve(name, [(n, p["accuracy"], p["ci95"]) for n, p in known if p["accuracy"] is not None]))
        row: Row = {"selector": name}
        for n, point in zip(selectors["n"], points, strict=True):
            row[f"N = {n}"] = percent(point["accuracy"]) + (f" {span(point['ci95'])}" if point["ci95"] else "")
        rows.append(row)
    chart = partial(curves, lines, "samples a problem", "Accuracy against the number of samples")
    return {"selectors": rows, "samples": chart}


def _buckets(buckets: Mapping[str, Any]) -> Iterator[Row]:
    """Yield a row a group, however deep it is nested; MATH-Vision's groups are strings as its authors print them."""
    for name, value in _flat(buckets, ": ", leaf="accuracy"):
        if isinstance(value, Mapping):
            share = value["accuracy"]
            shown = percent(share, 2) if isinstance(share, float) else share
            yield {
                "group": name,
                "accuracy": shown,
                "right": value.get("correct", NONE),
                "of": value.get("total", NONE),
            }
        else:
            yield {"group": name, "accuracy": value, "right": NONE, "of": NONE}


def _flat(values: Mapping[str, Any], between: str, leaf: str = "", above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings with the names of their keys; a mapping with the key ``leaf`` is a value."""
    for key, value in values.items():
        if isinstance(value, Mapping) and leaf not in value:
            yield from _flat(value, between, leaf, f"{above}{key}{between}")
        else:
            yield f"{above}{key}", value


def mistakes_chart(counts_of: Mapping[str, Mapping[str, Any]], width: int = WIDE) -> Markup:
    """Draw Figure 4: shares by kind, a bar for each of these runs, and the paper's three bars."""
    kinds = (*ERROR_TYPES, UNCLEAR)
    entries = [
        (name, [100 * counts[kind] / counts["total"] for kind in kinds], f"{counts['total']:,} wrong")
        for name, counts in counts_of.items()
    ]
    entries += [(name, [*shares, 0.0], "paper") for name, shares in FIGURE_4.items()]
    rows = []
    for name, shares, remark in entries:
        short = name if len(name) <= 19 else f"…{name[-18:]}"  # 19 letters fit beside a bar
        parts = zip(kinds, shares, COLOURS, strict=True)
        rows.append(Bar(short, [Part(kind, share, f"{share:.1f}%", colour) for kind, share, colour in parts], remark))
    return bars(rows, "Shares of the wrong answers by kind of mistake", width=width)


def _answer(text: str | None) -> Markup:
    return answer_with_formulas(text) if text is not None and len(text) <= MAX_EXCERPT else _cut(text)


def _cut(text: str | None, end: bool = False) -> Markup:
    """The beginning or the end of a text in a cell, its formulas drawn."""
    flat = NONE if text is None else " ".join(text.split())
    if len(flat) > MAX_EXCERPT:
        flat = "…" + flat[-MAX_EXCERPT:] if end else flat[:MAX_EXCERPT] + "…"
    return with_formulas(flat)
