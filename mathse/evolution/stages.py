"""The stages of a run: each a function from files to files. What a stage depends on is said where it is opened."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathse.config.loop import Reflect
from mathse.data.problems import to_distill
from mathse.evolution.admit import admit, leave_out, unreadable
from mathse.evolution.gate import gate_keys
from mathse.evolution.keys import COMMON, fitting_keys, judging_keys, teaching_keys
from mathse.evolution.lab import Student
from mathse.evolution.measure import acceptance, correct_by_id, measure_student
from mathse.evolution.sources import record_sources
from mathse.evolution.state import Judged, judged_rows
from mathse.evolution.training_rows import training_rows
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

if TYPE_CHECKING:
    from mathse.evolution.loop import EvolutionLoop


# --- opening stages ---------------------------------------------------------------------------------------------------


def open_distill(loop: EvolutionLoop) -> Stage:
    config = loop.lab.config
    judging = judging_keys(config, "distill.judge")
    keys = (*fitting_keys(config), *teaching_keys(config), "distill.size", *judging)
    return _open(loop, "distill", "the teacher solves, the judge filters, the student is distilled", keys)


def open_round(loop: EvolutionLoop) -> Stage:
    config, evolution = loop.lab.config, ("init", "samples_per_problem", "keep", "round")
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


def open_reflection(loop: EvolutionLoop, name: str) -> Stage:
    config = loop.lab.config
    writing = (f"evolution.reflect.{f.name}" for f in fields(Reflect) if f.name != "row")  # row: what fits make of them
    judging = judging_keys(config, "judge")
    evolution = ("evolution.rounds", "evolution.keep", *writing)
    keys = (*fitting_keys(config), *teaching_keys(config), *judging, *evolution, "callbacks")
    return _open(loop, name, "wrong paths are rewritten, judged and merged", keys)


def open_final(loop: EvolutionLoop) -> Stage:
    keys = (*fitting_keys(loop.lab.config), "evolution.rounds", "evolution.reflect", "callbacks")
    return _open(loop, "final", "the final student, on all that was accepted", keys)


def open_sft(loop: EvolutionLoop) -> Stage:
    return _open(loop, "sft", "one fit on the rows of sft.train", fitting_keys(loop.lab.config))


def _open(loop: EvolutionLoop, name: str, what: str, keys: Sequence[str]) -> Stage:
    stage = loop.lab.run.stage(name, keys, [loop.student.stage, *loop.orm_stages, *_state_stage(loop)])
    begin(loop, stage, what)
    return stage


def _state_stage(loop: EvolutionLoop) -> list[Stage]:
    """The stage whose D_SFT the next one starts from, where that is another than the student's (a reflection)."""
    before = loop.state_stage
    return [before] if before is not None and before.name != loop.student.stage.name else []


def begin(loop: EvolutionLoop, stage: Stage, what: str) -> None:
    if stage.done:
        loop.lab.progress.say(f"{stage.name}: finished before, kept")
    else:
        loop.lab.progress.stage(stage.name, what)
        stage.begin()


# --- what stages do ---------------------------------------------------------------------------------------------------


def base(loop: EvolutionLoop) -> Student:
    """The untrained student and its accuracy."""
    lab = loop.lab
    stage = lab.run.stage("base", (*COMMON, "evaluation", *gate_keys(lab.config)))
    begin(loop, stage, "the student before any training")
    if not stage.done:
        student = Student(stage)
        if not student.checkpoint.exists():
            listed = unreadable(lab)
            backbone = lab.backbone()
            admit(lab, stage, backbone, listed)
            save_checkpoint(backbone, student.checkpoint)
            del backbone
        leave_out(lab, stage)
        record_sources(lab, stage)
        measure_student(lab, stage, student)
        empty: dict[str, Any] = {
            "train_rows": 0,
            **NOTHING_JUDGED,
            "origins": {},
            "transitions": None,
            "skipped_fit": None,
        }
        stage.finish({"stage": "base", **_accuracy(stage), **empty})
        lab.stage_finished(stage)
    else:
        leave_out(lab, stage)
    return Student(stage)


def solve_and_judge(loop: EvolutionLoop, problems: Sequence[Problem] | None = None) -> Sequence[Judged]:
    """Alg. 1 line 1: the teacher answers a subset of D; the judge filters (Figure 3)."""
    lab, stage = loop.lab, loop.stage
    size = lab.config.distill.size
    chosen = to_distill(lab.splits, size) if problems is None else problems[:size]
    batches = [chosen[k : k + AT_ONCE] for k in range(0, len(chosen), AT_ONCE)]
    log = BatchLog(stage.path / PATHS, [len(b) for b in batches])
    with lab.work(stage, "sample", "teacher's solutions", len(chosen)) as advance:
        for call in in_calls(lab.teacher, batches[log.done :]):
            problems = [p for batch in call for p in batch]
            paths = map(_solution(loop), problems, lab.teacher.solve(problems))
            for batch in call:
                log.append(list(islice(paths, len(batch))))
                advance(len(batch))
    return judge(loop, JsonlRows(log.path, ReasoningPath), lab.config.distill.judge)


def _solution(loop: EvolutionLoop) -> Callable[[Problem, str | None], ReasoningPath]:
    """The teacher's answer as a path; an unusable one is an empty path."""
    lab, stage = loop.lab, loop.stage.name

    def path(problem: Problem, text: str | None) -> ReasoningPath:
        prompt = prompt_version(lab.teacher, "generate", problem)
        lineage = Lineage("teacher", stage, loop.teacher_name, prompt=prompt)
        return ReasoningPath(f"{stage}/{problem.id}/0", problem.id, text or "", lineage)

    return path


def sample_paths(loop: EvolutionLoop) -> Sequence[ReasoningPath]:
    """Alg. 1 line 7: the last student writes paths on D_remain, or on a sample of it."""
    lab, stage, evolution = loop.lab, loop.stage, loop.lab.config.evolution
    remaining = loop.state.remaining
    size = evolution.round.sample_size
    if size is not None and size < len(remaining):
        remaining = sorted(rng(lab.seed(stage, "problems")).sample(remaining, size))
    problems = Mapped(lab.problems.__getitem__, remaining)
    n = evolution.samples_per_problem
    with lab.work(stage, "sample", "reasoning paths", len(problems) * n) as advance:
        return lab.generator.sample(
            lab.model_of(loop.student),
            problems,
            stage.path / PATHS,
            stage=stage.name,
            n=n,
            model=f"{loop.student.stage.name}/{CHECKPOINT}",
            seed=lab.config.seed,
            advance=advance,
        )


def judge(loop: EvolutionLoop, paths: Sequence[ReasoningPath], chosen: Any) -> Sequence[Judged]:
    """Alg. 1 line 8: a verdict on each path, in the order of the paths."""
    lab, stage = loop.lab, loop.stage
    with lab.work(stage, "judge", "verdicts", len(paths)) as advance:
        verdicts = judge_paths(
            lab.judge(chosen),
            lab.problems,
            paths,
            stage.path / VERDICTS,
            batch_size=lab.config.judge.batch_size,
            advance=advance,
        )
    return judged_rows(paths, verdicts)


def fit_student(loop: EvolutionLoop, init: str) -> Student:
    """Alg. 1 lines 3, 12, 17: SFT on D_SFT, from the base or from the previous student; or, where D_SFT is empty or
    the previous student was fitted on the same rows, that student carried on."""
    lab, stage, rows = loop.lab, loop.stage, loop.state.train
    previous = loop.student
    if reason := _nothing_new(loop):
        lab.progress.say(f"{stage.name}: {reason}; no fit, the student of {previous.stage.name} is carried on")
        write_json(stage.path / SKIPPED_FIT, {"reason": reason, "carried_on": previous.stage.name})
        for name in (CHECKPOINT, PREDICTIONS, METRICS, DEV_PREDICTIONS):
            carry_on(previous.stage.path / name, stage.path / name)
        return Student(stage, carried_on=True)
    start = loop.base.checkpoint if init == "base" else previous.checkpoint
    backbone = lab.backbone(start)
    lab.fit(
        backbone,
        stage,
        training_rows(lab, backbone.prompt_style, rows),
        lab.config.sft,
        what=f"fit on {len(rows)} paths",
        val_rows=lab.solution_rows(backbone, "dev"),
    )
    return Student(stage)


def _nothing_new(loop: EvolutionLoop) -> str | None:
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


def summary(loop: EvolutionLoop) -> dict[str, Any]:
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


def inputs(loop: EvolutionLoop) -> list[Path]:
    """The files of other stages that this one read: D_SFT and R_incorrect as they stood (checkpoints are outputs of the
    stages named in "after")."""
    before = loop.state_stage
    return [before.path / TRAIN, before.path / INCORRECT] if before is not None else []


NOTHING_JUDGED = dict.fromkeys(("accepted", "rejected", "unparsed", "acceptance_precision", "step_precision"))


def counts(loop: EvolutionLoop) -> dict[str, Any]:
    """Rows of D_SFT by origin, and what the judge said of the paths of this stage (the final one: of the rewrites)."""
    origins = Counter(path.lineage.origin for path in loop.state.train)
    judged = acceptance(loop.lab, loop.judged) if loop.stage.name != "final" else loop.reflected
    return {"train_rows": origins.total(), **NOTHING_JUDGED, **judged, "origins": dict(sorted(origins.items()))}


def _accuracy(stage: Stage) -> dict[str, Any]:
    """Null in an ablation without EvaluateStudent."""
    file = stage.path / METRICS
    m = read_json(file) if file.exists() else dict.fromkeys(("accuracy", "ci95", "total", "dev_accuracy"))
    return {"accuracy": m["accuracy"], "ci95": m["ci95"], "n": m["total"], "dev_accuracy": m["dev_accuracy"]}


def _transitions(before: Stage, after: Stage) -> dict[str, int] | None:
    measured = all((stage.path / PREDICTIONS).exists() for stage in (before, after))
    return transitions(correct_by_id(before), correct_by_id(after)) if measured else None
