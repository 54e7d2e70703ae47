"""The stages of a future run: its rows, its requests to the teacher and its fits, before the run begins.

The order of the stages follows loop.py, their rows follow stages.py, orm_stages.py and callbacks.py. The verdicts of a
judge are not known beforehand, so later stages have ranges that cover every outcome: ``Bounds`` is the state of
Algorithm 1 as ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from mathse.config.evolution import NOBODY, EvolutionConfig
from mathse.config.fits import FitConfig, FitStage
from mathse.config.judges import judge_named
from mathse.config.schema import TrainConfig, needs_orm, select_callbacks
from mathse.config.teachers import OpenAITeacherConfig, StudentTeacherConfig
from mathse.config.updates import GroupUpdateConfig
from mathse.data.domains import open_domain
from mathse.data.labelled_paths import read_orm_data
from mathse.data.problems import to_distill
from mathse.evolution.training_rows import Exposure, warn_about_exposure
from mathse.runs.store import read_jsonl
from mathse.types import Problem


@dataclass(frozen=True)
class Range:
    """The whole numbers from ``low`` to ``high``, both included. A number is exact if the two are equal."""

    low: int = 0
    high: int = 0

    @classmethod
    def of(cls, number: int) -> Range:
        return cls(number, number)

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)

    def __sub__(self, part: Range) -> Range:
        """Subtract a part: the low ends belong together, and the high ends."""
        return Range(self.low - part.low, self.high - part.high)

    def __mul__(self, factor: float) -> Range:
        return Range(round(self.low * factor), round(self.high * factor))

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and self.low <= number <= self.high

    @property
    def exact(self) -> bool:
        return self.low == self.high

    def at_most(self, number: int | None) -> Range:
        return self if number is None else Range(min(self.low, number), min(self.high, number))

    def through(self, function: Callable[[int], int]) -> Range:
        """Return the range of an increasing function."""
        return Range(function(self.low), function(self.high))

    def to_json(self) -> int | list[int]:
        return self.low if self.exact else [self.low, self.high]


@dataclass(frozen=True)
class JobRequests:
    """Requests of a job to the teacher's server, with the mean tokens of a request and of its answer."""

    requests: Range
    tokens_in: float
    tokens_out: float


@dataclass
class StagePlan:
    """The plan of a stage.

    Attributes:
        rows: paths or rewrites of the stage.
        jobs: requests to the teacher's server, by job.
        samples: samples of the student's model. Answers to test and dev problems are in ``evaluated``.
        verdicts: verdicts of the ORM's model.
        evaluated: answers to test and dev problems; 0 in a stage without a new student.
        steps: optimiser steps.
        seen: rows in all batches of the fit; a row counts each time that it is seen.
        new: different rows among them.
        validated: rows of all validations in the fit.
        held_samples, held_verdicts: the parts of ``samples`` and ``verdicts`` that only measure.
        prompts_share: prompts per sample, below 1 if a prompt has several samples.
        checkpoints: checkpoints that the stage leaves on the disk.
        warnings: warnings of the training that are known beforehand.
    """

    name: str
    rows: Range = Range()
    jobs: dict[str, JobRequests] = field(default_factory=dict)
    samples: Range = Range()
    verdicts: Range = Range()
    evaluated: int = 0
    steps: Range = Range()
    seen: Range = Range()
    new: Range = Range()
    validated: Range = Range()
    held_samples: Range = Range()
    held_verdicts: Range = Range()
    prompts_share: float = 1.0
    checkpoints: int = 0
    warnings: list[str] = field(default_factory=list)

    def ask(self, job: str, requests: Range, tokens_in: float, tokens_out: float) -> None:
        """Add requests of a job. All requests of a job have the same mean length."""
        before = self.jobs[job].requests if job in self.jobs else Range()
        if requests.high:
            self.jobs[job] = JobRequests(before + requests, tokens_in, tokens_out)

    @property
    def requests(self) -> Range:
        return sum((job.requests for job in self.jobs.values()), Range())

    @property
    def tokens_in(self) -> Range:
        return sum((job.requests * job.tokens_in for job in self.jobs.values()), Range())

    @property
    def tokens_out(self) -> Range:
        return sum((job.requests * job.tokens_out for job in self.jobs.values()), Range())

    @property
    def answers(self) -> Range:
        """All texts of the student's model."""
        return self.samples + Range.of(self.evaluated)

    def to_json(self) -> dict[str, Any]:
        return {
            "stage": self.name,
            "rows": self.rows.to_json(),
            "requests": self.requests.to_json(),
            "jobs": {name: job.requests.to_json() for name, job in self.jobs.items()},
            "tokens_in": self.tokens_in.to_json(),
            "tokens_out": self.tokens_out.to_json(),
            "samples": self.samples.to_json(),
            "verdicts": self.verdicts.to_json(),
            "evaluated": self.evaluated,
            "steps": self.steps.to_json(),
        }


# --- bounds of Algorithm 1 --------------------------------------------------------------------------------------------


class Bounds:
    """Bounds of D_SFT and of the reflected drafts, after the stages so far and for all verdicts of the judge
    (state.py, callbacks.py).

    A problem leaves D_remain with its first accepted path. D_SFT then has its row, or with ``keep=all`` its rows of one
    round, and a rewrite only replaces them. With ``all_drafts`` each reflection may add a row for every draft rejected
    so far, also of solved problems.

    Some outcome reaches each bound of rows and of drafts. The only exception is ``all_drafts`` after every round: if
    D_remain runs out of problems to sample, the maximum is below the bound.

    Args:
        d: number of problems of D.
    """

    def __init__(self, d: int, evolution: EvolutionConfig) -> None:
        self.d, self.evolution = d, evolution
        self.chosen = 0  # problems that the teacher solved
        self.tries: list[int] = []  # per round: problems that it samples at most
        self.reflected: list[int] = []  # per reflection on all drafts: number of rounds before it

    # --- events, in the order of the run ---

    def distil(self, problems: int) -> None:
        self.chosen = problems

    def try_problems(self) -> Range:
        """Add a round, and return the number of its problems: D_remain, or a sample of it."""
        low = self.d - (self.chosen if self.evolution.resample == "all" else self.solved.high)
        high = self.d - (self.solved.low if self.evolution.resample == "never" else 0)
        tried = Range(low, high).at_most(self.evolution.round.sample_size)
        self.tries.append(tried.high)
        return tried

    def reflect(self) -> int:
        """Add a reflection, and return the largest number of its drafts: the newest draft of each unsolved problem, or
        all drafts."""
        if not self.evolution.reflect.all_drafts:
            return min(self.d, sum(self.tries))
        self.reflected.append(len(self.tries))
        return self.samples * sum(self.tries)

    # --- bounds after these events ---

    @property
    def samples(self) -> int:
        """The largest number of samples of a problem in a round."""
        return self.evolution.samples_per_problem + self.evolution.round.restarts

    @property
    def solved(self) -> Range:
        """Problems with an accepted path, at most all that the teacher or a round tried."""
        return Range(0, min(self.d, self.chosen + sum(self.tries)))

    @property
    def rows(self) -> Range:
        """Rows of D_SFT. The maximum has all rows that the tries can give, for at most ``d`` problems, and a row of the
        teacher for each remaining problem."""
        rounds = range(1, len(self.tries) + 1)
        per_problem = max((self._rows_of_problem(number, number) for number in rounds), default=1)
        by_tries = 0
        for number, tries in zip(rounds, self.tries, strict=True):
            by_tries += tries * self._rows_of_problem(number, 1)
        by_tries = min(by_tries, self.d * per_problem)
        needed = -(-by_tries // per_problem)  # problems
        return Range(0, by_tries + min(self.chosen, self.d - needed))

    def _rows_of_problem(self, last: int, times: int) -> int:
        """Return the largest number of rows of a problem.

        Args:
            last: the last round that tried the problem.
            times: rounds that tried it.
        """
        # A later reflection on all drafts adds a row per draft. Without it, a round keeps its accepted paths.
        later = sum(rounds >= last for rounds in self.reflected)
        if later:
            return times * self.samples * later
        keep = self.evolution.keep
        if isinstance(keep, int):
            return min(keep, self.samples)
        return 1 if keep == "one" else self.samples


# --- stages -----------------------------------------------------------------------------------------------------------


class RequestPlanner(Protocol):
    """Adds requests to the teacher's server to the plan of a stage. A teacher without a server has no requests."""

    def solve(self, plan: StagePlan, problems: Sequence[Problem]) -> None: ...

    def annotate(self, plan: StagePlan, problems: Sequence[Problem], most: int) -> None: ...

    def reflect(self, plan: StagePlan, problems: Sequence[Problem], most: int, with_feedback: bool) -> None: ...


class RequestCounts:
    """Counts requests without their tokens: it writes no prompt, so a new run need not read its data for it."""

    def __init__(self, teacher: Any) -> None:
        self.has_server = isinstance(teacher, OpenAITeacherConfig)

    def solve(self, plan: StagePlan, problems: Sequence[Problem]) -> None:
        plan.ask("generate", Range.of(len(problems) * self.has_server), 0, 0)

    def annotate(self, plan: StagePlan, problems: Sequence[Problem], most: int) -> None:
        plan.ask("annotate", Range(0, most * self.has_server), 0, 0)

    def reflect(self, plan: StagePlan, problems: Sequence[Problem], most: int, with_feedback: bool) -> None:
        plan.ask("reflect", Range(0, most * self.has_server), 0, 0)


def plan_stages(config: TrainConfig, source: Any) -> list[StagePlan]:
    """Plan the stages of a new run, for its progress display."""
    return list(Planner(config, source, RequestCounts(config.teacher)).stages())


class Planner:
    """Plans the stages of a run.

    Args:
        source: the run's data.
        requests: adds the requests to the teacher's server.
    """

    def __init__(self, config: TrainConfig, source: Any, requests: RequestPlanner) -> None:
        self.config, self.source, self.requests = config, source, requests
        self.splits: dict[str, Sequence[Problem]] = dict(source.splits())
        self.teaches_itself = isinstance(config.teacher, StudentTeacherConfig)
        self.bounds = Bounds(len(self.splits["seed"]) + len(self.splits["pool"]), config.evolution)
        sections = select_callbacks(config)
        callbacks = [str(s["_target_"] if isinstance(s, dict) else s._target_) for s in sections]
        self.measures = any(target.endswith(".EvaluateStudent") for target in callbacks)
        self.reflects = any(target.endswith(".ReflectOnErrors") for target in callbacks)

    def stages(self) -> Iterator[StagePlan]:
        """Yield the stages in the order of the run."""
        yield StagePlan("base", evaluated=self._count_evaluated(), checkpoints=1)
        if needs_orm(self.config) and self.config.judge.checkpoint is None:
            yield from self._plan_orm() if self.config.orm.train is None else self._plan_orm_of_users_rows()
        if self.config.task == "evolve":
            yield self._plan_distill(to_distill(self.splits, self.config.distill.size), has_fit=True)
            when, rounds = self.config.evolution.reflect.when, self.config.evolution.rounds
            for number in range(1, rounds + 1):
                yield self._plan_round(f"round_{number:02d}")
                if self.reflects and when == "every":
                    yield self._plan_reflection(f"round_{number:02d}/reflection")
                elif self.reflects and when == "last" and number == rounds:
                    yield self._plan_reflection("reflection")
            if isinstance(self.config.evolution.update, GroupUpdateConfig):
                yield StagePlan("final")  # the student of the last round
            else:
                yield self._add_fit(StagePlan("final"), self.bounds.rows, "final", measures_judge=False)
        elif self.config.task == "distill":
            yield self._plan_distill(self.source.distillable()[: self.config.distill.size], has_fit=False)
        elif self.config.task == "sft":
            rows = Range.of(sum(1 for _ in read_jsonl(Path(str(self.config.sft.train)))))
            yield self._add_fit(StagePlan("sft", rows=rows), rows)

    # --- distillation, rounds, reflection ---

    def _plan_distill(self, chosen: Sequence[Problem], has_fit: bool) -> StagePlan:
        plan = StagePlan("distill", rows=Range.of(len(chosen)))
        self.requests.solve(plan, chosen)
        if self.teaches_itself:
            plan.samples += plan.rows
        self._add_verdicts(plan, self.config.distill.judge, chosen, plan.rows)
        self.bounds.distil(len(chosen))
        return self._add_fit(plan, self.bounds.rows, "distill") if has_fit else plan

    def _plan_round(self, name: str) -> StagePlan:
        tried, evolution = self.bounds.try_problems(), self.config.evolution
        update = evolution.update
        if isinstance(update, GroupUpdateConfig) and update.steps is not None:
            return self._plan_online_round(name, update, update.steps, tried)
        # Only problems with a rejected path have restarts.
        paths = tried * evolution.samples_per_problem + Range(0, tried.high * evolution.round.restarts)
        plan = StagePlan(name, rows=paths, samples=paths, prompts_share=1 / evolution.samples_per_problem)
        self._add_verdicts(plan, self.config.judge.name, self._sample_of_d, paths)
        return self._add_fit(plan, self.bounds.rows, "round")

    def _plan_online_round(self, name: str, update: GroupUpdateConfig, steps: int, tried: Range) -> StagePlan:
        """Each step samples its batch, in one draw or several, and learns from it once."""
        samples = self.config.evolution.samples_per_problem
        draw = min(update.problems_per_step, max(1, tried.high)) * samples  # paths
        paths = Range(steps * draw, steps * draw * update.max_draws)
        plan = StagePlan(name, rows=paths, samples=paths, prompts_share=1 / samples, steps=Range.of(steps))
        self._add_verdicts(plan, self.config.judge.name, self._sample_of_d, paths)
        self._add_seen_rows(plan, replace(self.config.sft.of_stage("round"), batch_size=draw), Range.of(steps * draw))
        plan.checkpoints = 1
        if self.measures:
            plan.evaluated = self._count_evaluated()
        return plan

    def _plan_reflection(self, name: str) -> StagePlan:
        """The newest draft of each unsolved problem, or all drafts, each with up to ``tries`` rewrites."""
        reflect = self.config.evolution.reflect
        drafts = self.bounds.reflect()
        rewrites = Range(0, drafts * reflect.tries)
        plan = StagePlan(name, rows=rewrites)
        if reflect.feedback not in (NOBODY, self.config.judge.name):
            self._add_verdicts(plan, reflect.feedback, self._sample_of_d, Range(0, drafts))
        if reflect.writer == "student" or self.teaches_itself:
            plan.samples += rewrites
        else:
            self.requests.reflect(plan, self._sample_of_d, rewrites.high, with_feedback=reflect.feedback != NOBODY)
        self._add_verdicts(plan, self.config.judge.name, self._sample_of_d, rewrites)
        return plan

    @property
    def _sample_of_d(self) -> Sequence[Problem]:
        """Problems that give the length of later prompts: the pool of D, which the rounds sample."""
        return self.splits["pool"] or self.splits["seed"]

    def _add_verdicts(self, plan: StagePlan, chosen: Any, problems: Sequence[Problem], paths: Range) -> None:
        """Add the verdicts of a judge on ``paths`` to a plan.

        Args:
            chosen: the judge's name or settings.
            problems: problems that give the length of the prompts.
        """
        asks = judge_named(chosen, self.config.judge).asks
        if "teacher" in asks and self.teaches_itself:
            plan.samples += Range(0, paths.high)
        elif "teacher" in asks:
            self.requests.annotate(plan, problems, paths.high)
        if "orm" in asks:
            plan.verdicts += paths

    # --- fits ---

    def _add_fit(
        self, plan: StagePlan, rows: Range, stage: FitStage | None = None, measures_judge: bool = True
    ) -> StagePlan:
        """Add a student's fit on ``rows``, which a run without new rows skips, and the measurements after it.

        Args:
            stage: the section of ``sft`` that applies.
            measures_judge: whether the ORM is measured on the new student's paths.
        """
        settings = self.config.sft.of_stage(stage)
        plan.steps = rows.through(lambda rows: _count_steps(settings, rows))
        self._add_seen_rows(plan, settings, rows)
        if rows.high:  # the largest number of rows, and of the student's own rows among them
            own = max(0, rows.high - self.bounds.chosen)
            exposure = Exposure(rows.high, own, settings.steps(rows.high) * settings.batch_size)
            section = "sft" if stage is None else f"sft.{stage}"
            plan.warnings += warn_about_exposure(exposure, section, has_own=stage == "round")
        plan.checkpoints = 1
        held = self.splits["orm_held"]
        if self.measures:
            plan.evaluated = self._count_evaluated()
        if self.measures and measures_judge and needs_orm(self.config) and held:
            plan.held_samples, plan.held_verdicts = Range(0, len(held)), Range(0, len(held))
            plan.samples += plan.held_samples
            plan.verdicts += plan.held_verdicts
        return plan

    def _add_seen_rows(self, plan: StagePlan, fit: FitConfig, rows: Range, validates: bool = True) -> None:
        """Add the rows that a fit of ``plan.steps`` steps sees, out of ``rows``."""
        plan.seen = plan.steps * fit.batch_size
        plan.new = Range(min(rows.low, plan.seen.low), min(rows.high, plan.seen.high))
        val_rows = min(fit.val_rows, len(self.splits["dev"])) if validates else 0
        plan.validated = plan.steps.through(lambda n: val_rows * (n // min(fit.val_every, n)) if n else 0)

    def _count_evaluated(self) -> int:
        """Return the number of test and dev problems."""
        return len(self.splits["test"][: self.config.evaluation.limit]) + len(self.splits["dev"])

    # --- the ORM ---

    def _plan_orm(self) -> Iterator[StagePlan]:
        orm, train, held = self.config.orm, self.splits["orm_train"], self.splits["orm_held"]
        for size in orm.students:
            plan = StagePlan(f"orm/student_{size}", checkpoints=int(size > 0))
            solutions = self._add_solutions(plan, train[:size])
            plan.steps = solutions.through(lambda rows: orm.student_steps if rows else 0)
            self._add_seen_rows(plan, self.config.sft, solutions, validates=False)
            plan.rows = Range.of((len(train) + len(held)) * orm.samples_per_problem)
            plan.samples += plan.rows
            plan.held_samples = Range.of(len(held) * orm.samples_per_problem)
            plan.prompts_share = 1 / orm.samples_per_problem
            yield plan

        solver = StagePlan("orm/solver", checkpoints=1)
        solutions = self._add_solutions(solver, train)
        solver.steps = solutions.through(lambda rows: orm.solver_steps if rows else 0)
        self._add_seen_rows(solver, self.config.sft, solutions)
        yield solver

        # Equal numbers of correct and wrong paths, from the weak students and, with orm.references, from the reference
        # solutions. Without a step checker, the teacher explains the wrong paths.
        model = StagePlan("orm", checkpoints=1)
        half = {}  # the largest number of wrong paths
        for name, split in (("train", train), ("held", held)):
            paths = len(split) * orm.samples_per_problem * len(orm.students)
            if orm.references:
                paths += sum(bool(problem.solution) for problem in split)
            half[name] = paths // 2
            if split and self.source.check(split[0], "") is None:
                self._add_verdicts(model, "teacher", split, Range(0, half[name]))
        model.rows = Range(0, 2 * half["train"])
        model.verdicts = model.held_verdicts = Range(0, 2 * half["held"])
        model.steps = model.rows.through(lambda rows: _count_steps(orm.fit, rows))
        self._add_seen_rows(model, orm.fit, model.rows)
        yield model

    def _plan_orm_of_users_rows(self) -> Iterator[StagePlan]:
        """The user's rows have labels, so there are no weak students and no requests."""
        orm = self.config.orm
        domain = open_domain(self.config.task_domain)
        labelled = read_orm_data(Path(str(orm.train)), Path(str(orm.held)), self.source.get, domain)
        has_solutions = any(row.problem.solution for row in labelled.train)
        solver = StagePlan("orm/solver", steps=Range.of(orm.solver_steps if has_solutions else 0), checkpoints=1)
        self._add_seen_rows(solver, self.config.sft, Range.of(len(labelled.train)))
        yield solver
        model = StagePlan(
            "orm",
            rows=Range.of(len(labelled.train)),
            verdicts=Range.of(len(labelled.held)),
            steps=Range.of(_count_steps(orm.fit, len(labelled.train))),
            held_verdicts=Range.of(len(labelled.held)),
            checkpoints=1,
        )
        self._add_seen_rows(model, orm.fit, model.rows)
        yield model

    def _add_solutions(self, plan: StagePlan, problems: Sequence[Problem]) -> Range:
        """Add the teacher's solutions of problems without a solution.

        Returns:
            The number of problems that have a solution afterwards; the teacher may fail.
        """
        missing = [problem for problem in problems if not problem.solution]
        self.requests.solve(plan, missing)
        if self.teaches_itself:
            plan.samples += Range.of(len(missing))
        return Range(len(problems) - len(missing), len(problems))


def _count_steps(fit: FitConfig, rows: int) -> int:
    return fit.steps(rows) if rows else 0
