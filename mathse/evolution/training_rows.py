"""The rows that a student is fitted on: D_SFT's paths as question and answer.

PAPER: Algorithm 1 adds a rewrite as an answer to its question; the authors' README shows draft and critique in the
prompt; switch: ``evolution.reflect.row``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mathse.evolution.lab import Lab
from mathse.evolution.state import REFLECTIONS
from mathse.inference.generate import Writer, reflect_row, solve_row
from mathse.models.base import Row
from mathse.runs.store import read_jsonl
from mathse.types import ReasoningPath, Reflection


def training_rows(lab: Lab, writer: Writer, paths: Sequence[ReasoningPath]) -> list[Row]:
    """One row a path, in their order, with the path's id."""
    rewritten = _reflections(lab, paths) if lab.config.evolution.reflect.row == "draft" else {}
    return [Row(**_row(lab, writer, path, rewritten.get(path.id)), id=path.id) for path in paths]


def _row(lab: Lab, writer: Writer, path: ReasoningPath, rewritten: Reflection | None) -> Row:
    problem = lab.problems[path.problem_id]
    if rewritten is None:
        return solve_row(writer, problem, path.text)
    return reflect_row(writer, problem, rewritten.draft.text, rewritten.feedback, path.text)


def _reflections(lab: Lab, paths: Sequence[ReasoningPath]) -> Mapping[str, Reflection]:
    """Those whose rewrite is among ``paths``, by its id."""
    wanted = {path.id: path.lineage.stage for path in paths if path.lineage.origin == "reflection"}
    found = (
        reflection
        for stage in sorted(set(wanted.values()))
        for reflection in read_jsonl(lab.run.path / stage / REFLECTIONS, Reflection)
    )
    return {reflection.revised.id: reflection for reflection in found if reflection.revised.id in wanted}
