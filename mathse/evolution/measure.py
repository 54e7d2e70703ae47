"""The figures of a run: a student and a judge on problems of no fit, and the summaries of stages and runs."""

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
from mathse.evolution.evolution_run import REFLECTION, EvolutionRun, is_reflection
from mathse.evolution.models import Student
from mathse.evolution.state import Judged
from mathse.evolution.training_rows import Exposure, Preference, warn_about_exposure, warn_about_loss
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
from mathse.runs.ledger import add_costs, sum_accounts
from mathse.runs.reader import read_stages
from mathse.runs.rows import JsonlRows
from mathse.runs.stage_cache import Stage
from mathse.runs.store import read_json, read_jsonl, write_json, write_jsonl
from mathse.runs.teacher_calls import ASKED
from mathse.scoring.metrics import Decision, accuracy, decide, orm_metrics, transitions
from mathse.types import Origin, Problem, ReasoningPath, Verdict

# --- students ---------------------------------------------------------------------------------------------------------


def measure_student(loop: EvolutionRun, stage: Stage, student: Student) -> None:
    """Write the accuracy of greedy answers to the test problems and the dev problems. A sweep optimises the latter."""
    settings = loop.config.evaluation
    backbone = loop.models.open_student(student)
    options: Any = {"batch_size": settings.batch_size, "max_new_tokens": settings.max_new_tokens}
    with loop.context.work(stage, "sample", "test accuracy", len(loop.problems.test), account="measuring") as advance:
        test = predict(backbone, loop.problems.test, stage.path / PREDICTIONS, advance=advance, **options)
        dev = predict(backbone, loop.problems.splits["dev"], stage.path / DEV_PREDICTIONS, **options)
    on_test = accuracy(test)
    write_json(stage.path / METRICS, {**on_test, "dev_accuracy": accuracy(dev)["accuracy"], "dev_total": len(dev)})
    if test:
        shown = accuracy_text(on_test["accuracy"], on_test["ci95"])
        loop.context.progress.say(f"{stage.name}: test accuracy {shown} on {len(test):,} problems")


# --- judges -----------------------------------------------------------------------------------------------------------


def measure_judge(loop: EvolutionRun, stage: Stage, student: Student) -> None:
    """Measure the ORM on paths of this student for held-out problems. The ORM learned from the paths of weak students,
    so its figures fall as the student improves."""
    held = loop.problems.splits["orm_held"]
    if not needs_orm(loop.config) or not held:
        return
    with loop.context.work(stage, "sample", "held-out paths", len(held), account="measuring") as advance:
        paths = loop.models.generator.sample(
            loop.models.open_student(student),
            held,
            stage.path / HELD_PATHS,
            stage=f"{stage.name}/held",
            model=student.name,
            seed=loop.config.seed,
            advance=advance,
        )
    # Equal numbers of correct and wrong paths: an ORM with constant verdicts has an accuracy of 1/2.
    labelled = balance(label(paths, loop.problems.by_id, make_labeller(loop)), loop.config.seed)
    judge_held_out(loop, stage, loop.models.orm, labelled, stage.path / ORM_METRICS)


def judge_held_out(
    loop: EvolutionRun, stage: Stage, judge: Judge, labelled: Sequence[Labelled], metrics_file: Path
) -> dict[str, Any]:
    """Judge labelled held-out paths, and compare the verdicts with the labels.

    Args:
        labelled: paths with their labels.
        metrics_file: file for the figures. ``orm_held.jsonl`` beside it gets the paths, labels and verdicts.

    Returns:
        The figures.
    """
    with loop.context.work(stage, "judge", "held-out verdicts", len(labelled), account="measuring") as advance:
        verdicts = judge_paths(
            judge,
            loop.problems.by_id,
            [path for path, _ in labelled],
            stage.path / HELD_VERDICTS,
            batch_size=loop.config.judge.batch_size,
            advance=advance,
        )
    # The verdicts are sorted by the length of their paths.
    verdict_of = {verdict.path_id: verdict for verdict in verdicts}
    rows = [{"path": path, "label": truth, "verdict": verdict_of[path.id]} for path, truth in labelled]
    write_jsonl(stage.path / ORM_HELD, rows)
    figures = orm_metrics(
        [truth for _, truth in labelled],
        [verdict_of[path.id] for path, _ in labelled],
        loop.config.judge.threshold,
        names_steps=read_orm(loop.models.orm_checkpoint)["kind"] != "binary",
    )
    write_json(metrics_file, figures)
    return figures


def make_labeller(loop: EvolutionRun) -> Callable[[Problem, ReasoningPath], Verdict]:
    """Return a function from a problem and a path to the label of the path.

    The step checker of the data source gives the label. If the source has no checker, the label is the match of the
    final answer. A label is never "unparsed": a path without an answer is wrong.
    """
    by_answer = AnswerJudge()

    def label_path(problem: Problem, path: ReasoningPath) -> Verdict:
        checked: Verdict | None = loop.problems.source.check(problem, path.text)
        if checked is not None:
            return checked
        verdict = by_answer.judge([problem], [path])[0]
        return verdict if verdict.status == "correct" else replace(verdict, status="wrong")

    return label_path


def measure_acceptance(loop: EvolutionRun, judged: Sequence[Judged]) -> dict[str, Any]:
    """Count the accepted, rejected and unparsed paths, and return the precision of the accepted paths: by answer match
    (``acceptance_precision``) and by the step checker of the data source (``step_precision``). A precision is None if
    no accepted path could be checked."""
    decisions: Counter[Decision | None] = Counter()
    # Outcomes of the two checks, a byte per accepted path: 1 for correct, 0 for wrong.
    by_answer, by_steps = bytearray(), bytearray()
    for item in judged:
        decision = decide(item.verdict, loop.config.judge.threshold)
        decisions[decision] += 1
        if decision != "accepted":
            continue
        problem, text = loop.problems.by_id[item.path.problem_id], item.path.text
        if problem.answer:
            by_answer.append(is_right(problem, text))
        checked = loop.problems.source.check(problem, text)
        if checked is not None:
            by_steps.append(checked.status == "correct")
    return {
        "accepted": decisions["accepted"],
        "rejected": decisions["rejected"],
        "unparsed": decisions["unparsed"],
        "acceptance_precision": round(sum(by_answer) / len(by_answer), 6) if by_answer else None,
        "step_precision": round(sum(by_steps) / len(by_steps), 6) if by_steps else None,
    }


# --- the summary of a stage -------------------------------------------------------------------------------------------

NOTHING_JUDGED = dict.fromkeys(("accepted", "rejected", "unparsed", "acceptance_precision", "step_precision"))


def summarize_stage(loop: EvolutionRun) -> dict[str, Any]:
    """Return the row of the current stage in summary.json."""
    stage = loop.stage
    # Figure 2: test problems that the students before and after this fit solve
    solved_before, solved_after = loop.previous.stage.path / PREDICTIONS, stage.path / PREDICTIONS
    moves = None
    if solved_before.exists() and solved_after.exists():
        moves = transitions(
            {row["id"]: row["correct"] for row in read_jsonl(solved_before)},
            {row["id"]: row["correct"] for row in read_jsonl(solved_after)},
        )
    summary = {"stage": stage.name, **read_accuracy(stage), **count_rows(loop)}
    pairs, skipped = stage.path / PREFERENCES, stage.path / SKIPPED_FIT
    if pairs.exists():
        summary["pairs"] = len(JsonlRows(pairs, Preference))
    return {
        **summary,
        "exposure": _measure_exposure(loop),
        "transitions": moves,
        "skipped_fit": read_json(skipped)["reason"] if skipped.exists() else None,
    }


def _measure_exposure(loop: EvolutionRun) -> dict[str, Any] | None:
    """Report how often the stage's SFT showed the rows of D_SFT, with warnings; None for a stage without SFT."""
    stage, evolution, name = loop.stage, loop.config.evolution, loop.fit_stage
    update = loop.update
    if loop.student.carried_on or not (update.data == "rows" or getattr(update, "sft_first", False)):
        return None
    # With SFT and DPO in one stage, SFT is the first fit and has its own folder.
    folder = stage.path / FIRST_FIT if (stage.path / FIRST_FIT).exists() else stage.path
    too_long: set[int] = set()  # positions in D_SFT; the file counts from 1
    if (folder / TOO_LONG).exists():
        too_long = {row["row"] - 1 for row in read_jsonl(folder / TOO_LONG)}
    origins = Counter(path.lineage.origin for k, path in enumerate(loop.state.train) if k not in too_long)

    settings = loop.config.sft.of_stage(name)
    own: list[Origin] = ["student", "reflection"] if evolution.reflect.writer == "student" else ["student"]
    rows = origins.total()
    exposure = Exposure(rows, sum(origins[origin] for origin in own), settings.steps(rows) * settings.batch_size)
    section = "sft" if name is None else f"sft.{name}"
    warnings = [*warn_about_exposure(exposure, section, has_own=name == "round")]
    warnings += warn_about_loss(read_jsonl(folder / TRAIN_LOG), section)
    for line in (str(exposure), *warnings):
        loop.context.progress.say(f"{stage.name}: {line}")
    return {**exposure.to_json(), "warnings": warnings}


def list_inputs(loop: EvolutionRun) -> list[Path]:
    """Return the files of other stages that the current stage reads: the earlier D_SFT and R_incorrect. Checkpoints are
    covered by the stages in "after"."""
    before = loop.state_stage
    return [before.path / TRAIN, before.path / INCORRECT] if before is not None else []


def count_rows(loop: EvolutionRun) -> dict[str, Any]:
    """Count the rows of D_SFT by origin, the verdicts of the current stage and its calls of the teacher.

    The final stage judges no path. It reports the verdicts of the reflection before it.
    """
    origins = Counter(path.lineage.origin for path in loop.state.train)  # teacher, student, reflection
    before = loop.state_stage
    judged = {}
    if loop.stage.name != "final":
        judged = measure_acceptance(loop, loop.judged)
    elif before is not None and is_reflection(before):
        judged = {key: before.summary[key] for key in NOTHING_JUDGED}
    rows = {"train_rows": origins.total(), **NOTHING_JUDGED, **judged, "origins": dict(sorted(origins.items()))}
    return {**rows, ASKED: count_teacher_calls(loop)}


def count_teacher_calls(loop: EvolutionRun, drafts: int = 0) -> int:
    """Return the number of rows that the current stage sent to the teacher: solutions or rewrites, and verdicts if the
    teacher judges. mathse/runs/teacher_calls.py reads this number.

    Args:
        drafts: drafts of a reflection for which feedback was requested.
    """
    config, judged, name = loop.config, len(loop.judged), Path(loop.stage.name).name
    reflect = config.evolution.reflect
    asks = judge_named(config.distill.judge if name == "distill" else config.judge, config.judge).asks
    calls = judged if "teacher" in asks else 0
    if name == "distill" or (name == REFLECTION and reflect.writer == "teacher"):
        calls += judged
    if reflect.feedback != NOBODY and "teacher" in judge_named(reflect.feedback, config.judge).asks:
        calls += drafts
    return calls


def read_accuracy(stage: Stage) -> dict[str, Any]:
    """Return the accuracies of a stage's student; None for each in an ablation without EvaluateStudent."""
    file = stage.path / METRICS
    metrics = read_json(file) if file.exists() else dict.fromkeys(("accuracy", "ci95", "total", "dev_accuracy"))
    return {
        "accuracy": metrics["accuracy"],
        "ci95": metrics["ci95"],
        "n": metrics["total"],
        "dev_accuracy": metrics["dev_accuracy"],
    }


# --- summary.json -----------------------------------------------------------------------------------------------------


def summarize_run(loop: EvolutionRun) -> dict[str, Any]:
    """Return the summary of a finished run. It has no time and no path, so two equal runs have equal summaries.

    ``metric`` is the number that a sweep optimises: dev accuracy; in task=orm, the accuracy of held-out verdicts.
    """
    config, run, teacher = loop.config, loop.context.run, loop.models.teacher
    orm = select_orm_figures(loop.orm_stages[0].summary) if loop.orm_stages else None
    orm_by_student = []
    for entry in loop.entries:
        file = run.path / entry["stage"] / ORM_METRICS
        if file.exists():
            orm_by_student.append({"stage": entry["stage"], **select_orm_figures(read_json(file))})

    # Notes of the run, then warnings of trainings, then reflections without rewrites.
    finished = read_stages(run.path)
    notes = list(loop.context.notes)
    for entry in loop.entries:
        if entry.get("exposure"):
            notes += [f"{entry['stage']}: {warning}" for warning in entry["exposure"]["warnings"]]
    for stage in finished:
        if reason := stage.summary.get("no_rewrites"):
            notes.append(f"{stage.name}: {reason}")

    last = loop.entries[-1] if loop.entries else {}
    summary = {
        "status": "finished",
        "name": config.name,
        "task": config.task,
        "seed": config.seed,
        "metric": orm["overall_accuracy"] if config.task == "orm" and orm else last.get("dev_accuracy"),
        "stages": [add_costs(entry, finished) for entry in loop.entries],
        "ledger": sum_accounts(finished),
        "orm": orm,
        "orm_by_student": orm_by_student,
        "notes": notes,
    }
    if isinstance(teacher, PaidTeacher):
        summary["usage"] = teacher.usage()
    return summary


def select_orm_figures(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return an ORM's figures without the bins of its reliability diagram."""
    names = (
        "positive_accuracy",
        "negative_accuracy",
        "overall_accuracy",
        "error_step_accuracy",
        "auroc",
        "n",
        "unparsed",
        "ci95",
    )
    return {name: metrics.get(name) for name in names}
