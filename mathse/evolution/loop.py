"""Algorithm 1 of the paper. Every step is a stage of the run folder: made once, found again on resume.

PAPER: the ORM filters the distilled data too (Figure 3), so it is trained first; Algorithm 1 takes it as given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mathse.evolution import measure, orm_stages, stages
from mathse.evolution.evolution_run import EvolutionRun
from mathse.evolution.models import Student
from mathse.evolution.problems import decontaminate
from mathse.evolution.state import EvolutionState
from mathse.types import Problem, ReasoningPath


class EvolutionLoop(EvolutionRun):
    """Runs the rounds; ``EvolutionRun`` describes what it holds, and what its callbacks may change."""

    def run(self) -> None:
        self.base_and_orm()
        self.distill()  #                                         Alg. 1 lines 1-4
        while self.round < self.rounds:  #                        5-6
            self.round += 1
            self._round()  #                                      7-12
            self.call("on_round_end")  # ReflectOnErrors:         14-16
        self._final()  #                                          17
        self.call("on_evolution_end")

    def base_and_orm(self) -> None:
        self.call("on_evolution_start")
        orm_data = orm_stages.read_users_rows(self)  # a mistake in them ends the run before its first fit
        decontaminate(self.context, self.problems)
        self.student = self.base = stages.base(self)
        self.state = EvolutionState(self.problems.ids_of_d)
        self.entries.append(self.base.stage.summary)
        self.orm_stages = orm_stages.train_orm(self, orm_data)

    def distill(self) -> None:
        self.stage = stages.open_distill(self)
        if not self.stage.done:
            self._solve_and_judge()  #                            1: the teacher solves, the judge filters
            self._fit(init="base")  #                             2-3
            self._finish()
        self._load()

    def _round(self) -> None:
        self.stage = stages.open_round(self)
        if not self.stage.done:
            self.call("on_round_start")
            paths = stages.sample_paths(self)  #                  7
            self.call("on_paths_generated")
            self.judged = stages.judge(self, paths, self.config.judge)  # 8
            self.call("on_paths_judged")  # MergeCorrectPaths:    9-11
            self._fit(self.config.evolution.init)  #              12
            self._finish()
        self._load()

    def _final(self) -> None:
        self.stage = stages.open_final(self)
        if not self.stage.done:
            self.judged = []
            self._fit(self.config.evolution.reflect.init)
            self._finish()
        self._load()

    def _solve_and_judge(self, problems: Sequence[Problem] | None = None) -> None:
        self.judged = stages.solve_and_judge(self, problems)
        self.call("on_paths_judged")

    def _fit(self, init: str) -> None:
        """Fit on D_SFT and measure, or carry the last student on where there is nothing new to fit on."""
        self.state.save(self.stage.path)
        self.previous = self.student
        self.student = stages.fit_student(self, init)
        if not self.student.carried_on:
            self.call("on_student_fitted")

    def _finish(self) -> None:
        self.finish(measure.summary(self), measure.inputs(self))

    def _load(self) -> None:
        self.student = Student(self.stage)
        self.entries.append(self.stage.summary)
        self.state_loaded_from(self.stage)

    # --- the other tasks ---

    def distill_only(self) -> None:
        """task=distill: the rows, judged, and no fit."""
        self.base_and_orm()
        self.stage = stages.open_distill(self)
        if not self.stage.done:
            self._solve_and_judge(self.problems.distillable)
            self.state.save(self.stage.path)
            self.finish({"stage": "distill", **measure.counts(self)}, measure.inputs(self))
        self.entries.append(self.stage.summary)

    def fit_only(self, rows: Sequence[ReasoningPath]) -> None:
        """task=sft: one fit on these rows."""
        self.base_and_orm()
        self.stage = stages.open_sft(self)
        if not self.stage.done:
            train = tuple(row for row in rows if row.problem_id not in self.problems.left_out)
            self.state = replace(self.state, train=train)
            self._fit(init="base")
            self._finish()
        self._load()
