"""``<image>`` marks the place of a picture among the words of a question or a choice: a mark per picture, in order.

A question without marks, or with all marks before its words, shows its pictures first. Text of models is never searched
for marks: a path with the letters ``<image>`` moves no picture.
"""

from __future__ import annotations

from collections.abc import Sequence

from mathse.types import Problem

MARK = "<image>"


def count(question: str, choices: Sequence[str] = ()) -> int:
    """Count the marks of a question and its choices."""
    return sum(text.count(MARK) for text in (question, *choices))


def marks_disagree(marks: int, pictures: int) -> str:
    """Write the error about a row with marks that do not match its pictures."""
    return (
        f'"{MARK}" stands {marks} times in the question and its choices, and "images" names {pictures}; write one mark '
        'for each picture, or none to show all of them first ("< image>" is text)'
    )


def are_placed(problem: Problem) -> bool:
    """Whether the problem has a mark for each of its pictures."""
    return bool(problem.images) and count(problem.question, problem.choices) == len(problem.images)


def stand_in(text: str, problem: Problem) -> bool:
    """Whether ``text``, a prompt around the problem's question, has exactly the marks of that question."""
    return are_placed(problem) and count(text) == len(problem.images)


def texts_beside(problem: Problem, **texts: str | None) -> dict[str, str | None]:
    """Prepare the other texts of a prompt: if the problem's question has marks, these texts must not."""
    if not are_placed(problem):
        return texts
    return {name: text and as_text(text) for name, text in texts.items()}


def without_marks(text: str) -> str:
    return text.replace(MARK, "")


def as_text(text: str) -> str:
    """Write the letters of a mark as ``< image>``, which is no mark."""
    return text.replace(MARK, "< image>")


def without_those_in_front(question: str) -> str:
    """Strip the marks at the beginning of a question, unless other marks follow or no text does."""
    rest = question.lstrip()
    while rest.startswith(MARK):
        rest = rest.removeprefix(MARK).lstrip()
    return question if MARK in rest or not rest else rest
