"""``<image>`` in a question or a choice: where a picture stands among the words, one mark a picture, in order.

A question without marks shows its pictures first, and so does one whose marks all stand in front of its words. What
models have written is never read for marks: a path that holds the letters ``<image>`` moves no picture.
"""

from __future__ import annotations

from collections.abc import Sequence

from mathse.types import Problem

MARK = "<image>"


def count(question: str, choices: Sequence[str] = ()) -> int:
    return sum(text.count(MARK) for text in (question, *choices))


def marks_disagree(marks: int, pictures: int) -> str:
    """What to say of a row whose marks are neither none nor one for each picture."""
    return (
        f'"{MARK}" stands {marks} times in the question and its choices, and "images" names {pictures}; write one mark '
        'for each picture, or none to show all of them first ("< image>" is text)'
    )


def are_placed(problem: Problem) -> bool:
    """Whether the problem's marks say where its pictures stand: there is one for each."""
    return bool(problem.images) and count(problem.question, problem.choices) == len(problem.images)


def stand_in(text: str, problem: Problem) -> bool:
    """Whether ``text``, a prompt with the problem's question in it, has the marks of that question, and no other."""
    return are_placed(problem) and count(text) == len(problem.images)


def texts_beside(problem: Problem, **texts: str | None) -> dict[str, str | None]:
    """What stands in a prompt beside the problem's question; where that has marks, these texts have none."""
    if not are_placed(problem):
        return texts
    return {name: None if text is None else as_text(text) for name, text in texts.items()}


def without_marks(text: str) -> str:
    return text.replace(MARK, "")


def as_text(text: str) -> str:
    """Text in which nothing is a mark: ``< image>`` stands for the letters."""
    return text.replace(MARK, "< image>")


def without_those_in_front(question: str) -> str:
    """The question behind the marks that it begins with; all of it where other marks follow, or nothing does."""
    rest = question.lstrip()
    while rest.startswith(MARK):
        rest = rest.removeprefix(MARK).lstrip()
    return question if MARK in rest or not rest else rest
