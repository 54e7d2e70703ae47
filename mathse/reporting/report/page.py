"""What every page is made of: the page itself, which opens offline, its sections, and their figures and tables.

What a page shows was written by models and by data sets of others, so its policy allows no script but its own, and
those that this one adds (a run's page loads the parts beside it; see ``listing``), and nothing from the network.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from string import Template

from mathse.reporting.report.svg import NARROW, WIDE, chart_style, safe

# What sections are called in the bar at a page's side, by their anchors.
NAMES = {
    "accuracy": "Accuracy",
    "runs": "Runs",
    "transitions": "Transitions",
    "selectors": "Samples",
    "buckets": "Groups",
    "compared": "Compared",
    "tables": "The paper's tables",
    "contamination": "Training data",
    "mistakes": "Mistakes",
    "disagreements": "math-verify",
    "wrong": "Wrong answers",
    "protocol": "Protocol",
    "acceptance": "Judge",
    "orm": "ORM",
    "data": "Data",
    "fits": "Fits",
    "time": "Time",
    "gallery": "Paths",
    "notes": "Notes",
    "settings": "Settings",
}


def html(heading: str, header: str, parts: Sequence[str], names: Mapping[str, str] = NAMES) -> str:
    """A whole page. ``header`` and ``parts`` are markup; ``names``: what a section is called in the bar at its side, by
    its anchor."""

    def packaged(name: str) -> str:
        return files("mathse.reporting.report").joinpath(name).read_text(encoding="utf-8")

    script = packaged("page.js") + packaged("explorer.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")  # the policy allows it alone
    drawn = [part for part in parts if part]
    links = "".join(
        f'<a href="#{anchor}">{name}</a>'
        for anchor, name in names.items()
        if any(part.startswith(f'<section id="{anchor}"') for part in drawn)
    )
    return Template(packaged("template.html")).substitute(
        title=safe(heading),
        style=packaged("style.css"),
        chart_style=chart_style(),
        script=script,
        digest=digest,
        header=header,
        links=links,
        sections="\n".join(drawn),
    )


def section(name: str, heading: str, finding: str, body: str) -> str:
    """A section with an anchor; nothing where there is nothing to show. ``finding`` and ``body`` are markup."""
    if not body:
        return ""
    sentence = f'<p class="finding">{finding}</p>' if finding else ""
    return f'<section id="{name}"><h2>{safe(heading)}</h2>{sentence}{body}</section>'


def figure(*drawings: str | Callable[[int], str]) -> str:
    """Charts; one that is a function of its width in px is drawn for wide and for narrow screens."""
    drawn = ""
    for drawing in drawings:
        if isinstance(drawing, str):
            drawn += f'<div class="scroll">{drawing}</div>' if drawing else ""
        elif wide := drawing(WIDE):
            drawn += f'<div class="wide scroll">{wide}</div><div class="narrow">{drawing(NARROW)}</div>'
    return f"<figure>{drawn}</figure>" if drawn else ""


class Markup(str):
    """A cell that is markup already; any other cell is escaped."""


def table(head: Sequence[str], rows: Sequence[Sequence[object]], summary: str = "the numbers") -> str:
    """Numbers behind a chart, folded away; the first column names the row. With no summary the table stands open."""

    rows_drawn = ""
    for row in rows:
        cells = [cell if isinstance(cell, Markup) else safe(cell) for cell in row]
        values = "".join(f"<td>{cell}</td>" for cell in cells[1:])
        rows_drawn += f'<tr><th scope="row">{cells[0]}</th>{values}</tr>'
    names = "".join(f'<th scope="col">{safe(name)}</th>' for name in head)
    drawn = f'<div class="scroll"><table><thead><tr>{names}</tr></thead><tbody>{rows_drawn}</tbody></table></div>'
    return f"<details><summary>{safe(summary)}</summary>{drawn}</details>" if summary else drawn


def count(value: int | None) -> str:
    """1234 -> "1,234"; nothing -> an en dash."""
    return "\N{EN DASH}" if value is None else f"{value:,}"
