"""Rates: given on the command line, or measured in an earlier run (``--like RUN``). None is made up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mathse.errors import ConfigError
from mathse.report.runs import Run, Stage, read_run
from mathse.store import read_jsonl

KINDS = ("fit", "sample", "judge")  # seconds an optimiser step, an answer, a verdict, on all devices together
ANSWERS = ("paths.jsonl", "held_paths.jsonl", "predictions.jsonl", "dev_predictions.jsonl")
VERDICTS = ("verdicts.jsonl", "held_verdicts.jsonl")


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
    """From a run's stage.json, train_log.jsonl and usage.jsonl."""
    done = Rates()
    whole = {kind: [0.0, 0.0] for kind in KINDS}  # seconds, units
    for stage in run.stages:
        for kind, units in _units(stage).items():
            seconds = float(stage.manifest.get("time_s", {}).get(kind, 0.0))
            if units and seconds:
                whole[kind][0] += seconds
                whole[kind][1] += units
    for kind, (seconds, count) in whole.items():
        if count:
            done.seconds[kind] = seconds / count
            done.notes.append(f"{kind}: {seconds / count:.3g} s each, measured in {run.folder}")
    for job, (requests, tokens) in _answered(run.folder / "usage.jsonl").items():
        done.tokens_out[job] = tokens / requests
        done.notes.append(f"{job}: {tokens / requests:,.0f} tokens an answer, measured in {run.folder}")
    return done


def _units(stage: Stage) -> dict[str, int]:
    """Steps, answers and verdicts of a stage; answers and verdicts only of stages in which no teacher has a part."""
    log = list(stage.rows("train_log.jsonl"))
    units = {"fit": max((int(row["step"]) for row in log), default=0)}
    if stage.name.startswith(("base", "orm/student", "round", "final")) and "/reflection" not in stage.name:
        units["sample"] = sum(_lines(stage, name) for name in ANSWERS)
    if stage.name.startswith("round") and "/reflection" not in stage.name:
        units["judge"] = sum(_lines(stage, name) for name in VERDICTS)
    return units


def _lines(stage: Stage, name: str) -> int:
    return sum(1 for _ in stage.rows(name))


def _answered(file: Path) -> dict[str, list[int]]:
    """Answers and their tokens, by job; a later line on a request takes the place of an earlier one."""
    entries: dict[str, Any] = {}
    for row in read_jsonl(file) if file.is_file() else ():
        if "key" in row and row["completion_tokens"]:
            entries[row["key"]] = row
    jobs: dict[str, list[int]] = {}
    for row in entries.values():
        sums = jobs.setdefault(str(row["job"]), [0, 0])
        sums[0] += 1
        sums[1] += int(row["completion_tokens"])
    return jobs
