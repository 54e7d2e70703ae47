"""data_check.html: the result of a check as one page that loads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mathse.config.parse import flatten
from mathse.config.schema import TrainConfig
from mathse.data.images import png_bytes
from mathse.reporting.report.bars import Bar, Part, bars
from mathse.reporting.report.cards import PagePictures, problem_card
from mathse.reporting.report.page import figure, html, section, table
from mathse.reporting.report.svg import safe
from mathse.types import Problem

SHOWN = 200  # rows of a table
GROUPS = {
    "by_source": "source",
    "by_language": "language",
    "by_answer": "kind of answer",
    "by_pictures": "pictures a row",
}
SPREADS = {"question_length": "characters of the question", "picture_side": "long side of a picture, pixels"}


def page(
    config: TrainConfig,
    figures: Mapping[str, Any],
    bad: Sequence[Mapping[str, object]],
    warnings: Sequence[Mapping[str, Any]],
    samples: Sequence[Problem],
) -> str:
    """The whole page: counts, rows listed and to look at, samples, settings."""
    backbone = figures["backbone"]
    measured = f"Prompts were measured by backbone={backbone}." if backbone else "No prompt was measured."
    listed = (
        f"{figures['listed']:,} rows cannot be used, {figures['too_long']:,} of them because the prompt is too long."
    )
    listed_rows = [(f"{row['file']}:{row['line']}", row["id"] or "", row["reason"]) for row in bad[:SHOWN]]
    rows_to_look_at = [
        (f"{row['file']}:{row['line']}", row["id"], ", ".join(row["by"]), _about(row)) for row in warnings[:SHOWN]
    ]
    parts = [
        section("data", "Rows", f"Rows in = rows used + rows listed. {measured}", _counts(figures)),
        section("lengths", "Lengths and sizes", "", _spreads(figures)),
        section("listed", "Rows listed", listed, _first_rows(("where", "id", "reason"), listed_rows, len(bad))),
        section(
            "warnings",
            "Rows to look at",
            _WARNINGS,
            _first_rows(("where", "id", "what", "with"), rows_to_look_at, len(warnings)),
        ),
        section("gallery", "Samples", "A choice by hash of the id: the same each time.", _samples(samples)),
        section("notes", "Notes", "", "".join(f"<p>{safe(note)}</p>" for note in figures["notes"])),
        section("settings", "Settings", "", table(("setting", "value"), _settings(config), "all settings of the data")),
    ]
    header = (
        f'<p class="eyebrow">MathSE · data check</p><h1>{safe(config.name)}</h1>'
        f'<p class="result"><b>{figures["used"]:,}</b> of {figures["rows"]:,} rows can be used, '
        f"{figures['listed']:,} are listed.</p>"
    )
    return html("data check", header, parts)


_WARNINGS = (
    "These rows are used as they are: rows that repeat another one, answers that contradict each other or the row's "
    "own solution, and rows that are in a benchmark (decontaminate.action says what a run does with those)."
)


def _counts(figures: Mapping[str, Any]) -> str:
    parts = [
        Part("used", figures["used"], f"{figures['used']:,}", "accent"),
        Part("listed", figures["listed"], f"{figures['listed']:,}", "signal"),
    ]
    drawn = figure(lambda width: bars([Bar("rows", parts)], "Rows used and listed", width=width))
    rows = [(name, value, f"{count:,}") for key, name in GROUPS.items() for value, count in figures[key].items()]
    rows += [("split", name, f"{count:,}") for name, count in figures["splits"].items()]
    return drawn + table(("what", "which", "rows"), rows, "")


def _spreads(figures: Mapping[str, Any]) -> str:
    rows = []
    for key, name in SPREADS.items():
        spread = figures[key]
        if spread["least"] is not None:
            rows.append((name, f"{spread['least']:,}", f"{spread['median']:,}", f"{spread['greatest']:,}"))
    drawn = [
        figure(bars([Bar(f"≤ {end}", [Part(SPREADS[key], n, f"{n:,}", "accent-2")]) for end, n in up_to.items()], name))
        for key, name in SPREADS.items()
        if (up_to := figures[key]["up_to"])
    ]
    return "".join(drawn) + (table(("what", "least", "median", "greatest"), rows, "") if rows else "")


def _about(row: Mapping[str, Any]) -> str:
    if "said" in row:
        return str(row["said"])
    weak = "" if row["counts"] or row["by"] == ["duplicate"] else " (the question does not tell which problem it is)"
    return f"{row['against_id']} in {row['against']}, {row['similarity']:.2f}{weak}"


def _first_rows(heads: Sequence[str], rows: Sequence[Sequence[object]], count: int) -> str:
    """A table of the first of ``count`` rows; nothing where there is none."""
    more = f"<p>... and {count - SHOWN:,} more in the files.</p>" if count > SHOWN else ""
    return table(heads, rows, "") + more if rows else ""


def _samples(samples: Sequence[Problem]) -> str:
    pictures = PagePictures(png_bytes)
    drawn = "".join(problem_card(problem, pictures) for problem in samples)
    return f'{pictures.defs()}<div class="cards">{drawn}</div>' if samples else ""


def _settings(config: TrainConfig) -> list[tuple[str, object]]:
    sections = {"data": config.data, "decontaminate": config.decontaminate}
    return [(key, "null" if value is None else value) for key, value in flatten(sections).items()]
