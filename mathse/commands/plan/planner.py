"""The stages that a run with these settings will have, each with what it makes, asks and fits.

It follows mathse/evolution: loop.py for the order, stages.py, orm_stages.py and reflect.py for the rows. What a judge
accepts is not known beforehand, so later stages are ranges that hold every outcome.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mathse.commands.plan.amounts import Range, StagePlan
from mathse.commands.plan.bounds import Bounds
from mathse.commands.plan.teaching import Teaching
from mathse.config.evolution import NOBODY
from mathse.config.fits import Fit
from mathse.config.judges import judge_named
from mathse.config.schema import TrainConfig, chosen_callbacks, needs_orm
from mathse.config.teachers import StudentTeacher
from mathse.data.labelled_paths import read_orm_data
from mathse.data.problems import to_distill
from mathse.runs.store import read_jsonl
from mathse.types import Problem


class Planner:
    """``source``: the run's data; ``teaching``: what its teacher is asked."""

    def __init__(self, config: TrainConfig, source: Any, teaching: Teaching) -> None:
        self.config, self.source, self.teaching = config, source, teaching
        self.splits: dict[str, Sequence[Problem]] = dict(source.splits())
        self.by_student = isinstance(config.teacher, StudentTeacher)
        self.bounds = Bounds(len(self.splits["seed"]) + len(self.splits["pool"]), config.evolution)
        callbacks = [_target(callback) for callback in chosen_callbacks(config)]
        self.measures = any(target.endswith(".EvaluateStudent") for target in callbacks)
        self.reflects = any(target.endswith(".ReflectOnErrors") for target in callbacks)

    def stages(self) -> Iterator[StagePlan]:
        """In the order of the run."""
        yield StagePlan("base", evaluated=self._asked_of_a_student(), checkpoints=1)
        if needs_orm(self.config) and self.config.judge.checkpoint is None:
            yield from self._orm() if self.config.orm.train is None else self._orm_of_users_rows()
        if self.config.task == "evolve":
            yield from self._evolve()
        elif self.config.task == "distill":
            yield self._distilled(self.source.distillable()[: self.config.distill.size], fit=False)
        elif self.config.task == "sft":
            rows = sum(1 for _ in read_jsonl(Path(str(self.config.sft.train))))
            yield self._fitted(StagePlan("sft", rows=Range.of(rows)), Range.of(rows))

    def _evolve(self) -> Iterator[StagePlan]:
        yield self._distilled(to_distill(self.splits, self.config.distill.size), fit=True)
        when, rounds = self.config.evolution.reflect.when, self.config.evolution.rounds
        for number in range(1, rounds + 1):
            yield self._round(f"round_{number:02d}")
            if self.reflects and when == "every":
                yield self._reflection(f"round_{number:02d}/reflection")
            elif self.reflects and when == "last" and number == rounds:
                yield self._reflection("reflection")
        yield self._fitted(StagePlan("final"), self.bounds.rows, judged=False)

    # --- D_SFT ---

    def _distilled(self, chosen: Sequence[Problem], fit: bool) -> StagePlan:
        plan = StagePlan("distill", rows=Range.of(len(chosen)))
        self.teaching.solve(plan, chosen)
        if self.by_student:
            plan.samples += plan.rows
        self._judged(plan, self.config.distill.judge, chosen, plan.rows)
        self.bounds.distil(len(chosen))
        return self._fitted(plan, self.bounds.rows) if fit else plan

    def _round(self, name: str) -> StagePlan:
        paths = self.bounds.try_problems() * self.config.evolution.samples_per_problem
        plan = StagePlan(name, rows=paths, samples=paths)
        self._judged(plan, self.config.judge.name, self._of_d, paths)
        return self._fitted(plan, self.bounds.rows)

    def _reflection(self, name: str) -> StagePlan:
        """The newest draft of each unsolved problem, or all drafts; each may be tried several times."""
        reflect = self.config.evolution.reflect
        drafts = self.bounds.reflect()
        rewrites = Range(0, drafts * reflect.tries)
        plan = StagePlan(name, rows=rewrites)
        if reflect.feedback not in (NOBODY, self.config.judge.name):
            self._judged(plan, reflect.feedback, self._of_d, Range(0, drafts))
        if reflect.writer == "student" or self.by_student:
            plan.samples += rewrites
        else:
            self.teaching.reflect(plan, self._of_d, rewrites.high, told=reflect.feedback != NOBODY)
        self._judged(plan, self.config.judge.name, self._of_d, rewrites)
        return plan

    @property
    def _of_d(self) -> Sequence[Problem]:
        """Problems for the length of later prompts: D's pool, which the rounds draw on."""
        return self.splits["pool"] or self.splits["seed"]

    def _judged(self, plan: StagePlan, chosen: Any, problems: Sequence[Problem], paths: Range) -> None:
        asks = judge_named(chosen, self.config.judge).asks
        if "teacher" in asks and self.by_student:
            plan.samples += Range(0, paths.high)
        elif "teacher" in asks:
            self.teaching.annotate(plan, problems, paths.high)
        if "orm" in asks:
            plan.verdicts += paths

    # --- fits ---

    def _fitted(self, plan: StagePlan, rows: Range, judged: bool = True) -> StagePlan:
        """The fit on these rows, which is left out where nothing new was accepted, and what is measured after it."""
        plan.steps = rows.through(lambda rows: _steps(self.config.sft, rows))
        plan.checkpoints = 1
        held = self.splits["orm_held"]
        if self.measures:
            plan.evaluated = self._asked_of_a_student()
        if self.measures and judged and needs_orm(self.config) and held:
            plan.samples += Range(0, len(held))
            plan.verdicts += Range(0, len(held))
        return plan

    def _asked_of_a_student(self) -> int:
        """Test and dev problems."""
        return len(self.splits["test"][: self.config.evaluation.limit]) + len(self.splits["dev"])

    # --- the ORM ---

    def _orm(self) -> Iterator[StagePlan]:
        orm, train, held = self.config.orm, self.splits["orm_train"], self.splits["orm_held"]
        for size in orm.students:
            plan = StagePlan(f"orm/student_{size}", checkpoints=int(size > 0))
            fitted = self._solutions(plan, train[:size])
            plan.steps = fitted.through(lambda rows: orm.student_steps if rows else 0)
            plan.rows = Range.of((len(train) + len(held)) * orm.samples_per_problem)
            plan.samples += plan.rows
            yield plan
        solver = StagePlan("orm/solver", checkpoints=1)
        fitted = self._solutions(solver, train)
        solver.steps = fitted.through(lambda rows: orm.solver_steps if rows else 0)
        yield solver
        yield self._orm_itself(train, held)

    def _orm_of_users_rows(self) -> Iterator[StagePlan]:
        """The user's rows are used as they are; nobody is asked."""
        orm = self.config.orm
        data = read_orm_data(Path(str(orm.train)), Path(str(orm.held)), self.source.get)
        solved = any(row.problem.solution for row in data.train)
        yield StagePlan("orm/solver", steps=Range.of(orm.solver_steps if solved else 0), checkpoints=1)
        rows = len(data.train)
        yield StagePlan("orm", rows=Range.of(rows), verdicts=Range.of(len(data.held)),
                        steps=Range.of(_steps(orm.fit, rows)), checkpoints=1)  # fmt: skip

    def _solutions(self, plan: StagePlan, problems: Sequence[Problem]) -> Range:
        """How many come with a solution, or may get one from the teacher."""
        missing = [p for p in problems if not p.solution]
        self.teaching.solve(plan, missing)
        if self.by_student:
            plan.samples += Range.of(len(missing))
        return Range(len(problems) - len(missing), len(problems))

    def _orm_itself(self, train: Sequence[Problem], held: Sequence[Problem]) -> StagePlan:
        """As many right as wrong paths; of the wrong ones the teacher says where and why, where no checker does."""
        plan = StagePlan("orm", checkpoints=1)
        halves = [self._paths_for(split) // 2 for split in (train, held)]
        plan.rows = Range(0, 2 * halves[0])
        for half, split in zip(halves, (train, held), strict=True):
            if split and self.source.check(split[0], "") is None:
                self._judged(plan, "teacher", split, Range(0, half))
        plan.verdicts = Range(0, 2 * halves[1])
        plan.steps = plan.rows.through(lambda rows: _steps(self.config.orm.fit, rows))
        return plan

    def _paths_for(self, problems: Sequence[Problem]) -> int:
        """The weak students' paths, and the reference solutions where they count."""
        orm = self.config.orm
        sampled = len(problems) * orm.samples_per_problem * len(orm.students)
        return sampled + (sum(bool(p.solution) for p in problems) if orm.references else 0)


def _steps(fit: Fit, rows: int) -> int:
    """No row, no fit."""
    return fit.steps(rows) if rows else 0


def _target(section: Any) -> str:
    """The class of a callback's section."""
    return str(section["_target_"] if isinstance(section, dict) else section._target_)
