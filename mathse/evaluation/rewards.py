"""P(correct) of each answer by a trained ORM: ``orm_verdicts-<which ORM>.jsonl`` grows batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mathse.evaluation.scoring import Graded
from mathse.judges import Judge, judge_paths
from mathse.runs.store import read_jsonl, to_json
from mathse.scoring.ranking import rank_of
from mathse.types import Lineage, ReasoningPath, Verdict


def verdicts_file(folder: Path, made_by: Sequence[Any]) -> Path:
    """A file of its own for each ORM and its settings (``made_by``), so that none is taken for another's."""
    return folder / f"orm_verdicts-{hashlib.sha256(to_json(made_by).encode()).hexdigest()[:8]}.jsonl"


def weigh(
    graded: Sequence[Graded], judge: Callable[[], Judge], file: Path, batch_size: int, advance: Callable[[int], None]
) -> list[Graded]:
    """``graded`` with the ORM's P(correct); an answer whose verdict could not be read weighs nothing (0). ``judge`` is
    called only if verdicts are missing in ``file``."""
    problems = {g.item.problem.id: g.item.problem for g in graded}
    paths = [_path(g) for g in graded]
    if are_all_there(file, len(paths)):
        verdicts: Sequence[Verdict] = list(read_jsonl(file, Verdict))
        advance(len(paths))
    else:
        verdicts = judge_paths(judge(), problems, paths, file, batch_size=batch_size, advance=advance)
    by_path = {verdict.path_id: verdict for verdict in verdicts}
    return [replace(g, p_correct=_weight(by_path[path.id])) for g, path in zip(graded, paths, strict=True)]


def are_all_there(file: Path, count: int) -> bool:
    """Whether a file of verdicts is whole."""
    return file.is_file() and file.read_bytes().count(b"\n") == count


def _path(graded: Graded) -> ReasoningPath:
    identity = f"evaluate/{graded.answer.id}/{graded.answer.sample}"
    return ReasoningPath(identity, graded.answer.id, graded.answer.response, Lineage("student", "evaluate", ""))


def _weight(verdict: Verdict) -> float:
    if verdict.status == "unparsed":
        return 0.0
    return rank_of(verdict)
