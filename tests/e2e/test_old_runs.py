"""Run folders of an earlier version, whose judge was one section of 16 settings, go on as what they are."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from mathse.runs.store import read_json

from .runs import SIZES, TINY, WORLD, run, stages

ARCHIVE = Path(__file__).resolve().parents[1] / "old_runs" / "46dcc38.tar.xz"
EVERY = ("evolution.reflect.when=every", "logger=csv", "judge.threshold=0.4", "distill.judge=answer")
SETTINGS = {"random": TINY, "orm": (*SIZES, *WORLD, "judge=orm", *EVERY)}


@pytest.fixture(scope="module")
def old_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old_runs")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize("name", list(SETTINGS))
def test_run_of_an_earlier_version_resumes_and_nothing_else_is_made_anew(old_runs: Path, name: str) -> None:
    folder = old_runs / name
    identities = {stage: manifest["identity"] for stage, manifest in stages(folder).items()}
    times = {stage: (folder / stage / "stage.json").stat().st_mtime_ns for stage in identities if stage != "final"}
    before = read_json(folder / "summary.json")
    shutil.rmtree(folder / "final")
    (folder / "summary.json").unlink()
    summary = run(folder, *SETTINGS[name])
    assert {stage: manifest["identity"] for stage, manifest in stages(folder).items()} == identities
    assert {stage: (folder / stage / "stage.json").stat().st_mtime_ns for stage in times} == times
    # what later versions count beside it is new
    kept = [{key: now[key] for key in then} for then, now in zip(before["stages"], summary["stages"], strict=True)]
    assert kept == before["stages"]
