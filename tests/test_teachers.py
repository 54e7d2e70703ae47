"""The replay teacher: real problems without an API."""

from __future__ import annotations

from pathlib import Path

import pytest

from mathse.answers import MARKER, extract_answer, same_answer
from mathse.data.convert import convert
from mathse.data.problems import JsonlData
from mathse.teachers import ReplayTeacher, Teacher
from mathse.types import Lineage, Problem, ReasoningPath

TEACHER: Teacher = ReplayTeacher()


def problem(**changes: object) -> Problem:
    return Problem(**({"id": "p", "question": "Find x.", "answer": "12"} | changes))  # type: ignore[arg-type]


def path(text: str) -> ReasoningPath:
    return ReasoningPath("round_01/p/0", "p", text, Lineage("student", "round_01", "base/checkpoint"))


SOLVED = [
    (None, f"{MARKER} 12."),
    ("Step 1: 3 * 4 = 12.", f"Step 1: 3 * 4 = 12.\n{MARKER} 12."),
    ("So \\boxed{12}\n", f"So \\boxed{{12}}\n{MARKER} 12."),
    (f"Three fours. {MARKER} 12.0.", f"Three fours. {MARKER} 12.0."),
    ("Step 1: 3 * 4 = 13.", f"{MARKER} 12."),  # a solution that comes to something else is not taught
    ("See the picture.", f"{MARKER} 12."),
]


@pytest.mark.parametrize(("solution", "text"), SOLVED)
def test_solution_is_replayed_if_it_reaches_the_answer_else_the_bare_answer(solution: str | None, text: str) -> None:
    assert TEACHER.solve([problem(solution=solution)]) == [text]


@pytest.mark.parametrize("answer", ["D", "7. Oct", "\\frac{1}{2}", "Carriage and Bus", "3; 4", "12 cm", "x = 5, y = 6"])
def test_what_the_teacher_writes_reads_back_as_the_answer(answer: str) -> None:
    (text,) = TEACHER.solve([problem(answer=answer)])
    assert text is not None
    assert same_answer(extract_answer(text), answer)


@pytest.mark.parametrize("answer", ["", "7. } 8", "1" * 2000])
def test_answer_that_cannot_be_written_is_no_usable_answer(answer: str) -> None:
    assert TEACHER.solve([problem(answer=answer)]) == [None]


def test_verdicts_follow_the_answer_and_do_not_give_it_away() -> None:
    texts = [f"Step 1: look. {MARKER} 12.", f"{MARKER} 13.", "I do not know."]
    verdicts = TEACHER.annotate([problem()] * 3, [path(text) for text in texts])
    assert [v.status for v in verdicts] == ["correct", "wrong", "unparsed"]
    assert all(v.path_id == "round_01/p/0" and v.error_step is None and v.judge == "replay" for v in verdicts)
    assert all("12" not in (v.error_analysis or "") for v in verdicts)
    assert verdicts[1].error_analysis


def test_reflection_is_the_solution_again() -> None:
    problems = [problem(solution="3 * 4 = 12"), problem(id="q", answer="C", choices=("1", "2", "3"))]
    drafts = [path("3 * 4 = 13"), path("(A)")]
    assert TEACHER.reflect(problems, drafts, [None, None], 1) == TEACHER.solve(problems)


def test_paths_that_do_not_match_the_problems_in_number_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        TEACHER.annotate([problem()] * 2, [path("12")])


@pytest.mark.parametrize("format", ["geometry3k", "mathvision"])
def test_every_real_problem_gets_a_solution_that_is_judged_correct(tmp_path: Path, fixtures: Path, format: str) -> None:
    folder = {"geometry3k": "geometry3k_samples"}.get(format, format)
    convert(fixtures / "datasets" / folder, tmp_path / "own.jsonl", format)
    problems = [p for split in JsonlData(str(tmp_path / "own.jsonl")).splits().values() for p in split]
    texts = TEACHER.solve(problems)
    verdicts = TEACHER.annotate(problems, [path(text) for text in texts if text])
    assert {v.status for v in verdicts} == {"correct"}
    assert sum(p.solution in text for p, text in zip(problems, texts, strict=True) if p.solution and text) == (
        1 if format == "mathvision" else 0  # of four MATH-V solutions one comes to the reference answer
    )
