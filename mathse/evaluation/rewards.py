"""P(correct) of each answer by a trained ORM: ``orm_verdicts-<which ORM>.jsonl`` grows batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mathse.evaluation.grading import GradedAnswer
from mathse.judges import Judge, judge_paths
from mathse.runs.store import read_jsonl, to_json
from mathse.scoring.ranking import rank_of
from mathse.types import Lineage, ReasoningPath, Verdict


def verdicts_file(folder: Path, made_by: Sequence[Any]) -> Path:
    """A file of its own for each ORM and its settings (``made_by``), so that none is taken for another's."""
    return folder / f"orm_verdicts-{hashlib.sha256(to_json(made_by).encode()).hexdigest()[:8]}.jsonl"


def weigh(
    graded: Sequence[GradedAnswer],
    judge: Callable[[], Judge],
    file: Path,
    batch_size: int,
    advance: Callable[[int], None],
) -> list[GradedAnswer]:
    """``graded`` with the ORM's P(correct); an answer whose verdict could not be read weighs nothing (0). ``judge`` is
    called only if verdicts are missing in ``file``."""
    problems = {g.item.problem.id: g.item.problem for g in graded}
    by_student = Lineage("student", "evaluate", "")
    paths = [
        ReasoningPath(f"evaluate/{g.answer.id}/{g.answer.sample}", g.answer.id, g.answer.response, by_student)
        for g in graded
    ]
    if is_complete(file, len(paths)):
        verdicts: Sequence[Verdict] = list(read_jsonl(file, Verdict))
        advance(len(paths))
    else:
        verdicts = judge_paths(judge(), problems, paths, file, batch_size=batch_size, advance=advance)
    weights = {v.path_id: 0.0 if v.status == "unparsed" else rank_of(v) for v in verdicts}
    return [replace(g, p_correct=weights[path.id]) for g, path in zip(graded, paths, strict=True)]


def is_complete(file: Path, count: int) -> bool:
    """Whether ``file`` holds ``count`` verdicts, a line each."""
    return file.is_file() and file.read_bytes().count(b"\n") == count
