"""What happens between fits: merging correct paths, reflecting on wrong ones, measuring the student.

They are thin: the work is in state.py, reflect.py and measure.py, so an ablation of the paper is a line of settings.
"""

from __future__ import annotations

from mathse.evolution.evolution_run import EvolutionRun
from mathse.evolution.hooks import EvolutionCallback
from mathse.evolution.measure import measure_judge, measure_student
from mathse.evolution.reflect import reflect
from mathse.evolution.stages import REFLECTION, is_reflection


class MergeCorrectPaths(EvolutionCallback):
    """Alg. 1 lines 9-11 and 16: what the judge accepts joins D_SFT, what it rejects joins R_incorrect."""

    def on_paths_judged(self, loop: EvolutionRun) -> None:
        evolution = loop.config.evolution
        # all_drafts: a problem may have several drafts, and each of them one rewrite
        keep = "all" if evolution.reflect.all_drafts and is_reflection(loop.stage) else evolution.keep
        renew = evolution.resample != "never" and loop.stage.name == loop.round_name
        loop.state = loop.state.absorb(loop.judged, loop.models.accepts, keep, renew)


class ReflectOnErrors(EvolutionCallback):
    """Alg. 1 lines 14-16 after the last round, or after every round (Eq. 2), as ``evolution.reflect.when`` says; where
    that is "never", a run does without this callback."""

    def on_round_end(self, loop: EvolutionRun) -> None:
        when = loop.config.evolution.reflect.when
        if when == "every":
            reflect(loop, f"{loop.round_name}/{REFLECTION}")
        elif when == "last" and loop.round == loop.rounds:
            reflect(loop, REFLECTION)


class EvaluateStudent(EvolutionCallback):
    """Test and dev accuracy of the student just fitted, and how well the ORM judges this student's paths."""

    def on_student_fitted(self, loop: EvolutionRun) -> None:
        measure_student(loop, loop.stage, loop.student)
        if loop.stage.name != "final":  # no judge is asked after it
            measure_judge(loop, loop.stage, loop.student)
