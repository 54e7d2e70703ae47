"""P(correct) of each answer by a trained ORM: ``orm_verdicts-HASH.jsonl`` grows batch by batch."""

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


def verdicts_file(folder: Path, identity: Sequence[Any]) -> Path:
    """Return the file for the verdicts of an ORM. ``identity``: the ORM and its settings, which give a hash."""
    return folder / f"orm_verdicts-{hashlib.sha256(to_json(identity).encode()).hexdigest()[:8]}.jsonl"


def add_rewards(
    graded: Sequence[GradedAnswer],
    judge: Callable[[], Judge],
    file: Path,
    batch_size: int,
    advance: Callable[[int], None],
) -> list[GradedAnswer]:
    """Return the answers with the ORM's P(correct); 0 for an answer with an unreadable verdict.

    ``judge`` is called only if verdicts are missing in ``file``.
    """
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
    rewards = {v.path_id: 0.0 if v.status == "unparsed" else rank_of(v) for v in verdicts}
    return [replace(g, p_correct=rewards[path.id]) for g, path in zip(graded, paths, strict=True)]


def is_complete(file: Path, count: int) -> bool:
    """Whether ``file`` has ``count`` verdicts, a line each."""
    return file.is_file() and file.read_bytes().count(b"\n") == count
