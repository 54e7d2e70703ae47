"""Algorithm 1 of the paper. Every step is a stage of the run folder: made once, found again on resume.

PAPER: the ORM filters the distilled data too (Figure 3), so it is trained first; Algorithm 1 takes it as given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mathse.evolution import orm_stages, stages
from mathse.evolution.gate import gate
from mathse.evolution.hooks import EvolutionCallback
from mathse.evolution.lab import Lab, Student
from mathse.evolution.state import EvolutionState, Judged
from mathse.judges.teachers.student import StudentTeacher
from mathse.runs.layout import CHECKPOINT
from mathse.runs.stage_cache import Stage
from mathse.types import ReasoningPath


class EvolutionLoop:
    """Runs the rounds. Callbacks read and change it:

    ``state`` D_SFT, D_remain, R_incorrect; ``stage`` the folder being made; ``student`` the last fitted model;
    ``judged`` the paths just judged; ``round`` 1..K.
    """

    def __init__(self, lab: Lab, callbacks: Sequence[EvolutionCallback]) -> None:
        self.lab, self.callbacks = lab, list(callbacks)
        if isinstance(lab.teacher, StudentTeacher):
            lab.teacher.learns_from(lambda: lab.model_of(self.student), lab.generator)
        self.rounds: int = lab.config.evolution.rounds
        self.round = 0
        self.state: EvolutionState
        self.judged: Sequence[Judged] = []
        self.reflected: dict[str, Any] = {}  # counts of the last reflection, for the final stage's line
        self.all_drafts_kept = False  # while a reflection merges several rewrites of a problem
        self.orm_stages: list[Stage] = []
        self.entries: list[dict[str, Any]] = []  # the lines of summary.json
        self.stage: Stage
        self.state_stage: Stage | None = None  # whose files hold the state
        self.student: Student
        self.previous: Student  # before the current stage's fit

    @property
    def round_name(self) -> str:
        return f"round_{self.round:02d}"

    @property
    def teacher_name(self) -> str:
        """Who a teacher's rows are by: of a student that teaches itself, the checkpoint."""
        own = isinstance(self.lab.teacher, StudentTeacher)
        return f"{self.student.stage.name}/{CHECKPOINT}" if own else self.lab.teacher.name

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
        given = orm_stages.given_rows(self.lab)  # a mistake in them ends the run before its first fit
        gate(self.lab)
        self.student = self.base = stages.base(self)
        self.state = EvolutionState(self.lab.ids_of_d)
        self.entries.append(self.base.stage.summary)
        self.orm_stages = orm_stages.train_orm(self, given)

    def distill(self) -> None:
        self.stage = stages.open_distill(self)
        if not self.stage.done:
            self.judged = stages.solve_and_judge(self)  #         1: the teacher solves, the judge filters
            self.call("on_paths_judged")
            self._fit(init="base")  #                             2-3
            self._finish()
        self._load()

    def _round(self) -> None:
        self.stage = stages.open_round(self)
        if not self.stage.done:
            self.call("on_round_start")
            paths = stages.sample_paths(self)  #                  7
            self.call("on_paths_generated")
            self.judged = stages.judge(self, paths, self.lab.config.judge)  # 8
            self.call("on_paths_judged")  # MergeCorrectPaths:    9-11
            self._fit(self.lab.config.evolution.init)  #          12
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
        self.previous = self.student
        self.student = stages.fit_student(self, init)
        if not self.student.carried_on:
            self.call("on_student_fitted")

    def _finish(self) -> None:
        self.stage.finish(stages.summary(self), stages.inputs(self))
        self.lab.stage_finished(self.stage)

    def _load(self) -> None:
        self.student = Student(self.stage)
        self.entries.append(self.stage.summary)
        self.state_loaded_from(self.stage)

    def state_loaded_from(self, stage: Stage) -> None:
        """Go on from a stage's files: a resumed run and one that just made the stage then hold the same."""
        self.state = EvolutionState.load(stage.path, self.state.problems)
        self.state_stage = stage

    # --- the other tasks ---

    def distill_only(self) -> None:
        """task=distill: the rows, judged, and no fit."""
        self.base_and_orm()
        self.stage = stages.open_distill(self)
        if not self.stage.done:
            self.judged = stages.solve_and_judge(self, self.lab.distillable)
            self.call("on_paths_judged")
            self.state.save(self.stage.path)
            self.stage.finish({"stage": "distill", **stages.counts(self)}, stages.inputs(self))
            self.lab.stage_finished(self.stage)
        self.entries.append(self.stage.summary)

    def fit_only(self, rows: Sequence[ReasoningPath]) -> None:
        """task=sft: one fit on these rows."""
        self.base_and_orm()
        self.stage = stages.open_sft(self)
        if not self.stage.done:
            kept = tuple(row for row in rows if row.problem_id not in self.lab.left_out)
            self.state = replace(self.state, train=kept)
            self._fit(init="base")
            self._finish()
        self._load()

    def call(self, hook: str) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self)
