from __future__ import annotations

import fcntl
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from e2e.runs import ROOT, TINY, run


@dataclass(frozen=True)
class Smoke:
    """The run of ``experiment=smoke`` that tests share; they read it, or make it do nothing."""

    folder: Path
    command: tuple[str, ...]
    said: str


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    """Made once, also where several pytest workers want it: the first makes it, the others wait for it."""
    base = tmp_path_factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "smoke"
    place.mkdir(exist_ok=True)
    command = ("train.py", "experiment=smoke", "progress=plain", f"hydra.run.dir={place / 'run'}")
    program, said = [sys.executable, str(ROOT / command[0]), *command[1:]], place / "said.txt"
    with open(place / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            done = subprocess.run(program, cwd=place, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            said.write_text(done.stdout)
    return Smoke(place / "run", command, said.read_text())


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the smallest evolution in which every stage merges something."""
    folder = tmp_path_factory.mktemp("tiny") / "run"
    run(folder, *TINY)
    return folder


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """``command("train.py", "seed=1")``: the real script with these arguments, in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def start(script: str, *arguments: str) -> Outcome:
        for key in ("MATHSE_TRACEBACK", "HYDRA_FULL_ERROR"):
            monkeypatch.setenv(key, "0")
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        GlobalHydra.instance().clear()
        code: Any = 0
        capsys.readouterr()
        try:
            runpy.run_path(os.fspath(ROOT / script), run_name="__main__")
        except SystemExit as e:
            code = e.code or 0
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    return start
