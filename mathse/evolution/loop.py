"""Algorithm 1 of the paper. Every step is a stage of the run folder: made once, found again on resume.

PAPER: the ORM filters the distilled data too (Figure 3), so it is trained first; Algorithm 1 takes it as given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mathse.evolution import stages
from mathse.evolution.hooks import EvolutionCallback
from mathse.evolution.lab import Lab, Student
from mathse.evolution.state import EvolutionState, Judged
from mathse.ledger import Stage


class EvolutionLoop:
    """Runs the rounds. Hooks read and change ``state``; ``stage``, ``student``, ``paths`` and ``judged`` are the
    current stage's folder, the last fitted model, the paths just generated and the paths just judged."""

    def __init__(self, lab: Lab, callbacks: Sequence[EvolutionCallback]) -> None:
        self.lab, self.callbacks = lab, list(callbacks)
        self.rounds: int = lab.config.evolution.rounds
        self.round = 0
        self.state = EvolutionState(tuple(p.id for p in lab.problems_of_d))
        self.judged: list[Judged] = []
        self.all_drafts_kept = False
        self.stage: Stage
        self.student: Student

    @property
    def round_name(self) -> str:
        return f"round_{self.round:02d}"

    def run(self) -> None:
        self.call("on_evolution_start")
        self.student = stages.base(self)
        stages.train_orm(self)
        self._distill()  # Alg. 1 lines 1-4
        for self.round in range(1, self.rounds + 1):  # 5-6
            self._round()  # 7-12
            self.call("on_round_end")  # 14-16: ReflectOnErrors
        self._final()  # 17
        self.call("on_evolution_end")

    def _distill(self) -> None:
        self.stage = stages.open_distill(self)
        if not self.stage.done:
            self.judged = stages.solve_and_judge(self)  # the teacher solves, the judge filters
            self.call("on_paths_judged")
            self._fit(init="base")
            self._finish()
        self._load()

    def _round(self) -> None:
        self.stage = stages.open_round(self)
        if not self.stage.done:
            self.call("on_round_start")
            paths = stages.sample_paths(self)  # 7
            self.call("on_paths_generated")
            self.judged = stages.judge(self, paths)  # 8
            self.call("on_paths_judged")  # 9-11: MergeCorrectPaths
            self._fit(self.lab.config.evolution.init)  # 12
            self._finish()
        self._load()

    def _final(self) -> None:
        self.stage = stages.open_final(self)
        if not self.stage.done:
            self.judged = []
            self._fit(self.lab.config.evolution.reflect.init)
            self._finish()
        self._load()

    def _fit(self, init: str) -> None:
        """Fit on D_SFT and measure, or carry the last student on where there is nothing new to fit on."""
        self.state.save(self.stage.path)
        self.student = stages.fit_student(self, init)
        if not self.student.carried_on:
            self.call("on_student_fitted")

    def _finish(self) -> None:
        self.stage.finish(stages.summary(self))
        self.lab.stage_finished(self.stage)

    def _load(self) -> None:
        """The stage as its files tell it: a resumed run and one that just made the stage go on from the same."""
        self.state = EvolutionState.load(self.stage.path, self.state.problems)
        self.student = Student(self.stage)

    def call(self, hook: str) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self)

    def replace_state(self, **changes: object) -> None:
        self.state = replace(self.state, **changes)
