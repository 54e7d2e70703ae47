"""Rates: given on the command line, or measured in an earlier run (``--like RUN``). None is made up."""

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


def rates(given: Sequence[str], like: Path | None) -> Rates:
    """``given``: "fit=2.5" and the like, which win over what ``like`` measured. Raises ConfigError, RunError."""
    found = measured(read_run(like)) if like is not None else Rates()
    for text in given:
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
        found.seconds[kind] = seconds
        found.notes.append(f"{kind}: {seconds:g} s each, as given")
    return found


def measured(run: Run) -> Rates:
    """From a run's stage.json, train_log.jsonl, verdicts and usage.jsonl."""
    done = Rates()
    for kind, seconds, where in (
        ("fit", _mean(run.stages, "fit", _steps), ""),
        ("sample", _mean(run.stages, "sample", _answers), ""),
        ("judge", *_of_a_verdict(run.stages)),
    ):
        if seconds is not None:
            done.seconds[kind] = seconds
            done.notes.append(f"{kind}: {seconds:.3g} s each, measured in {run.folder}{where}")
        elif kind == "judge":
            done.notes.append(f"judge: not measured, no stage of {run.folder} was judged by the ORM alone")
    for job, (requests, tokens) in _answered(run).items():
        done.tokens_out[job] = tokens / requests
        done.notes.append(f"{job}: {tokens / requests:,.0f} tokens an answer, measured in {run.folder}")
    return done


def _mean(stages: Iterable[FinishedStage], kind: str, units_of: Callable[[FinishedStage], int]) -> float | None:
    """Seconds a unit over the stages that have both; None where none has."""
    whole, units = 0.0, 0
    for stage in stages:
        count, seconds = units_of(stage), float(stage.manifest.get("time_s", {}).get(kind, 0.0))
        if count and seconds:
            whole, units = whole + seconds, units + count
    return whole / units if units else None


def _of_a_verdict(stages: Sequence[FinishedStage]) -> tuple[float | None, str]:
    """(seconds a verdict of the ORM, where that is from): the stages that it judged, else its own held-out paths."""
    of_students = [stage for stage in stages if not stage.name.startswith("orm")]
    if (seconds := _mean(of_students, "judge", _verdicts)) is not None:
        return seconds, ""
    held = _mean((stage for stage in stages if stage.name == "orm"), "judge", _verdicts)
    return held, "/orm, on held-out paths: no later stage was judged by the ORM alone"


def _steps(stage: FinishedStage) -> int:
    return max((int(row["step"]) for row in stage.curve()), default=0)


def _answers(stage: FinishedStage) -> int:
    """Only of stages in which no teacher has a part."""
    if not stage.name.startswith(("base", "orm/student", "round", "final")) or "/reflection" in stage.name:
        return 0
    return sum(1 for name in ANSWERS for _ in stage.rows(name))


def _verdicts(stage: FinishedStage) -> int:
    """Only of stages in which every verdict is the ORM's: their times of judging are one sum, whoever judged."""
    judges = Counter(str(row.get("judge", "")) for name in VERDICT_FILES for row in stage.rows(name))
    return judges.total() if all(judge.startswith("orm") for judge in judges) else 0


def _answered(run: Run) -> dict[str, list[int]]:
    """Answers and their tokens, by job; a later line on a request takes the place of an earlier one."""
    entries: dict[str, Any] = {}
    for row in run.rows(USAGE):
        if "key" in row and row["completion_tokens"]:
            entries[row["key"]] = row
    jobs: dict[str, list[int]] = {}
    for row in entries.values():
        sums = jobs.setdefault(str(row["job"]), [0, 0])
        sums[0] += 1
        sums[1] += int(row["completion_tokens"])
    return jobs
