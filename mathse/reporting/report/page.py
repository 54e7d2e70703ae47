"""What every page is made of: the page itself, which opens offline, its sections, and their figures and tables.

A page loads nothing, and its policy forbids loading anything or running any script but its own: what it shows was
written by models and by data sets of others.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template

from mathse.reporting.report.svg import safe

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

    script = packaged("app.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")  # the policy allows it alone
    drawn = [part for part in parts if part]
    links = "".join(
        f'<a href="#{anchor}">{name}</a>'
        for anchor, name in names.items()
        if any(part.startswith(f'<section id="{anchor}"') for part in drawn)
    )
    return Template(packaged("template.html")).substitute(
        title=safe(heading),
        style=packaged("style.css") + packaged("chart.css"),
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


def figure(*drawings: str) -> str:
    drawn = "".join(f'<div class="scroll">{d}</div>' for d in drawings if d)
    return f"<figure>{drawn}</figure>" if drawn else ""


class Markup(str):
    """A cell that is markup already; any other cell is escaped."""


def table(head: Sequence[str], rows: Sequence[Sequence[object]], summary: str = "the numbers") -> str:
    """Numbers behind a chart, folded away; the first column names the row. With no summary the table stands open."""

    rows_drawn = ""
    for row in rows:
        cells = [cell if isinstance(cell, Markup) else safe(cell) for cell in row]
        rows_drawn += f"<tr><th>{cells[0]}</th>{''.join(f'<td>{cell}</td>' for cell in cells[1:])}</tr>"
    names = "".join(f"<th>{safe(name)}</th>" for name in head)
    drawn = f'<div class="scroll"><table><thead><tr>{names}</tr></thead><tbody>{rows_drawn}</tbody></table></div>'
    return f"<details><summary>{safe(summary)}</summary>{drawn}</details>" if summary else drawn


def count(value: int | None) -> str:
    """1234 -> "1,234"; nothing -> an en dash."""
    return "\N{EN DASH}" if value is None else f"{value:,}"
