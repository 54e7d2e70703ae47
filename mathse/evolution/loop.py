"""Algorithm 1 of the paper. Every step is a stage of the run folder: it is made once, and a resumed run finds it.

PAPER: the ORM filters the distilled data too (Figure 3), so it is trained first; Algorithm 1 assumes that it exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mathse.evolution import measure, orm_stages, stages
from mathse.evolution.evolution_run import EvolutionRun
from mathse.evolution.models import Student
from mathse.evolution.online import train_online
from mathse.evolution.problems import decontaminate
from mathse.evolution.state import EvolutionState
from mathse.types import Problem, ReasoningPath


class EvolutionLoop(EvolutionRun):
    """The rounds. ``EvolutionRun`` describes the attributes, which callbacks may change."""

    def run(self) -> None:
        self.train_base_and_orm()
        self._distill()  #                                        Alg. 1 lines 1-4
        while self.round < self.rounds:  #                        5-6
            self.round += 1
            self._run_round()  #                                  7-12
            self.call("on_round_end")  # ReflectOnErrors:         14-16
        self._fit_final()  #                                      17
        self.call("on_evolution_end")

    def train_base_and_orm(self) -> None:
        """Measure the untrained student and train the ORM. task=orm ends here."""
        self.call("on_evolution_start")
        orm_data = orm_stages.read_users_rows(self)  # a mistake in them ends the run before its first fit
        decontaminate(self.context, self.problems)
        self.student = self.base = stages.measure_base(self)
        self.state = EvolutionState(self.problems.ids_of_d)
        self.entries.append(self.base.stage.summary)
        self.orm_stages = orm_stages.train_orm(self, orm_data)

    def _distill(self) -> None:
        self.stage = stages.open_distill(self)
        if not self.stage.done:
            self._solve_and_judge()  #                            1: the teacher solves, the judge filters
            self._fit(init="base")  #                             2-3
            self._finish()
        self._load()

    def _run_round(self) -> None:
        self.stage = stages.open_round(self)
        if not self.stage.done:
            self.call("on_round_start")
            if getattr(self.update, "online", None) is not None:
                self._train_online()
                return
            paths = stages.sample_paths(self)  #                  7
            self.call("on_paths_generated")
            self.judged = stages.judge(self, paths, self.config.judge)  # 8
            self.call("on_paths_judged")  # MergeCorrectPaths:    9-11
            self._fit(self.config.evolution.init)  #              12
            self._finish()
        self._load()

    def _train_online(self) -> None:
        """The round of an online update: it samples, judges and learns in each optimiser step."""
        self.state.save(self.stage.path)
        self.previous = self.student
        self.student = train_online(self)
        self.call("on_student_fitted")
        self._finish()
        self._load()

    def _fit_final(self) -> None:
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
        """Train on D_SFT and measure, or carry the last student on if no row or pair is new."""
        self.state.save(self.stage.path)
        self.previous = self.student
        self.student = stages.fit_student(self, init)
        if not self.student.carried_on:
            self.call("on_student_fitted")

    def _finish(self) -> None:
        self.finish(measure.summarize_stage(self), measure.list_inputs(self))

    def _load(self) -> None:
        self.student = Student(self.stage)
        self.entries.append(self.stage.summary)
        self.load_state(self.stage)

    # --- the other tasks ---

    def distill_only(self) -> None:
        """task=distill: write and judge the teacher's rows, without a fit."""
        self.train_base_and_orm()
        self.stage = stages.open_distill(self)
        if not self.stage.done:
            self._solve_and_judge(self.problems.distillable)
            self.state.save(self.stage.path)
            self.finish({"stage": "distill", **measure.count_rows(self)}, measure.list_inputs(self))
        self.entries.append(self.stage.summary)

    def fit_only(self, rows: Sequence[ReasoningPath]) -> None:
        """task=sft: one fit on these rows."""
        self.train_base_and_orm()
        self.stage = stages.open_sft(self)
        if not self.stage.done:
            train = tuple(row for row in rows if row.problem_id not in self.problems.left_out)
            self.state = replace(self.state, train=train)
            self._fit(init="base")
            self._finish()
        self._load()
