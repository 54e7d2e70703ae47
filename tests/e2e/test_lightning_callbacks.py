"""Callbacks of Lightning's Trainer from the user's own package, chosen by settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from mathse.errors import ConfigError
from mathse.runs.store import read_json

from .runs import TINY, run

MODULE = """
import pytorch_lightning as pl

class Steps(pl.Callback):
    def __init__(self, file):
        self.file, self.steps = file, 0

    def on_train_batch_end(self, *_):
        self.steps += 1

    def on_fit_end(self, *_):
        with open(self.file, "a") as file:
            print(self.steps, file=file)

def number():
    return 3
"""
QUICK = (*TINY, "evolution.rounds=0")


@pytest.fixture(autouse=True)
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "somebodys_steps.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_lightning_callback_is_built_anew_for_every_fit_and_part_of_what_it_makes(tmp_path: Path) -> None:
    file = tmp_path / "steps.txt"
    chosen = ("+lightning_callbacks.steps._target_=somebodys_steps.Steps", f"+lightning_callbacks.steps.file={file}")
    run(tmp_path / "run", *QUICK, *chosen)
    steps = file.read_text().split()
    assert len(steps) >= 2 and set(steps) == {"2"}, "sft.max_steps=2, and no fit goes on counting another one's"
    config = read_json(tmp_path / "run" / "distill" / "stage.json")["config"]
    assert config["lightning_callbacks.steps._target_"] == "somebodys_steps.Steps"


def test_what_is_no_lightning_callback_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"steps._target_ = 'somebodys_steps.number': makes a int"):
        run(tmp_path / "run", *QUICK, "+lightning_callbacks.steps._target_=somebodys_steps.number")
