"""The teacher calls of a run: the main cost of a gain in accuracy.

A call is a row that the teacher answers: a solution, an annotation, a verdict, a rewrite. It counts once, for an answer
of a server, a cache or a program, and for any number of repetitions after kills. Each stage records its calls in
stage.json under ``ASKED``. The calls of a stage of an earlier version follow from its settings and counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mathse.runs.reader import FinishedStage

ASKED = "asked_of_teacher"
CALLS = "teacher_calls"  # in a row of summary.json
JUDGES_BY_TEACHER = {"orm": False, "answer": False, "random": False, "noisy": False, "none": False, "teacher": True}


def count_calls_until(name: str, stages: Sequence[FinishedStage]) -> int | None:
    """Return the calls of the stage ``name`` and of all stages that it was made from; None if some are unknown.

    The calls for an ORM of ``judge.checkpoint`` belong to another run and are not counted.
    """
    needed = find_needed_stages(name, stages)
    if needed is None:
        return None
    calls = [_count_own_calls(stage) for stage in needed]
    return None if None in calls else sum(filter(None, calls))


def find_needed_stages(name: str, stages: Sequence[FinishedStage]) -> list[FinishedStage] | None:
    """Return the stage ``name`` and all stages that it was made from, unordered; None if ``stages`` lacks one."""
    finished = {stage.name: stage for stage in stages}
    needed: dict[str, FinishedStage] = {}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current in needed:
            continue
        if current not in finished:
            return None
        needed[current] = finished[current]
        waiting += finished[current].after
    return list(needed.values())


def _count_own_calls(stage: FinishedStage) -> int | None:
    """Return the calls of a stage; None if they are unknown."""
    if (recorded := stage.summary.get(ASKED)) is not None:
        return int(recorded)

    # A stage of an earlier version: its calls follow from its settings and its counts.
    last = PurePosixPath(stage.name).name
    if last in ("base", "final", "sft") or last.startswith("student_"):
        return 0  # the calls for the ORM's weak students are counted in its solver
    settings, summary = stage.settings, stage.summary
    if stage.name.startswith("orm"):  # synthetic problems have solutions and a step checker of their own
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
