"""Pages that open offline: jinja2 templates, which rows, charts and texts are put into.

Models and other people's data sets wrote most of what a page shows. Each value is therefore escaped, unless it is
``Markup``: a chart, a formula or another template's output. The page's policy allows its own script and the scripts
that it adds (a run's page loads the parts beside it; see ``report/listing.py``), and nothing from the network.

A template's name is its path below ``mathse/``; ``templates/page.html.j2`` is the frame of all pages, and
``templates/parts.html.j2`` has the macros for sections, tables and figures.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mathse.reporting.charts import NARROW, WIDE, chart_style, safe
from mathse.reporting.formulas import answer_with_formulas, with_formulas
from mathse.reporting.progress.wording import count, duration, gain, percent, points, span
from mathse.runs.layout import title
from mathse.runs.store import make_folder

NONE = "\N{EN DASH}"  # a cell without a value
MAX_TABLE_ROWS = 200  # of a table of examples; the files have all


@cache
def environment() -> Environment:
    """Make the environment in which all templates are rendered."""
    made = Environment(
        loader=PackageLoader("mathse", ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else Markup(safe(value)),
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.do"],
    )
    made.filters |= {
        "answer": answer_with_formulas,
        "number": count,
        "duration": duration,
        "formulas": with_formulas,
        "gain": gain,
        "percent": percent,
        "points": points,
        "span": span,
        "stage_title": title,
    }
    made.globals |= {"WIDE": WIDE, "NARROW": NARROW, "NONE": NONE}
    return made


def render(template: str, heading: str, **values: object) -> str:
    """Return a page. ``heading``: its title in the browser; ``values``: what its template names."""
    script = _packaged("page.js") + _packaged("explorer.js")
    return (
        environment()
        .get_template(template)
        .render(
            heading=heading,
            style=Markup(_packaged("style.css")),
            chart_style=Markup(chart_style()),
            script=Markup(script),
            digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
            links=[],  # (anchor, name) of each section, which ``section`` fills
            **values,
        )
    )


def _packaged(name: str) -> str:
    return files("mathse.reporting").joinpath("templates", name).read_text(encoding="utf-8")


def write_page(page: str, out: Path) -> Path:
    """Write a page beside its place and rename it, so that nobody opens half a page. Returns ``out``."""
    make_folder(out.parent)
    aside = out.with_name(f".{out.name}.partial")
    aside.write_text(page, encoding="utf-8")
    aside.replace(out)
    return out
