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
from typing import TYPE_CHECKING, Any

from mathse.config.fits import Fit
from mathse.config.schema import needs_orm
from mathse.data.labelled import Given, LabelledPath, read_given
from mathse.errors import DataError
from mathse.evolution import stages
from mathse.evolution.keys import COMMON, JUDGING, orm_teaching_keys, sampling_keys
from mathse.evolution.lab import Lab, Student
from mathse.evolution.measure import explained, judge_held, labeller
from mathse.evolution.state import Judged
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

if TYPE_CHECKING:
    from mathse.evolution.loop import EvolutionLoop

# Variants of the ORM itself (order, kind, length of its fit) share the weak students and the solver.
STUDENT_KEYS = (*COMMON, "sft", "orm.student_steps", "orm.samples_per_problem", "orm.temperature")
SOLVER_KEYS = (*COMMON, "sft", "orm.students", "orm.solver_steps", "orm.backbone", "orm.train_sha256")
KEYS = (*COMMON, "orm", *JUDGING)


def given_rows(lab: Lab) -> Given | None:
    """The user's rows, where the ORM learns from such; their problems are known to the lab from now on."""
    settings = lab.config.orm
    if settings.train is None or settings.held is None or not needs_orm(lab.config):
        return None
    given = read_given(Path(settings.train), Path(settings.held), lab.source.get)
    for file, rows in ((settings.train, given.train), (settings.held, given.held)):
        for row in rows:
            if lab.problems.setdefault(row.problem.id, row.problem) != row.problem:
                raise DataError(
                    f"{file}:{row.line}: problem {row.problem.id!r} is another one in the run's own data; give it "
                    'another "problem_id", or leave "question" out to take that one'
                )
    return given


def train_orm(loop: EvolutionLoop, given: Given | None) -> list[Stage]:
    """The stages of the ORM; none where nothing asks it or ``judge.checkpoint`` brings one."""
    lab = loop.lab
    if not needs_orm(lab.config) or lab.config.judge.checkpoint is not None:
        return []
    students = [] if given else [weak_student(loop, size) for size in lab.config.orm.students]
    solver = fit_solver(loop, students, given)
    stage = lab.run.stage("orm", (*KEYS, *orm_teaching_keys(lab.config)), [*students, solver])
    stages.begin(loop, stage, "the Outcome Reward Model learns to name the wrong step")
    if not stage.done:
        labelled = _pairs(given.train) if given else _labelled(lab, students, "orm_train", PATHS)
        write_jsonl(stage.path / FEEDBACK, [Judged(path, word) for path, word in labelled])
        note = _fit_orm(lab, stage, solver, labelled)
        held = _pairs(given.held) if given else _labelled(lab, students, "orm_held", HELD_PATHS)
        figures = judge_held(lab, stage, lab.orm, held, stage.path / METRICS)
        (stage.path / ORM_METRICS).unlink(missing_ok=True)
        read = [student.path / name for student in students for name in (PATHS, HELD_PATHS)]
        stage.finish({"training_paths": len(labelled), "note": note, **figures}, read)
        lab.stage_finished(stage)
    if stage.summary["note"]:
        lab.notes.append(f"orm: {stage.summary['note']}")
    return [stage]


def weak_student(loop: EvolutionLoop, size: int) -> Stage:
    """A student fitted on ``size`` solutions (0: the base as it is), and its paths on the ORM's problems."""
    lab = loop.lab
    keys = (*STUDENT_KEYS, *sampling_keys(lab.config), *orm_teaching_keys(lab.config))
    stage = lab.run.stage(f"orm/student_{size}", keys, [loop.base.stage])
    stages.begin(loop, stage, f"a weak student ({size} solutions) writes paths for the ORM to learn from")
    if not stage.done:
        source = Student(stage)
        rows = _solutions(lab, lab.splits["orm_train"][:size])
        if rows:
            backbone = lab.backbone(loop.base.checkpoint)
            lab.fit(
                backbone,
                stage,
                [solve_row(backbone.prompt_style, p, text) for p, text in rows],
                _fit_settings(lab, lab.config.orm.student_steps),
                what=f"fit on {len(rows)} solutions",
            )
        else:
            stages.carry_on(loop.base.checkpoint, source.checkpoint)
        for split, name in (("orm_train", "paths"), ("orm_held", "held_paths")):
            _sample(lab, stage, source, lab.splits[split], name)
        stage.finish({"solutions": len(rows)})
    return stage


def fit_solver(loop: EvolutionLoop, students: Sequence[Stage], given: Given | None) -> Stage:
    """The ORM's starting point: a solver of its own problems, those that the last weak student got wrong thrice.

    It brings the perception and arithmetic that the ORM's loss alone does not teach, and its weak facts are the ORM's:
    from a solver with 98.4 % right sums the same fit found 83 % of the wrong paths, from one with 99.4 % 93 %.
    ``orm.solver_steps = 0`` starts from the base. Of ``given`` problems those are drilled whose rows have a solution.
    """
    lab = loop.lab
    keys = (*SOLVER_KEYS, *orm_teaching_keys(lab.config))
    stage = lab.run.stage("orm/solver", keys, [loop.base.stage, *students])
    stages.begin(loop, stage, "the ORM's starting point: a solver of its own problems")
    if not stage.done:
        backbone = lab.backbone(loop.base.checkpoint) if lab.config.orm.backbone is None else lab.backbone(orm=True)
        rows = _solutions(lab, _with_solutions(given) if given else lab.splits["orm_train"])
        if lab.config.orm.solver_steps and rows:
            hard = _missed(lab, students)
            drilled = rows + 2 * [row for row in rows if row[0].id in hard]
            lab.fit(
                backbone,
                stage,
                [solve_row(backbone.prompt_style, p, text) for p, text in drilled],
                _fit_settings(lab, lab.config.orm.solver_steps),
                what=f"fit on {len(drilled)} solutions",
                val_rows=lab.solution_rows(backbone, "dev"),
            )
        elif not (stage.path / CHECKPOINT).exists():
            save_checkpoint(backbone, stage.path / CHECKPOINT)
        stage.finish({"solutions": len(rows)})
    return stage


def _fit_settings(lab: Lab, steps: int) -> Fit:
    """The student's settings at another length."""
    kept = {f.name: getattr(lab.config.sft, f.name) for f in fields(Fit)}
    return Fit(**{**kept, "max_steps": steps, "epochs": None})


def _solutions(lab: Lab, problems: Sequence[Problem]) -> list[tuple[Problem, str]]:
    """Each problem with its reference solution, else the teacher's; problems without either are left out."""
    missing = [p for p in problems if not p.solution]
    taught = dict(zip((p.id for p in missing), lab.teacher.solve(missing), strict=True)) if missing else {}
    both = ((p, p.solution or taught[p.id]) for p in problems)
    return [(p, text) for p, text in both if text]


def _with_solutions(given: Given) -> list[Problem]:
    """The problems of the training rows that come with a solution, once each."""
    return list({row.problem.id: row.problem for row in given.train if row.problem.solution}.values())


def _pairs(rows: Sequence[LabelledPath]) -> list[Labelled]:
    return [(row.path, row.label) for row in rows]


def _sample(lab: Lab, stage: Stage, student: Student, problems: Sequence[Problem], name: str) -> None:
    n = lab.config.orm.samples_per_problem
    with lab.work(stage, "sample", f"weak student's {name.replace('_', ' ')}", len(problems) * n) as advance:
        lab.generator.sample(
            lab.model_of(student),
            problems,
            stage.path / f"{name}.jsonl",
            n=n,
            stage=f"{stage.name}/{name}",
            model=f"{stage.name}/{CHECKPOINT}",
            seed=lab.config.seed,
            temperature=lab.config.orm.temperature,
            advance=advance,
        )


def _labelled(lab: Lab, students: Sequence[Stage], split: str, file: str) -> list[Labelled]:
    paths = [path for stage in students for path in read_jsonl(stage.path / file, ReasoningPath)]
    if lab.config.orm.references:
        paths += [solution_path(p, f"orm/{split}") for p in lab.splits[split] if p.solution]
    return explained(lab, balance(label(paths, lab.problems, labeller(lab)), lab.config.seed))


def _missed(lab: Lab, students: Sequence[Stage]) -> set[str]:
    """Problems whose path by the last weak student is wrong."""
    if not students:
        return set()
    paths = list(read_jsonl(students[-1].path / PATHS, ReasoningPath))
    return {path.problem_id for path, word in label(paths, lab.problems, labeller(lab)) if word.status != "correct"}


def _fit_orm(lab: Lab, stage: Stage, solver: Stage, labelled: Sequence[Labelled]) -> str | None:
    """Fit the ORM, or carry the solver on where there is no balanced path to learn from; the reason, if so."""
    settings = lab.config.orm
    checkpoint = stage.path / CHECKPOINT
    note = None
    if labelled:
        backbone = lab.backbone(solver.path / CHECKPOINT, orm=True)
        rows = [
            Row(**training_row(backbone.prompt_style, lab.problems[p.problem_id], p.text, word, settings), id=p.id)
            for p, word in labelled
        ]
        lab.fit(
            backbone,
            stage,
            rows,
            settings.fit,
            what=f"fit on {len(rows)} labelled paths",
            val_rows=_val_rows(lab, backbone),
            stream=partial(_stream, lab, stage, backbone),
            status_tokens=status_tokens(backbone),
        )
    else:
        note = "no right or no wrong path among the samples, so there is nothing balanced to fit the ORM on"
        lab.progress.say(f"orm: {note}")
        stages.carry_on(solver.path / CHECKPOINT, checkpoint)
    write_json(checkpoint / ORM_FILE, {key: getattr(settings, key) for key in FORM})
    return note


def _val_rows(lab: Lab, backbone: Any) -> list[Any]:
    """Made from dev problems, whose pictures neither the ORM's training nor its held-out paths show."""
    problems = lab.splits["dev"]
    if not hasattr(lab.source, "corrupt"):
        return []
    draw = random.Random(0)
    texts = [(p, lab.source.corrupt(p, draw)) for p in problems]
    return [
        training_row(backbone.prompt_style, p, text, lab.source.check(p, text), lab.config.orm) for p, text in texts
    ]


def _stream(lab: Lab, stage: Stage, backbone: Any, rows: Sequence[Any]) -> Stream:
    """The labelled paths, and before them rows with made-up errors where the source can make such."""
    settings = lab.config.orm
    epochs = EpochStream(rows, settings.fit.batch_size, lab.seed(stage, "rows"))
    made_up = hasattr(lab.source, "corrupt") and settings.augment > 0 and settings.train is None
    if not made_up or settings.fit.max_steps is None:
        return epochs
    problems = lab.splits["orm_train"]
    make = made_up_rows(backbone.prompt_style, problems, settings, lab.source.corrupt, lab.source.check)
    return MixedStream(epochs, make, settings.augment, settings.fit.max_steps)
