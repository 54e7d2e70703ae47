r"""Formulas of reports: conversion to MathML, unchanged texts, and texts that must not act or stall a page."""

from __future__ import annotations

import random
import re
import time
import xml.etree.ElementTree as ET

import pytest

from mathse.data.domains import MATH
from mathse.reporting.charts import safe
from mathse.reporting.formulas import (
    ATTRIBUTES,
    ELEMENTS,
    MAX_FORMULA,
    MAX_FORMULAS,
    MAX_MARKUP,
    answer_with_formulas,
    mathml,
    with_formulas,
)


def drawn(markup: str) -> list[ET.Element]:
    """The formulas of a page's text, which is well-formed markup."""
    return ET.fromstring(f"<p>{markup}</p>").findall("math")


def shown(formula: ET.Element) -> str:
    """The visible text: all text except the source for copying."""
    return "".join(formula.find("semantics")[0].itertext())  # type: ignore[index]


def source(formula: ET.Element) -> str | None:
    return formula.findtext("semantics/annotation")


@pytest.mark.parametrize(
    ("text", "tex", "display"),
    [
        (r"so $\frac{180-40}{2}$ degrees", r"\frac{180-40}{2}", False),
        (r"so \(\angle A = 70^\circ\).", r"\angle A = 70^\circ", False),
        ("so\n\\[\nx^2 = 4\n\\]", "\nx^2 = 4\n", True),
        (r"\[\begin{aligned}a&=b\\c&=d\end{aligned}\]", r"\begin{aligned}a&=b\\c&=d\end{aligned}", True),
        (r"so $$\sqrt{2}$$", r"\sqrt{2}", True),
        (r"so $5\text{ cm and no more}$", r"5\text{ cm and no more}", False),
        (r"it costs \$5 and $x$", "x", False),
        (r"答案是$\frac{1}{2}$。", r"\frac{1}{2}", False),
        ("$5 cm$", "5 cm", False),
        ("so $AB=$ ____", "AB=", False),
        ("$1: 1$", "1: 1", False),
        (r"$\triangle ABC \sim \triangle DEF$", r"\triangle ABC \sim \triangle DEF", False),
    ],
)
def test_a_formula_between_delimiters_is_mathml(text, tex, display):
    (formula,) = drawn(with_formulas(text))
    assert (source(formula), formula.get("display") == "block") == (tex, display)


def test_a_fraction_is_drawn_as_one_and_keeps_its_source():
    (formula,) = drawn(with_formulas(r"$\frac{180-40}{2}$"))
    numerator, denominator = formula.find(".//mfrac")  # type: ignore[misc]
    assert ("".join(numerator.itertext()), "".join(denominator.itertext())) == ("180−40", "2")


@pytest.mark.parametrize(
    "text",
    [
        "between $5 and $6",
        "it costs $5-$6",
        "$5 for him and 6$ for her",
        "she has $20 and 30$ are his",
        "I paid 5$, she paid 6$.",
        "They cost $100*5=$500, or $1500-$500=$<<1500-500=1000>>1000.",
        "单价是$5元，售价$8元",
        "$10",
        "$ x $",
        "$$",
        r"\$5 and \$6",
        r"an open \( and an open \[ and an open $x",
        r"$\foo{x}$",  # no command that the converter knows
        r"$\frac{1}$",
        r"$\begin{multlined}a&=b\end{multlined}$",  # an environment that it does not
        r"$\newcommand{\a}{x}\a$",
        r"\(" + "x" * (MAX_FORMULA + 1) + r"\)",
        r"\(" + "{" * 30 + "x" + "}" * 30 + r"\)",
    ],
)
def test_prices_and_what_does_not_convert_stay_as_they_were(text):
    assert with_formulas(text) == safe(text)


def test_an_answer_needs_no_delimiters():
    assert source(drawn(answer_with_formulas(r"\frac{1}{2}"))[0]) == r"\frac{1}{2}"
    assert answer_with_formulas("C:\\temp\\x") == "C:\\temp\\x"
    assert answer_with_formulas("12 cm & more") == "12 cm &amp; more"


@pytest.mark.parametrize(
    "text",
    [
        r"$\text{<script>alert(1)</script>}$",
        r"$\text{&lt;script&gt;alert(1)&lt;/script&gt;}$",
        r"$\href{javascript:alert(1)}{x}$",
        r'$\color{red" onclick="alert(1)}x$',
        r"$x<img src=x onerror=alert(1)>$",
        r"\(\class{x}{y} \style{position:fixed}{z}\)",
        "$x$ \x00\x1b\ud800 ]]> <!-- </math></script><script>alert(1)</script>",
    ],
)
def test_a_hostile_formula_cannot_act(text):
    markup = with_formulas(text)
    for element in ET.fromstring(f"<p>{markup}</p>").iter():
        assert element.tag in ELEMENTS | {"p", "semantics", "annotation"}
        assert set(element.attrib) <= ATTRIBUTES | {"encoding"}
    assert "<script" not in markup and "<img" not in markup


def test_a_huge_space_is_left_out():
    (formula,) = drawn(with_formulas(r"$\hspace{10000em}x$"))
    assert "10000" not in "".join(str(e.attrib) for e in formula.iter())


def test_any_heap_of_tokens_converts_or_does_not_but_never_fails_or_grows():
    tokens = [
        *"{}[]()^_&$'<>|x1 ", r"\frac", r"\left", r"\right", r"\begin{matrix}", r"\end{matrix}", r"\sqrt", r"\\",
        r"\text{", r"\over", r"\limits", r"\sum", r"\begin{array}{c|c}", r"\end{array}", r"\hline", r"\genfrac",
        r"\href", r"\color", r"\substack", r"\middle", r"\hspace", r"\prime", r"\not", r"\operatorname",
    ]  # fmt: skip
    draw = random.Random(0)
    for size in [3] * 400 + [20] * 400 + [300] * 50:
        markup = mathml("".join(draw.choices(tokens, k=size)))
        assert markup is None or (ET.fromstring(markup) is not None and len(markup) <= 2 * MAX_MARKUP)


@pytest.mark.parametrize(
    "text", ["\\[" * 10_000, "\\(" * 10_000, "$a" * 10_000, "$$a" * 6_000, "$a " * 7_000, "\\[a\n" * 5_000]
)
def test_a_text_of_nothing_but_delimiters_takes_no_time(text):
    begun = time.perf_counter()
    with_formulas(text)
    MATH.steps(text)
    assert time.perf_counter() - begun < 10  # 0.2 s on an idle core; a backtracking pattern would take hours


def test_only_so_many_formulas_of_a_text_are_drawn():
    assert len(drawn(with_formulas("$x$ " * (MAX_FORMULAS + 5)))) == MAX_FORMULAS


def test_a_displayed_formula_over_several_lines_is_one_line_of_a_path():
    text = "So\n\\[\nx = 1\n\\]\n\nor\n$$\ny = 2\n$$"
    lines = [line for _, line in MATH.steps(text)]
    assert lines == ["So", "\\[\nx = 1\n\\]", "or", "$$\ny = 2\n$$"]


def test_every_formula_of_a_page_opens_offline():
    assert not re.search(r"https?:", with_formulas(r"$\frac{1}{2}$ \[x\]"))
