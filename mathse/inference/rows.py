"""Problems and paths as rows: prompts for a model, or training examples, in the model's prompt style.

Runs, plans, exports and served models all make their rows here, so training, sampling and exports use the same prompts.
It loads no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mathse.data.picture_marks import are_placed, stand_in, without_marks
from mathse.inference import prompts
from mathse.models.row import Row
from mathse.types import Problem, PromptStyle, Verdict


def problem_row(question: str, problem: Problem, history: Sequence[tuple[str, str]] | None = None) -> Row:
    """Return the row of a prompt with a problem's pictures.

    Args:
        question: the prompt's last question.
        problem: its own question is part of the first turn's question.
        history: earlier turns, (question, answer).
    """
    row = Row(question=question, images=problem.images)
    if history is not None:
        row["history"] = history
    if stand_in(history[0][0] if history else question, problem):
        row["marked"] = True
    return row


def solve_row(style: PromptStyle, problem: Problem, response: str | None = None, begun: str | None = None) -> Row:
    """Return the row that asks for a solution.

    Args:
        style: prompt style of the model.
        problem: to be solved.
        response: a solution; the row then is a training example.
        begun: the beginning of a solution; the row then asks for the rest of it.
    """
    row = problem_row(prompts.generation_prompt(problem, style), problem)
    if response is not None:
        row["response"] = response
    if begun is not None:
        row["begun"] = begun
    return row


def reflect_row(
    style: PromptStyle, problem: Problem, draft: str, feedback: Verdict | None, response: str | None = None
) -> Row:
    """Return the row that asks for a rewrite of a draft; with ``response``, the training example of it."""
    row = problem_row(prompts.reflection_prompt(problem, draft, feedback, style), problem)
    if response is not None:
        row["response"] = response
    return row


def judge_row(style: PromptStyle, problem: Problem, path: str, see_answer: bool, see_image: bool) -> Row:
    """Return the row that asks for a verdict on a path, with or without the reference answer and the images."""
    if not see_image:
        if are_placed(problem):
            choices = tuple(map(without_marks, problem.choices))
            problem = replace(problem, question=without_marks(problem.question), choices=choices)
        problem = replace(problem, images=())
    question, history = prompts.judge_prompt(problem, path, style, see_answer)
    return problem_row(question, problem, history)
