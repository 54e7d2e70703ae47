"""What is measured of a student and of a judge, always on problems that no fit has seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mathse.config.schema import needs_orm
from mathse.evolution.lab import Lab, Student
from mathse.evolution.state import Judged
from mathse.inference.generate import predict
from mathse.judges import Judge, judge_paths
from mathse.judges.answer import AnswerJudge
from mathse.judges.orm_rows import Labelled, balance, label, read_orm
from mathse.runs.layout import (
    CHECKPOINT,
    DEV_PREDICTIONS,
    HELD_PATHS,
    HELD_VERDICTS,
    METRICS,
    ORM_HELD,
    ORM_METRICS,
    PREDICTIONS,
)
from mathse.runs.stage_cache import Stage
from mathse.runs.store import read_jsonl, write_json, write_jsonl
from mathse.scoring.answers import extract_answer, same_answer
from mathse.scoring.metrics import accuracy, orm_metrics
from mathse.types import Problem, ReasoningPath, Verdict


def measure_student(lab: Lab, stage: Stage, student: Student) -> None:
    """Greedy accuracy on the test problems and on the dev problems (which a sweep may optimise)."""
    settings = lab.config.evaluation
    backbone = lab.model_of(student)
    options: Any = {"batch_size": settings.batch_size, "max_new_tokens": settings.max_new_tokens}
    with lab.work(stage, "sample", "test accuracy", len(lab.test)) as advance:
        test = predict(backbone, lab.test, stage.path / PREDICTIONS, advance=advance, **options)
        dev = predict(backbone, lab.splits["dev"], stage.path / DEV_PREDICTIONS, **options)
    write_json(
        stage.path / METRICS, {**accuracy(test), "dev_accuracy": accuracy(dev)["accuracy"], "dev_total": len(dev)}
    )


def measure_judge(lab: Lab, stage: Stage, student: Student) -> None:
    """How well the ORM judges THIS student's paths on held-out problems: it falls as the student improves."""
    held = lab.splits["orm_held"]
    if not needs_orm(lab.config) or not held:
        return
    paths = sample_held(lab, stage, student)
    labelled = balance(label(paths, lab.problems, labeller(lab)), lab.config.seed)
    judge_held(lab, stage, lab.orm, labelled, stage.path / ORM_METRICS)


def sample_held(lab: Lab, stage: Stage, student: Student) -> Sequence[ReasoningPath]:
    held = lab.splits["orm_held"]
    with lab.work(stage, "sample", "held-out paths", len(held)) as advance:
        return lab.generator.sample(
            lab.model_of(student),
            held,
            stage.path / HELD_PATHS,
            stage=f"{stage.name}/held",
            model=f"{stage.name}/{CHECKPOINT}",
            seed=lab.config.seed,
            advance=advance,
        )


def judge_held(
    lab: Lab, stage: Stage, judge: Judge, labelled: Sequence[Labelled], metrics_file: Path
) -> dict[str, Any]:
    """The judge's verdicts on labelled held-out paths (``orm_held.jsonl``) and its figures."""
    with lab.work(stage, "judge", "held-out verdicts", len(labelled)) as advance:
        verdicts = judge_paths(
            judge,
            lab.problems,
            [p for p, _ in labelled],
            stage.path / HELD_VERDICTS,
            batch_size=lab.config.judge.batch_size,
            advance=advance,
        )
    said = {v.path_id: v for v in verdicts}
    rows = [{"path": path, "label": word, "verdict": said[path.id]} for path, word in labelled]
    write_jsonl(stage.path / ORM_HELD, rows)
    figures = orm_metrics(
        [word for _, word in labelled],
        [said[path.id] for path, _ in labelled],
        lab.config.judge.threshold,
        names_steps=read_orm(lab.orm_checkpoint)["kind"] != "binary",
    )
    write_json(metrics_file, figures)
    return figures


def labeller(lab: Lab) -> Callable[[Problem, ReasoningPath], Verdict]:
    """(problem, path) -> label: by the source's step checker where it has one, else by answer match."""
    by_answer = AnswerJudge()

    def annotate(problem: Problem, path: ReasoningPath) -> Verdict:
        word: Verdict | None = lab.source.check(problem, path.text)
        if word is not None:
            return word
        word = by_answer.judge([problem], [path])[0]
        return word if word.status == "correct" else replace(word, status="wrong")

    return annotate


def explained(lab: Lab, labelled: Sequence[Labelled]) -> list[Labelled]:
    """The same labels; of wrong paths that no checker has looked at, with the teacher's word on where and why.

    Asked last, of the paths that are kept: each word may cost something.
    """
    asked = [k for k, (_, word) in enumerate(labelled) if word.status == "wrong" and word.judge == AnswerJudge.name]
    paths = [labelled[k][0] for k in asked]
    said = lab.teacher.annotate([lab.problems[p.problem_id] for p in paths], paths) if paths else []
    full = list(labelled)
    for k, word in zip(asked, said, strict=True):
        path, by_answer = labelled[k]
        analysis = word.error_analysis or by_answer.error_analysis
        full[k] = path, replace(by_answer, error_step=word.error_step, error_analysis=analysis)
    return full


def acceptance(lab: Lab, judged: Sequence[Judged]) -> dict[str, Any]:
    """Counts of accepted, rejected and unparsed paths, and how many of the accepted are right: by answer match
    (``acceptance_precision``), and by the source's step checker (``step_precision``)."""
    taken = unparsed = 0
    right, steps = bytearray(), bytearray()  # a byte a path
    for item in judged:
        unparsed += item.verdict.status == "unparsed"
        if not lab.accepts(item.verdict):
            continue
        taken += 1
        problem = lab.problems[item.path.problem_id]
        if problem.answer:
            right.append(_answers(problem, item.path))
        if (word := lab.source.check(problem, item.path.text)) is not None:
            steps.append(word.status == "correct")
    return {
        "accepted": taken,
        "rejected": len(judged) - taken - unparsed,
        "unparsed": unparsed,
        "acceptance_precision": _share(right),
        "step_precision": _share(steps),
    }


def correct_by_id(stage: Stage) -> dict[str, bool]:
    """Which test problems the stage's student solved."""
    return {row["id"]: row["correct"] for row in read_jsonl(stage.path / PREDICTIONS)}


def _answers(problem: Problem, path: ReasoningPath) -> bool:
    return same_answer(extract_answer(path.text), problem.answer, problem.choices)


def _share(hits: bytearray) -> float | None:
    return round(sum(hits) / len(hits), 6) if hits else None
