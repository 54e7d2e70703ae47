"""The stages of the Outcome Reward Model: weak students, a solver of the ORM's problems, the ORM itself.

PAPER: silent on the origin of the 30K wrong paths. Ours are sampled from weak students on separate problems (V-STaR
collects the paths of its generators in the same way), and labelled by the step checker of the data or by answer match.
With ``orm.train`` the user brings labelled paths, and there are no weak students.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import torch

from mathse.config.fits import Fit
from mathse.config.schema import needs_orm
from mathse.data.domains import open_domain
from mathse.data.labelled_paths import ORMData, read_orm_data
from mathse.errors import DataError
from mathse.evolution import stages
from mathse.evolution.evolution_run import EvolutionRun
from mathse.evolution.keys import COMMON, JUDGING, SFT_KEYS, list_orm_teaching_keys, list_sampling_keys
from mathse.evolution.measure import judge_held_out, make_labeller
from mathse.evolution.models import Student
from mathse.evolution.state import Judged
from mathse.evolution.training_rows import make_solution_rows
from mathse.inference.rows import solve_row
from mathse.judges.answer import AnswerJudge
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
ORM_KEYS = (*COMMON, *RANKS, "orm", *JUDGING, "lightning_callbacks")


def read_users_rows(loop: EvolutionRun) -> ORMData | None:
    """Read the labelled paths of ``orm.train`` and ``orm.held``, and add their problems to the run's.

    Returns:
        The rows; None if the run makes its own.

    Raises:
        DataError: a problem has the id of a different problem of the run.
    """
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


# --- stages -----------------------------------------------------------------------------------------------------------


def train_orm(loop: EvolutionRun, data: ORMData | None) -> list[Stage]:
    """Make the stages of the ORM.

    Args:
        data: labelled paths of the user. None: paths of weak students are labelled.

    Returns:
        The stage of the ORM; no stage if no judge uses the ORM, or if ``judge.checkpoint`` brings one.
    """
    if not needs_orm(loop.config) or loop.config.judge.checkpoint is not None:
        return []
    students = [] if data else [make_weak_student(loop, size) for size in loop.config.orm.students]
    solver = fit_solver(loop, students, data)
    stage = loop.context.run.stage("orm", (*ORM_KEYS, *list_orm_teaching_keys(loop.config)), [*students, solver])
    loop.context.begin(stage, "the Outcome Reward Model learns to name the wrong step")
    if not stage.done:
        # 1) Train.
        if data:
            train = [(row.path, row.label) for row in data.train]
        else:
            train = _label_paths(loop, students, "orm_train", PATHS)
        write_jsonl(stage.path / FEEDBACK, [Judged(path, truth) for path, truth in train])
        note = _fit_orm(loop, stage, solver, train)

        # 2) Measure on held-out paths.
        if data:
            held = [(row.path, row.label) for row in data.held]
        else:
            held = _label_paths(loop, students, "orm_held", HELD_PATHS)
        figures = judge_held_out(loop, stage, loop.models.orm, held, stage.path / METRICS)
        if train and like_chance(figures):
            right, wrong = figures["positive_accuracy"], 1 - figures["negative_accuracy"]
            chance = (
                f"it is no better than chance: of {figures['n']} held-out paths it accepts {right:.1%} of the right "
                f"and {wrong:.1%} of the wrong ones. More paths may help (orm.samples_per_problem), more and smaller "
                "steps (orm.fit.max_steps, orm.fit.batch_size), orm.own_answer=true or orm.see_answer=true"
            )
            note = chance if note is None else f"{note}; {chance}"
        if note:
            loop.context.progress.say(f"orm: {note}")

        # 3) Record.
        inputs = []
        for student in students:
            inputs += [student.path / PATHS, student.path / HELD_PATHS]
        annotated = 0 if data else len(_find_unexplained(train)) + len(_find_unexplained(held))
        stage.finish({"training_paths": len(train), "note": note, ASKED: annotated, **figures}, inputs)
        loop.context.loggers.stage_finished(stage)
    if stage.summary["note"]:
        loop.context.notes.append(f"orm: {stage.summary['note']}")
    return [stage]


def make_weak_student(loop: EvolutionRun, size: int) -> Stage:
    """Train a weak student, and sample its paths for the ORM's training and held-out problems.

    Args:
        size: number of solutions that it trains on. 0: the untrained base.
    """
    settings = loop.config.orm
    ranks = RANKS if size else ()  # the base has no fit
    keys = (*STUDENT_KEYS, *ranks, *list_sampling_keys(loop.config), *list_orm_teaching_keys(loop.config))
    stage = loop.context.run.stage(f"orm/student_{size}", keys, [loop.base.stage])
    available = min(size, len(loop.problems.splits["orm_train"]))
    loop.context.begin(stage, f"a weak student ({available:,} solutions) writes paths for the ORM to learn from")
    if not stage.done:
        student = Student(stage)
        solutions = _collect_solutions(loop, loop.problems.splits["orm_train"][:size])
        if solutions:
            # A variable for the backbone would keep it in memory beside the model that samples.
            _fit_on_solutions(
                loop,
                stage,
                loop.models.open_for_training(loop.base.checkpoint),
                solutions,
                settings.student_steps,
                checkpoint_dtype=loop.models.find_stored_dtype(),
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
                    loop.models.open_student(student),
                    problems,
                    stage.path / f"{name}.jsonl",
                    n=n,
                    stage=f"{stage.name}/{name}",
                    model=student.name,
                    seed=loop.config.seed,
                    temperature=settings.temperature,
                    advance=advance,
                )
        # The solver's stage counts the calls of the teacher for these solutions.
        stage.finish({"solutions": len(solutions), ASKED: 0})
    return stage


def fit_solver(loop: EvolutionRun, students: Sequence[Stage], data: ORMData | None) -> Stage:
    """Train the ORM's starting point: a solver of the ORM's problems. Problems that the last weak student got wrong
    count three times.

    The solver has the perception and arithmetic that the ORM's loss does not teach, and the ORM inherits its mistakes:
    from a solver with 98.4 % correct sums the same fit found 83 % of the wrong paths, from a solver with 99.4 % it
    found 93 %. ``orm.solver_steps = 0`` starts from the base.

    Args:
        students: stages of the weak students.
        data: labelled paths of the user; the solver learns their problems with a solution.
    """
    ranks = RANKS if loop.config.orm.solver_steps else ()
    keys = (*SOLVER_KEYS, *ranks, *list_orm_teaching_keys(loop.config))
    stage = loop.context.run.stage("orm/solver", keys, [loop.base.stage, *students])
    loop.context.begin(stage, "the ORM's starting point: a solver of its own problems")
    if not stage.done:
        if loop.config.orm.backbone is None:
            backbone = loop.models.open_for_training(loop.base.checkpoint)
        else:
            backbone = loop.models.open_for_training(orm=True)
        problems = loop.problems.splits["orm_train"]
        if data:  # each problem once
            problems = list({row.problem.id: row.problem for row in data.train if row.problem.solution}.values())
        solutions = _collect_solutions(loop, problems)
        if loop.config.orm.solver_steps and solutions:
            missed: set[str] = set()  # problems with a wrong path of the last weak student
            if students:
                paths = list(read_jsonl(students[-1].path / PATHS, ReasoningPath))
                labelled = label(paths, loop.problems.by_id, make_labeller(loop))
                missed = {path.problem_id for path, truth in labelled if truth.status != "correct"}
            # The number of steps is fixed, so the fit sees these problems three times as often.
            weighted = solutions + 2 * [pair for pair in solutions if pair[0].id in missed]
            dev = make_solution_rows(backbone.prompt_style, loop.problems.splits["dev"])
            _fit_on_solutions(loop, stage, backbone, weighted, loop.config.orm.solver_steps, dev, jitter=True)
        elif not (stage.path / CHECKPOINT).exists():
            save_checkpoint(backbone, stage.path / CHECKPOINT, unchanged=True)
        # The solutions of the weak students are among these.
        stage.finish({"solutions": len(solutions), ASKED: sum(not problem.solution for problem in problems)})
    return stage


# --- solutions --------------------------------------------------------------------------------------------------------


def _collect_solutions(loop: EvolutionRun, problems: Sequence[Problem]) -> list[tuple[Problem, str]]:
    """Return each problem with its reference solution, or with the teacher's solution. Problems without either are left
    out."""
    missing = [problem for problem in problems if not problem.solution]
    by_teacher: dict[str, str | None] = {}
    if missing:
        ids = (problem.id for problem in missing)
        by_teacher = dict(zip(ids, loop.models.teacher.solve(missing), strict=True))
    solutions = []
    for problem in problems:
        text = problem.solution or by_teacher[problem.id]
        if text:
            solutions.append((problem, text))
    return solutions


def _fit_on_solutions(
    loop: EvolutionRun,
    stage: Stage,
    backbone: Backbone,
    solutions: Sequence[tuple[Problem, str]],
    steps: int,
    val_rows: Sequence[Row] = (),
    checkpoint_dtype: torch.dtype | None = None,
    jitter: bool = False,
) -> None:
    """Train on solutions, with the student's settings at another length.

    Args:
        steps: optimiser steps.
        jitter: whether ``orm.jitter`` applies to the pictures.
    """
    settings = {field.name: getattr(loop.config.sft, field.name) for field in fields(Fit)}
    rows = [solve_row(backbone.prompt_style, problem, text) for problem, text in solutions]
    loop.models.fit(
        backbone,
        stage,
        _jitter_pictures(loop, stage, rows) if jitter else rows,
        Fit(**{**settings, "max_steps": steps, "epochs": None}),
        label=f"fit on {len(solutions)} solutions",
        val_rows=val_rows,
        checkpoint_dtype=checkpoint_dtype,
    )


def _jitter_pictures(loop: EvolutionRun, stage: Stage, rows: Sequence[Row]) -> Sequence[Row]:
    """Return the rows with their pictures moved, turned and slanted, if ``orm.jitter`` is set. A row keeps its picture
    for the whole fit."""
    jittered = getattr(loop.problems.source, "jittered", None)
    if not loop.config.orm.jitter or jittered is None:
        return rows
    draw = rng(loop.context.derive_seed(stage, "rows"), "jitter")
    return [with_jitter(row, jittered, draw) for row in rows]


# --- labelled paths ---------------------------------------------------------------------------------------------------


def _label_paths(loop: EvolutionRun, students: Sequence[Stage], split: str, file: str) -> list[Labelled]:
    """Return the weak students' paths on a split with their labels, in equal numbers of correct and wrong paths.

    A wrong path that only its answer labels gets a wrong step and an analysis from the teacher. This comes after
    balancing, because each annotation may cost money.
    """
    paths: list[ReasoningPath] = []
    for stage in students:
        paths += read_jsonl(stage.path / file, ReasoningPath)
    if loop.config.orm.references:
        problems = loop.problems.splits[split]
        paths += [solution_path(problem, f"orm/{split}") for problem in problems if problem.solution]
    labelled = balance(label(paths, loop.problems.by_id, make_labeller(loop)), loop.config.seed)

    unexplained = _find_unexplained(labelled)
    wrong = [labelled[k][0] for k in unexplained]
    problems = [loop.problems.by_id[path.problem_id] for path in wrong]
    annotations = loop.models.teacher.annotate(problems, wrong) if wrong else []
    for k, annotation in zip(unexplained, annotations, strict=True):
        path, truth = labelled[k]
        analysis = annotation.error_analysis or truth.error_analysis
        labelled[k] = path, replace(truth, error_step=annotation.error_step, error_analysis=analysis)
    return labelled


def _find_unexplained(labelled: Sequence[Labelled]) -> list[int]:
    """Return the positions of wrong paths that only their answer labels. The teacher explains them, and the explanation
    does not change the result."""
    return [k for k, (_, truth) in enumerate(labelled) if truth.status == "wrong" and truth.judge == AnswerJudge.name]


# --- the ORM ----------------------------------------------------------------------------------------------------------


def _fit_orm(loop: EvolutionRun, stage: Stage, solver: Stage, labelled: Sequence[Labelled]) -> str | None:
    """Train the ORM. If there is no labelled path, the solver is the ORM.

    Returns:
        A note about missing training data; None if nothing is missing.
    """
    settings = loop.config.orm
    checkpoint = stage.path / CHECKPOINT
    note = None
    if labelled:
        backbone = loop.models.open_for_training(solver.path / CHECKPOINT, orm=True)
        source, problems, style = loop.problems.source, loop.problems.by_id, backbone.prompt_style

        # 1) A row per labelled path. With own_answer, a row per problem too, so that the ORM keeps learning to solve.
        rows = []
        for path, truth in labelled:
            row = training_row(style, problems[path.problem_id], path.text, truth, settings)
            rows.append(Row(**row, id=path.id))
        if settings.own_answer:
            solved = dict.fromkeys(path.problem_id for path, _ in labelled if problems[path.problem_id].solution)
            rows += [Row(**solve_row(style, problems[key], problems[key].solution), id=key) for key in solved]
            if not solved:
                note = "no problem of its paths has a solution, so its fit does not teach it to solve (orm.own_answer)"

        # 2) Validation on made-up errors in solutions of dev problems: their pictures are in no other row.
        val_rows = []
        if hasattr(source, "corrupt"):
            draw = random.Random(0)
            wrong = [(problem, source.corrupt(problem, draw)) for problem in loop.problems.splits["dev"]]
            for problem, text in wrong:
                val_rows.append(training_row(style, problem, text, source.check(problem, text), settings))

        loop.models.fit(
            backbone,
            stage,
            _jitter_pictures(loop, stage, rows),
            settings.fit,
            label=f"fit on {len(labelled)} labelled paths",
            val_rows=val_rows,
            stream=partial(_open_stream, loop, stage, backbone),
            status_tokens=status_tokens(backbone),
            checkpoint_dtype=loop.models.find_stored_dtype(orm=True),
        )
    else:
        note = "no right or no wrong path among the samples, so there is nothing balanced to fit the ORM on"
        stages.carry_on(solver.path / CHECKPOINT, checkpoint)
    write_json(checkpoint / ORM_FILE, {key: getattr(settings, key) for key in FORM})
    return note


def _open_stream(loop: EvolutionRun, stage: Stage, backbone: Backbone, rows: Sequence[Row]) -> Stream:
    """Return the batches of the ORM's fit. If the data source can make up errors, rows with such errors come before the
    labelled paths."""
    settings, source = loop.config.orm, loop.problems.source
    epochs = EpochStream(rows, settings.fit.batch_size, loop.context.derive_seed(stage, "rows"))
    augments = hasattr(source, "corrupt") and settings.augment > 0 and settings.train is None
    if not augments or settings.fit.max_steps is None:
        return epochs
    problems = loop.problems.splits["orm_train"]
    jittered = source.jittered if settings.jitter else None
    make = MadeUpRows(backbone.prompt_style, problems, settings, source.corrupt, source.check, jittered)
    return MixedStream(epochs, make, settings.augment, settings.fit.max_steps)
