"""report.html: a page a benchmark, and one over all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mathse.evaluation.error_types import UNCLEAR
from mathse.evaluation.grading import GradedAnswer
from mathse.evaluation.metrics import disagreements
from mathse.evaluation.results import BenchmarkResult
from mathse.evaluation.selectors import ORACLE
from mathse.reporting.report import write_page
from mathse.reporting.report.bars import Bar, Part, bars
from mathse.reporting.report.curves import Curve, curves
from mathse.reporting.report.formulas import answer_with_formulas, with_formulas
from mathse.reporting.report.page import Markup, figure, html, section, table
from mathse.reporting.report.svg import WIDE, percent, safe, span
from mathse.runs.layout import REPORT
from mathse.scoring.paper import ERROR_TYPES, FIGURE_4, SLIPS

NONE = "\N{EN DASH}"
SHOWN = 200  # rows of a table
EXCERPT = 160  # characters of a text in a table
# CSS classes of the kinds of mistakes, in the order of ERROR_TYPES and UNCLEAR.
COLOURS = ("accent", "accent-2", "quiet", "signal", "band-correct-wrong", "faint")


def write_pages(folder: Path, results: Sequence[BenchmarkResult]) -> None:
    """``report.html`` of each benchmark, and of the run: the same page where there is one benchmark."""
    pages = [(result.opened.folder, page([result])) for result in results]
    pages.append((folder, pages[0][1] if len(results) == 1 else page(results)))
    for page_folder, text in pages:
        write_page(text, page_folder / REPORT)


def page(results: Sequence[BenchmarkResult]) -> str:
    """The report of one benchmark, or of several side by side."""
    rows: list[list[object]] = []
    sentences = []
    for result in results:
        m, title = result.metrics, result.opened.bench.title
        rows.append(
            [
                title,
                m["split"],
                percent(m["accuracy"], 2),
                span(m["ci95"]) if m["ci95"] else NONE,
                f"{m['correct']:,}",
                f"{m['total']:,}",
                f"{m.get('not_scored', 0):,}",
                percent(m["raw"]["accuracy"], 2),
                percent(m["mapped"]["accuracy"], 2),
                percent((m["math_verify"] or {}).get("accuracy"), 2),
            ]
        )
        if m["accuracy"] is None:
            unknown = f"{m.get('not_scored', 0):,} of {m['total']:,} answers were not scored"
            sentences.append(f"{safe(title)}: no accuracy, {unknown}.")
        else:
            counts = f"{m['correct']:,} of {m['total']:,}, {span(m['ci95'])}"
            sentences.append(f"{safe(title)}: <b>{percent(m['accuracy'], 2)}</b> ({counts}).")
        if m["overruns"]:
            sentences.append(f"{m['overruns']:,} answers could not be parsed in time and count as wrong.")
    head = ("benchmark", "split", "accuracy", "95% interval", "right", "of", "not scored", "as it stands",
            "marker mapped", "math-verify")  # fmt: skip
    explanation = (
        "Scored as the benchmark's authors score it, 95% intervals (Wilson). “As it stands”: the response unchanged. "
        "“Marker mapped”: the student's own answer marker rewritten into what the official extractor reads. "
        "math-verify reads the same responses by itself. An accuracy that hangs on rows not scored is not given."
    )
    parts = [section("accuracy", "Accuracy", explanation, table(head, rows, ""))]
    if len(results) == 1:
        (result,) = results
        m = result.metrics
        parts += [
            _samples(m.get("selectors")),
            _buckets(m["buckets"]),
            _contamination(m.get("contamination")),
            _mistakes(m.get("error_types")),
            _disagreements(result.graded),
            _wrong(result.graded),
            section(
                "protocol",
                "Protocol",
                "What the number was measured with.",
                table(("what", "value"), list(_protocol_rows(m["protocol"])), ""),
            ),
        ]
    else:
        links = "".join(
            f'<li><a href="{r.opened.name}/report.html">{safe(r.opened.bench.title)}</a></li>' for r in results
        )
        parts.append(section("runs", "Each benchmark", "", f"<ul>{links}</ul>"))
    names = ", ".join(result.opened.bench.title for result in results)
    summary = f'<p class="result">{" ".join(sentences)}</p>'
    return html(names, f'<p class="eyebrow">MathSE · evaluation</p><h1>{safe(names)}</h1>{summary}', parts)


# --- sections ---------------------------------------------------------------------------------------------------------


def _samples(selectors: Mapping[str, Any] | None) -> str:
    """Accuracy against the number of samples, for every selector."""
    if selectors is None:
        return ""
    named = {key: points for key, points in selectors.items() if key != "n"}
    label = {"orm": "ORM, best of N", "orm_weighted": "ORM-weighted vote", ORACLE: "oracle (pass@N)"}
    lines, rows = [], []
    for key, points in named.items():
        known = zip(selectors["n"], points, strict=True)
        drawn = [(n, p["accuracy"], p["ci95"]) for n, p in known if p["accuracy"] is not None]
        lines.append(Curve(label.get(key, key), drawn))
        cells = [percent(p["accuracy"]) + (f" {span(p['ci95'])}" if p["ci95"] else "") for p in points]
        rows.append([label.get(key, key), *cells])
    return section(
        "selectors",
        "Accuracy against the number of samples",
        "One sampling pass. Selectors: at N, the first N answers of each problem. Oracle: the probability that N of a "
        "problem's answers, drawn without replacement, hold a right one; a bound. 95% intervals (Wilson).",
        figure(lambda width: curves(lines, "samples a problem", "Accuracy against the number of samples", width))
        + table(("selector", *(f"N = {n}" for n in selectors["n"])), rows),
    )


def _buckets(buckets: Mapping[str, Any]) -> str:
    """The benchmark's own groups; nothing for one that has none."""
    rows = list(_bucket_rows(buckets))
    drawn = table(("group", "accuracy", "right", "of"), rows, f"all {len(rows)} groups") if rows else ""
    return section("buckets", "By kind of problem", "", drawn)


def _bucket_rows(buckets: Mapping[str, Any], above: str = "") -> Iterator[list[object]]:
    """A row a group, however deep it is nested; MATH-Vision's groups are strings as its authors print them."""
    for key, value in buckets.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping) and "accuracy" in value:
            share = value["accuracy"]
            shown = percent(share, 2) if isinstance(share, float) else share
            yield [name, shown, value.get("correct", NONE), value.get("total", NONE)]
        elif isinstance(value, Mapping):
            yield from _bucket_rows(value, f"{name}: ")
        else:
            yield [name, value, NONE, NONE]


def _contamination(summary: Mapping[str, Any] | None) -> str:
    if summary is None:
        return ""
    rows = [
        (name, percent(summary[key]["accuracy"], 2), f"{summary[key]['correct']:,}", f"{summary[key]['total']:,}")
        for name, key in (
            ("all problems", "with"),
            ("without those in the training rows for sure", "without_sure"),
            ("without every one that may be", "without"),
        )
    ]
    finding = (
        f"{len(summary['problems']):,} problems are among the {summary['rows']:,} rows of {safe(summary['file'])}, by "
        "question (equal or nearly so) or by picture (the same, or the same to the eye); "
        f"{len(summary['sure']):,} of them for sure, the others by a question that does not tell which problem it is, "
        "such as “Find x.”. contamination.jsonl lists the pairs."
    )
    drawn = table(("problems", "accuracy", "right", "of"), rows, "")
    return section("contamination", "Training rows in the benchmark", finding, drawn)


def _mistakes(counts: Mapping[str, Any] | None) -> str:
    """Figure 4: ours and, beside it, the paper's three bars."""
    if counts is None or not counts["total"]:
        return ""
    return section(
        "mistakes",
        "Kinds of mistakes",
        f"{counts['total']:,} wrong answers, by {safe(counts['judge']['model'])}, which saw the picture of "
        f"{counts['with_picture']:,}. The paper's bars are read from its Figure 4, on MathVL-test. "
        + safe(SLIPS["Figure 4"]),
        figure(partial(mistakes_chart, {"here": counts})),
    )


def mistakes_chart(counts_of: Mapping[str, Mapping[str, Any]], width: int = WIDE) -> str:
    """Shares by kind: a bar for each of these runs, and the paper's."""
    kinds = (*ERROR_TYPES, UNCLEAR)
    entries = [
        (name, [100 * counts[kind] / counts["total"] for kind in kinds], f"{counts['total']:,} wrong")
        for name, counts in counts_of.items()
    ]
    entries += [(name, [*shares, 0.0], "paper") for name, shares in FIGURE_4.items()]
    rows = []
    for name, shares, remark in entries:
        short = name if len(name) <= 19 else f"…{name[-18:]}"  # what fits beside a bar
        parts = zip(kinds, shares, COLOURS, strict=True)
        rows.append(Bar(short, [Part(kind, share, f"{share:.1f}%", colour) for kind, share, colour in parts], remark))
    return bars(rows, "Shares of the wrong answers by kind of mistake", width=width)


def _disagreements(graded: Sequence[GradedAnswer]) -> str:
    differing = disagreements(graded)
    rows = [
        (
            g.answer.id,
            "right" if g.scored.correct else "wrong",
            "right" if g.verified else "wrong",
            _answer(g.scored.prediction),
            _answer(g.scored.answer),
            _cut(g.answer.response, end=True),
        )
        for g in differing[:SHOWN]
    ]
    head = ("id", "official", "math-verify", "prediction", "reference", "end of the response")
    finding = f"{len(differing):,} rows on which the two differ; disagreements.jsonl has all of them."
    return section("disagreements", "Where math-verify says otherwise", finding, table(head, rows)) if rows else ""


def _wrong(graded: Sequence[GradedAnswer]) -> str:
    wrong = [g for g in graded if not g.scored.correct]
    rows = [
        (
            g.answer.id,
            _cut(g.item.problem.question),
            _answer(g.scored.prediction),
            _answer(g.scored.answer),
            g.scored.note or g.scored.decided_by,
        )
        for g in wrong[:SHOWN]
    ]
    head = ("id", "question", "prediction", "reference", "decided by")
    finding = f"The first {len(rows):,} of {len(wrong):,} rows that are wrong or not scored; scored.jsonl has all."
    return section("wrong", "Wrong answers", finding, table(head, rows, "the rows")) if rows else ""


def _answer(text: str | None) -> Markup:
    return Markup(answer_with_formulas(text)) if text is not None and len(text) <= EXCERPT else _cut(text)


def _cut(text: str | None, end: bool = False) -> Markup:
    """The beginning or the end of a text in a cell, its formulas drawn."""
    flat = NONE if text is None else " ".join(text.split())
    if len(flat) > EXCERPT:
        flat = "…" + flat[-EXCERPT:] if end else flat[:EXCERPT] + "…"
    return Markup(with_formulas(flat))


def _protocol_rows(protocol: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, object]]:
    for key, value in protocol.items():
        if isinstance(value, Mapping):
            yield from _protocol_rows(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", NONE if value is None else value
