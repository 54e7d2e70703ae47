"""A sweep that was killed ends complete after the same command, and no test problem has a say in its number."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import sys
from itertools import count
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from e2e.runs import ROOT, TINY, contents, everything, rows, run, stages
from mathse.evolution import tasks
from mathse.evolution.models import RunModels
from mathse.runs.store import read_json

# Two by two jobs of three stages and one fit.
SHORT = ("judge=answer", "evolution.rounds=0", "evolution.reflect.when=never")
GRID = ("-m", *TINY, *SHORT, "seed=1,2", "sft.max_steps=1,2")


def sweep(place: Path) -> None:
    os.chdir(place)
    sys.argv = [str(ROOT / "train.py"), *GRID]
    GlobalHydra.instance().clear()
    runpy.run_path(sys.argv[0], run_name="__main__")


def killed_in_job(place: Path, number: int) -> bool:
    """Whether the sweep, in a process of its own, died by SIGKILL in the middle of its job ``number``."""
    child = os.fork()
    if child == 0:
        started, fit = count(1), RunModels.fit
        counted = {"job": 0}
        begin = tasks.run_task

        def numbered(*args, **kwargs):
            counted["job"] = next(started)
            return begin(*args, **kwargs)

        def deadly(*args, **kwargs):
            if counted["job"] == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return fit(*args, **kwargs)

        tasks.run_task, RunModels.fit = numbered, deadly
        try:
            sweep(place)
        except BaseException:  # noqa: BLE001  (whatever it was: the child must not go on as a second pytest)
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("the sweep itself failed; the traceback is above")
    return os.WIFSIGNALED(status)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """What a script in this process changes is put back."""
    monkeypatch.chdir(tmp_path)
    for key in ("MATHSE_TRACEBACK", "HYDRA_FULL_ERROR"):
        monkeypatch.setenv(key, "0")
    monkeypatch.setattr(sys, "argv", sys.argv)


@pytest.mark.slow
def test_a_sweep_of_two_by_two_killed_in_its_third_job_ends_complete_after_the_same_command(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for place in (whole, cut):
        place.mkdir()
    sweep(whole)
    assert killed_in_job(cut, 3)
    jobs = sorted(f.parent for f in cut.rglob("summary.json"))
    begun = sorted(f.parent for f in cut.rglob("run.json"))
    assert len(jobs) == 2 and len(begun) == 3
    before = {job: everything(job) for job in jobs}
    (third,) = set(begun) - set(jobs)
    base = stages(third)["base"]["finished"]
    sweep(cut)
    assert {job: everything(job) for job in jobs} == before
    assert stages(third)["base"]["finished"] == base
    assert len([*cut.rglob("summary.json")]) == 4 and contents(cut) == contents(whole)


@pytest.mark.parametrize("test_right", [0, 8], ids=["all_test_answers_wrong", "all_test_answers_right"])
def test_the_number_of_a_run_is_its_share_of_dev_problems_whatever_the_test_answers_are(tiny, tmp_path, test_right):
    """A killed run takes up the predictions that it finds, so ours stand in for what a tiny student cannot do."""
    folder = tmp_path / "run"
    shutil.copytree(tiny, folder)
    (folder / "summary.json").unlink()
    final = folder / "final"
    manifest = read_json(final / "stage.json")
    times = {"started": manifest["started"], "wall_s": 0.0, "time_s": {"fit": 0.0, "sample": 0.0, "judge": 0.0}}
    kept = {key: manifest[key] for key in ("stage", "identity", "config", "keys", "after") if key in manifest}
    (final / "stage.begun.json").write_text(json.dumps({**kept, **times}))
    (final / "stage.json").unlink()
    for name, right in (("predictions.jsonl", test_right), ("dev_predictions.jsonl", 3)):
        lines = [{**row, "correct": k < right} for k, row in enumerate(rows(final / name))]
        (final / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = run(folder, *TINY)
    assert (summary["metric"], summary["stages"][-1]["accuracy"]) == (0.75, test_right / 8)
