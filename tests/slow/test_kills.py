"""Kills without mercy: whatever the moment, the same command ends in the same stages, rows and weights."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest
from e2e.runs import ROOT, TINY, contents, killed, run, stages

pytestmark = pytest.mark.slow

KILLS = 12
SMOKE = ("experiment=smoke", "progress=plain", "trainer.checkpoint_every=7")  # fits are resumed too, not only stages


def train(*settings: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *settings]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke run that nobody kills."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(train(*SMOKE, f"hydra.run.dir={folder}"), check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.mark.parametrize("group", [True, False], ids=["whole_group", "parent_alone"])
def test_twelve_kills_change_nothing(whole: Path, tmp_path: Path, group: bool) -> None:
    draw, landed = random.Random(group), 0
    for attempt in count():
        folder = tmp_path / str(attempt)
        # loader workers: a parent killed alone leaves them behind, and they must not keep the folder
        command = train(*SMOKE, f"hydra.run.dir={folder}", f"trainer.workers={0 if group else 1}")
        while landed < KILLS and killed_after(draw.uniform(5, 20), command, group):
            landed += 1
        finish(command)
        assert contents(folder) == contents(whole)
        assert stages(folder).keys() == stages(whole).keys()
        if landed == KILLS:
            return


def killed_after(seconds: float, command: Sequence[str], group: bool) -> bool:
    """Whether the command was still at work after ``seconds`` and so was killed."""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            _, said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
            return True
    assert process.returncode == 0, said.decode()
    return False


def finish(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# Many batches, and a resume point at each optimiser step.
EVERY_STEP = (*TINY, "sft.max_steps=4", "trainer.checkpoint_every=1", "generator.batch_size=5", "judge.batch_size=5")
NOTHING_MERGED = (*TINY, "judge.rate=0", "orm.solver_steps=0", "orm.students=[0]")  # students are carried on
# Resume points at the very steps at which the fits validate.
VALIDATING = (*TINY, "evolution.rounds=0", "evolution.reflect.when=never", "sft.max_steps=4", "sft.val_every=1")
VALIDATING = (*VALIDATING, "trainer.checkpoint_every=1", "trainer.log_every=1")


@pytest.mark.parametrize(
    ("settings", "every"),
    [(EVERY_STEP, 19), (NOTHING_MERGED, 11), (VALIDATING, 5)],
    ids=["every_step", "nothing_merged", "validating"],
)
def test_a_kill_at_any_write_changes_nothing(tmp_path: Path, settings: tuple[str, ...], every: int) -> None:
    run(tmp_path / "whole", *settings)
    for at in count(1, every):
        folder = tmp_path / str(at)
        was_killed = killed(lambda folder=folder: run(folder, *settings), at)  # type: ignore[misc]
        run(folder, *settings)
        assert contents(folder) == contents(tmp_path / "whole"), f"killed at write {at}"
        shutil.rmtree(folder)
        if not was_killed:
            return


def test_a_sweep_killed_and_repeated_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    sweep = ("-m", *TINY, "seed=0,1")
    finish(train(*sweep, f"hydra.sweep.dir={tmp_path / 'whole'}"))
    command = train(*sweep, f"hydra.sweep.dir={tmp_path / 'sweep'}")
    for seconds in (7, 9, 11):
        killed_after(seconds, command, group=True)
    finish(command)
    assert contents(tmp_path / "sweep") == contents(tmp_path / "whole")
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("was finished before; nothing to do") == 2
