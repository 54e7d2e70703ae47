"""What a run asked of the teacher: the cost that a gain in accuracy stands against.

A call is a row that the teacher answers: a solution, an annotation, a verdict, a rewrite. It counts once, whether a
server, a cache or a program answered, and however often a killed run asked again. Each stage records its own calls in
stage.json under ``ASKED``; of a stage that an earlier version made they are told from its settings and its counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mathse.runs.reader import FinishedStage

ASKED = "asked_of_teacher"
CALLS = "teacher_calls"  # of a row of summary.json
JUDGES_BY_TEACHER = {"orm": False, "answer": False, "random": False, "noisy": False, "none": False, "teacher": True}


def calls_until(name: str, stages: Sequence[FinishedStage]) -> int | None:
    """The calls of the stage ``name`` and of all stages that it was made from; None where one of them does not tell.

    An ORM that ``judge.checkpoint`` brought was made by another run, whose calls these are not.
    """
    behind = stages_behind(name, stages)
    if behind is None:
        return None
    calls = [_own(stage) for stage in behind]
    return None if None in calls else sum(filter(None, calls))


def stages_behind(name: str, stages: Sequence[FinishedStage]) -> list[FinishedStage] | None:
    """The stage ``name`` and all that it was made from, in no order; None where one of them is not among ``stages``."""
    finished = {stage.name: stage for stage in stages}
    behind: dict[str, FinishedStage] = {}
    waiting = [name]
    while waiting:
        if (current := waiting.pop()) not in behind:
            if current not in finished:
                return None
            behind[current] = finished[current]
            waiting += finished[current].after
    return list(behind.values())


def _own(stage: FinishedStage) -> int | None:
    """The calls that were made for one stage."""
    if (recorded := stage.summary.get(ASKED)) is not None:
        return int(recorded)
    last = PurePosixPath(stage.name).name
    if last in ("base", "final", "sft") or last.startswith("student_"):
        return 0  # the solutions for the ORM's weak students are counted in its solver
    settings, summary = stage.settings, stage.summary
    if stage.name.startswith("orm"):  # synthetic problems come with their solutions and a checker of steps
        return 0 if str(settings.get("data._target_")).endswith(".SyntheticData") else None
    judge = settings.get("distill.judge" if last == "distill" else "judge.name")
    by_teacher = JUDGES_BY_TEACHER.get(str(judge))
    counts = [int(n) for key in ("accepted", "rejected", "unparsed") if (n := summary.get(key)) is not None]
    if by_teacher is None or len(counts) < 3:
        return None
    judged = sum(counts)
    calls = judged if by_teacher else 0
    if last == "reflection":
        writes = settings.get("evolution.reflect.writer", "teacher") == "teacher"
        gives_feedback = JUDGES_BY_TEACHER.get(str(settings.get("evolution.reflect.feedback")))
        if gives_feedback is None:
            return None
        return calls + (judged if writes else 0) + (int(summary["drafts"]) if gives_feedback else 0)
    return calls + (judged if last == "distill" else 0)
