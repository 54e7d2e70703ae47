"""report.html: a page a benchmark, and one over all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mathse.evaluation.figures import disagreements
from mathse.evaluation.files import REPORT
from mathse.evaluation.mistakes import UNCLEAR
from mathse.evaluation.results import Result
from mathse.evaluation.scoring import Graded
from mathse.evaluation.selectors import ORACLE
from mathse.reporting.report import write_page
from mathse.reporting.report.bars import Bar, Part, bars
from mathse.reporting.report.curves import Curve, curves
from mathse.reporting.report.formulas import answer_with_formulas, with_formulas
from mathse.reporting.report.page import html
from mathse.reporting.report.sections import Markup, figure, section, table
from mathse.reporting.report.svg import percent, safe, span
from mathse.scoring.paper import ERROR_TYPES, FIGURE_4, SLIPS

NONE = "\N{EN DASH}"
SHOWN = 200  # rows of a table
EXCERPT = 160  # characters of a text in a table
LOOKS = ("accent", "accent-2", "quiet", "signal", "band-correct-wrong", "faint")  # of kinds of mistakes


def write_pages(folder: Path, results: Sequence[Result]) -> None:
    """``report.html`` of each benchmark, and of the run: the same page where there is one benchmark."""
    pages = [(result.opened.folder, page([result])) for result in results]
    pages.append((folder, pages[0][1] if len(results) == 1 else page(results)))
    for place, text in pages:
        write_page(text, place / REPORT)


def page(results: Sequence[Result]) -> str:
    """The report of one benchmark, or of several side by side."""
    names = ", ".join(result.opened.bench.title for result in results)
    parts = [
        section("accuracy", "Accuracy", _ACCURACY, table(_HEAD, [_accuracy_row(r) for r in results], "")),
        *(part for result in results for part in (_sections(result) if len(results) == 1 else ())),
    ]
    if len(results) > 1:
        links = "".join(
            f'<li><a href="{r.opened.name}/report.html">{safe(r.opened.bench.title)}</a></li>' for r in results
        )
        parts.append(section("runs", "Each benchmark", "", f"<ul>{links}</ul>"))
    said = " ".join(_result(result) for result in results)
    header = f'<p class="eyebrow">MathSE · evaluation</p><h1>{safe(names)}</h1><p class="result">{said}</p>'
    return html(names, header, parts)


_OFFICIAL = ("benchmark", "split", "accuracy", "95% interval", "right", "of", "not scored")
_HEAD = (*_OFFICIAL, "as it stands", "marker mapped", "math-verify")
_ACCURACY = (
    "Scored as the benchmark's authors score it, 95% intervals (Wilson). “As it stands”: the response unchanged. "
    "“Marker mapped”: the student's own answer marker rewritten into what the official extractor reads. math-verify "
    "reads the same responses by itself. An accuracy that hangs on rows not scored is not given."
)


def _accuracy_row(result: Result) -> list[object]:
    m = result.metrics
    return [
        result.opened.bench.title,
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


def _result(result: Result) -> str:
    m, title = result.metrics, safe(result.opened.bench.title)
    if m["accuracy"] is None:
        unknown = f"{m.get('not_scored', 0):,} of {m['total']:,} answers were not scored"
        return f"{title}: no accuracy, {unknown}."
    return f"{title}: <b>{percent(m['accuracy'], 2)}</b> ({m['correct']:,} of {m['total']:,}, {span(m['ci95'])})."


def _sections(result: Result) -> list[str]:
    m = result.metrics
    return [
        _samples(m.get("selectors")),
        _buckets(m["buckets"]),
        _contamination(m.get("contamination")),
        _mistakes(m.get("error_types")),
        _disagreements(result.graded),
        _wrong(result.graded),
        section("protocol", "Protocol", "What the number was measured with.", table(*_protocol(m["protocol"]), "")),
    ]


# --- sections ---------------------------------------------------------------------------------------------------------


def _samples(found: Mapping[str, Any] | None) -> str:
    """Accuracy against the number of samples, for every selector."""
    if found is None:
        return ""
    named = {key: points for key, points in found.items() if key != "n"}
    label = {"orm": "ORM, best of N", "orm_weighted": "ORM-weighted vote", ORACLE: "oracle (pass@N)"}
    drawn = [
        Curve(
            label.get(key, key),
            [
                (n, p["accuracy"], p["ci95"])
                for n, p in zip(found["n"], points, strict=True)
                if p["accuracy"] is not None
            ],
        )
        for key, points in named.items()
    ]
    rows = [
        [label.get(key, key), *(_with_interval(p["accuracy"], p["ci95"]) for p in points)]
        for key, points in named.items()
    ]
    return section(
        "selectors",
        "Accuracy against the number of samples",
        "One sampling pass: at N, the first N answers of each problem. 95% bootstrap intervals over problems. The "
        "oracle takes a right answer wherever there is one: a bound.",
        figure(curves(drawn, "samples a problem", "Accuracy against the number of samples"))
        + table(("selector", *(f"N = {n}" for n in found["n"])), rows),
    )


def _with_interval(accuracy: float | None, interval: Sequence[float] | None) -> str:
    return percent(accuracy) + (f" ({span(interval)})" if interval else "")


def _buckets(buckets: Mapping[str, Any]) -> str:
    rows = list(_bucket_rows(buckets))
    drawn = table(("group", "accuracy", "right", "of"), rows, f"all {len(rows)} groups") if rows else ""
    return section("buckets", "By kind of problem", "", drawn)


def _bucket_rows(buckets: Mapping[str, Any], above: str = "") -> Iterator[list[object]]:
    """A row a group, however deep it stands; MATH-Vision's groups are strings as its authors print them."""
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


def _contamination(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    rows = [
        (name, percent(found[key]["accuracy"], 2), f"{found[key]['correct']:,}", f"{found[key]['total']:,}")
        for name, key in (
            ("all problems", "with"),
            ("without those in the training rows for sure", "without_sure"),
            ("without every one that may be", "without"),
        )
    ]
    finding = (
        f"{len(found['problems']):,} problems are among the {found['rows']:,} rows of {safe(found['file'])}, by "
        "question (equal or nearly so) or by picture (the same, or the same to the eye); "
        f"{len(found['sure']):,} of them for sure, the others by a question that does not tell which problem it is, "
        "such as “Find x.”. contamination.jsonl lists the pairs."
    )
    drawn = table(("problems", "accuracy", "right", "of"), rows, "")
    return section("contamination", "Training rows in the benchmark", finding, drawn)


def _mistakes(found: Mapping[str, Any] | None) -> str:
    """Figure 4: ours and, beside it, the paper's three bars."""
    if found is None or not found["total"]:
        return ""
    return section(
        "mistakes",
        "Kinds of mistakes",
        f"{found['total']:,} wrong answers, by {safe(found['judge']['model'])}, which saw the picture of "
        f"{found['with_picture']:,}. The paper's bars are read from its Figure 4, on MathVL-test. "
        + safe(SLIPS["Figure 4"]),
        figure(mistakes_chart({"here": found})),
    )


def mistakes_chart(counted: Mapping[str, Mapping[str, Any]]) -> str:
    """A bar a run of shares by kind, and the paper's."""
    rows = []
    for name, found in counted.items():
        shares = [100 * found[kind] / found["total"] for kind in (*ERROR_TYPES, UNCLEAR)]
        rows.append(_bar(name, shares, f"{found['total']:,} wrong"))
    rows += [_bar(name, [*shares, 0.0], "paper") for name, shares in FIGURE_4.items()]
    return bars(rows, "Shares of the wrong answers by kind of mistake")


def _bar(name: str, shares: Sequence[float], remark: str) -> Bar:
    kinds = zip((*ERROR_TYPES, UNCLEAR), shares, LOOKS, strict=True)
    short = name if len(name) <= 19 else f"…{name[-18:]}"  # what fits beside a bar
    return Bar(short, [Part(kind, share, f"{share:.1f}%", look) for kind, share, look in kinds], remark)


def _disagreements(graded: Sequence[Graded]) -> str:
    found = disagreements(graded)
    rows = [
        (
            g.answer.id,
            "right" if g.scored.correct else "wrong",
            "right" if g.verified else "wrong",
            _answer(g.scored.prediction),
            _answer(g.scored.answer),
            _cut(g.answer.response, end=True),
        )
        for g in found[:SHOWN]
    ]
    head = ("id", "official", "math-verify", "prediction", "reference", "end of the response")
    finding = f"{len(found):,} rows on which the two differ; disagreements.jsonl has all of them."
    return section("disagreements", "Where math-verify says otherwise", finding, table(head, rows)) if rows else ""


def _wrong(graded: Sequence[Graded]) -> str:
    found = [g for g in graded if not g.scored.correct]
    rows = [
        (
            g.answer.id,
            _cut(g.item.problem.question),
            _answer(g.scored.prediction),
            _answer(g.scored.answer),
            g.scored.note or g.scored.decided_by,
        )
        for g in found[:SHOWN]
    ]
    head = ("id", "question", "prediction", "reference", "decided by")
    finding = f"The first {len(rows):,} of {len(found):,} rows that are wrong or not scored; scored.jsonl has all."
    return section("wrong", "Wrong answers", finding, table(head, rows, "the rows")) if rows else ""


def _answer(text: str | None) -> Markup:
    return Markup(answer_with_formulas(text)) if text is not None and len(text) <= EXCERPT else _cut(text)


def _cut(text: str | None, end: bool = False) -> Markup:
    """The beginning or the end of a text in a cell, its formulas drawn."""
    flat = NONE if text is None else " ".join(text.split())
    if len(flat) > EXCERPT:
        flat = "…" + flat[-EXCERPT:] if end else flat[:EXCERPT] + "…"
    return Markup(with_formulas(flat))


def _protocol(protocol: Mapping[str, Any], above: str = "") -> tuple[tuple[str, str], list[tuple[str, object]]]:
    rows: list[tuple[str, object]] = []
    for key, value in protocol.items():
        if isinstance(value, Mapping):
            rows += _protocol(value, f"{above}{key}.")[1]
        else:
            rows.append((f"{above}{key}", NONE if value is None else value))
    return ("what", "value"), rows
