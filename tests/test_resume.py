"""Resume points: whole or noticed, small, by steps and by time, and those of earlier versions go on too."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from small import log_of, solved_rows, tiny_backbone

from mathse.commands.stop_signals import handle_stop_signals
from mathse.config.fits import Fit, Lora, Optimizer
from mathse.config.schema import Trainer
from mathse.models.row import Row
from mathse.runs.layout import SCRATCH
from mathse.training import leaving, resume
from mathse.training.fit import FitJob, fit

TRAINER = Trainer(precision="32-true", checkpoint_every=2, log_every=1)
SETTINGS = Fit(max_steps=6, batch_size=4, micro_batch_size=3, val_every=3, optimizer=Optimizer(lr=5e-3))
LORA = replace(SETTINGS, method="lora", lora=Lora(rank=4, alpha=8, dropout=0.2))


def job(folder: Path, rows: Sequence[Row], settings: Fit = SETTINGS, trainer: Trainer = TRAINER) -> FitJob:
    return FitJob(folder, rows, seed=0, settings=settings, trainer=trainer, val_rows=rows[:4])


class Stopped(Exception):
    """A kill, as far as one can be played inside a process."""


class StopAt(pl.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise Stopped


class Steps(pl.Callback):
    """The steps that a fit made, as they began."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.made.append(trainer.global_step)


def stopped(job: FitJob, step: int, *callbacks: pl.Callback) -> None:
    with pytest.raises(Stopped):
        fit(tiny_backbone(), job, [*callbacks, StopAt(step)])


def points(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / SCRATCH).iterdir() if path.name != "checkpoint")


def same_files(one: Path, other: Path) -> bool:
    """Whether two fits left the same weights, to the byte, and the same log, but for what the clock measured."""
    weights = ((folder / "checkpoint/model.safetensors").read_bytes() for folder in (one, other))
    return len(set(weights)) == 1 and log_of(one) == log_of(other)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return solved_rows(tiny_backbone(), 20)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    fit(tiny_backbone(), job(folder, rows))
    return folder


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["shard", "progress.json", "point.json", "shard is cut", "shard is missing"])
def test_a_damaged_point_is_set_aside_with_a_sentence_and_the_fit_begins_anew(
    tmp_path: Path, rows: list[Row], whole: Path, part: str
) -> None:
    stopped(job(tmp_path, rows), 3)
    point = tmp_path / SCRATCH / "point_2"
    file = next(point.glob("*.safetensors")) if part.startswith("shard") else point / part
    content = bytearray(file.read_bytes())
    if part == "shard is cut":
        file.write_bytes(content[:-100])
    elif part == "shard is missing":
        file.unlink()
    else:
        content[-60] ^= 1  # one bit
        file.write_bytes(content)
    sentences: list[str] = []
    steps = Steps()
    fit(tiny_backbone(), job(tmp_path, rows), [steps], say=sentences.append)
    assert len(sentences) == 1 and "this resume point is damaged" in sentences[0] and "damaged_point_2" in sentences[0]
    assert steps.made[0] == 0 and same_files(tmp_path, whole)
    assert (tmp_path / SCRATCH / "damaged_point_2").is_dir()


def test_behind_a_damaged_point_the_one_before_it_is_gone_on_from(
    tmp_path: Path, rows: list[Row], whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "_remove", lambda path: None)  # as if killed between the rename and the removal
    stopped(job(tmp_path, rows), 5)
    monkeypatch.undo()
    assert points(tmp_path) == ["point_2", "point_4"]
    (tmp_path / SCRATCH / "point_4" / "progress.json").write_text("{}")
    sentences: list[str] = []
    steps = Steps()
    fit(tiny_backbone(), job(tmp_path, rows), [steps], say=sentences.append)
    assert len(sentences) == 1 and "point_4" in sentences[0]
    assert steps.made[0] == 2 and same_files(tmp_path, whole)


def test_a_kill_before_the_rename_leaves_the_older_point(
    tmp_path: Path, rows: list[Row], whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = os.rename

    def killed(source: Any, target: Any) -> None:
        if Path(target).name == "point_4":
            raise Stopped
        renamed(source, target)

    monkeypatch.setattr(os, "rename", killed)
    stopped(job(tmp_path, rows), 6)
    monkeypatch.undo()
    assert points(tmp_path) == ["point.partial", "point_2"]
    steps = Steps()
    fit(tiny_backbone(), job(tmp_path, rows), [steps])
    assert steps.made[0] == 2 and same_files(tmp_path, whole)


def test_a_full_disk_is_an_error_of_the_system_and_leaves_the_older_point(
    tmp_path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.distributed.checkpoint import filesystem

    write = filesystem._write_files_from_queue

    def full(**arguments: Any) -> None:
        if (tmp_path / SCRATCH / "point_2").exists():
            raise OSError(28, "No space left on device")
        write(**arguments)

    monkeypatch.setattr(filesystem, "_write_files_from_queue", full)
    with pytest.raises(OSError, match="No space left"):
        fit(tiny_backbone(), job(tmp_path, rows))
    assert "point_2" in points(tmp_path)


def test_damaged_lines_of_the_log_are_left_out_with_a_sentence(tmp_path: Path, rows: list[Row]) -> None:
    stopped(job(tmp_path, rows), 5)
    log = tmp_path / "train_log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([lines[0], b"\0" * 40 + b"\n", *lines[2:]]))
    sentences: list[str] = []
    fit(tiny_backbone(), job(tmp_path, rows), say=sentences.append)
    assert len(sentences) == 1 and "1 damaged line" in sentences[0]
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps[0] == 1 and steps[-1] == 6 and 2 not in steps


# --- when -----------------------------------------------------------------------------------------------------------


def test_points_are_written_by_time_too_and_one_stays(tmp_path: Path, rows: list[Row], whole: Path) -> None:
    by_time = replace(TRAINER, checkpoint_every=None, checkpoint_minutes=1e-9)
    stopped(job(tmp_path, rows, trainer=by_time), 4)
    assert points(tmp_path) == ["point_4"]
    fit(tiny_backbone(), job(tmp_path, rows, trainer=by_time))
    assert same_files(tmp_path, whole)


def test_whichever_comes_first_writes_a_point_and_neither_none(tmp_path: Path, rows: list[Row]) -> None:
    for name, every, minutes, expected in (
        ("steps", 2, 60.0, ["point_4"]),
        ("time", 100, 1e-9, ["point_5"]),
        ("none", None, None, []),
    ):
        trainer = replace(TRAINER, checkpoint_every=every, checkpoint_minutes=minutes)
        stopped(job(tmp_path / name, rows, trainer=trainer), 5)
        assert points(tmp_path / name) == expected


class Told(pl.Callback):
    """The signal of a scheduler in the middle of a step."""

    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_told_to_leave_a_fit_writes_a_point_of_that_step_and_goes_on_from_it(
    tmp_path: Path, rows: list[Row], whole: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(leaving, "_asked", False)
    sometimes = replace(TRAINER, checkpoint_every=100)
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    with handle_stop_signals() as signals, pytest.raises(KeyboardInterrupt):
        fit(tiny_backbone(), job(tmp_path, rows, trainer=sometimes), [Told(2, number)])
    for n, handler in before.items():
        signal.signal(n, handler)
    assert points(tmp_path) == ["point_3"] and signals.exit_code == 128 + number
    monkeypatch.setattr(leaving, "_asked", False)  # another process
    steps = Steps()
    fit(tiny_backbone(), job(tmp_path, rows, trainer=sometimes), [steps])
    assert steps.made[0] == 3 and same_files(tmp_path, whole)


# --- earlier versions -----------------------------------------------------------------------------------------------


class FirstForm(pl.Callback):
    """Writes what earlier versions wrote: Lightning's file, in a fit of some weights without the others."""

    def __init__(self, folder: Path, step: int) -> None:
        self.file, self.step = folder / SCRATCH / resume.FIRST_FORM, step

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.file, weights_only=False)
            trains = {name: p.requires_grad for name, p in module.named_parameters()}
            if not all(trains.values()):
                point = torch.load(self.file, weights_only=True)
                point["state_dict"] = {k: v for k, v in point["state_dict"].items() if trains[k]}
                torch.save(point, self.file)


@pytest.mark.parametrize("settings", [SETTINGS, LORA, replace(SETTINGS, freeze=["tower"])])
def test_the_point_of_an_earlier_version_is_gone_on_from_to_the_same_bytes(
    tmp_path: Path, rows: list[Row], settings: Fit
) -> None:
    whole, old = job(tmp_path / "whole", rows, settings), job(tmp_path / "old", rows, settings)
    fit(tiny_backbone(), whole)
    never = replace(TRAINER, checkpoint_every=None)
    stopped(replace(old, trainer=never), 5, FirstForm(old.folder, 4))
    assert points(old.folder) == [resume.FIRST_FORM]
    steps = Steps()
    fit(tiny_backbone(), old, [steps])
    assert steps.made == [4, 5] and same_files(old.folder, whole.folder)


def test_a_torn_point_of_an_earlier_version_is_set_aside(tmp_path: Path, rows: list[Row], whole: Path) -> None:
    never = replace(TRAINER, checkpoint_every=None)
    stopped(job(tmp_path, rows, trainer=never), 5, FirstForm(tmp_path, 4))
    file = tmp_path / SCRATCH / resume.FIRST_FORM
    file.write_bytes(file.read_bytes()[:-5000])
    sentences: list[str] = []
    fit(tiny_backbone(), job(tmp_path, rows), say=sentences.append)
    assert len(sentences) == 1 and "damaged_last.ckpt" in sentences[0] and same_files(tmp_path, whole)
