"""The stages that a run with these settings will have, each with what it makes, asks and fits.

It follows mathse/evolution: loop.py for the order, stages.py, orm_stages.py and reflect.py for the rows. What a judge
accepts is not known beforehand, so later stages are ranges that hold every outcome: ``Bounds`` is the state of
Algorithm 1 as such ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mathse.config.evolution import NOBODY, EvolutionConfig
from mathse.config.fits import FitConfig, FitStage
from mathse.config.judges import judge_named
from mathse.config.schema import TrainConfig, needs_orm, select_callbacks
from mathse.config.teachers import OpenAITeacherConfig, StudentTeacherConfig
from mathse.data.domains import open_domain
from mathse.data.labelled_paths import read_orm_data
from mathse.data.problems import to_distill
from mathse.evolution.exposure import Exposure, warnings
from mathse.runs.store import read_jsonl
from mathse.types import Problem


@dataclass(frozen=True)
class Range:
    """From ``low`` to ``high``, both included; exact where they are equal."""

    low: int = 0
    high: int = 0

    @classmethod
    def of(cls, number: int) -> Range:
        return cls(number, number)

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)

    def __sub__(self, part: Range) -> Range:
        """Without a part of it, whose ends belong to its own."""
        return Range(self.low - part.low, self.high - part.high)

    def __mul__(self, factor: float) -> Range:
        """In whole numbers."""
        return Range(round(self.low * factor), round(self.high * factor))

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and self.low <= number <= self.high

    @property
    def exact(self) -> bool:
        return self.low == self.high

    def at_most(self, number: int | None) -> Range:
        return self if number is None else Range(min(self.low, number), min(self.high, number))

    def through(self, function: Callable[[int], int]) -> Range:
        """Of a function that grows with its argument."""
        return Range(function(self.low), function(self.high))

    def to_json(self) -> int | list[int]:
        return self.low if self.exact else [self.low, self.high]


@dataclass(frozen=True)
class JobRequests:
    """Requests of one job to the teacher's server, and the mean tokens of one of them, in and out."""

    requests: Range
    tokens_in: float
    tokens_out: float


@dataclass
class StagePlan:
    """One stage.

    Attributes:
        rows: paths or rewrites that it makes.
        jobs: what the teacher's server is asked, by job.
        samples: answers by the student's own model, those to test and dev problems left out.
        verdicts: by the ORM's own model.
        evaluated: answers to test and dev problems; 0 where no student is fitted.
        steps: of the optimiser.
        seen: rows that its fit sees, each as often as it does.
        new: rows among them that are seen for the first time.
        validated: rows of all validations in its fit.
        held_samples, held_verdicts: those of ``samples`` and ``verdicts`` that only measure.
        prompts_share: prompts an answer of ``samples``, where several are drawn for one.
        checkpoints: models that it leaves on the disk.
        warnings: of its training run, as far as they are known beforehand.
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
        """Add requests of a job; those that it has already are of the same length."""
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
        """All that the student's model writes."""
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


class Bounds:
    """How far the judge may take Algorithm 1: bounds of D_SFT and of what is reflected on, after the stages so far
    (mathse/evolution: state.py, reflect.py).

    A problem leaves D_remain with its first accepted path. Its row, or with ``keep=all`` its rows of one round, are all
    that it gives; a rewrite only takes their place. With ``all_drafts`` each reflection may add a row for every draft
    rejected so far, of solved problems too.

    Some outcome reaches each bound of rows and of drafts. Only ``all_drafts`` after every round, where samples of
    D_remain run out of problems, comes to less than is said here.

    Args:
        d: problems of D.
    """

    def __init__(self, d: int, evolution: EvolutionConfig) -> None:
        self.d, self.evolution = d, evolution
        self.chosen = 0  # problems that the teacher solved
        self.tries: list[int] = []  # of each round: problems that it tries at most
        self.reflected: list[int] = []  # of each reflection on all drafts: rounds before it

    # --- what happens, in the order of the run ---

    def distil(self, problems: int) -> None:
        self.chosen = problems

    def try_problems(self) -> Range:
        """A round's problems: D_remain, or a sample of it."""
        low = self.d - (self.chosen if self.evolution.resample == "all" else self.solved.high)
        high = self.d - (self.solved.low if self.evolution.resample == "never" else 0)
        tried = Range(low, high).at_most(self.evolution.round.sample_size)
        self.tries.append(tried.high)
        return tried

    def reflect(self) -> int:
        """At most so many drafts are rewritten: the newest of each unsolved problem, or all that there are."""
        if not self.evolution.reflect.all_drafts:
            return min(self.d, sum(self.tries))
        self.reflected.append(len(self.tries))
        return self.samples * sum(self.tries)

    # --- what that comes to ---

    @property
    def samples(self) -> int:
        """The most samples of a problem in a round."""
        return self.evolution.samples_per_problem + self.evolution.round.restarts

    @property
    def solved(self) -> Range:
        """Problems with an accepted path: at most those that somebody tried."""
        return Range(0, min(self.d, self.chosen + sum(self.tries)))

    @property
    def rows(self) -> Range:
        """Rows of D_SFT: as much as tries give, of no more problems than there are; what these leave of D may have the
        teacher's row."""
        rounds = range(1, len(self.tries) + 1)
        a_problem = max((self._rows_of(number, number) for number in rounds), default=1)
        by_tries = sum(tries * self._rows_of(number, 1) for number, tries in zip(rounds, self.tries, strict=True))
        by_tries = min(by_tries, self.d * a_problem)
        needed = -(-by_tries // a_problem)  # problems
        return Range(0, by_tries + min(self.chosen, self.d - needed))

    def _rows_of(self, last: int, times: int) -> int:
        """At most, of a problem tried so many times, in round ``last`` last: its drafts in each later reflection on all
        drafts; without one, what a round keeps of it."""
        later = sum(rounds >= last for rounds in self.reflected)
        if later:
            return times * self.samples * later
        most = {"one": 1, "all": self.samples, "balanced": self.samples}
        return (
            most[self.evolution.keep]
            if isinstance(self.evolution.keep, str)
            else min(self.evolution.keep, self.samples)
        )


class Requests(Protocol):
    """Adds what a teacher's server is asked to a stage's plan; nothing where the teacher is none."""

    def solve(self, plan: StagePlan, problems: Sequence[Problem]) -> None: ...

    def annotate(self, plan: StagePlan, problems: Sequence[Problem], most: int) -> None: ...

    def reflect(self, plan: StagePlan, problems: Sequence[Problem], most: int, with_feedback: bool) -> None: ...


class Counted:
    """How many requests alone: no prompt is written, so that a run that begins need not read its data for it."""

    def __init__(self, teacher: Any) -> None:
        self.by_server = isinstance(teacher, OpenAITeacherConfig)

    def solve(self, plan: StagePlan, problems: Sequence[Problem]) -> None:
        plan.ask("generate", Range.of(len(problems) * self.by_server), 0, 0)

    def annotate(self, plan: StagePlan, problems: Sequence[Problem], most: int) -> None:
        plan.ask("annotate", Range(0, most * self.by_server), 0, 0)

    def reflect(self, plan: StagePlan, problems: Sequence[Problem], most: int, with_feedback: bool) -> None:
        plan.ask("reflect", Range(0, most * self.by_server), 0, 0)


def stages_ahead(config: TrainConfig, source: Any) -> list[StagePlan]:
    """The stages of a run that begins, for its progress: how many there are, and how much each does."""
    return list(Planner(config, source, Counted(config.teacher)).stages())


class Planner:
    """``source``: the run's data; ``requests``: what its teacher is asked, where that is a server."""

    def __init__(self, config: TrainConfig, source: Any, requests: Requests) -> None:
        self.config, self.source, self.requests = config, source, requests
        self.splits: dict[str, Sequence[Problem]] = dict(source.splits())
        self.by_student = isinstance(config.teacher, StudentTeacherConfig)
        self.bounds = Bounds(len(self.splits["seed"]) + len(self.splits["pool"]), config.evolution)
        sections = select_callbacks(config)
        callbacks = [str(s["_target_"] if isinstance(s, dict) else s._target_) for s in sections]
        self.measures = any(target.endswith(".EvaluateStudent") for target in callbacks)
        self.reflects = any(target.endswith(".ReflectOnErrors") for target in callbacks)

    def stages(self) -> Iterator[StagePlan]:
        """In the order of the run."""
        yield StagePlan("base", evaluated=self._evaluated(), checkpoints=1)
        if needs_orm(self.config) and self.config.judge.checkpoint is None:
            yield from self._orm() if self.config.orm.train is None else self._orm_of_users_rows()
        if self.config.task == "evolve":
            yield self._distilled(to_distill(self.splits, self.config.distill.size), fit=True)
            when, rounds = self.config.evolution.reflect.when, self.config.evolution.rounds
            for number in range(1, rounds + 1):
                yield self._round(f"round_{number:02d}")
                if self.reflects and when == "every":
                    yield self._reflection(f"round_{number:02d}/reflection")
                elif self.reflects and when == "last" and number == rounds:
                    yield self._reflection("reflection")
            yield self._fitted(StagePlan("final"), self.bounds.rows, "final", judged=False)
        elif self.config.task == "distill":
            yield self._distilled(self.source.distillable()[: self.config.distill.size], fit=False)
        elif self.config.task == "sft":
            rows = sum(1 for _ in read_jsonl(Path(str(self.config.sft.train))))
            yield self._fitted(StagePlan("sft", rows=Range.of(rows)), Range.of(rows))

    # --- D_SFT ---

    def _distilled(self, chosen: Sequence[Problem], fit: bool) -> StagePlan:
        plan = StagePlan("distill", rows=Range.of(len(chosen)))
        self.requests.solve(plan, chosen)
        if self.by_student:
            plan.samples += plan.rows
        self._judged(plan, self.config.distill.judge, chosen, plan.rows)
        self.bounds.distil(len(chosen))
        return self._fitted(plan, self.bounds.rows, "distill") if fit else plan

    def _round(self, name: str) -> StagePlan:
        tried, evolution = self.bounds.try_problems(), self.config.evolution
        paths = tried * evolution.samples_per_problem + Range(0, tried.high * evolution.round.restarts)
        plan = StagePlan(name, rows=paths, samples=paths, prompts_share=1 / evolution.samples_per_problem)
        self._judged(plan, self.config.judge.name, self._of_d, paths)
        return self._fitted(plan, self.bounds.rows, "round")

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
            self.requests.reflect(plan, self._of_d, rewrites.high, with_feedback=reflect.feedback != NOBODY)
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
            self.requests.annotate(plan, problems, paths.high)
        if "orm" in asks:
            plan.verdicts += paths

    # --- fits ---

    def _fitted(self, plan: StagePlan, rows: Range, stage: FitStage | None = None, judged: bool = True) -> StagePlan:
        """The fit on these rows, which is left out where nothing new was accepted, and what is measured after it."""
        settings = self.config.sft.of_stage(stage)
        plan.steps = rows.through(lambda rows: _steps(settings, rows))
        self._sees(plan, settings, rows)
        if rows.high:  # at most so many rows, and of them as many of the student's own
            own = max(0, rows.high - self.bounds.chosen)
            exposure = Exposure(rows.high, own, settings.steps(rows.high) * settings.batch_size)
            section = "sft" if stage is None else f"sft.{stage}"
            plan.warnings += warnings(exposure, section, has_own=stage == "round")
        plan.checkpoints = 1
        held = self.splits["orm_held"]
        if self.measures:
            plan.evaluated = self._evaluated()
        if self.measures and judged and needs_orm(self.config) and held:
            plan.held_samples, plan.held_verdicts = Range(0, len(held)), Range(0, len(held))
            plan.samples += plan.held_samples
            plan.verdicts += plan.held_verdicts
        return plan

    def _sees(self, plan: StagePlan, fit: FitConfig, rows: Range, validates: bool = True) -> None:
        """The rows that a training run of ``plan.steps`` on so many rows sees."""
        plan.seen = plan.steps * fit.batch_size
        plan.new = Range(min(rows.low, plan.seen.low), min(rows.high, plan.seen.high))
        of_each = min(fit.val_rows, len(self.splits["dev"])) if validates else 0
        plan.validated = plan.steps.through(lambda n: of_each * (n // min(fit.val_every, n)) if n else 0)

    def _evaluated(self) -> int:
        """Test and dev problems."""
        return len(self.splits["test"][: self.config.evaluation.limit]) + len(self.splits["dev"])

    # --- the ORM ---

    def _orm(self) -> Iterator[StagePlan]:
        orm, train, held = self.config.orm, self.splits["orm_train"], self.splits["orm_held"]
        for size in orm.students:
            plan = StagePlan(f"orm/student_{size}", checkpoints=int(size > 0))
            fitted = self._solutions(plan, train[:size])
            plan.steps = fitted.through(lambda rows: orm.student_steps if rows else 0)
            self._sees(plan, self.config.sft, fitted, validates=False)
            plan.rows = Range.of((len(train) + len(held)) * orm.samples_per_problem)
            plan.samples += plan.rows
            plan.held_samples = Range.of(len(held) * orm.samples_per_problem)
            plan.prompts_share = 1 / orm.samples_per_problem
            yield plan
        solver = StagePlan("orm/solver", checkpoints=1)
        fitted = self._solutions(solver, train)
        solver.steps = fitted.through(lambda rows: orm.solver_steps if rows else 0)
        self._sees(solver, self.config.sft, fitted)
        yield solver
        # As many right as wrong paths, of the weak students and, where they count, of the reference solutions; the
        # teacher says of the wrong ones where and why, where no checker does.
        model = StagePlan("orm", checkpoints=1)
        half = {}
        for name, split in (("train", train), ("held", held)):
            paths = len(split) * orm.samples_per_problem * len(orm.students)
            paths += sum(bool(p.solution) for p in split) if orm.references else 0
            half[name] = paths // 2
            if split and self.source.check(split[0], "") is None:
                self._judged(model, "teacher", split, Range(0, half[name]))
        model.rows = Range(0, 2 * half["train"])
        model.verdicts = model.held_verdicts = Range(0, 2 * half["held"])
        model.steps = model.rows.through(lambda rows: _steps(orm.fit, rows))
        self._sees(model, orm.fit, model.rows)
        yield model

    def _orm_of_users_rows(self) -> Iterator[StagePlan]:
        """The user's rows are used as they are; nobody is asked."""
        orm = self.config.orm
        domain = open_domain(self.config.task_domain)
        labelled = read_orm_data(Path(str(orm.train)), Path(str(orm.held)), self.source.get, domain)
        solved = any(row.problem.solution for row in labelled.train)
        solver = StagePlan("orm/solver", steps=Range.of(orm.solver_steps if solved else 0), checkpoints=1)
        self._sees(solver, self.config.sft, Range.of(len(labelled.train)))
        yield solver
        model = StagePlan(
            "orm",
            rows=Range.of(len(labelled.train)),
            verdicts=Range.of(len(labelled.held)),
            steps=Range.of(_steps(orm.fit, len(labelled.train))),
            held_verdicts=Range.of(len(labelled.held)),
            checkpoints=1,
        )
        self._sees(model, orm.fit, model.rows)
        yield model

    def _solutions(self, plan: StagePlan, problems: Sequence[Problem]) -> Range:
        """How many come with a solution, or may get one from the teacher."""
        missing = [p for p in problems if not p.solution]
        self.requests.solve(plan, missing)
        if self.by_student:
            plan.samples += Range.of(len(missing))
        return Range(len(problems) - len(missing), len(problems))


def _steps(fit: FitConfig, rows: int) -> int:
    """No row, no fit."""
    return fit.steps(rows) if rows else 0
