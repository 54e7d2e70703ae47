"""Whole runs for tests: the real scripts in this process, and evolutions so small that one takes two seconds."""

from __future__ import annotations

import builtins
import csv
import hashlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from small import log_of

from mathse.config import parse
from mathse.config.options import CONF
from mathse.config.overrides import as_spelt
from mathse.config.register import register
from mathse.runs.reader import MEASURED
from mathse.runs.store import read_json, read_jsonl

ROOT = Path(__file__).resolve().parents[2]

# The synthetic task and models at their smallest; every stage is real, nothing is learnt.
WORLD = (
    "data.seed_size=8",
    "data.pool=16",
    "data.test=8",
    "data.dev=4",
    "data.orm_train=12",
    "data.orm_held=6",
)
SIZES = (
    "experiment=smoke",
    "progress=plain",
    *(f"{fit}.{size}" for fit in ("sft", "orm.fit") for size in ("max_steps=2", "batch_size=4", "micro_batch_size=4")),
    *(f"{fit}.val_rows=4" for fit in ("sft", "orm.fit")),
    "orm.students=[8]",
    "orm.student_steps=2",
    "orm.solver_steps=2",
    *(f"{who}.max_new_tokens=8" for who in ("generator", "evaluation", "judge")),
    *(f"backbone.{size}" for size in ("hidden_size=32", "layers=1", "heads=2", "mlp_size=64", "vision_size=16")),
)
# Chance accepts, so that students who have learnt nothing have paths merged too.
TINY = (*SIZES, *WORLD, "judge=random", "distill.judge=answer")


def run(folder: Path, *settings: str) -> dict[str, Any]:
    """Run a task of train.py in ``folder`` and give its summary."""
    from mathse.evolution.tasks import run_task

    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config: Any = parse(compose("train", overrides=as_spelt(settings)))
    run_task(config, folder)
    summary: dict[str, Any] = read_json(folder / "summary.json")
    return summary


def killed(work: Callable[[], object], at: int) -> bool:
    """Do ``work`` in a forked process that dies by SIGKILL just before its ``at``-th write to the disk; False if it was
    done before that. Raises RuntimeError if the work failed."""
    child = os.fork()
    if child == 0:
        _die_at(at)
        try:
            work()
        except BaseException:  # noqa: BLE001  (whatever it was: the child must not go on as a second pytest)
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"the work itself failed, before its write {at}; the traceback is above")
    return os.WIFSIGNALED(status)


def _die_at(at: int) -> None:
    """Writes are what Python asks of the disk: a file opened for writing, a flush, a name made, changed or removed."""
    writes = count(1)

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if next(writes) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return counted

    for name in ("fsync", "replace", "rename", "link", "mkdir", "unlink"):
        setattr(os, name, deadly(getattr(os, name)))
    opened, written = open, deadly(open)

    def open_counted(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        return (opened if set(mode) <= set("rbt") else written)(file, mode, *args, **kwargs)

    builtins.open = io.open = open_counted


def contents(folder: Path) -> dict[str, str]:
    """Hash by name of all that equal runs have in common: rows, weights and figures."""
    own = ("stage.json", "report.html", ".lock", "run.json", "multirun.yaml")  # times, a process, the command itself
    pages = folder.rglob("report_parts/*")  # as report.html: of this run, by its stamp
    files = sorted({f for f in folder.rglob("*") if f.is_file() and f.name not in own} - set(pages))
    return {f.relative_to(folder).as_posix(): hashlib.sha256(without_speed(f)).hexdigest() for f in files}


def without_speed(file: Path) -> bytes:
    """A file's bytes; of a fit's log and of the table made from it without what the clock measured."""
    if file.name == "train_log.jsonl":
        return json.dumps(log_of(file.parent)).encode()
    if file.name == "fits.csv":
        with file.open(newline="") as table:
            kept = [{k: v for k, v in row.items() if k not in MEASURED} for row in csv.DictReader(table)]
        return json.dumps(kept).encode()
    return file.read_bytes()


def everything(folder: Path) -> dict[str, tuple[str, int]]:
    """Hash and time of change by name: what must stay the same where nothing may be written."""
    files = (f for f in folder.rglob("*") if f.is_file() and f.name != ".lock")
    return {str(f): (hashlib.sha256(f.read_bytes()).hexdigest(), f.stat().st_mtime_ns) for f in files}


def stages(run: Path) -> dict[str, dict[str, Any]]:
    """The manifests of a run's stages by name."""
    return {f.parent.relative_to(run).as_posix(): read_json(f) for f in sorted(run.rglob("stage.json"))}


def rows(file: Path) -> list[Any]:
    return list(read_jsonl(file))


def problems_of(file: Path) -> list[str]:
    """The problem ids of a file of paths, or of records that hold a path."""
    return [row.get("path", row)["problem_id"] for row in rows(file)]
