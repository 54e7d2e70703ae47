"""Whoever opens the checkpoint of a finished stage compares it with the stage's record first."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from evaluation.cases import TINY
from evaluation.cases import run as evaluated
from orm_by_heart import saved
from run_builder import write_stage
from small import tiny_backbone

from mathse.config import backbones
from mathse.config.fits import ORM
from mathse.errors import RunError
from mathse.models import adapters, load
from mathse.models.model_spec import make_spec
from mathse.models.prompt_reader import open_exported_reader
from mathse.runs import reader
from mathse.runs.store import sha256_file

SECTION = backbones.TinyBackbone(hidden_size=32, layers=1, heads=2, mlp_size=64, vision_size=16)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The checkpoint of a finished stage, with the adapters that were trained."""
    folder = tmp_path / "run" / "final" / "checkpoint"
    backbone = tiny_backbone()
    backbone.save(folder)
    adapters.attach(backbone, rank=2, alpha=4, dropout=0.0, scopes=["language"], seed=0)
    adapters.save(backbone, folder / "adapter", folder / "adapter")
    write_stage(folder.parent)
    return folder


def flip(file: Path) -> None:
    """Change the last byte, which is a weight's."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


OPENED: dict[str, Callable[[Path], object]] = {
    "the Python API": partial(load, "tiny"),
    "another family": partial(load, "qwen2vl"),
    "a run": lambda folder: make_spec(SECTION, folder, "float32").open(),
    "a server's prompts": lambda folder: open_exported_reader(SECTION, folder, lambda: pytest.fail("was opened whole")),
}


@pytest.mark.parametrize("opener", OPENED)
def test_other_weights_than_a_stage_made_are_not_opened(opener: str, checkpoint: Path) -> None:
    OPENED[opener](checkpoint)
    flip(checkpoint / "model.safetensors")
    with pytest.raises(RunError, match="model.safetensors has other contents than recorded"):
        OPENED[opener](checkpoint)


def test_adapters_that_a_stage_did_not_make_are_not_put_on(checkpoint: Path) -> None:
    flip(checkpoint / "adapter" / "adapter_model.safetensors")
    with pytest.raises(RunError, match="adapter_model.safetensors has other contents"):
        make_spec(SECTION, checkpoint, "bfloat16").open()


def test_a_file_that_was_put_into_a_checkpoint_is_not_read(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {}}))
    with pytest.raises(RunError, match="model.safetensors.index.json is no file of the stage"):
        load("tiny", checkpoint)


def test_evaluation_does_not_score_weights_that_a_run_did_not_make(checkpoint: Path, tmp_path: Path) -> None:
    flip(checkpoint / "model.safetensors")
    with pytest.raises(RunError, match="other contents than recorded"):
        evaluated(tmp_path / "out", *TINY, f"checkpoint={checkpoint}", "limit=2")


def test_an_orm_that_a_run_did_not_make_weighs_no_answers(checkpoint: Path, tmp_path: Path) -> None:
    orm = tmp_path / "other" / "orm" / "checkpoint"
    saved(ORM(), orm)
    write_stage(orm.parent)
    flip(orm / "model.safetensors")
    weighed = ("n_samples=2", "selector=orm", f"judge.checkpoint={orm}", "judge.max_new_tokens=4", "limit=2")
    with pytest.raises(RunError, match="other contents than recorded"):
        evaluated(tmp_path / "out", *TINY, f"checkpoint={checkpoint}", *weighed)


def test_a_file_of_a_checkpoint_is_read_once(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(reader, "sha256_file", lambda file: read.append(file.name) or sha256_file(file))
    for _ in range(3):
        load("tiny", checkpoint)
    assert sorted(read) == sorted(file.name for file in checkpoint.rglob("*") if file.is_file())


def test_a_checkpoint_outside_of_its_run_has_nothing_to_be_compared_with(checkpoint: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(checkpoint, tmp_path / "copied" / "checkpoint")
    flip(copied / "model.safetensors")
    load("tiny", copied)
