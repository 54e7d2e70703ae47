"""A sweep (``-m``): the settings that contradict it, and the table that it prints at its end."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from mathse.config import sweeps
from mathse.config.sweeps import HASH
from mathse.errors import ConfigError
from mathse.reporting.progress.wording import accuracy_text, align_columns
from mathse.runs.layout import METRICS, RUN
from mathse.runs.reader import read_finished_summary
from mathse.runs.store import read_json
from mathse.training import launch


def is_sweep() -> bool:
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def refuse_impossible_sweeps(config: Any) -> None:
    """Raise ConfigError for a sweep with settings that contradict it, and for a sweep without ``-m``."""
    hydra_config = HydraConfig.get()
    if not is_sweep():
        option = hydra_config.runtime.choices.get("sweep")
        if option is not None and not launch.is_supervised():  # the ranks of a sweep's job run without -m
            raise ConfigError(f"+sweep={option}: tries several values, which is a sweep; pass -m too")
        return
    if getattr(config, "resume", None) == "last":
        raise ConfigError(
            "resume = 'last': finds one run, and this is a sweep (-m); leave it out: with the same command, finished "
            "jobs return their number and the other jobs continue"
        )
    rank = launch.read_own_rank()
    if rank is not None and rank.size > 1:
        raise ConfigError(
            f"a sweep (-m) was started {rank.size} times, once per rank: start it once, and each of its jobs starts "
            "its own ranks (trainer=ddp trainer.devices=...)"
        )
    if sweeps.chooses(hydra_config.sweeper) and (mistakes := [*sweeps.no_choice(config, hydra_config.sweeper)]):
        raise ConfigError("\n".join(mistakes))


def find_jobs(sweep: Path) -> list[Path]:
    """Return the run folders of a sweep, for jobs that ran in other processes."""
    runs = {file.parent for file in sweep.rglob(RUN)}
    return sorted(runs or {file.parents[1] for file in sweep.glob(f"*/*/{METRICS}")})


def format_sweep_table(jobs: Sequence[Path]) -> list[str]:
    """Return the lines of the table: one row per job, with the settings in which it differs and its figures.

    Args:
        jobs: the run folders, in the order of the rows. Fewer than two give no table.
    """
    jobs = list(dict.fromkeys(jobs))
    if len(jobs) < 2:
        return []
    names = _shorten_names([os.path.relpath(job, os.path.commonpath(jobs)) for job in jobs])

    # A sweep of mathse evaluate has one column per benchmark.
    benchmarks: set[str] = set()
    for job in jobs:
        if not (job / RUN).exists():
            benchmarks |= {file.parent.name for file in job.glob(f"*/{METRICS}")}
    if benchmarks:
        table: list[tuple[str, ...]] = [("job", *sorted(benchmarks))]
        for name, job in zip(names, jobs, strict=True):
            table.append((name, *(_format_accuracy(job / benchmark / METRICS) for benchmark in sorted(benchmarks))))
        return align_columns(table)

    table = [("job", "last stage", "test accuracy", "dev accuracy")]
    for name, job in zip(names, jobs, strict=True):
        summary = read_finished_summary(job)
        if summary is None:
            table.append((name, "unfinished" if (job / RUN).exists() else "failed", "-", "-"))
            continue
        last = summary["stages"][-1] if summary.get("stages") else {}
        test = accuracy_text(last.get("accuracy"), last.get("ci95"))
        table.append((name, str(last.get("stage", "-")), test, accuracy_text(summary.get("metric"), None)))
    return align_columns(table)


def _format_accuracy(file: Path) -> str:
    if not file.is_file():
        return "failed"
    metrics = read_json(file)
    return accuracy_text(metrics.get("accuracy"), metrics.get("ci95"))


def _shorten_names(names: Sequence[str]) -> list[str]:
    """Return each name ("seed=1,evolution.rounds=2") without the parts that all share and without its final hash."""
    parts = [re.sub(rf"-[0-9a-f]{{{HASH}}}$", "", name).split(",") for name in names]
    shared = set.intersection(*map(set, parts))
    return [",".join(part for part in job if part not in shared) or ",".join(job) for job in parts]
