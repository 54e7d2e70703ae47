"""The kind of an answer and the language of a question."""

from __future__ import annotations

import pytest

from mathse.data.answer_form import answer_form
from mathse.data.language import language
from mathse.inference import prompts
from mathse.types import Problem


@pytest.mark.parametrize(
    ("answer", "choices", "form"),
    [
        ("B", ("12", "13"), {"kind": "choice", "letter": "B", "text": "13"}),
        ("13", ("12", "13"), {"kind": "choice", "letter": "B", "text": "13"}),
        ("(A)", (), {"kind": "choice", "letter": "A"}),
        ("1,200 cm^2", (), {"kind": "number", "number": "1200", "unit": "cm^2"}),
        ("12 厘米", (), {"kind": "number", "number": "12", "unit": "厘米"}),
        ("50%", (), {"kind": "number", "number": "50", "unit": "%"}),
        ("$14", (), {"kind": "number", "number": "14"}),
        ("−4.5", (), {"kind": "number", "number": "-4.5"}),
        ("1/2", (), {"kind": "number", "number": "1/2"}),
        ("$\\frac{1}{2}$", (), {"kind": "latex", "text": "$\\frac{1}{2}$"}),
        ("x = 5", (), {"kind": "latex", "text": "x = 5"}),
        ("Yes", (), {"kind": "yes_no", "text": "Yes"}),
        ("68, 27, 20", (), {"kind": "text", "text": "68, 27, 20"}),
        ("5:0", (), {"kind": "text", "text": "5:0"}),
    ],
)
def test_an_answer_has_one_form(answer: str, choices: tuple[str, ...], form: dict[str, str]) -> None:
    assert answer_form(answer, choices).to_json() == form


def test_a_unit_that_a_set_names_apart_is_the_answer_s() -> None:
    assert answer_form("12", unit="cm").unit == "cm"


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("Find x.", "en"),
        ("如图,AB∥CD,∠ABC=50°,则∠BCD等于()", "zh"),
        ("求 \\frac{x}{y}", "zh"),
        ("\\frac{1}{2}", "en"),
        ("Найти сторону треугольника", "other"),
        ("", "en"),
    ],
)
def test_a_question_is_tagged_with_its_language(text: str, tag: str) -> None:
    assert language(text) == tag


@pytest.mark.parametrize(
    ("question", "choices", "tag"),
    [
        ("What does the sign 大 mean in this picture?", (), "en"),
        ("Read the sign 出口 and find x", (), "en"),
        ("已知 $y = kx + b$ (linear function)，求 k 的值", (), "zh"),
        ("A?", ("等腰三角形", "直角三角形"), "zh"),
        ("Найти сторону треугольника ABC", (), "other"),
    ],
)
def test_a_question_of_two_scripts_is_tagged_as_it_is_prompted(
    question: str, choices: tuple[str, ...], tag: str
) -> None:
    prompted = prompts.language(Problem("p", question, choices=choices))
    assert (language(question, choices), prompted) == (tag, "zh" if tag == "zh" else "en")
