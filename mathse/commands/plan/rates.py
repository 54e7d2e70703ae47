"""Seconds per unit of work: from the command line, or measured in an earlier run (``--like RUN``). None is invented."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mathse.errors import ConfigError
from mathse.runs.layout import PATH_FILES, PREDICTION_FILES, USAGE, VERDICT_FILES
from mathse.runs.reader import FinishedStage, Run, read_run

KINDS = ("fit", "sample", "judge")  # units: an optimiser step, an answer, a verdict; seconds on all devices together


@dataclass
class Rates:
    """The known rates of a machine.

    Attributes:
        seconds: seconds per unit, by kind of work.
        tokens_out: tokens per answer of the teacher, by job.
        notes: the sources of the rates.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    tokens_out: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_rates(by_hand: Sequence[str], like: Path | None) -> Rates:
    """Return the rates given ``by_hand`` ("fit=2.5") and those measured in the run ``like``. A rate by hand wins.

    Raises ConfigError for a rate that is not KIND=SECONDS, RunError for a folder that is not a run.
    """
    rates = measure_rates(read_run(like)) if like is not None else Rates()
    for text in by_hand:
        kind, _, value = text.partition("=")
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1.0
        if kind not in KINDS or not 0 < seconds < float("inf"):
            raise ConfigError(
                f"--rate {text}: must be KIND=SECONDS with KIND one of {', '.join(KINDS)} (an optimiser step, an "
                "answer, a verdict); pass --rate fit=2.5, for example"
            )
        rates.seconds[kind] = seconds
        rates.notes.append(f"{kind}: {seconds:g} s each, as given")
    return rates


def measure_rates(run: Run) -> Rates:
    """Measure rates in a run's stage.json, train_log.jsonl, verdicts and usage.jsonl."""
    fit = _mean_seconds(run.stages, "fit", lambda stage: max((int(row["step"]) for row in stage.curve()), default=0))
    # The ORM's verdicts are in the stages that it judged, otherwise on its own held-out paths.
    later_stages = [stage for stage in run.stages if not stage.name.startswith("orm")]
    judge = _mean_seconds(later_stages, "judge", _count_orm_verdicts)
    judge_source = str(run.folder)
    if judge is None:
        orm_stage = [stage for stage in run.stages if stage.name == "orm"]
        judge = _mean_seconds(orm_stage, "judge", _count_orm_verdicts)
        judge_source += "/orm, on held-out paths: in no later stage was the ORM the only judge"

    rates = Rates()
    for kind, seconds, source in (
        ("fit", fit, run.folder),
        ("sample", _mean_seconds(run.stages, "sample", _count_student_answers), run.folder),
        ("judge", judge, judge_source),
    ):
        if seconds is not None:
            rates.seconds[kind] = seconds
            rates.notes.append(f"{kind}: {seconds:.3g} s each, measured in {source}")
        elif kind == "judge":
            rates.notes.append(f"judge: not measured, in no stage of {run.folder} was the ORM the only judge")

    # Tokens per answer of the teacher. A later line on a request replaces an earlier line.
    answers: dict[str, Any] = {row["key"]: row for row in run.rows(USAGE) if "key" in row and row["completion_tokens"]}
    count: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for row in answers.values():
        count[str(row["job"])] += 1
        tokens[str(row["job"])] += int(row["completion_tokens"])
    for job, number in count.items():
        rates.tokens_out[job] = tokens[job] / number
        rates.notes.append(f"{job}: {tokens[job] / number:,.0f} tokens an answer, measured in {run.folder}")
    return rates


def _mean_seconds(
    stages: Iterable[FinishedStage], kind: str, count_units: Callable[[FinishedStage], int]
) -> float | None:
    """Return the seconds per unit over the stages that have both seconds and units; None without such a stage."""
    total, units = 0.0, 0
    for stage in stages:
        count, seconds = count_units(stage), float(stage.manifest.get("time_s", {}).get(kind, 0.0))
        if count and seconds:
            total, units = total + seconds, units + count
    return total / units if units else None


def _count_student_answers(stage: FinishedStage) -> int:
    """Count the answers of a stage in which only students answer; 0 for other stages."""
    if not stage.name.startswith(("base", "orm/student", "round", "final")) or "/reflection" in stage.name:
        return 0
    return sum(sum(1 for _ in stage.rows(name)) for name in (*PATH_FILES, *PREDICTION_FILES))


def _count_orm_verdicts(stage: FinishedStage) -> int:
    """Count the verdicts of a stage if all are the ORM's, else 0: the time of judging is one sum over all judges."""
    judges: Counter[str] = Counter()
    for name in VERDICT_FILES:
        judges.update(str(row.get("judge", "")) for row in stage.rows(name))
    return judges.total() if all(judge.startswith("orm") for judge in judges) else 0
