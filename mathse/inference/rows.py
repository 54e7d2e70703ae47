"""Problems and paths as rows: prompts for a model, or training examples, in its prompt style.

Runs, plans, exports and served models all make their rows here, so fits train on the same prompts that are sampled from
and exported. It loads no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mathse.data.picture_marks import are_placed, stand_in, without_marks
from mathse.inference import prompts
from mathse.models.row import Row
from mathse.types import Problem, PromptStyle, Verdict


def problem_row(question: str, problem: Problem, history: Sequence[tuple[str, str]] | None = None) -> Row:
    """The row that shows a problem's pictures; the problem's own question stands in the first turn's."""
    row = Row(question=question, images=problem.images)
    if history is not None:
        row["history"] = history
    if stand_in(history[0][0] if history else question, problem):
        row["marked"] = True
    return row


def solve_row(style: PromptStyle, problem: Problem, response: str | None = None, begun: str | None = None) -> Row:
    """The row that asks for a solution; with ``response``, the one that trains on it; with ``begun``, the one that asks
    for the rest of a solution that begins so."""
    row = problem_row(prompts.generation_prompt(problem, style), problem)
    if response is not None:
        row["response"] = response
    if begun is not None:
        row["begun"] = begun
    return row


def reflect_row(
    style: PromptStyle, problem: Problem, draft: str, feedback: Verdict | None, response: str | None = None
) -> Row:
    """The row that asks for a rewrite of a draft; with ``response``, the one that trains on it."""
    row = problem_row(prompts.reflection_prompt(problem, draft, feedback, style), problem)
    if response is not None:
        row["response"] = response
    return row


def judge_row(style: PromptStyle, problem: Problem, path: str, see_answer: bool, see_image: bool) -> Row:
    """The row that asks for a verdict on a path."""
    if not see_image:
        if are_placed(problem):
            choices = tuple(map(without_marks, problem.choices))
            problem = replace(problem, question=without_marks(problem.question), choices=choices)
        problem = replace(problem, images=())
    question, history = prompts.judge_prompt(problem, path, style, see_answer)
    return problem_row(question, problem, history)
