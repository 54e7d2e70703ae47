"""What happens between fits: merging right paths, reflecting on wrong ones, measuring the student."""

from __future__ import annotations

from mathse.evolution.hooks import EvolutionCallback
from mathse.evolution.loop import EvolutionLoop
from mathse.evolution.measure import measure_judge, measure_student
from mathse.evolution.reflect import reflect


class MergeCorrectPaths(EvolutionCallback):
    """Alg. 1 lines 9-11 and 16: what the judge accepts joins D_SFT, what it rejects joins R_incorrect."""

    def on_paths_judged(self, loop: EvolutionLoop) -> None:
        keep_all = loop.all_drafts_kept or loop.lab.config.evolution.keep == "all"
        loop.state = loop.state.absorb(loop.judged, loop.lab.accepts, keep_all)


class ReflectOnErrors(EvolutionCallback):
    """Alg. 1 lines 14-16 after the last round, or after every round (Eq. 2), as ``evolution.reflect.when`` says."""

    def on_round_end(self, loop: EvolutionLoop) -> None:
        when = loop.lab.config.evolution.reflect.when
        if when == "every":
            reflect(loop, f"{loop.round_name}/reflection")
        elif when == "last" and loop.round == loop.rounds:
            reflect(loop, "reflection")


class EvaluateStudent(EvolutionCallback):
    """Test and dev accuracy of the student just fitted, and how well the ORM judges this student's paths."""

    def on_student_fitted(self, loop: EvolutionLoop) -> None:
        measure_student(loop.lab, loop.stage, loop.student)
        if loop.stage.name != "final":  # no judge is asked after it
            measure_judge(loop.lab, loop.stage, loop.student)
