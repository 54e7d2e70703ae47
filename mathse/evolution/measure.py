"""What is measured of a student and of a judge, always on problems that no fit has seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mathse.config.schema import needs_orm
from mathse.data.domains import is_right
from mathse.evolution.evolution_run import EvolutionRun
from mathse.evolution.state import Judged
from mathse.evolution.student import Student
from mathse.inference.generate import predict
from mathse.judges import Judge, judge_paths
from mathse.judges.answer import AnswerJudge
from mathse.judges.orm_rows import Labelled, balance, label, read_orm
from mathse.reporting.progress.wording import accuracy_text
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
from mathse.runs.store import write_json, write_jsonl
from mathse.scoring.metrics import Decision, accuracy, decide, orm_metrics
from mathse.types import Problem, ReasoningPath, Verdict


def measure_student(loop: EvolutionRun, stage: Stage, student: Student) -> None:
    """Greedy accuracy on the test problems and on the dev problems (which a sweep may optimise)."""
    settings = loop.config.evaluation
    backbone = loop.models.of(student)
    options: Any = {"batch_size": settings.batch_size, "max_new_tokens": settings.max_new_tokens}
    with loop.context.work(stage, "sample", "test accuracy", len(loop.problems.test), account="measuring") as advance:
        test = predict(backbone, loop.problems.test, stage.path / PREDICTIONS, advance=advance, **options)
        dev = predict(backbone, loop.problems.splits["dev"], stage.path / DEV_PREDICTIONS, **options)
    on_test = accuracy(test)
    write_json(stage.path / METRICS, {**on_test, "dev_accuracy": accuracy(dev)["accuracy"], "dev_total": len(dev)})
    if test:
        shown = accuracy_text(on_test["accuracy"], on_test["ci95"])
        loop.context.progress.say(f"{stage.name}: test accuracy {shown} on {len(test):,} problems")


def measure_judge(loop: EvolutionRun, stage: Stage, student: Student) -> None:
    """How well the ORM judges THIS student's paths on held-out problems: it falls as the student improves."""
    held = loop.problems.splits["orm_held"]
    if not needs_orm(loop.config) or not held:
        return
    with loop.context.work(stage, "sample", "held-out paths", len(held), account="measuring") as advance:
        paths = loop.models.generator.sample(
            loop.models.of(student),
            held,
            stage.path / HELD_PATHS,
            stage=f"{stage.name}/held",
            model=student.name,
            seed=loop.config.seed,
            advance=advance,
        )
    # as many correct as wrong paths, so that an ORM that always says the same has an accuracy of one half
    labelled = balance(label(paths, loop.problems.by_id, labeller(loop)), loop.config.seed)
    judge_held(loop, stage, loop.models.orm, labelled, stage.path / ORM_METRICS)


def judge_held(
    loop: EvolutionRun, stage: Stage, judge: Judge, labelled: Sequence[Labelled], metrics_file: Path
) -> dict[str, Any]:
    """The judge's verdicts on labelled held-out paths (``orm_held.jsonl``) and its figures."""
    with loop.context.work(stage, "judge", "held-out verdicts", len(labelled), account="measuring") as advance:
        verdicts = judge_paths(
            judge,
            loop.problems.by_id,
            [path for path, _ in labelled],
            stage.path / HELD_VERDICTS,
            batch_size=loop.config.judge.batch_size,
            advance=advance,
        )
    by_path = {verdict.path_id: verdict for verdict in verdicts}  # they come sorted by the length of the paths
    rows = [{"path": path, "label": truth, "verdict": by_path[path.id]} for path, truth in labelled]
    write_jsonl(stage.path / ORM_HELD, rows)
    figures = orm_metrics(
        [truth for _, truth in labelled],
        [by_path[path.id] for path, _ in labelled],
        loop.config.judge.threshold,
        names_steps=read_orm(loop.models.orm_checkpoint)["kind"] != "binary",
    )
    write_json(metrics_file, figures)
    return figures


def labeller(loop: EvolutionRun) -> Callable[[Problem, ReasoningPath], Verdict]:
    """(problem, path) -> label: by the source's step checker where it has one, else by answer match. A label is never
    "unparsed": a path without an answer is wrong."""
    by_answer = AnswerJudge()

    def annotate(problem: Problem, path: ReasoningPath) -> Verdict:
        checked: Verdict | None = loop.problems.source.check(problem, path.text)
        if checked is not None:
            return checked
        verdict = by_answer.judge([problem], [path])[0]
        return verdict if verdict.status == "correct" else replace(verdict, status="wrong")

    return annotate


def explained(loop: EvolutionRun, labelled: Sequence[Labelled]) -> list[Labelled]:
    """The same labels; those of wrong paths that no step checker has read get the teacher's error step and analysis.

    It comes after balancing, because each annotation may cost something.
    """
    by_answer = to_explain(labelled)
    paths = [labelled[k][0] for k in by_answer]
    problems = [loop.problems.by_id[path.problem_id] for path in paths]
    annotations = loop.models.teacher.annotate(problems, paths) if paths else []
    labels = list(labelled)
    for k, annotation in zip(by_answer, annotations, strict=True):
        path, truth = labelled[k]
        analysis = annotation.error_analysis or truth.error_analysis
        labels[k] = path, replace(truth, error_step=annotation.error_step, error_analysis=analysis)
    return labels


def to_explain(labelled: Sequence[Labelled]) -> list[int]:
    """The positions of the wrong paths that no step checker has read, before and after ``explained``."""
    return [k for k, (_, truth) in enumerate(labelled) if truth.status == "wrong" and truth.judge == AnswerJudge.name]


def acceptance(loop: EvolutionRun, judged: Sequence[Judged]) -> dict[str, Any]:
    """Counts of accepted, rejected and unparsed paths, and the share of the accepted that is correct: by answer match
    (``acceptance_precision``), and by the source's step checker (``step_precision``)."""
    decisions: Counter[Decision | None] = Counter()
    by_answer, by_steps = bytearray(), bytearray()  # a byte a path: 1 where it is correct
    for item in judged:
        decision = decide(item.verdict, loop.config.judge.threshold)
        decisions[decision] += 1
        if decision != "accepted":
            continue
        problem, text = loop.problems.by_id[item.path.problem_id], item.path.text
        if problem.answer:
            by_answer.append(is_right(problem, text))
        if (checked := loop.problems.source.check(problem, text)) is not None:
            by_steps.append(checked.status == "correct")

    def share(hits: bytearray) -> float | None:
        return round(sum(hits) / len(hits), 6) if hits else None

    return {
        "accepted": decisions["accepted"],
        "rejected": decisions["rejected"],
        "unparsed": decisions["unparsed"],
        "acceptance_precision": share(by_answer),
        "step_precision": share(by_steps),
    }
