"""What is measured of a student and of a judge, always on problems that no fit has seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mathse.config.schema import needs_orm
from mathse.evolution.standing import Evolution
from mathse.evolution.state import Judged
from mathse.evolution.student import Student
from mathse.inference.generate import predict
from mathse.judges import Judge, judge_paths
from mathse.judges.answer import AnswerJudge
from mathse.judges.orm_rows import Labelled, balance, label, read_orm
from mathse.runs.layout import (
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


def measure_student(loop: Evolution, stage: Stage, student: Student) -> None:
    """Greedy accuracy on the test problems and on the dev problems (which a sweep may optimise)."""
    settings = loop.config.evaluation
    backbone = loop.models.of(student)
    options: Any = {"batch_size": settings.batch_size, "max_new_tokens": settings.max_new_tokens}
    with loop.context.work(stage, "sample", "test accuracy", len(loop.problems.test)) as advance:
        test = predict(backbone, loop.problems.test, stage.path / PREDICTIONS, advance=advance, **options)
        dev = predict(backbone, loop.problems.splits["dev"], stage.path / DEV_PREDICTIONS, **options)
    write_json(
        stage.path / METRICS, {**accuracy(test), "dev_accuracy": accuracy(dev)["accuracy"], "dev_total": len(dev)}
    )


def measure_judge(loop: Evolution, stage: Stage, student: Student) -> None:
    """How well the ORM judges THIS student's paths on held-out problems: it falls as the student improves."""
    held = loop.problems.splits["orm_held"]
    if not needs_orm(loop.config) or not held:
        return
    paths = sample_held(loop, stage, student)
    labelled = balance(label(paths, loop.problems.by_id, labeller(loop)), loop.config.seed)
    judge_held(loop, stage, loop.models.orm, labelled, stage.path / ORM_METRICS)


def sample_held(loop: Evolution, stage: Stage, student: Student) -> Sequence[ReasoningPath]:
    held = loop.problems.splits["orm_held"]
    with loop.context.work(stage, "sample", "held-out paths", len(held)) as advance:
        return loop.models.generator.sample(
            loop.models.of(student),
            held,
            stage.path / HELD_PATHS,
            stage=f"{stage.name}/held",
            model=student.name,
            seed=loop.config.seed,
            advance=advance,
        )


def judge_held(
    loop: Evolution, stage: Stage, judge: Judge, labelled: Sequence[Labelled], metrics_file: Path
) -> dict[str, Any]:
    """The judge's verdicts on labelled held-out paths (``orm_held.jsonl``) and its figures."""
    with loop.context.work(stage, "judge", "held-out verdicts", len(labelled)) as advance:
        verdicts = judge_paths(
            judge,
            loop.problems.by_id,
            [p for p, _ in labelled],
            stage.path / HELD_VERDICTS,
            batch_size=loop.config.judge.batch_size,
            advance=advance,
        )
    said = {v.path_id: v for v in verdicts}
    rows = [{"path": path, "label": word, "verdict": said[path.id]} for path, word in labelled]
    write_jsonl(stage.path / ORM_HELD, rows)
    figures = orm_metrics(
        [word for _, word in labelled],
        [said[path.id] for path, _ in labelled],
        loop.config.judge.threshold,
        names_steps=read_orm(loop.models.orm_checkpoint)["kind"] != "binary",
    )
    write_json(metrics_file, figures)
    return figures


def labeller(loop: Evolution) -> Callable[[Problem, ReasoningPath], Verdict]:
    """(problem, path) -> label: by the source's step checker where it has one, else by answer match."""
    by_answer = AnswerJudge()

    def annotate(problem: Problem, path: ReasoningPath) -> Verdict:
        word: Verdict | None = loop.problems.source.check(problem, path.text)
        if word is not None:
            return word
        word = by_answer.judge([problem], [path])[0]
        return word if word.status == "correct" else replace(word, status="wrong")

    return annotate


def explained(loop: Evolution, labelled: Sequence[Labelled]) -> list[Labelled]:
    """The same labels; of wrong paths that no checker has looked at, with the teacher's word on where and why.

    Asked last, of the paths that are kept: each word may cost something.
    """
    asked = [k for k, (_, word) in enumerate(labelled) if word.status == "wrong" and word.judge == AnswerJudge.name]
    paths = [labelled[k][0] for k in asked]
    said = loop.models.teacher.annotate([loop.problems.by_id[p.problem_id] for p in paths], paths) if paths else []
    full = list(labelled)
    for k, word in zip(asked, said, strict=True):
        path, by_answer = labelled[k]
        analysis = word.error_analysis or by_answer.error_analysis
        full[k] = path, replace(by_answer, error_step=word.error_step, error_analysis=analysis)
    return full


def acceptance(loop: Evolution, judged: Sequence[Judged]) -> dict[str, Any]:
    """Counts of accepted, rejected and unparsed paths, and how many of the accepted are right: by answer match
    (``acceptance_precision``), and by the source's step checker (``step_precision``)."""
    taken = unparsed = 0
    right, steps = bytearray(), bytearray()  # a byte a path
    for item in judged:
        unparsed += item.verdict.status == "unparsed"
        if not loop.models.accepts(item.verdict):
            continue
        taken += 1
        problem = loop.problems.by_id[item.path.problem_id]
        if problem.answer:
            right.append(_answers(problem, item.path))
        if (word := loop.problems.source.check(problem, item.path.text)) is not None:
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
