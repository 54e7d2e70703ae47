"""``mathse evaluate checkpoint=DIR`` from the command line, with checkpoints that say what they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from e2e.conftest import Command
from e2e.runs import rows
from mathse.__main__ import main as mathse
from mathse.runs.store import read_json


def test_a_checkpoint_of_a_run_answers_as_it_did_in_the_run(tiny: Path, command: Command) -> None:
    done = command("evaluate.py", f"checkpoint={tiny}/final/checkpoint", "hydra.run.dir=out", "progress=plain")
    assert done.code == 0, done.err
    assert f"backbone=tiny, at most 8 new tokens; settings begin with {tiny / 'run.json'}" in done.out
    assert rows(Path("out/predictions.jsonl")) == rows(tiny / "final" / "predictions.jsonl")
    found, made = read_json(Path("out/metrics.json")), read_json(tiny / "final" / "metrics.json")
    assert found == {key: made[key] for key in ("accuracy", "correct", "total", "ci95")}


def test_other_weights_than_the_run_made_end_in_a_sentence(tiny: Path, command: Command, tmp_path: Path) -> None:
    run = shutil.copytree(tiny, tmp_path / "copy")
    weights = run / "final" / "checkpoint" / "model.safetensors"
    shutil.copyfile(run / "base" / "checkpoint" / "model.safetensors", weights)
    done = command("evaluate.py", f"checkpoint={weights.parent}", "hydra.run.dir=out")
    assert done.code == 1 and f"error: {weights} has other contents than recorded" in done.err


def test_each_job_of_a_sweep_begins_with_its_own_checkpoint(tiny: Path, command: Command, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert mathse(["tiny", "qwen2vl", str(other)]) == 0
    checkpoints = f"checkpoint={other},{tiny}/final/checkpoint"
    short = ("evaluation.max_new_tokens=2", "limit=2", "benchmark=synthetic")
    done = command("evaluate.py", "-m", checkpoints, *short, "hydra.sweep.dir=sweep", "progress=off")
    assert done.code == 0, done.err
    identities = [read_json(file) for file in Path("sweep").glob("*/synthetic/identity.json")]
    of_family = {identity["backbone._target_"].split(".")[2]: identity["data.test"] for identity in identities}
    assert of_family == {"qwen2vl": 1500, "tiny": 8}


@pytest.mark.parametrize("place", ["in its run", "elsewhere"])
def test_an_exported_model_says_what_it_is(place: str, tiny: Path, command: Command, tmp_path: Path) -> None:
    run = shutil.copytree(tiny, tmp_path / "copy")
    folder = run / "exports" / "model-final" if place == "in its run" else tmp_path / "exported"
    assert mathse(["export", str(run), "--what", "model", "--out", str(folder)]) == 0
    asked = () if place == "in its run" else ("benchmark=synthetic",)
    done = command("evaluate.py", f"checkpoint={folder}", *asked, "limit=2", "hydra.run.dir=out", "progress=plain")
    assert done.code == 0, done.err
    begun = run / "run.json" if place == "in its run" else folder / "mathse.json"
    assert f"backbone=tiny, at most 8 new tokens; settings begin with {begun}" in done.out
