"""The stages in which the Outcome Reward Model is made: weak students, a solver of its own problems, the ORM itself.

PAPER: where the 30K wrong paths come from is not said; ours are drawn from weak students on problems of their own
(V-STaR gathers them from its generators likewise), labelled by the source's step checker or by answer match. With
``orm.train`` the user has gathered and labelled them, and there are no weak students.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

import torch

from mathse.config.fits import FitConfig
from mathse.config.schema import needs_orm
from mathse.data.domains import open_domain
from mathse.data.labelled_paths import LabelledPath, ORMData, read_orm_data
from mathse.errors import DataError
from mathse.evolution import stages
from mathse.evolution.evolution_run import EvolutionRun
from mathse.evolution.keys import COMMON, JUDGING, SFT_KEYS, orm_teaching_keys, sampling_keys
from mathse.evolution.measure import explained, judge_held, labeller, to_explain
from mathse.evolution.state import Judged
from mathse.evolution.student import Student
from mathse.evolution.training_rows import solution_rows
from mathse.inference.rows import solve_row
from mathse.judges.orm import status_tokens
from mathse.judges.orm_rows import (
    FORM,
    Labelled,
    MadeUpRows,
    balance,
    label,
    solution_path,
    training_row,
    with_jitter,
)
from mathse.models.base import Backbone
from mathse.models.row import Row
from mathse.runs.fit_ranks import RANKS
from mathse.runs.layout import CHECKPOINT, FEEDBACK, HELD_PATHS, METRICS, ORM_FILE, PATHS
from mathse.runs.meter import Account
from mathse.runs.stage_cache import Stage
from mathse.runs.store import read_jsonl, write_json, write_jsonl
from mathse.runs.teacher_calls import ASKED
from mathse.scoring.metrics import like_chance
from mathse.seeds import rng
from mathse.training.batches import EpochStream, MixedStream, Stream
from mathse.training.fit import save_checkpoint
from mathse.types import Problem, ReasoningPath

# Variants of the ORM itself (order, kind, length of its fit) share the weak students and the solver.
STUDENT_KEYS = (*COMMON, *SFT_KEYS, "orm.student_steps", "orm.samples_per_problem", "orm.temperature")
SOLVER_KEYS = (*COMMON, *SFT_KEYS, "orm.students", "orm.solver_steps", "orm.jitter", "orm.backbone", "orm.train_sha256")
KEYS = (*COMMON, *RANKS, "orm", *JUDGING, "lightning_callbacks")


def read_users_rows(loop: EvolutionRun) -> ORMData | None:
    """The rows of ``orm.train`` and ``orm.held``, whose problems join the run's; None where the run gathers its own."""
    settings = loop.config.orm
    if settings.train is None or settings.held is None or not needs_orm(loop.config):
        return None
    domain = open_domain(loop.config.task_domain)
    data = read_orm_data(Path(settings.train), Path(settings.held), loop.problems.source.get, domain)
    for file, rows in ((settings.train, data.train), (settings.held, data.held)):
        for row in rows:
            if loop.problems.by_id.setdefault(row.problem.id, row.problem) != row.problem:
                raise DataError(
                    f"{file}:{row.line}: problem {row.problem.id!r} is another one in the run's own data; give it "
                    'another "problem_id", or leave "question" out to take that one'
                )
    return data


def train_orm(loop: EvolutionRun, data: ORMData | None) -> list[Stage]:
    """The stages of the ORM; none where no judge uses it, or where ``judge.checkpoint`` brings one.

    Args:
        data: the user's rows; None: paths of weak students are labelled instead.
    """
    if not needs_orm(loop.config) or loop.config.judge.checkpoint is not None:
        return []
    students = [] if data else [weak_student(loop, size) for size in loop.config.orm.students]
    solver = fit_solver(loop, students, data)
    stage = loop.context.run.stage("orm", (*KEYS, *orm_teaching_keys(loop.config)), [*students, solver])
    loop.context.begin(stage, "the Outcome Reward Model learns to name the wrong step")
    if not stage.done:
        train = _labels_of(data.train) if data else _labelled(loop, students, "orm_train", PATHS)
        write_jsonl(stage.path / FEEDBACK, [Judged(path, truth) for path, truth in train])
        note = _fit_orm(loop, stage, solver, train)
        held = _labels_of(data.held) if data else _labelled(loop, students, "orm_held", HELD_PATHS)
        figures = judge_held(loop, stage, loop.models.orm, held, stage.path / METRICS)
        if train and like_chance(figures):
            right, wrong = figures["positive_accuracy"], 1 - figures["negative_accuracy"]
            chance = (
                f"it cannot be told from chance: of {figures['n']} held-out paths it accepts {right:.1%} of the right "
                f"and {wrong:.1%} of the wrong ones. More paths may help (orm.samples_per_problem), more and smaller "
                "steps (orm.fit.max_steps, orm.fit.batch_size), orm.own_answer=true or orm.see_answer=true"
            )
            note = chance if note is None else f"{note}; {chance}"
        if note:
            loop.context.progress.say(f"orm: {note}")
        inputs = [student.path / name for student in students for name in (PATHS, HELD_PATHS)]
        annotated = 0 if data else len(to_explain(train)) + len(to_explain(held))
        stage.finish({"training_paths": len(train), "note": note, ASKED: annotated, **figures}, inputs)
        loop.context.loggers.stage_finished(stage)
    if stage.summary["note"]:
        loop.context.notes.append(f"orm: {stage.summary['note']}")
    return [stage]


def weak_student(loop: EvolutionRun, size: int) -> Stage:
    """A student fitted on ``size`` solutions (0: the untrained base), and its paths on the ORM's problems."""
    settings = loop.config.orm
    ranks = RANKS if size else ()  # the base needs no fit
    keys = (*STUDENT_KEYS, *ranks, *sampling_keys(loop.config), *orm_teaching_keys(loop.config))
    stage = loop.context.run.stage(f"orm/student_{size}", keys, [loop.base.stage])
    there_are = min(size, len(loop.problems.splits["orm_train"]))
    loop.context.begin(stage, f"a weak student ({there_are:,} solutions) writes paths for the ORM to learn from")
    if not stage.done:
        student = Student(stage)
        solutions = _solutions(loop, loop.problems.splits["orm_train"][:size])
        if solutions:
            # no name for the backbone: the fitted model would stay in memory beside the one that samples
            _fit_on_solutions(
                loop,
                stage,
                loop.models.backbone(loop.base.checkpoint),
                solutions,
                settings.student_steps,
                kept_in=loop.models.kept_in(),
            )
        else:
            stages.carry_on(loop.base.checkpoint, student.checkpoint)
        accounts: tuple[tuple[str, str, Account], ...] = (
            ("orm_train", "paths", "method"),
            ("orm_held", "held_paths", "measuring"),
        )
        for split, name, account in accounts:
            problems, n = loop.problems.splits[split], settings.samples_per_problem
            description = f"weak student's {name.replace('_', ' ')}"
            with loop.context.work(stage, "sample", description, len(problems) * n, account=account) as advance:
                loop.models.generator.sample(
                    loop.models.of(student),
                    problems,
                    stage.path / f"{name}.jsonl",
                    n=n,
                    stage=f"{stage.name}/{name}",
                    model=student.name,
                    seed=loop.config.seed,
                    temperature=settings.temperature,
                    advance=advance,
                )
        # the solutions that it was fitted on are counted in the solver
        stage.finish({"solutions": len(solutions), ASKED: 0})
    return stage


def fit_solver(loop: EvolutionRun, students: Sequence[Stage], data: ORMData | None) -> Stage:
    """The ORM's starting point: a solver of its own problems, with those that the last weak student got wrong thrice.

    It brings the perception and arithmetic that the ORM's loss alone does not teach; what it gets wrong, the ORM gets
    wrong: from a solver with 98.4 % right sums the same fit found 83 % of the wrong paths, from one with 99.4 % 93 %.
    ``orm.solver_steps = 0`` starts from the base. Of the user's rows, the problems that have a solution are solved.
    """
    ranks = RANKS if loop.config.orm.solver_steps else ()
    keys = (*SOLVER_KEYS, *ranks, *orm_teaching_keys(loop.config))
    stage = loop.context.run.stage("orm/solver", keys, [loop.base.stage, *students])
    loop.context.begin(stage, "the ORM's starting point: a solver of its own problems")
    if not stage.done:
        like_student = loop.config.orm.backbone is None
        backbone = loop.models.backbone(loop.base.checkpoint) if like_student else loop.models.backbone(orm=True)
        problems = loop.problems.splits["orm_train"]
        if data:  # each problem once
            problems = list({row.problem.id: row.problem for row in data.train if row.problem.solution}.values())
        solutions = _solutions(loop, problems)
        if loop.config.orm.solver_steps and solutions:
            missed: set[str] = set()  # problems whose path by the last weak student is wrong
            if students:
                paths = list(read_jsonl(students[-1].path / PATHS, ReasoningPath))
                labelled = label(paths, loop.problems.by_id, labeller(loop))
                missed = {path.problem_id for path, truth in labelled if truth.status != "correct"}
            # three times each, and so three times as often in a fit of a fixed number of steps
            weighted = solutions + 2 * [pair for pair in solutions if pair[0].id in missed]
            dev = solution_rows(backbone.prompt_style, loop.problems.splits["dev"])
            _fit_on_solutions(loop, stage, backbone, weighted, loop.config.orm.solver_steps, dev, jitter=True)
        elif not (stage.path / CHECKPOINT).exists():
            save_checkpoint(backbone, stage.path / CHECKPOINT, unchanged=True)
        # those that the weak students were fitted on are among them
        stage.finish({"solutions": len(solutions), ASKED: sum(not problem.solution for problem in problems)})
    return stage


def _fit_on_solutions(
    loop: EvolutionRun,
    stage: Stage,
    backbone: Backbone,
    solutions: Sequence[tuple[Problem, str]],
    steps: int,
    val_rows: Sequence[Row] = (),
    kept_in: torch.dtype | None = None,
    jitter: bool = False,
) -> None:
    """A fit with the student's settings at another length; ``jitter``: with pictures as ``orm.jitter`` says."""
    settings = {field.name: getattr(loop.config.sft, field.name) for field in fields(FitConfig)}
    rows = [solve_row(backbone.prompt_style, problem, text) for problem, text in solutions]
    loop.models.fit(
        backbone,
        stage,
        _jittered(loop, stage, rows) if jitter else rows,
        FitConfig(**{**settings, "max_steps": steps, "epochs": None}),
        label=f"fit on {len(solutions)} solutions",
        val_rows=val_rows,
        kept_in=kept_in,
    )


def _jittered(loop: EvolutionRun, stage: Stage, rows: Sequence[Row]) -> Sequence[Row]:
    """The rows with their pictures moved, turned and slanted, where ``orm.jitter`` is set: each row in one way."""
    jittered = getattr(loop.problems.source, "jittered", None)
    if not loop.config.orm.jitter or jittered is None:
        return rows
    draw = rng(loop.context.seed(stage, "rows"), "jitter")
    return [with_jitter(row, jittered, draw) for row in rows]


def _solutions(loop: EvolutionRun, problems: Sequence[Problem]) -> list[tuple[Problem, str]]:
    """Each problem with its reference solution, else the teacher's; problems without either are left out."""
    missing = [p for p in problems if not p.solution]
    by_teacher = dict(zip((p.id for p in missing), loop.models.teacher.solve(missing), strict=True)) if missing else {}
    pairs = ((p, p.solution or by_teacher[p.id]) for p in problems)
    return [(problem, text) for problem, text in pairs if text]


def _labels_of(rows: Sequence[LabelledPath]) -> list[Labelled]:
    return [(row.path, row.label) for row in rows]


def _labelled(loop: EvolutionRun, students: Sequence[Stage], split: str, file: str) -> list[Labelled]:
    """The weak students' paths on a split with their labels, as many correct as wrong ones."""
    paths = [path for stage in students for path in read_jsonl(stage.path / file, ReasoningPath)]
    if loop.config.orm.references:
        paths += [solution_path(p, f"orm/{split}") for p in loop.problems.splits[split] if p.solution]
    return explained(loop, balance(label(paths, loop.problems.by_id, labeller(loop)), loop.config.seed))


def _fit_orm(loop: EvolutionRun, stage: Stage, solver: Stage, labelled: Sequence[Labelled]) -> str | None:
    """Fit the ORM, or carry the solver on where there is no balanced path to learn from; what it lacks, if anything."""
    settings = loop.config.orm
    checkpoint = stage.path / CHECKPOINT
    note = None
    if labelled:
        backbone = loop.models.backbone(solver.path / CHECKPOINT, orm=True)
        source, problems, style = loop.problems.source, loop.problems.by_id, backbone.prompt_style
        rows = [
            Row(**training_row(style, problems[path.problem_id], path.text, truth, settings), id=path.id)
            for path, truth in labelled
        ]
        if settings.own_answer:  # it goes on learning to solve, each problem of its paths once
            solved = dict.fromkeys(path.problem_id for path, _ in labelled if problems[path.problem_id].solution)
            rows += [Row(**solve_row(style, problems[key], problems[key].solution), id=key) for key in solved]
            if not solved:
                note = "no problem of its paths has a solution, so its fit does not teach it to solve (orm.own_answer)"
        # Validated on made-up errors over dev problems, whose pictures neither training nor held-out paths show.
        val_rows = []
        if hasattr(source, "corrupt"):
            draw = random.Random(0)
            wrong = [(problem, source.corrupt(problem, draw)) for problem in loop.problems.splits["dev"]]
            val_rows = [
                training_row(style, problem, text, source.check(problem, text), settings) for problem, text in wrong
            ]
        loop.models.fit(
            backbone,
            stage,
            _jittered(loop, stage, rows),
            settings.fit,
            label=f"fit on {len(labelled)} labelled paths",
            val_rows=val_rows,
            stream=partial(_stream, loop, stage, backbone),
            status_tokens=status_tokens(backbone),
            kept_in=loop.models.kept_in(orm=True),
        )
    else:
        note = "no right or no wrong path among the samples, so there is nothing balanced to fit the ORM on"
        stages.carry_on(solver.path / CHECKPOINT, checkpoint)
    write_json(checkpoint / ORM_FILE, {key: getattr(settings, key) for key in FORM})
    return note


def _stream(loop: EvolutionRun, stage: Stage, backbone: Backbone, rows: Sequence[Row]) -> Stream:
    """The labelled paths, and before them rows with made-up errors where the source can make such."""
    settings, source = loop.config.orm, loop.problems.source
    epochs = EpochStream(rows, settings.fit.batch_size, loop.context.seed(stage, "rows"))
    augmented = hasattr(source, "corrupt") and settings.augment > 0 and settings.train is None
    if not augmented or settings.fit.max_steps is None:
        return epochs
    problems = loop.problems.splits["orm_train"]
    jittered = source.jittered if settings.jitter else None
    make = MadeUpRows(backbone.prompt_style, problems, settings, source.corrupt, source.check, jittered)
    return MixedStream(epochs, make, settings.augment, settings.fit.max_steps)
