"""Pages that open offline: jinja2 templates that are filled with rows, charts and texts.

Models and other people's data sets wrote most texts on a page. Each value is therefore escaped, unless it is
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
MAX_TABLE_ROWS = 200  # rows in a table of examples; the files have all rows


@cache
def environment() -> Environment:
    """Make the environment in which all templates are rendered."""
    templates = Environment(
        loader=PackageLoader("mathse", ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else Markup(safe(value)),
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.do"],
    )
    templates.filters |= {
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
    templates.globals |= {"WIDE": WIDE, "NARROW": NARROW, "NONE": NONE}
    return templates


def render(template: str, heading: str, **values: object) -> str:
    """Return a page.

    Args:
        template: path below ``mathse/``.
        heading: the page's title in the browser.
        values: the variables of the template.
    """
    script = _read_template_file("page.js") + _read_template_file("explorer.js")
    return (
        environment()
        .get_template(template)
        .render(
            heading=heading,
            style=Markup(_read_template_file("style.css")),
            chart_style=Markup(chart_style()),
            script=Markup(script),
            digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
            links=[],  # (anchor, name) of each section; the macro ``section`` fills it
            **values,
        )
    )


def _read_template_file(name: str) -> str:
    return files("mathse.reporting").joinpath("templates", name).read_text(encoding="utf-8")


def write_page(page: str, out: Path) -> Path:
    """Write a page to a second file and rename it, so that nobody opens half a page. Returns ``out``."""
    make_folder(out.parent)
    aside = out.with_name(f".{out.name}.partial")
    aside.write_text(page, encoding="utf-8")
    aside.replace(out)
    return out
