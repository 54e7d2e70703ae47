"""The stages of a run: each a function from files to files. What a stage depends on is said where it is opened."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

from mathse.config.loop import Reflect
from mathse.data.problems import to_distill
from mathse.evolution.admit import admit, leave_out, unreadable
from mathse.evolution.gate import gate_keys
from mathse.evolution.keys import COMMON, fitting_keys, judging_keys, teaching_keys
from mathse.evolution.measure import acceptance, correct_by_id, measure_student
from mathse.evolution.sources import record_sources
from mathse.evolution.standing import Evolution
from mathse.evolution.state import Judged, judged_rows
from mathse.evolution.student import Student
from mathse.evolution.training_rows import solution_rows, training_rows
from mathse.judges import judge_paths
from mathse.judges.teachers import AT_ONCE, in_calls, prompt_version
from mathse.runs.layout import (
    CHECKPOINT,
    DEV_PREDICTIONS,
    INCORRECT,
    METRICS,
    PATHS,
    PREDICTIONS,
    SCRATCH,
    SKIPPED_FIT,
    TRAIN,
    VERDICTS,
)
from mathse.runs.rows import JsonlRows, Mapped
from mathse.runs.stage_cache import Stage
from mathse.runs.store import BatchLog, publish_folder, read_json, read_jsonl, write_json
from mathse.scoring.metrics import transitions
from mathse.seeds import rng
from mathse.training.fit import save_checkpoint
from mathse.types import Lineage, Problem, ReasoningPath

REFLECTION = "reflection"  # the stage; of a round: round_01/reflection


# --- opening stages ---------------------------------------------------------------------------------------------------


def open_distill(loop: Evolution) -> Stage:
    config = loop.config
    judging = judging_keys(config, "distill.judge")
    keys = (*fitting_keys(config), *teaching_keys(config), "distill.size", *judging)
    return _open(loop, "distill", "the teacher solves, the judge filters, the student is distilled", keys)


def open_round(loop: Evolution) -> Stage:
    config, evolution = loop.config, ("init", "samples_per_problem", "keep", "round")
    rewritten = loop.round > 1 and config.evolution.reflect.when == "every"  # D_SFT then holds rewrites
    keys = (
        *fitting_keys(config),
        *judging_keys(config, "judge"),
        *(f"evolution.{k}" for k in evolution),
        *(("evolution.reflect.row",) if rewritten else ()),
        "callbacks",
    )
    what = f"self-evolving round {loop.round} of {loop.rounds}: sample, judge, merge, refit"
    return _open(loop, loop.round_name, what, keys)


def open_reflection(loop: Evolution, name: str) -> Stage:
    config = loop.config
    writing = (f"evolution.reflect.{f.name}" for f in fields(Reflect) if f.name != "row")  # row: what fits make of them
    judging = judging_keys(config, "judge")
    evolution = ("evolution.rounds", "evolution.keep", *writing)
    keys = (*fitting_keys(config), *teaching_keys(config), *judging, *evolution, "callbacks")
    return _open(loop, name, "wrong paths are rewritten, judged and merged", keys)


def is_reflection(stage: Stage) -> bool:
    return Path(stage.name).name == REFLECTION


def open_final(loop: Evolution) -> Stage:
    keys = (*fitting_keys(loop.config), "evolution.rounds", "evolution.reflect", "callbacks")
    return _open(loop, "final", "the final student, on all that was accepted", keys)


def open_sft(loop: Evolution) -> Stage:
    return _open(loop, "sft", "one fit on the rows of sft.train", fitting_keys(loop.config))


def _open(loop: Evolution, name: str, what: str, keys: Sequence[str]) -> Stage:
    stage = loop.context.run.stage(name, keys, [loop.student.stage, *loop.orm_stages, *_state_stage(loop)])
    loop.context.begin(stage, what)
    return stage


def _state_stage(loop: Evolution) -> list[Stage]:
    """The stage whose D_SFT the next one starts from, where that is another than the student's (a reflection)."""
    before = loop.state_stage
    return [before] if before is not None and before.name != loop.student.stage.name else []


# --- what stages do ---------------------------------------------------------------------------------------------------


def base(loop: Evolution) -> Student:
    """The untrained student and its accuracy."""
    context, problems = loop.context, loop.problems
    stage = context.run.stage("base", (*COMMON, "evaluation", *gate_keys(loop.config)))
    context.begin(stage, "the student before any training")
    if not stage.done:
        student = Student(stage)
        if not student.checkpoint.exists():
            listed = unreadable(context, problems)
            backbone = loop.models.backbone()
            admit(context, problems, stage, backbone, listed)
            save_checkpoint(backbone, student.checkpoint)
            del backbone
        leave_out(context, problems, stage)
        record_sources(context, problems, stage)
        measure_student(loop, stage, student)
        empty: dict[str, Any] = {
            "train_rows": 0,
            **NOTHING_JUDGED,
            "origins": {},
            "transitions": None,
            "skipped_fit": None,
        }
        stage.finish({"stage": "base", **_accuracy(stage), **empty})
        context.logger.stage_finished(stage)
    else:
        leave_out(context, problems, stage)
    return Student(stage)


def solve_and_judge(loop: Evolution, problems: Sequence[Problem] | None = None) -> Sequence[Judged]:
    """Alg. 1 line 1: the teacher answers a subset of D; the judge filters (Figure 3)."""
    stage = loop.stage
    size = loop.config.distill.size
    chosen = to_distill(loop.problems.splits, size) if problems is None else problems[:size]
    batches = [chosen[k : k + AT_ONCE] for k in range(0, len(chosen), AT_ONCE)]
    log = BatchLog(stage.path / PATHS, [len(b) for b in batches])
    with loop.context.work(stage, "sample", "teacher's solutions", len(chosen)) as advance:
        for call in in_calls(loop.models.teacher, batches[log.done :]):
            problems = [p for batch in call for p in batch]
            paths = map(_solution(loop), problems, loop.models.teacher.solve(problems))
            for batch in call:
                log.append(list(islice(paths, len(batch))))
                advance(len(batch))
    return judge(loop, JsonlRows(log.path, ReasoningPath), loop.config.distill.judge)


def _solution(loop: Evolution) -> Callable[[Problem, str | None], ReasoningPath]:
    """The teacher's answer as a path; an unusable one is an empty path."""
    stage = loop.stage.name

    def path(problem: Problem, text: str | None) -> ReasoningPath:
        prompt = prompt_version(loop.models.teacher, "generate", problem)
        lineage = Lineage("teacher", stage, loop.teacher_name, prompt=prompt)
        return ReasoningPath(f"{stage}/{problem.id}/0", problem.id, text or "", lineage)

    return path


def sample_paths(loop: Evolution) -> Sequence[ReasoningPath]:
    """Alg. 1 line 7: the last student writes paths on D_remain, or on a sample of it."""
    stage, evolution = loop.stage, loop.config.evolution
    remaining = loop.state.remaining
    size = evolution.round.sample_size
    if size is not None and size < len(remaining):
        remaining = sorted(rng(loop.context.seed(stage, "problems")).sample(remaining, size))
    problems = Mapped(loop.problems.by_id.__getitem__, remaining)
    n = evolution.samples_per_problem
    with loop.context.work(stage, "sample", "reasoning paths", len(problems) * n) as advance:
        return loop.models.generator.sample(
            loop.models.of(loop.student),
            problems,
            stage.path / PATHS,
            stage=stage.name,
            n=n,
            model=loop.student.name,
            seed=loop.config.seed,
            advance=advance,
        )


def judge(
    loop: Evolution, paths: Sequence[ReasoningPath], chosen: Any, folder: Path | None = None, what: str = "verdicts"
) -> Sequence[Judged]:
    """Alg. 1 lines 8 and 15: a verdict on each path, in the order of the paths; ``folder`` None: the stage's."""
    stage = loop.stage
    with loop.context.work(stage, "judge", what, len(paths)) as advance:
        verdicts = judge_paths(
            loop.models.judge(chosen),
            loop.problems.by_id,
            paths,
            (folder or stage.path) / VERDICTS,
            batch_size=loop.config.judge.batch_size,
            advance=advance,
        )
    return judged_rows(paths, verdicts)


def fit_student(loop: Evolution, init: str) -> Student:
    """Alg. 1 lines 3, 12, 17: SFT on D_SFT, from the base or from the previous student; or, where D_SFT is empty or
    the previous student was fitted on the same rows, that student carried on."""
    stage, rows = loop.stage, loop.state.train
    previous = loop.student
    if reason := _nothing_new(loop):
        loop.context.progress.say(f"{stage.name}: {reason}; no fit, the student of {previous.stage.name} is carried on")
        write_json(stage.path / SKIPPED_FIT, {"reason": reason, "carried_on": previous.stage.name})
        for name in (CHECKPOINT, PREDICTIONS, METRICS, DEV_PREDICTIONS):
            carry_on(previous.stage.path / name, stage.path / name)
        return Student(stage, carried_on=True)
    start = loop.base.checkpoint if init == "base" else previous.checkpoint
    backbone = loop.models.backbone(start)
    loop.models.fit(
        backbone,
        stage,
        training_rows(
            loop.context.run.path,
            loop.problems.by_id,
            backbone.prompt_style,
            rows,
            loop.config.evolution.reflect.row,
        ),
        loop.config.sft,
        what=f"fit on {len(rows)} paths",
        val_rows=solution_rows(backbone.prompt_style, loop.problems.splits["dev"]),
    )
    return Student(stage)


def _nothing_new(loop: Evolution) -> str | None:
    if not loop.state.train:
        return "no path was accepted, so there is no row to fit on"
    before = loop.student.stage.path / TRAIN
    if before.exists() and {row["id"] for row in read_jsonl(before)} == {p.id for p in loop.state.train}:
        return "nothing new was accepted"
    return None


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


def summary(loop: Evolution) -> dict[str, Any]:
    """The stage's line in summary.json."""
    stage = loop.stage
    skipped = stage.path / SKIPPED_FIT
    return {
        "stage": stage.name,
        **_accuracy(stage),
        **counts(loop),
        "transitions": _transitions(loop.previous.stage, stage),
        "skipped_fit": read_json(skipped)["reason"] if skipped.exists() else None,
    }


def inputs(loop: Evolution) -> list[Path]:
    """The files of other stages that this one read: D_SFT and R_incorrect as they stood (checkpoints are outputs of the
    stages named in "after")."""
    before = loop.state_stage
    return [before.path / TRAIN, before.path / INCORRECT] if before is not None else []


NOTHING_JUDGED = dict.fromkeys(("accepted", "rejected", "unparsed", "acceptance_precision", "step_precision"))


def counts(loop: Evolution) -> dict[str, Any]:
    """Rows of D_SFT by origin, and what the judge said of the paths of this stage (the final one judges none: of the
    rewrites that it goes on from)."""
    origins = Counter(path.lineage.origin for path in loop.state.train)
    if loop.stage.name != "final":
        judged = acceptance(loop, loop.judged)
    elif (before := loop.state_stage) is not None and is_reflection(before):
        judged = {key: before.summary[key] for key in NOTHING_JUDGED}
    else:
        judged = {}
    return {"train_rows": origins.total(), **NOTHING_JUDGED, **judged, "origins": dict(sorted(origins.items()))}


def _accuracy(stage: Stage) -> dict[str, Any]:
    """Null in an ablation without EvaluateStudent."""
    file = stage.path / METRICS
    m = read_json(file) if file.exists() else dict.fromkeys(("accuracy", "ci95", "total", "dev_accuracy"))
    return {"accuracy": m["accuracy"], "ci95": m["ci95"], "n": m["total"], "dev_accuracy": m["dev_accuracy"]}


def _transitions(before: Stage, after: Stage) -> dict[str, int] | None:
    measured = all((stage.path / PREDICTIONS).exists() for stage in (before, after))
    return transitions(correct_by_id(before), correct_by_id(after)) if measured else None
