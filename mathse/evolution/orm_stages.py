"""How the Outcome Reward Model comes to be: weak students, a solver of its own problems, then the ORM itself.

PAPER: where the 30K wrong paths come from is not said; ours are drawn from weak students on problems of their own
(V-STaR gathers them from its generators likewise), labelled by the source's step checker or by answer match. With
``orm.train`` somebody else has gathered and labelled them, and there are no weak students.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from mathse.config.fits import Fit
from mathse.config.schema import needs_orm
from mathse.data.labelled import Given, LabelledPath, read_given
from mathse.errors import DataError
from mathse.evolution import stages
from mathse.evolution.keys import COMMON, JUDGING, orm_teaching_keys, sampling_keys
from mathse.evolution.measure import explained, judge_held, labeller
from mathse.evolution.standing import Evolution
from mathse.evolution.state import Judged
from mathse.evolution.student import Student
from mathse.evolution.training_rows import solution_rows
from mathse.inference.rows import solve_row
from mathse.judges.orm import status_tokens
from mathse.judges.orm_rows import FORM, Labelled, balance, label, made_up_rows, solution_path, training_row
from mathse.models.row import Row
from mathse.runs.layout import CHECKPOINT, FEEDBACK, HELD_PATHS, METRICS, ORM_FILE, ORM_METRICS, PATHS
from mathse.runs.stage_cache import Stage
from mathse.runs.store import read_jsonl, write_json, write_jsonl
from mathse.training.batches import EpochStream, MixedStream, Stream
from mathse.training.fit import save_checkpoint
from mathse.types import Problem, ReasoningPath

# Variants of the ORM itself (order, kind, length of its fit) share the weak students and the solver.
STUDENT_KEYS = (*COMMON, "sft", "orm.student_steps", "orm.samples_per_problem", "orm.temperature")
SOLVER_KEYS = (*COMMON, "sft", "orm.students", "orm.solver_steps", "orm.backbone", "orm.train_sha256")
KEYS = (*COMMON, "orm", *JUDGING)


def given_rows(loop: Evolution) -> Given | None:
    """The user's rows, where the ORM learns from such; their problems are known to the run from now on."""
    settings = loop.config.orm
    if settings.train is None or settings.held is None or not needs_orm(loop.config):
        return None
    given = read_given(Path(settings.train), Path(settings.held), loop.problems.source.get)
    for file, rows in ((settings.train, given.train), (settings.held, given.held)):
        for row in rows:
            if loop.problems.by_id.setdefault(row.problem.id, row.problem) != row.problem:
                raise DataError(
                    f"{file}:{row.line}: problem {row.problem.id!r} is another one in the run's own data; give it "
                    'another "problem_id", or leave "question" out to take that one'
                )
    return given


def train_orm(loop: Evolution, given: Given | None) -> list[Stage]:
    """The stages of the ORM; none where nothing asks it or ``judge.checkpoint`` brings one."""
    if not needs_orm(loop.config) or loop.config.judge.checkpoint is not None:
        return []
    students = [] if given else [weak_student(loop, size) for size in loop.config.orm.students]
    solver = fit_solver(loop, students, given)
    stage = loop.context.run.stage("orm", (*KEYS, *orm_teaching_keys(loop.config)), [*students, solver])
    loop.context.begin(stage, "the Outcome Reward Model learns to name the wrong step")
    if not stage.done:
        labelled = _pairs(given.train) if given else _labelled(loop, students, "orm_train", PATHS)
        write_jsonl(stage.path / FEEDBACK, [Judged(path, word) for path, word in labelled])
        note = _fit_orm(loop, stage, solver, labelled)
        held = _pairs(given.held) if given else _labelled(loop, students, "orm_held", HELD_PATHS)
        figures = judge_held(loop, stage, loop.models.orm, held, stage.path / METRICS)
        (stage.path / ORM_METRICS).unlink(missing_ok=True)
        read = [student.path / name for student in students for name in (PATHS, HELD_PATHS)]
        stage.finish({"training_paths": len(labelled), "note": note, **figures}, read)
        loop.context.logger.stage_finished(stage)
    if stage.summary["note"]:
        loop.context.notes.append(f"orm: {stage.summary['note']}")
    return [stage]


def weak_student(loop: Evolution, size: int) -> Stage:
    """A student fitted on ``size`` solutions (0: the base as it is), and its paths on the ORM's problems."""
    keys = (*STUDENT_KEYS, *sampling_keys(loop.config), *orm_teaching_keys(loop.config))
    stage = loop.context.run.stage(f"orm/student_{size}", keys, [loop.base.stage])
    loop.context.begin(stage, f"a weak student ({size} solutions) writes paths for the ORM to learn from")
    if not stage.done:
        source = Student(stage)
        rows = _solutions(loop, loop.problems.splits["orm_train"][:size])
        if rows:
            backbone = loop.models.backbone(loop.base.checkpoint)
            loop.models.fit(
                backbone,
                stage,
                [solve_row(backbone.prompt_style, p, text) for p, text in rows],
                _fit_settings(loop, loop.config.orm.student_steps),
                what=f"fit on {len(rows)} solutions",
            )
        else:
            stages.carry_on(loop.base.checkpoint, source.checkpoint)
        for split, name in (("orm_train", "paths"), ("orm_held", "held_paths")):
            _sample(loop, stage, source, loop.problems.splits[split], name)
        stage.finish({"solutions": len(rows)})
    return stage


def fit_solver(loop: Evolution, students: Sequence[Stage], given: Given | None) -> Stage:
    """The ORM's starting point: a solver of its own problems, those that the last weak student got wrong thrice.

    It brings the perception and arithmetic that the ORM's loss alone does not teach, and its weak facts are the ORM's:
    from a solver with 98.4 % right sums the same fit found 83 % of the wrong paths, from one with 99.4 % 93 %.
    ``orm.solver_steps = 0`` starts from the base. Of ``given`` problems those are drilled whose rows have a solution.
    """
    keys = (*SOLVER_KEYS, *orm_teaching_keys(loop.config))
    stage = loop.context.run.stage("orm/solver", keys, [loop.base.stage, *students])
    loop.context.begin(stage, "the ORM's starting point: a solver of its own problems")
    if not stage.done:
        like_student = loop.config.orm.backbone is None
        backbone = loop.models.backbone(loop.base.checkpoint) if like_student else loop.models.backbone(orm=True)
        rows = _solutions(loop, _with_solutions(given) if given else loop.problems.splits["orm_train"])
        if loop.config.orm.solver_steps and rows:
            hard = _missed(loop, students)
            drilled = rows + 2 * [row for row in rows if row[0].id in hard]
            loop.models.fit(
                backbone,
                stage,
                [solve_row(backbone.prompt_style, p, text) for p, text in drilled],
                _fit_settings(loop, loop.config.orm.solver_steps),
                what=f"fit on {len(drilled)} solutions",
                val_rows=solution_rows(backbone.prompt_style, loop.problems.splits["dev"]),
            )
        elif not (stage.path / CHECKPOINT).exists():
            save_checkpoint(backbone, stage.path / CHECKPOINT)
        stage.finish({"solutions": len(rows)})
    return stage


def _fit_settings(loop: Evolution, steps: int) -> Fit:
    """The student's settings at another length."""
    kept = {f.name: getattr(loop.config.sft, f.name) for f in fields(Fit)}
    return Fit(**{**kept, "max_steps": steps, "epochs": None})


def _solutions(loop: Evolution, problems: Sequence[Problem]) -> list[tuple[Problem, str]]:
    """Each problem with its reference solution, else the teacher's; problems without either are left out."""
    missing = [p for p in problems if not p.solution]
    taught = dict(zip((p.id for p in missing), loop.models.teacher.solve(missing), strict=True)) if missing else {}
    both = ((p, p.solution or taught[p.id]) for p in problems)
    return [(p, text) for p, text in both if text]


def _with_solutions(given: Given) -> list[Problem]:
    """The problems of the training rows that come with a solution, once each."""
    return list({row.problem.id: row.problem for row in given.train if row.problem.solution}.values())


def _pairs(rows: Sequence[LabelledPath]) -> list[Labelled]:
    return [(row.path, row.label) for row in rows]


def _sample(loop: Evolution, stage: Stage, student: Student, problems: Sequence[Problem], name: str) -> None:
    n = loop.config.orm.samples_per_problem
    with loop.context.work(stage, "sample", f"weak student's {name.replace('_', ' ')}", len(problems) * n) as advance:
        loop.models.generator.sample(
            loop.models.of(student),
            problems,
            stage.path / f"{name}.jsonl",
            n=n,
            stage=f"{stage.name}/{name}",
            model=student.name,
            seed=loop.config.seed,
            temperature=loop.config.orm.temperature,
            advance=advance,
        )


def _labelled(loop: Evolution, students: Sequence[Stage], split: str, file: str) -> list[Labelled]:
    paths = [path for stage in students for path in read_jsonl(stage.path / file, ReasoningPath)]
    if loop.config.orm.references:
        paths += [solution_path(p, f"orm/{split}") for p in loop.problems.splits[split] if p.solution]
    return explained(loop, balance(label(paths, loop.problems.by_id, labeller(loop)), loop.config.seed))


def _missed(loop: Evolution, students: Sequence[Stage]) -> set[str]:
    """Problems whose path by the last weak student is wrong."""
    if not students:
        return set()
    paths = list(read_jsonl(students[-1].path / PATHS, ReasoningPath))
    labelled = label(paths, loop.problems.by_id, labeller(loop))
    return {path.problem_id for path, verdict in labelled if verdict.status != "correct"}


def _fit_orm(loop: Evolution, stage: Stage, solver: Stage, labelled: Sequence[Labelled]) -> str | None:
    """Fit the ORM, or carry the solver on where there is no balanced path to learn from; the reason, if so."""
    settings = loop.config.orm
    checkpoint = stage.path / CHECKPOINT
    note = None
    if labelled:
        backbone = loop.models.backbone(solver.path / CHECKPOINT, orm=True)
        problems, style = loop.problems.by_id, backbone.prompt_style
        rows = [
            Row(**training_row(style, problems[path.problem_id], path.text, verdict, settings), id=path.id)
            for path, verdict in labelled
        ]
        loop.models.fit(
            backbone,
            stage,
            rows,
            settings.fit,
            what=f"fit on {len(rows)} labelled paths",
            val_rows=_val_rows(loop, backbone),
            stream=partial(_stream, loop, stage, backbone),
            status_tokens=status_tokens(backbone),
        )
    else:
        note = "no right or no wrong path among the samples, so there is nothing balanced to fit the ORM on"
        loop.context.progress.say(f"orm: {note}")
        stages.carry_on(solver.path / CHECKPOINT, checkpoint)
    write_json(checkpoint / ORM_FILE, {key: getattr(settings, key) for key in FORM})
    return note


def _val_rows(loop: Evolution, backbone: Any) -> list[Any]:
    """Made from dev problems, whose pictures neither the ORM's training nor its held-out paths show."""
    source = loop.problems.source
    if not hasattr(source, "corrupt"):
        return []
    draw = random.Random(0)
    texts = [(p, source.corrupt(p, draw)) for p in loop.problems.splits["dev"]]
    return [training_row(backbone.prompt_style, p, text, source.check(p, text), loop.config.orm) for p, text in texts]


def _stream(loop: Evolution, stage: Stage, backbone: Any, rows: Sequence[Any]) -> Stream:
    """The labelled paths, and before them rows with made-up errors where the source can make such."""
    settings = loop.config.orm
    epochs = EpochStream(rows, settings.fit.batch_size, loop.context.seed(stage, "rows"))
    source = loop.problems.source
    made_up = hasattr(source, "corrupt") and settings.augment > 0 and settings.train is None
    if not made_up or settings.fit.max_steps is None:
        return epochs
    problems = loop.problems.splits["orm_train"]
    make = made_up_rows(backbone.prompt_style, problems, settings, source.corrupt, source.check)
    return MixedStream(epochs, make, settings.augment, settings.fit.max_steps)
