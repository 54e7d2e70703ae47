"""MathSE as a user has it: the wheel in an environment of its own, used from a folder that is not the repository."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from e2e.runs import TINY
from installed import build_wheel, clean_environment, install

pytestmark = pytest.mark.slow

Start = Callable[..., str]
# Three stages and one fit.
SHORT = (*TINY, "judge=answer", "evolution.rounds=0", "evolution.reflect.when=never", "trainer.accelerator=cpu")
TWO_RANKS = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.workers=0")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wheel = build_wheel(tmp_path_factory.mktemp("wheel"))
    return install(wheel, tmp_path_factory.mktemp("environment") / "venv")


@pytest.fixture
def start(programs: Path, tmp_path: Path) -> Start:
    """``start("mathse", "train", ...)``: what that program said, run in an empty folder; it must end well."""

    def run(program: str, *arguments: str) -> str:
        command = [str(programs / program), *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=clean_environment(programs), capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def test_smoke_runs_is_scored_and_is_shown_from_an_empty_folder(start: Start, programs: Path, tmp_path: Path) -> None:
    start("mathse", "train", "experiment=smoke", "hydra.run.dir=run", "progress=plain")
    assert read(tmp_path / "run" / "summary.json")["stages"][-1]["stage"] == "final"
    start("mathse", "evaluate", "checkpoint=run/final/checkpoint", "limit=4", "hydra.run.dir=scored")
    assert read(tmp_path / "scored" / "synthetic" / "metrics.json")["total"] == 4
    start("mathse", "report", "run", "--out", "page.html")
    assert (tmp_path / "page.html").is_file()
    home = start("python", "-c", "import mathse; print(mathse.__file__)")
    assert Path(home.strip()).is_relative_to(programs.parent)


OWN = """
from pathlib import Path

import mathse
from mathse.evolution.hooks import EvolutionCallback


class Count(EvolutionCallback):
    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_evolution_end(self, *arguments) -> None:
        with self.file.open("a") as log:
            log.write(mathse.__file__ + "\\n")
"""


def test_ranks_and_a_sweep_of_the_command_have_the_users_own_callback(start: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    own = ("+callbacks.count._target_=mine.Count", f"+callbacks.count.file={tmp_path / 'log.txt'}")
    start("mathse", "train", *SHORT, *TWO_RANKS, *own, "hydra.run.dir=ranks")
    start("mathse", "train", "-m", *SHORT, *own, "seed=1,2", "name=sweep")
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 3
    jobs = [file.parent for file in (tmp_path / "multirun" / "sweep").rglob("summary.json")]
    assert sorted(read(job / "run.json")["seed"] for job in jobs) == [1, 2]


FROM_PYTHON = f"""
from mathse import evaluate, train
from mathse.errors import ConfigError

run = train(*{SHORT!r}, folder="one")
again = train(*{SHORT!r}, folder="one")
ranks = train(*{SHORT!r}, *{TWO_RANKS!r}, folder="it's two")
assert run.metric == again.metric and run.summary == again.summary, (run, again)
assert ranks.summary["stages"][-1]["stage"] == run.summary["stages"][-1]["stage"]
scored = evaluate(f"checkpoint={{run.folder}}/distill/checkpoint", "limit=4")
assert scored.summary["synthetic"]["total"] == 4 and scored.metric is not None
for wrong in ("seed=x", "-m"):
    try:
        train(wrong)
    except ConfigError as error:
        print(error)
"""


def test_train_and_evaluate_are_functions(start: Start, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(FROM_PYTHON)
    said = start("python", "script.py")
    assert "seed = 'x': must be a whole number" in said and "takes settings only" in said
    assert (tmp_path / "it's two" / "summary.json").is_file()
