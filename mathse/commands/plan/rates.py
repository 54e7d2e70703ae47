"""Seconds a unit of work: from the command line, or measured in an earlier run (``--like RUN``). None is made up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mathse.errors import ConfigError
from mathse.runs.layout import PATH_FILES, PREDICTION_FILES, USAGE, VERDICT_FILES
from mathse.runs.reader import FinishedStage, Run, read_run

KINDS = ("fit", "sample", "judge")  # seconds an optimiser step, an answer, a verdict, on all devices together
ANSWERS = (*PATH_FILES, *PREDICTION_FILES)


@dataclass
class Rates:
    """``seconds`` by kind of work, ``tokens_out`` by job of the teacher; what is not known is not in them."""

    seconds: dict[str, float] = field(default_factory=dict)
    tokens_out: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def known_rates(by_hand: Sequence[str], like: Path | None) -> Rates:
    """``by_hand``: "fit=2.5" and the like, which win over what ``like`` measured. Raises ConfigError, RunError."""
    rates = measured(read_run(like)) if like is not None else Rates()
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


def measured(run: Run) -> Rates:
    """From a run's stage.json, train_log.jsonl, verdicts and usage.jsonl."""
    fit = _mean(run.stages, "fit", lambda stage: max((int(row["step"]) for row in stage.curve()), default=0))
    # The ORM's verdicts: in the stages that it judged, else on its own held-out paths.
    judge = _mean((stage for stage in run.stages if not stage.name.startswith("orm")), "judge", _orm_verdicts)
    judge_source = str(run.folder)
    if judge is None:
        judge = _mean((stage for stage in run.stages if stage.name == "orm"), "judge", _orm_verdicts)
        judge_source += "/orm, on held-out paths: no later stage was judged by the ORM alone"

    rates = Rates()
    for kind, seconds, source in (
        ("fit", fit, run.folder),
        ("sample", _mean(run.stages, "sample", _student_answers), run.folder),
        ("judge", judge, judge_source),
    ):
        if seconds is not None:
            rates.seconds[kind] = seconds
            rates.notes.append(f"{kind}: {seconds:.3g} s each, measured in {source}")
        elif kind == "judge":
            rates.notes.append(f"judge: not measured, no stage of {run.folder} was judged by the ORM alone")

    # Tokens an answer of the teacher: a later line on a request takes the place of an earlier one.
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


def _mean(stages: Iterable[FinishedStage], kind: str, units_of: Callable[[FinishedStage], int]) -> float | None:
    """Seconds a unit over the stages that have both; None where none has."""
    total, units = 0.0, 0
    for stage in stages:
        count, seconds = units_of(stage), float(stage.manifest.get("time_s", {}).get(kind, 0.0))
        if count and seconds:
            total, units = total + seconds, units + count
    return total / units if units else None


def _student_answers(stage: FinishedStage) -> int:
    """Only of stages in which no teacher has a part."""
    if not stage.name.startswith(("base", "orm/student", "round", "final")) or "/reflection" in stage.name:
        return 0
    return sum(1 for name in ANSWERS for _ in stage.rows(name))


def _orm_verdicts(stage: FinishedStage) -> int:
    """Only of stages in which every verdict is the ORM's: their times of judging are one sum, whoever judged."""
    judges = Counter(str(row.get("judge", "")) for name in VERDICT_FILES for row in stage.rows(name))
    return judges.total() if all(judge.startswith("orm") for judge in judges) else 0
