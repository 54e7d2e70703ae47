"""Problems and paths as rows: prompts for a model, or training examples, in its prompt style.

Runs, plans, exports and served models all make their rows here, so fits train on the same prompts that are sampled from
and exported. It loads no torch.
"""

from __future__ import annotations

from mathse.inference import prompts
from mathse.models.row import Row
from mathse.types import Problem, PromptStyle, Verdict


def solve_row(style: PromptStyle, problem: Problem, response: str | None = None) -> Row:
    """The row that asks for a solution; with ``response``, the one that trains on it."""
    row = Row(question=prompts.generation_prompt(problem, style), images=problem.images)
    if response is not None:
        row["response"] = response
    return row


def reflect_row(
    style: PromptStyle, problem: Problem, draft: str, feedback: Verdict | None, response: str | None = None
) -> Row:
    """The row that asks for a rewrite of a draft; with ``response``, the one that trains on it."""
    row = Row(question=prompts.reflection_prompt(problem, draft, feedback, style), images=problem.images)
    if response is not None:
        row["response"] = response
    return row


def judge_row(style: PromptStyle, problem: Problem, path: str, see_answer: bool, see_image: bool) -> Row:
    """The row that asks for a verdict on a path."""
    question, history = prompts.judge_prompt(problem, path, style, see_answer)
    return Row(question=question, images=problem.images if see_image else (), history=history)
