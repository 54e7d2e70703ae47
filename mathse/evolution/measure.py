"""What is measured of a student and of a judge, always on problems that no fit has seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mathse.config.evolution import NOBODY
from mathse.config.judges import judge_named
from mathse.config.schema import needs_orm
from mathse.data.domains import is_right
from mathse.evolution.evolution_run import EvolutionRun, is_reflection
from mathse.evolution.models import Student
from mathse.evolution.state import Judged
from mathse.evolution.training_rows import Exposure, Preference, falling_loss, warnings
from mathse.inference.generate import predict
from mathse.judges import Judge, judge_paths
from mathse.judges.answer import AnswerJudge
from mathse.judges.orm_rows import Labelled, balance, label, read_orm
from mathse.judges.teachers import PaidTeacher
from mathse.reporting.progress.wording import accuracy_text
from mathse.runs.layout import (
    DEV_PREDICTIONS,
    FIRST_FIT,
    HELD_PATHS,
    HELD_VERDICTS,
    INCORRECT,
    METRICS,
    ORM_HELD,
    ORM_METRICS,
    PREDICTIONS,
    PREFERENCES,
    SKIPPED_FIT,
    TOO_LONG,
    TRAIN,
    TRAIN_LOG,
)
from mathse.runs.ledger import of_run, with_costs
from mathse.runs.reader import read_stages
from mathse.runs.rows import JsonlRows
from mathse.runs.stage_cache import Stage
from mathse.runs.store import read_json, read_jsonl, write_json, write_jsonl
from mathse.runs.teacher_calls import ASKED
from mathse.scoring.metrics import Decision, accuracy, decide, orm_metrics, transitions
from mathse.types import Origin, Problem, ReasoningPath, Verdict


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
        **read_accuracy(stage),
        **counts(loop),
        **({"pairs": len(JsonlRows(pairs, Preference))} if (pairs := stage.path / PREFERENCES).exists() else {}),
        "exposure": _exposure(loop),
        "transitions": moves,
        "skipped_fit": read_json(skipped)["reason"] if skipped.exists() else None,
    }


def _exposure(loop: EvolutionRun) -> dict[str, Any] | None:
    """How often the stage's SFT showed the rows of D_SFT, shown and with its warnings; None where there was none."""
    stage, evolution, name = loop.stage, loop.config.evolution, loop.fit_stage
    if loop.student.carried_on or (evolution.update == "dpo" and loop.learns_from_pairs):
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


def read_accuracy(stage: Stage) -> dict[str, Any]:
    """Null in an ablation without EvaluateStudent."""
    file = stage.path / METRICS
    metrics = read_json(file) if file.exists() else dict.fromkeys(("accuracy", "ci95", "total", "dev_accuracy"))
    return {
        "accuracy": metrics["accuracy"],
        "ci95": metrics["ci95"],
        "n": metrics["total"],
        "dev_accuracy": metrics["dev_accuracy"],
    }


ORM_FIGURES = (
    "positive_accuracy",
    "negative_accuracy",
    "overall_accuracy",
    "error_step_accuracy",
    "auroc",
    "n",
    "unparsed",
    "ci95",
)


def summarize(loop: EvolutionRun) -> dict[str, Any]:
    """The summary of a finished run; ``metric`` is dev accuracy (task=orm: held-out verdict accuracy)."""
    config, run = loop.config, loop.context.run
    orm = next((orm_figures(stage.summary) for stage in loop.orm_stages), None)
    by_student = [
        {"stage": entry["stage"], **orm_figures(read_json(file))}
        for entry in loop.entries
        if (file := run.path / entry["stage"] / ORM_METRICS).exists()
    ]
    last = loop.entries[-1] if loop.entries else {}
    made = read_stages(run.path)
    metric = orm["overall_accuracy"] if config.task == "orm" and orm else last.get("dev_accuracy")
    return {
        "status": "finished",
        "name": config.name,
        "task": config.task,
        "seed": config.seed,
        "metric": metric,
        "stages": [with_costs(entry, made) for entry in loop.entries],
        "ledger": of_run(made),
        "orm": orm,
        "orm_by_student": by_student,
        "notes": [
            *loop.context.notes,
            *_warnings(loop),
            *(f"{stage.name}: {reason}" for stage in made if (reason := stage.summary.get("no_rewrites"))),
        ],
        **({"usage": teacher.usage()} if isinstance(teacher := loop.models.teacher, PaidTeacher) else {}),
    }


def _warnings(loop: EvolutionRun) -> list[str]:
    """The warnings of each stage's training run: rows that it hardly saw, a loss that still falls."""
    runs = ((entry["stage"], entry["exposure"]) for entry in loop.entries if entry.get("exposure"))
    return [f"{stage}: {warning}" for stage, exposure in runs for warning in exposure["warnings"]]


def orm_figures(metrics: dict[str, Any]) -> dict[str, Any]:
    """An ORM's figures without the bins of its reliability diagram."""
    return {key: metrics.get(key) for key in ORM_FIGURES}


def asked_of_teacher(loop: EvolutionRun, drafts: int = 0) -> int:
    """Solutions or rewrites of the stage, and verdicts where the teacher gives such.

    Args:
        drafts: of a reflection, those that feedback was given on.
    """
    config, judged, name = loop.config, len(loop.judged), Path(loop.stage.name).name
    reflect = config.evolution.reflect
    asks = judge_named(config.distill.judge if name == "distill" else config.judge, config.judge).asks
    calls = judged if "teacher" in asks else 0
    if name == "distill" or (name == "reflection" and reflect.writer == "teacher"):
        calls += judged
    if reflect.feedback != NOBODY and "teacher" in judge_named(reflect.feedback, config.judge).asks:
        calls += drafts
    return calls
