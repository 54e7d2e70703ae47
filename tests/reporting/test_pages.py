"""Pages are filled templates, and charts come from one module: no other file writes markup."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from mathse.reporting import charts
from mathse.reporting.pages import environment, render

PAGE_TAG = re.compile(
    r"(?<!\?P)</?(article|body|details|div|figure|form|h[1-4]|li|main|section|table|td|th|tr|ul)\b[^>]*>"
)
SITE = "reporting/templates/site.html.j2"
EMPTY_SITE = {"counts": "0 runs", "own_runs": [], "studies": [], "study_runs": [], "damaged": []}


def texts(file: Path) -> Iterator[str]:
    """The strings of a Python file, without its docstrings."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None
        if isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_only_templates_hold_the_tags_of_a_page(root: Path) -> None:
    files = sorted((root / "mathse").rglob("*.py"))
    assert [file.name for file in files if any(PAGE_TAG.search(text) for text in texts(file))] == []


def test_one_module_draws_all_charts(root: Path) -> None:
    files = sorted((root / "mathse").rglob("*.py"))
    assert [file.name for file in files if any("<svg" in text for text in texts(file))] == ["charts.py"]


def test_every_template_is_in_the_package_and_compiles(root: Path) -> None:
    found = {file.relative_to(root / "mathse").as_posix() for file in (root / "mathse").rglob("*.j2")}
    assert len(found) >= 9 and set(environment().list_templates(extensions=["j2"])) == found
    for name in found:
        environment().get_template(name)


def test_a_template_without_one_of_its_values_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="counts"):
        render(SITE, "runs", **{key: value for key, value in EMPTY_SITE.items() if key != "counts"})


def test_a_text_is_escaped_once_and_markup_is_left_as_it_is() -> None:
    link = Markup('<a href="#x">a &amp; b</a>')
    values = {**EMPTY_SITE, "own_runs": [{"run": link, "<name>": "<i>&\x00'"}], "damaged": ["<script>"]}
    page = render(SITE, "a </title> b", **values)
    assert str(link) in page and "<title>MathSE: a &lt;/title&gt; b</title>" in page
    assert "<td>&lt;i&gt;&amp;\N{REPLACEMENT CHARACTER}&#x27;</td>" in page and "<li>&lt;script&gt;</li>" in page
    assert '<th scope="col">&lt;name&gt;</th>' in page


def test_a_linear_curve_has_its_marks_and_a_line_at_the_value_in_use() -> None:
    points = [(0.0, 0.5, (0.4, 0.6)), (0.5, 0.7, None), (1.0, 0.2, None)]
    drawn = charts.curves([charts.Curve("precision", points)], "threshold", "Acceptance", marks=charts.QUARTERS, at=0.5)
    marks = re.findall(r'class="tick" text-anchor="middle">([\d.]+)<', drawn)
    assert marks == ["0", "0.25", "0.5", "0.75", "1"]
    middle = float(re.search(r'<text x="([\d.]+)"[^>]*text-anchor="middle">0\.5<', drawn)[1])  # type: ignore[index]
    assert f'<line x1="{middle:g}" y1="26"' in drawn and "70.0% at 0.5" in drawn
