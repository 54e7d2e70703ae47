"""The stages of a run, each a function from files to files. ``open_*`` lists the settings that a stage depends on.

How the ORM's own stages are made is in orm_stages.py, reflection in reflect.py.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from mathse.config.evolution import ReflectConfig
from mathse.config.fits import FitStage
from mathse.config.judges import judge_named
from mathse.config.schema import is_fitted_on
from mathse.data.problems import to_distill
from mathse.evolution.decontamination import decontamination_keys
from mathse.evolution.difficulty import beginnings, draw_by_failure, failure_rates, problems_to_sample
from mathse.evolution.evolution_run import EvolutionRun, round_name
from mathse.evolution.exposure import Exposure, falling_loss, warnings
from mathse.evolution.filter import leave_out_listed, list_unusable, unread_pictures, unreadable_images
from mathse.evolution.keys import COMMON, fitting_keys, judging_keys, student_keys, teaching_keys, updating_keys
from mathse.evolution.measure import acceptance, measure_student
from mathse.evolution.preferences import Preference, preference_row, preferences
from mathse.evolution.sources import record_sources
from mathse.evolution.state import Judged, judged_rows
from mathse.evolution.student import Student
from mathse.evolution.teacher_calls import asked_of_teacher
from mathse.evolution.training_rows import solution_rows, training_rows
from mathse.judges import judge_paths
from mathse.judges.teachers import MAX_ROWS_A_CALL, group_into_calls, prompt_version
from mathse.judges.teachers.student import StudentTeacher
from mathse.reporting.progress.outlook import Unit
from mathse.runs.layout import (
    CHECKPOINT,
    DEV_PREDICTIONS,
    FIRST_FIT,
    INCORRECT,
    METRICS,
    PATHS,
    PREDICTIONS,
    PREFERENCES,
    SCRATCH,
    SKIPPED_FIT,
    TOO_LONG,
    TRAIN,
    TRAIN_LOG,
    VERDICTS,
)
from mathse.runs.reader import read_stage
from mathse.runs.rows import JsonlRows, Mapped
from mathse.runs.stage_cache import Stage
from mathse.runs.store import BatchLog, publish_folder, read_json, read_jsonl, write_json, write_jsonl
from mathse.runs.teacher_calls import ASKED
from mathse.scoring.metrics import transitions
from mathse.seeds import rng
from mathse.training.fit import save_checkpoint
from mathse.types import Lineage, Origin, Problem, ReasoningPath

REFLECTION = "reflection"  # the stage; of a round: round_01/reflection


# --- opening stages ---------------------------------------------------------------------------------------------------


def open_distill(loop: EvolutionRun) -> Stage:
    config = loop.config
    judging = judging_keys(config, "distill.judge")
    student = student_keys(config) if config.task == "distill" else fitting_keys(config, "distill")
    keys = (*student, *teaching_keys(config), "distill.size", *judging)
    return _open(loop, "distill", "the teacher solves, the judge filters, the student is distilled", keys)


def open_round(loop: EvolutionRun) -> Stage:
    config = loop.config
    has_rewrites = loop.round > 1 and config.evolution.reflect.when == "every"  # among D_SFT
    keys = (
        *fitting_keys(config, "round"),
        *judging_keys(config, "judge"),
        *(f"evolution.{name}" for name in ("init", "samples_per_problem", "keep", "round", "resample")),
        *(("evolution.reflect.row",) if has_rewrites else ()),
        *updating_keys(config),
        "callbacks",
    )
    description = f"self-evolving round {loop.round} of {loop.rounds}: sample, judge, merge, refit"
    return _open(loop, loop.round_name, description, keys)


def open_reflection(loop: EvolutionRun, name: str) -> Stage:
    config = loop.config
    keys = (
        *student_keys(config),
        *teaching_keys(config),
        *judging_keys(config, "judge"),
        "evolution.rounds",
        "evolution.keep",
        # without row, which says how a later fit reads the rewrites
        *(f"evolution.reflect.{field.name}" for field in fields(ReflectConfig) if field.name != "row"),
        "callbacks",
    )
    return _open(loop, name, "wrong paths are rewritten, judged and merged", keys)


def is_reflection(stage: Stage) -> bool:
    return Path(stage.name).name == REFLECTION


def open_final(loop: EvolutionRun) -> Stage:
    config = loop.config
    keys = (
        *fitting_keys(config, "final"),
        *updating_keys(config),
        "evolution.rounds",
        "evolution.reflect",
        "callbacks",
    )
    return _open(loop, "final", "the final student, on all that was accepted", keys)


def open_sft(loop: EvolutionRun) -> Stage:
    return _open(loop, "sft", "one fit on the rows of sft.train", fitting_keys(loop.config))


def _open(loop: EvolutionRun, name: str, description: str, keys: Sequence[str]) -> Stage:
    after = [loop.student.stage, *loop.orm_stages]
    if loop.state_stage is not None and loop.state_stage.name != loop.student.stage.name:
        after.append(loop.state_stage)  # a reflection: D_SFT goes on from it, the student from the stage before it
    stage = loop.context.run.stage(name, keys, after)
    loop.context.begin(stage, description)
    return stage


# --- what stages do ---------------------------------------------------------------------------------------------------


def base(loop: EvolutionRun) -> Student:
    """The untrained student and its accuracy."""
    context, problems = loop.context, loop.problems
    stage = context.run.stage("base", (*COMMON, "evaluation", *decontamination_keys(loop.config)))
    context.begin(stage, "the student before any training")
    if not stage.done:
        student = Student(stage)
        if not student.checkpoint.exists():
            bad_rows = unread_pictures(context, problems)
            skipped = {row["id"] for row in bad_rows}
            bad_rows += [row for row in unreadable_images(context, problems) if row["id"] not in skipped]
            backbone = loop.models.backbone()
            list_unusable(context, problems, stage, backbone, bad_rows)
            save_checkpoint(backbone, student.checkpoint, unchanged=True, plain=loop.models.served is not None)
            del backbone
        leave_out_listed(context, problems, stage)
        record_sources(context, problems, stage)
        measure_student(loop, stage, student)
        nothing: dict[str, Any] = {"train_rows": 0, **NOTHING_JUDGED, "origins": {}, ASKED: 0, "exposure": None}
        stage.finish({"stage": "base", **_accuracy(stage), **nothing, "transitions": None, "skipped_fit": None})
        context.loggers.stage_finished(stage)
    else:
        leave_out_listed(context, problems, stage)
    return Student(stage)


def solve_and_judge(loop: EvolutionRun, problems: Sequence[Problem] | None = None) -> Sequence[Judged]:
    """Alg. 1 line 1: the teacher answers a subset of D; the judge filters (Figure 3)."""
    stage, teacher, size = loop.stage, loop.models.teacher, loop.config.distill.size
    chosen = to_distill(loop.problems.splits, size) if problems is None else problems[:size]
    batches = [chosen[k : k + MAX_ROWS_A_CALL] for k in range(0, len(chosen), MAX_ROWS_A_CALL)]
    log = BatchLog(stage.path / PATHS, [len(b) for b in batches])

    def path(problem: Problem, text: str | None) -> ReasoningPath:
        prompt = prompt_version(teacher, "generate", problem)
        lineage = Lineage("teacher", stage.name, loop.teacher_name, prompt=prompt)
        # an unusable answer is an empty path, so that it is judged and counted
        return ReasoningPath(f"{stage.name}/{problem.id}/0", problem.id, text or "", lineage)

    unit: Unit = "sample" if isinstance(teacher, StudentTeacher) else "ask"
    with loop.context.work(stage, "sample", "teacher's solutions", len(chosen), unit) as advance:
        for call in group_into_calls(teacher, batches[log.done :]):
            in_call = [problem for batch in call for problem in batch]
            paths = map(path, in_call, teacher.solve(in_call))
            for batch in call:
                log.append(list(islice(paths, len(batch))))
                advance(len(batch))
    return judge(loop, JsonlRows(log.path, ReasoningPath), loop.config.distill.judge)


def sample_paths(loop: EvolutionRun) -> Sequence[ReasoningPath]:
    """Alg. 1 line 7: the last student writes paths on D_remain, or on a sample of it; see difficulty.py for others."""
    stage, evolution = loop.stage, loop.config.evolution
    dev_accuracy = {entry["stage"]: entry["dev_accuracy"] for entry in loop.entries}
    chosen = problems_to_sample(loop.state, evolution.resample, dev_accuracy, loop.student.stage.name)
    size = evolution.round.sample_size
    if size is not None and size < len(chosen):
        draw = rng(loop.context.seed(stage, "problems"))
        if evolution.round.draw == "uniform":
            chosen = sorted(draw.sample(chosen, size))
        else:
            earlier = [read_stage(loop.context.run.path / round_name(k)) for k in range(1, loop.round)]
            chosen = draw_by_failure(chosen, failure_rates(earlier, loop.models.accepts), size, draw)
    problems = Mapped(loop.problems.by_id.__getitem__, chosen)
    n, restarts = evolution.samples_per_problem, evolution.round.restarts
    starts = beginnings(loop.state, chosen, loop.problems.by_id) if restarts else {}
    total = len(problems) * n + len(starts) * restarts
    with loop.context.work(stage, "sample", "reasoning paths", total) as advance:
        return loop.models.generator.sample(
            loop.models.of(loop.student),
            problems,
            stage.path / PATHS,
            stage=stage.name,
            n=n,
            model=loop.student.name,
            seed=loop.config.seed,
            restarts=restarts,
            prefixes=starts,
            advance=advance,
        )


def judge(
    loop: EvolutionRun,
    paths: Sequence[ReasoningPath],
    chosen: Any,
    folder: Path | None = None,
    description: str = "verdicts",
) -> Sequence[Judged]:
    """Alg. 1 lines 8 and 15: a verdict on each path, in the order of the paths.

    Args:
        chosen: a judge's name or settings.
        folder: where ``verdicts.jsonl`` is written; None: the stage's.
    """
    stage = loop.stage
    with loop.context.work(stage, "judge", description, len(paths), judging_unit(loop, chosen)) as advance:
        verdicts = judge_paths(
            loop.models.judge(chosen),
            loop.problems.by_id,
            paths,
            (folder or stage.path) / VERDICTS,
            batch_size=loop.config.judge.batch_size,
            advance=advance,
        )
    return judged_rows(paths, verdicts)


def judging_unit(loop: EvolutionRun, chosen: Any) -> Unit | Literal["nothing"]:
    """What the verdicts of a judge count as in the run's time left: those that no model gives take no time."""
    asks = judge_named(chosen, loop.config.judge).asks
    if "orm" in asks:
        return "judge"
    if "teacher" not in asks:
        return "nothing"
    return "sample" if isinstance(loop.models.teacher, StudentTeacher) else "ask"


def fit_student(loop: EvolutionRun, init: str) -> Student:
    """Alg. 1 lines 3, 12, 17: SFT on D_SFT, from the base or from the previous student; or, where there is nothing new
    to fit on, the previous student carried on. ``evolution.update``: DPO on pairs instead, or after it."""
    stage, paths, previous, config = loop.stage, loop.state.train, loop.student, loop.config
    update = config.evolution.update if learns_from_pairs(loop) else "sft"
    pairs: Sequence[Preference] = []
    if update != "sft":
        made = preferences(paths, loop.state.incorrect, config.evolution.dpo.pairs_per_problem)
        write_jsonl(stage.path / PREFERENCES, made)
        pairs = JsonlRows(stage.path / PREFERENCES, Preference)
    if reason := _nothing_new(previous.stage, paths, pairs, update):
        loop.context.progress.say(f"{stage.name}: {reason}; no fit, the student of {previous.stage.name} is carried on")
        write_json(stage.path / SKIPPED_FIT, {"reason": reason, "carried_on": previous.stage.name})
        for name in (CHECKPOINT, PREDICTIONS, METRICS, DEV_PREDICTIONS):
            carry_on(previous.stage.path / name, stage.path / name)
        return Student(stage, carried_on=True)
    student = Student(stage)
    # PAPER: silent on what a round's fit starts from; switch: evolution.init
    start = loop.base.checkpoint if init == "base" else previous.checkpoint
    if update == "sft" or not pairs:
        _fit_on_paths(loop, start)
    elif update == "dpo":
        _fit_on_pairs(loop, start, pairs)
    else:
        first = stage.path / FIRST_FIT
        if not student.checkpoint.exists():  # after a kill the second fit may be done, and the first one's weights gone
            _fit_on_paths(loop, start, first)
            _fit_on_pairs(loop, first / CHECKPOINT, pairs)
        for name in (CHECKPOINT, SCRATCH):
            shutil.rmtree(first / name, ignore_errors=True)
    return student


def learns_from_pairs(loop: EvolutionRun) -> bool:
    """Whether the current stage's fit follows ``evolution.update``: distillation has no paths of a student yet."""
    return loop.config.task == "evolve" and loop.stage.name != "distill"


def _nothing_new(
    previous: Stage, paths: Sequence[ReasoningPath], pairs: Sequence[Preference], update: str
) -> str | None:
    """Why there is nothing to fit on that the student of ``previous`` was not fitted on."""
    if not paths:
        return "no path was accepted, so there is no row to fit on"
    if update == "dpo" and not pairs:
        return "no problem has an accepted and a rejected path, so there is no pair to fit on"
    fitted_pairs, fitted_paths = previous.path / PREFERENCES, previous.path / TRAIN
    pairs_before = {pair.id for pair in JsonlRows(fitted_pairs, Preference)} if fitted_pairs.exists() else set()
    if {pair.id for pair in pairs} != pairs_before:
        return None
    if update == "dpo":
        return "no new pair of an accepted and a rejected path came up"
    same = fitted_paths.exists() and {row["id"] for row in read_jsonl(fitted_paths)} == {path.id for path in paths}
    return "nothing new was accepted" if same else None


def _fit_on_paths(loop: EvolutionRun, start: Path, folder: Path | None = None) -> None:
    """SFT on D_SFT; ``folder``: of a fit that another one goes on from, in the same stage."""
    backbone = loop.models.backbone(start)
    paths = loop.state.train
    loop.models.fit(
        backbone,
        loop.stage,
        training_rows(
            loop.context.run.path,
            loop.problems.by_id,
            backbone.prompt_style,
            paths,
            loop.config.evolution.reflect.row,
        ),
        loop.config.sft.of_stage(fit_stage(loop)),
        label=f"fit on {len(paths)} paths",
        val_rows=solution_rows(backbone.prompt_style, loop.problems.splits["dev"]),
        kept_in=None if folder is not None else _kept_in(loop),
        folder=folder,
    )


def _fit_on_pairs(loop: EvolutionRun, start: Path, pairs: Sequence[Preference]) -> None:
    backbone = loop.models.backbone(start)
    style, problems = backbone.prompt_style, loop.problems.by_id
    sft, dpo = loop.config.sft.of_stage(fit_stage(loop)), loop.config.evolution.dpo
    settings = replace(
        sft,
        epochs=dpo.epochs,
        max_steps=None,
        batch_size=max(1, sft.batch_size // 2),  # a pair is two rows
        micro_batch_size=max(1, sft.micro_batch_size // 2),
        optimizer=replace(sft.optimizer, lr=sft.optimizer.lr * dpo.lr_scale),
    )
    loop.models.fit(
        backbone,
        loop.stage,
        [preference_row(style, problems[pair.chosen.problem_id], pair) for pair in pairs],
        settings,
        label=f"fit on {len(pairs)} pairs",
        val_rows=solution_rows(style, loop.problems.splits["dev"]),
        kept_in=_kept_in(loop),
        dpo=dpo,
    )


def fit_stage(loop: EvolutionRun) -> FitStage | None:
    """The section of ``sft`` that the current stage's fit follows; None: of task=sft."""
    name: Any = "round" if loop.stage.name == loop.round_name else loop.stage.name
    return name if name in get_args(FitStage) else None


def _kept_in(loop: EvolutionRun) -> torch.dtype | None:
    # a later fit goes on from float32 weights: bfloat16 would drop about half of what a small update learned
    return None if is_fitted_on(loop.config, loop.stage.name) else loop.models.kept_in()


def carry_on(source: Path, target: Path) -> None:
    """The same file or folder under a second name (hard links where the disk can)."""
    if target.exists():
        return
    if source.is_dir():
        unfinished = target.parent / SCRATCH / target.name
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(source, unfinished, copy_function=_link)
        publish_folder(unfinished, target)
    elif source.exists():
        _link(str(source), str(target))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


# --- what stages report -----------------------------------------------------------------------------------------------


def summary(loop: EvolutionRun) -> dict[str, Any]:
    """The stage's line in summary.json."""
    stage = loop.stage
    skipped = stage.path / SKIPPED_FIT
    # Figure 2: the test problems that the student before this fit and the one after it solve
    predictions = [student_of.path / PREDICTIONS for student_of in (loop.previous.stage, stage)]
    moves = None
    if all(file.exists() for file in predictions):
        moves = transitions(*({row["id"]: row["correct"] for row in read_jsonl(file)} for file in predictions))
    return {
        "stage": stage.name,
        **_accuracy(stage),
        **counts(loop),
        **({"pairs": len(JsonlRows(pairs, Preference))} if (pairs := stage.path / PREFERENCES).exists() else {}),
        "exposure": _exposure(loop),
        "transitions": moves,
        "skipped_fit": read_json(skipped)["reason"] if skipped.exists() else None,
    }


def _exposure(loop: EvolutionRun) -> dict[str, Any] | None:
    """How often the stage's SFT showed the rows of D_SFT, shown and with its warnings; None where there was none."""
    stage, evolution, name = loop.stage, loop.config.evolution, fit_stage(loop)
    if loop.student.carried_on or (evolution.update == "dpo" and learns_from_pairs(loop)):
        return None
    settings = loop.config.sft.of_stage(name)
    own: list[Origin] = ["student", "reflection"] if evolution.reflect.writer == "student" else ["student"]
    folder = stage.path / FIRST_FIT if (stage.path / FIRST_FIT).exists() else stage.path
    too_long = {row["row"] - 1 for row in read_jsonl(folder / TOO_LONG)} if (folder / TOO_LONG).exists() else set()
    origins = Counter(path.lineage.origin for k, path in enumerate(loop.state.train) if k not in too_long)
    rows = origins.total()
    exposure = Exposure(rows, sum(origins[origin] for origin in own), settings.steps(rows) * settings.batch_size)
    section = "sft" if name is None else f"sft.{name}"
    found = [*warnings(exposure, section, has_own=name == "round")]
    found += falling_loss(read_jsonl(folder / TRAIN_LOG), section)
    for line in (str(exposure), *found):
        loop.context.progress.say(f"{stage.name}: {line}")
    return {**exposure.to_json(), "warnings": found}


def inputs(loop: EvolutionRun) -> list[Path]:
    """The files of other stages that this one read: D_SFT and R_incorrect before it (checkpoints are outputs of the
    stages named in "after")."""
    before = loop.state_stage
    return [before.path / TRAIN, before.path / INCORRECT] if before is not None else []


NOTHING_JUDGED = dict.fromkeys(("accepted", "rejected", "unparsed", "acceptance_precision", "step_precision"))


def counts(loop: EvolutionRun) -> dict[str, Any]:
    """Rows of D_SFT by origin, and the verdicts on this stage's paths in numbers. The final stage judges none: it has
    the numbers of the rewrites that it goes on from."""
    # D_SFT's rows by author: teacher, student, reflection
    origins = Counter(path.lineage.origin for path in loop.state.train)
    if loop.stage.name != "final":
        judged = acceptance(loop, loop.judged)
    elif (before := loop.state_stage) is not None and is_reflection(before):
        judged = {key: before.summary[key] for key in NOTHING_JUDGED}
    else:
        judged = {}
    rows = {"train_rows": origins.total(), **NOTHING_JUDGED, **judged, "origins": dict(sorted(origins.items()))}
    return {**rows, ASKED: asked_of_teacher(loop)}


def _accuracy(stage: Stage) -> dict[str, Any]:
    """Null in an ablation without EvaluateStudent."""
    file = stage.path / METRICS
    metrics = read_json(file) if file.exists() else dict.fromkeys(("accuracy", "ci95", "total", "dev_accuracy"))
    return {
        "accuracy": metrics["accuracy"],
        "ci95": metrics["ci95"],
        "n": metrics["total"],
        "dev_accuracy": metrics["dev_accuracy"],
    }
