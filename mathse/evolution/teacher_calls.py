"""How many rows the current stage asked of the teacher, for its record (docs: mathse/runs/teacher_calls.py)."""

from __future__ import annotations

from pathlib import Path

from mathse.config.evolution import NOBODY
from mathse.config.judges import judge_named
from mathse.evolution.evolution_run import EvolutionRun


def asked_of_teacher(loop: EvolutionRun, drafts: int = 0) -> int:
    """Solutions or rewrites of the stage, and verdicts where the teacher gives such.

    Args:
        drafts: of a reflection, those that feedback was given on.
    """
    config, judged, name = loop.config, len(loop.judged), Path(loop.stage.name).name
    reflect = config.evolution.reflect
    asks = judge_named(config.distill.judge if name == "distill" else config.judge, config.judge).asks
    calls = judged if "teacher" in asks else 0
    if name == "distill" or (name == "reflection" and reflect.writer == "teacher"):
        calls += judged
    if reflect.feedback != NOBODY and "teacher" in judge_named(reflect.feedback, config.judge).asks:
        calls += drafts
    return calls
