"""The table that a sweep ends with: a row a job, with the settings in which it differs, its figures and its state."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from mathse.config.sweeps import HASH
from mathse.reporting.progress.wording import accuracy_text, align_columns
from mathse.runs.layout import METRICS, RUN
from mathse.runs.reader import finished_summary
from mathse.runs.store import read_json

COLUMNS = ("job", "last stage", "test accuracy", "dev accuracy")  # of train.py; of evaluate.py a column a benchmark


def jobs_below(sweep: Path) -> list[Path]:
    """The run folders of a sweep whose jobs other processes ran."""
    runs = {file.parent for file in sweep.rglob(RUN)}
    return sorted(runs or {file.parents[1] for file in sweep.glob(f"*/*/{METRICS}")})


def sweep_table(jobs: Sequence[Path]) -> list[str]:
    """Lines of text; none for fewer than two jobs. ``jobs``: their run folders, in the order of the rows."""
    jobs = list(dict.fromkeys(jobs))
    if len(jobs) < 2:
        return []
    names = _differing([os.path.relpath(job, os.path.commonpath(jobs)) for job in jobs])
    evaluated = [job for job in jobs if not (job / RUN).exists()]
    if benchmarks := sorted({file.parent.name for job in evaluated for file in job.glob(f"*/{METRICS}")}):
        figures = [[_accuracy(job / benchmark / METRICS) for benchmark in benchmarks] for job in jobs]
        return align_columns([("job", *benchmarks), *((name, *row) for name, row in zip(names, figures, strict=True))])
    return align_columns([COLUMNS, *((name, *_row(job)) for name, job in zip(names, jobs, strict=True))])


def _row(job: Path) -> tuple[str, str, str]:
    summary = finished_summary(job)
    if summary is None:
        return ("unfinished" if (job / RUN).exists() else "failed"), "-", "-"
    last = summary["stages"][-1] if summary.get("stages") else {}
    dev = summary.get("metric")
    return str(last.get("stage", "-")), accuracy_text(last.get("accuracy"), last.get("ci95")), accuracy_text(dev, None)


def _accuracy(file: Path) -> str:
    if not file.is_file():
        return "failed"
    metrics = read_json(file)
    return accuracy_text(metrics.get("accuracy"), metrics.get("ci95"))


def _differing(names: Sequence[str]) -> list[str]:
    """Each name ("seed=1,evolution.rounds=2") without the parts that all have, and without a hash at its end."""
    parts = [re.sub(rf"-[0-9a-f]{{{HASH}}}$", "", name).split(",") for name in names]
    in_all = set.intersection(*map(set, parts))
    return [",".join(part for part in own if part not in in_all) or ",".join(own) for own in parts]
