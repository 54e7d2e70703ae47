"""The stages of a run. Each reads files and writes files; ``open_*`` lists the settings that a stage depends on.

The stages of the ORM are in orm_stages.py, reflection is in callbacks.py.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import torch

from mathse.config.evolution import Reflect
from mathse.config.judges import judge_named
from mathse.config.schema import is_fitted_on
from mathse.data.domains import domain_of
from mathse.data.problems import to_distill
from mathse.evolution.evolution_run import EvolutionRun, name_round
from mathse.evolution.keys import (
    COMMON,
    list_fitting_keys,
    list_judging_keys,
    list_student_keys,
    list_teaching_keys,
    list_updating_keys,
)
from mathse.evolution.measure import NOTHING_JUDGED, measure_student, read_accuracy
from mathse.evolution.models import Student
from mathse.evolution.problems import (
    find_pictures_without_reader,
    find_unreadable_images,
    leave_out_listed,
    list_decontamination_keys,
    list_unusable,
    record_sources,
)
from mathse.evolution.state import EvolutionState, Judged, join_verdicts
from mathse.evolution.training_rows import Preference, make_solution_rows, make_training_rows
from mathse.evolution.update_rows import UpdateRows, collect_rows, make_update_row
from mathse.inference.generate import PathPrefix
from mathse.judges import judge_paths
from mathse.judges.teachers import MAX_ROWS_A_CALL, group_into_calls, prompt_version
from mathse.judges.teachers.student import StudentTeacher
from mathse.reporting.progress.outlook import Unit
from mathse.runs.layout import (
    CHECKPOINT,
    DEV_PREDICTIONS,
    FIRST_FIT,
    METRICS,
    PATHS,
    PREDICTIONS,
    PREFERENCES,
    SCRATCH,
    SKIPPED_FIT,
    TRAIN,
    VERDICTS,
)
from mathse.runs.reader import FinishedStage, read_stage
from mathse.runs.rows import JsonlRows, Mapped
from mathse.runs.stage_cache import Stage
from mathse.runs.store import BatchLog, publish_folder, read_jsonl, write_json
from mathse.runs.teacher_calls import ASKED
from mathse.scoring.metrics import first_step
from mathse.seeds import rng
from mathse.training.fit import save_checkpoint
from mathse.types import Lineage, Problem, ReasoningPath, Verdict

# --- opening stages ---------------------------------------------------------------------------------------------------


def open_distill(loop: EvolutionRun) -> Stage:
    config = loop.config
    # task=distill has no fit, so the settings of training do not matter there
    student = list_student_keys(config) if config.task == "distill" else list_fitting_keys(config, "distill")
    keys = (*student, *list_teaching_keys(config), "distill.size", *list_judging_keys(config, "distill.judge"))
    return _open_stage(loop, "distill", "the teacher solves, the judge filters, the student is distilled", keys)


def open_round(loop: EvolutionRun) -> Stage:
    config = loop.config
    # With reflection after every round, D_SFT has rewrites from the second round on.
    has_rewrites = loop.round > 1 and config.evolution.reflect.when == "every"
    keys = (
        *list_fitting_keys(config, "round"),
        *list_judging_keys(config, "judge"),
        *(f"evolution.{name}" for name in ("init", "samples_per_problem", "keep", "round", "resample")),
        *(("evolution.reflect.row",) if has_rewrites else ()),
        *list_updating_keys(config),
        "callbacks",
    )
    description = f"self-evolving round {loop.round} of {loop.rounds}: sample, judge, merge, refit"
    return _open_stage(loop, loop.round_name, description, keys)


def open_reflection(loop: EvolutionRun, name: str) -> Stage:
    config = loop.config
    keys = (
        *list_student_keys(config),
        *list_teaching_keys(config),
        *list_judging_keys(config, "judge"),
        "evolution.rounds",
        "evolution.keep",
        # without ``row``, the form of the rewrites in a later fit
        *(f"evolution.reflect.{field.name}" for field in fields(Reflect) if field.name != "row"),
        "callbacks",
    )
    return _open_stage(loop, name, "wrong paths are rewritten, judged and merged", keys)


def open_final(loop: EvolutionRun) -> Stage:
    config = loop.config
    keys = (
        *list_fitting_keys(config, "final"),
        *list_updating_keys(config),
        "evolution.rounds",
        "evolution.reflect",
        "callbacks",
    )
    return _open_stage(loop, "final", "the final student, on all that was accepted", keys)


def open_sft(loop: EvolutionRun) -> Stage:
    return _open_stage(loop, "sft", "one fit on the rows of sft.train", list_fitting_keys(loop.config))


def _open_stage(loop: EvolutionRun, name: str, description: str, keys: Sequence[str]) -> Stage:
    predecessors = [loop.student.stage, *loop.orm_stages]
    # After a reflection, D_SFT comes from the reflection and the student from the stage before it.
    if loop.state_stage is not None and loop.state_stage.name != loop.student.stage.name:
        predecessors.append(loop.state_stage)
    stage = loop.context.run.stage(name, keys, predecessors)
    loop.context.begin(stage, description)
    return stage


# --- base, distillation, rounds ---------------------------------------------------------------------------------------


def measure_base(loop: EvolutionRun) -> Student:
    """Save the untrained student, and measure its accuracy. The stage also fixes which problems the run uses."""
    context, problems = loop.context, loop.problems
    stage = context.run.stage("base", (*COMMON, "evaluation", *list_decontamination_keys(loop.config)))
    context.begin(stage, "the student before any training")
    if stage.done:
        leave_out_listed(context, problems, stage)
        return Student(stage)

    student = Student(stage)
    if not student.checkpoint.exists():
        # Both checks need no weights, so they come before the model is opened.
        bad_rows = find_pictures_without_reader(context, problems)
        listed = {row["id"] for row in bad_rows}
        bad_rows += [row for row in find_unreadable_images(context, problems) if row["id"] not in listed]
        backbone = loop.models.open_for_training()
        list_unusable(context, problems, stage, backbone, bad_rows)
        save_checkpoint(backbone, student.checkpoint, unchanged=True, plain=loop.models.served is not None)
        del backbone  # memory has room for one model
    leave_out_listed(context, problems, stage)
    record_sources(context, problems, stage)
    measure_student(loop, stage, student)

    nothing: dict[str, Any] = {"train_rows": 0, **NOTHING_JUDGED, "origins": {}, ASKED: 0, "exposure": None}
    stage.finish({"stage": "base", **read_accuracy(stage), **nothing, "transitions": None, "skipped_fit": None})
    context.loggers.stage_finished(stage)
    return student


def solve_and_judge(loop: EvolutionRun, problems: Sequence[Problem] | None = None) -> Sequence[Judged]:
    """Alg. 1 line 1: the teacher solves a subset of D, and the judge filters the solutions (Figure 3).

    Args:
        problems: problems to solve, ``distill.size`` of them. None: seed problems, then problems of the pool.

    Returns:
        The solutions with their verdicts.
    """
    stage, teacher, size = loop.stage, loop.models.teacher, loop.config.distill.size
    chosen = to_distill(loop.problems.splits, size) if problems is None else problems[:size]
    batches = [chosen[k : k + MAX_ROWS_A_CALL] for k in range(0, len(chosen), MAX_ROWS_A_CALL)]
    log = BatchLog(stage.path / PATHS, [len(batch) for batch in batches])

    unit: Unit = "sample" if isinstance(teacher, StudentTeacher) else "ask"
    with loop.context.work(stage, "sample", "teacher's solutions", len(chosen), unit) as advance:
        # A call to the teacher has several batches; the log gets each batch as soon as it is complete.
        for call in group_into_calls(teacher, batches[log.done :]):
            solutions = iter(teacher.solve(list(chain.from_iterable(call))))
            for batch in call:
                paths = []
                for problem, text in zip(batch, islice(solutions, len(batch)), strict=True):
                    prompt = prompt_version(teacher, "generate", problem)
                    lineage = Lineage("teacher", stage.name, loop.teacher_name, prompt=prompt)
                    # An unusable answer becomes an empty path, so that it is judged and counted.
                    paths.append(ReasoningPath(f"{stage.name}/{problem.id}/0", problem.id, text or "", lineage))
                log.append(paths)
                advance(len(batch))
    return judge(loop, JsonlRows(log.path, ReasoningPath), loop.config.distill.judge)


def sample_paths(loop: EvolutionRun) -> Sequence[ReasoningPath]:
    """Alg. 1 line 7: the last student samples paths for D_remain, or for a part of it.

    Returns:
        The paths of ``paths.jsonl``.
    """
    stage, evolution = loop.stage, loop.config.evolution
    chosen = choose_problems(loop)
    problems = Mapped(loop.problems.by_id.__getitem__, chosen)

    # n whole paths per problem, and ``restarts`` paths that continue the correct steps of a rejected path
    n, restarts = evolution.samples_per_problem, evolution.round.restarts
    prefixes = find_prefixes(loop.state, chosen, loop.problems.by_id) if restarts else {}
    total = len(problems) * n + len(prefixes) * restarts
    with loop.context.work(stage, "sample", "reasoning paths", total) as advance:
        return loop.models.generator.sample(
            loop.models.open_student(loop.student),
            problems,
            stage.path / PATHS,
            stage=stage.name,
            n=n,
            model=loop.student.name,
            seed=loop.config.seed,
            restarts=restarts,
            prefixes=prefixes,
            advance=advance,
        )


def judge(
    loop: EvolutionRun,
    paths: Sequence[ReasoningPath],
    chosen: Any,
    folder: Path | None = None,
    description: str = "verdicts",
) -> Sequence[Judged]:
    """Alg. 1 lines 8 and 15: return each path with its verdict, in the order of the paths.

    Args:
        chosen: a judge's name or settings.
        folder: folder of ``verdicts.jsonl``. None: the folder of the stage.
    """
    stage = loop.stage
    with loop.context.work(stage, "judge", description, len(paths), select_unit(loop, chosen)) as advance:
        verdicts = judge_paths(
            loop.models.judge(chosen),
            loop.problems.by_id,
            paths,
            (folder or stage.path) / VERDICTS,
            batch_size=loop.config.judge.batch_size,
            advance=advance,
        )
    return join_verdicts(paths, verdicts)


def select_unit(loop: EvolutionRun, chosen: Any) -> Unit | Literal["nothing"]:
    """Return the unit of a judge's verdicts in the estimate of the remaining time; "nothing" for a judge without a
    model."""
    asks = judge_named(chosen, loop.config.judge).asks
    if "orm" in asks:
        return "judge"
    if "teacher" not in asks:
        return "nothing"
    return "sample" if isinstance(loop.models.teacher, StudentTeacher) else "ask"


# --- difficulty -------------------------------------------------------------------------------------------------------
# Plain rounds accept many paths of easy problems and few paths of hard problems (arXiv 2510.26474, measured on Qwen2-VL
# and InternVL2.5). Three settings change this: a round may draw problems by their failure rate, sample solved problems
# again, and continue the correct steps of rejected paths.

UNTRIED_FAILURE_RATE = 0.5  # of a problem without samples


def choose_problems(loop: EvolutionRun) -> Sequence[str]:
    """Return the ids of the problems that a round samples (``evolution.resample``, ``evolution.round``)."""
    stage, evolution = loop.stage, loop.config.evolution
    dev_accuracy = {entry["stage"]: entry["dev_accuracy"] for entry in loop.entries}
    candidates = find_candidates(loop.state, evolution.resample, dev_accuracy, loop.student.stage.name)
    size = evolution.round.sample_size
    if size is None or size >= len(candidates):
        return candidates
    draw = rng(loop.context.derive_seed(stage, "problems"))
    if evolution.round.draw == "uniform":
        return sorted(draw.sample(candidates, size))
    earlier = [read_stage(loop.context.run.path / name_round(number)) for number in range(1, loop.round)]
    return draw_by_failure(candidates, compute_failure_rates(earlier, loop.models.accepts), size, draw)


def compute_failure_rates(rounds: Iterable[FinishedStage], accept: Callable[[Verdict], bool]) -> dict[str, float]:
    """Return the share of rejected samples per problem over finished rounds, with Laplace's rule: one success and one
    failure are added.

    Samples that continue correct steps are not counted: they succeed more often than samples of a whole path.
    """
    samples: Counter[str] = Counter()  # by problem
    failures: Counter[str] = Counter()
    for stage in rounds:
        problem_of = {
            path.id: path.problem_id for path in stage.rows(PATHS, ReasoningPath) if path.lineage.parent is None
        }
        for verdict in stage.rows(VERDICTS, Verdict):
            problem = problem_of.get(verdict.path_id)
            if problem is not None:
                samples[problem] += 1
                failures[problem] += not accept(verdict)
    return {problem: (failures[problem] + 1) / (count + 2) for problem, count in samples.items()}


def draw_by_failure(problems: Sequence[str], rates: Mapping[str, float], size: int, draw: random.Random) -> list[str]:
    """Draw ``size`` problems without replacement, each with a probability proportional to its failure rate.

    The problems with the largest u^(1/w), u uniform in [0, 1) and w the rate, are such a draw (Efraimidis and Spirakis
    2006).

    Returns:
        The ids of the drawn problems, sorted.
    """
    keys = {problem: draw.random() ** (1 / rates.get(problem, UNTRIED_FAILURE_RATE)) for problem in problems}
    return sorted(sorted(problems, key=keys.__getitem__, reverse=True)[:size])


def find_candidates(state: EvolutionState, resample: str, dev_accuracy: Mapping[str, Any], student: str) -> list[str]:
    """Return the problems that a round may sample, in the order of D: D_remain, and the solved problems that
    ``evolution.resample`` adds.

    A problem that only the teacher solved is never added: its solution is right already.

    Args:
        resample: ``evolution.resample``. "better" adds a problem if the student has a higher dev accuracy than the
            student that solved it.
        dev_accuracy: dev accuracy of the student of each stage, by the stage's name.
        student: the stage of the student that will sample.
    """
    if resample == "never":
        return state.remaining
    writers = {path.problem_id: path.lineage.model for path in state.train if path.lineage.origin == "student"}
    if resample == "better":
        accuracy_of = {f"{stage}/{CHECKPOINT}": accuracy for stage, accuracy in dev_accuracy.items()}
        writers = {p: writer for p, writer in writers.items() if accuracy_of[writer] < dev_accuracy[student]}
    remaining = set(state.remaining)
    return [problem for problem in state.problems if problem in remaining or problem in writers]


def find_prefixes(
    state: EvolutionState, problems: Sequence[str], by_id: Mapping[str, Problem]
) -> dict[str, PathPrefix]:
    """Return the correct steps of the newest rejected path of each problem. Problems without a correct step before a
    named wrong step are left out."""
    wanted = set(problems)
    newest = {item.path.problem_id: k for k, item in enumerate(state.incorrect) if item.path.problem_id in wanted}
    prefixes = {}
    for problem_id, k in newest.items():
        item = state.incorrect[k]
        wrong = first_step(item.verdict.error_step)
        text = "" if wrong is None else cut_before_step(by_id[problem_id], item.path.text, wrong)
        if text:
            prefixes[problem_id] = PathPrefix(text, item.path.id)
    return prefixes


def cut_before_step(problem: Problem, text: str, number: int) -> str:
    """Return the part of a path before its step ``number``; empty if there is no such step or no text before it."""
    end = 0
    for position, (step_number, piece) in enumerate(domain_of(problem).steps(text), 1):
        start = text.find(piece, end)
        # Lines without a number are counted.
        if (position if step_number is None else step_number) == number:
            return text[:start].rstrip()
        end = start + len(piece)
    return ""


# --- fits -------------------------------------------------------------------------------------------------------------


def fit_student(loop: EvolutionRun, init: str) -> Student:
    """Alg. 1 lines 3, 12, 17: train a student on D_SFT. If nothing is new to it, carry the last student on.

    ``evolution.update`` selects other rows and another loss, or SFT and then these.

    Args:
        init: "base" starts from the untrained student, every other value from the last student.
    """
    stage, previous, update = loop.stage, loop.student, loop.update
    rows: UpdateRows = () if update.data == "rows" else collect_rows(loop, update)
    has_sft = update.data == "rows" or getattr(update, "sft_first", False)

    reason = _find_reason_to_skip(previous.stage, loop.state.train, rows, update.data, has_sft)
    if reason is not None:
        loop.context.progress.say(f"{stage.name}: {reason}; no fit, the student of {previous.stage.name} is carried on")
        write_json(stage.path / SKIPPED_FIT, {"reason": reason, "carried_on": previous.stage.name})
        for name in (CHECKPOINT, PREDICTIONS, METRICS, DEV_PREDICTIONS):
            carry_on(previous.stage.path / name, stage.path / name)
        return Student(stage, carried_on=True)

    student = Student(stage)
    # PAPER: silent on the initial weights of a round's fit; switch: evolution.init
    start = loop.base.checkpoint if init == "base" else previous.checkpoint
    if not rows:
        _fit_on_paths(loop, start)
    elif not has_sft:
        _fit_by_update(loop, start, rows)
    else:
        first = stage.path / FIRST_FIT
        # A killed run may have the second checkpoint, and no weights of the first fit any more.
        if not student.checkpoint.exists():
            _fit_on_paths(loop, start, first)
            _fit_by_update(loop, first / CHECKPOINT, rows)
        for name in (CHECKPOINT, SCRATCH):
            shutil.rmtree(first / name, ignore_errors=True)
    return student


def _find_reason_to_skip(
    previous: Stage, paths: Sequence[ReasoningPath], rows: UpdateRows, data: str, has_sft: bool
) -> str | None:
    """Return the reason to skip a fit; None if it has rows that the last student did not learn from.

    Args:
        paths: D_SFT.
        rows: of the update.
        data: the kind of the update's rows.
        has_sft: whether the fit trains on D_SFT.
    """
    # The verdicts and advantages of a stage are of new paths.
    if data == "verdicts":
        return None if rows else "this stage has no judged paths of two problems or more to learn from"
    if data == "groups":
        return None if rows else "no path of this stage has an advantage over the other paths of its problem"

    if not paths:
        return "no path was accepted, so there is no row to fit on"
    if not has_sft and not rows:
        return "no problem has an accepted and a rejected path, so there is no pair to fit on"
    previous_pairs, previous_paths = previous.path / PREFERENCES, previous.path / TRAIN
    pair_ids = {pair.id for pair in JsonlRows(previous_pairs, Preference)} if previous_pairs.exists() else set()
    if {pair.id for pair in rows} != pair_ids:
        return None
    if not has_sft:
        return "no new pair of an accepted and a rejected path came up"
    if previous_paths.exists() and {row["id"] for row in read_jsonl(previous_paths)} == {path.id for path in paths}:
        return "nothing new was accepted"
    return None


def _fit_on_paths(loop: EvolutionRun, start: Path, folder: Path | None = None) -> None:
    """SFT on D_SFT.

    Args:
        start: checkpoint with the initial weights.
        folder: folder of the checkpoint, if a second fit of the same stage starts from it. None: the stage's folder.
    """
    backbone = loop.models.open_for_training(start)
    style, paths = backbone.prompt_style, loop.state.train
    row_form = loop.config.evolution.reflect.row
    loop.models.fit(
        backbone,
        loop.stage,
        make_training_rows(loop.context.run.path, loop.problems.by_id, style, paths, row_form),
        loop.config.sft.of_stage(loop.fit_stage),
        label=f"fit on {len(paths)} paths",
        val_rows=make_solution_rows(style, loop.problems.splits["dev"]),
        checkpoint_dtype=None if folder is not None else _select_checkpoint_dtype(loop),
        folder=folder,
    )


def _fit_by_update(loop: EvolutionRun, start: Path, rows: UpdateRows) -> None:
    """Train by the update of the stage, with the student's settings at another length and learning rate."""
    backbone, update = loop.models.open_for_training(start), loop.update
    style, problems = backbone.prompt_style, loop.problems.by_id
    sft = loop.config.sft.of_stage(loop.fit_stage)
    paths_per_row = 2 if update.data == "pairs" else 1  # of a batch
    settings = replace(
        sft,
        epochs=getattr(update, "epochs", 1.0),
        max_steps=None,
        batch_size=max(1, sft.batch_size // paths_per_row),
        micro_batch_size=max(1, sft.micro_batch_size // paths_per_row),
        optimizer=replace(sft.optimizer, lr=sft.optimizer.lr * getattr(update, "lr_scale", 1.0)),
    )
    loop.models.fit(
        backbone,
        loop.stage,
        [make_update_row(style, problems, row) for row in rows],
        settings,
        label=f"fit on {len(rows)} {'pairs' if update.data == 'pairs' else 'judged paths'}",
        val_rows=make_solution_rows(style, loop.problems.splits["dev"]),
        checkpoint_dtype=_select_checkpoint_dtype(loop),
        update=update,
    )


def _select_checkpoint_dtype(loop: EvolutionRun) -> torch.dtype | None:
    # A later fit starts from float32 weights: bfloat16 would drop about half of the change of a small update.
    return None if is_fitted_on(loop.config, loop.stage.name) else loop.models.find_stored_dtype()


def carry_on(source: Path, target: Path) -> None:
    """Give a file or folder a second name: by hard links, or by copies if the disk has no hard links."""
    if target.exists():
        return
    if source.is_dir():
        unfinished = target.parent / SCRATCH / target.name
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(source, unfinished, copy_function=_link_or_copy)
        publish_folder(unfinished, target)
    elif source.exists():
        _link_or_copy(str(source), str(target))


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
