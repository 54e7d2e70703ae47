"""The rows that a student is fitted on: D_SFT's paths as question and answer. Exports use it too; it loads no torch.

PAPER: Algorithm 1 adds a rewrite as an answer to its question; the authors' README shows draft and critique in the
prompt; switch: ``evolution.reflect.row``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mathse.inference.rows import reflect_row, solve_row
from mathse.models.row import Row
from mathse.runs.layout import REFLECTIONS
from mathse.runs.reader import read_stage
from mathse.types import Problem, PromptStyle, ReasoningPath, Reflection


def solution_rows(style: PromptStyle, problems: Iterable[Problem]) -> list[Row]:
    """Rows that train on the reference solutions, where there are some."""
    return [solve_row(style, p, p.solution) for p in problems if p.solution]


def training_rows(
    run: Path, problems: Mapping[str, Problem], style: PromptStyle, paths: Sequence[ReasoningPath], row: str
) -> list[Row]:
    """One row a path, in their order. ``row``: ``evolution.reflect.row``."""
    rewritten = rewrites(run, paths) if row == "draft" else {}
    return [training_row(style, problems[path.problem_id], path, rewritten.get(path.id)) for path in paths]


def training_row(style: PromptStyle, problem: Problem, path: ReasoningPath, rewritten: Reflection | None) -> Row:
    """The row of a path, with its id. With ``rewritten``, the prompt has the draft and the feedback on it."""
    if rewritten is None:
        row = solve_row(style, problem, path.text)
    else:
        row = reflect_row(style, problem, rewritten.draft.text, rewritten.feedback, path.text)
    return Row(**row, id=path.id)


def rewrites(run: Path, paths: Iterable[ReasoningPath]) -> Mapping[str, Reflection]:
    """The reflections of a run that ``paths`` come from, by the rewrite's id."""
    stages = {path.id: path.lineage.stage for path in paths if path.lineage.origin == "reflection"}
    return {
        reflection.revised.id: reflection
        for stage in sorted(set(stages.values()))
        for reflection in read_stage(run / stage).rows(REFLECTIONS, Reflection)
        if reflection.revised.id in stages
    }
