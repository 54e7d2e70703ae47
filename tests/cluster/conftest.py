"""A real SLURM on this machine, for all tests of this folder; skipped with a reason where it is not installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e.runs import ROOT, TINY

from cluster.one_machine import missing_programs, one_machine

STUCK = 400.0  # seconds that nothing here takes

# Three stages and one fit, long enough to be stopped in, whose resume points come by signals alone.
SETTINGS = (
    *TINY, "judge=answer", "evolution.rounds=0", "evolution.reflect.when=never", "sft.max_steps=150",
    "trainer.precision=32-true", "trainer.log_every=1", "trainer.checkpoint_every=1000", "generator.batch_size=3",
    "evaluation.batch_size=3",
)  # fmt: skip
TWO = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.workers=0")
ON_THIS_CLUSTER = (
    "hydra/launcher=slurm",
    *(f"hydra.launcher.{key}=null" for key in ("gpus_per_node", "mem_gb", "cpus_per_task")),
)


@pytest.fixture(scope="session")
def slurm() -> Iterator[dict[str, str]]:
    """The environment of a running cluster."""
    if lacking := missing_programs():
        pytest.skip(f"needs SLURM ({', '.join(lacking)} not found); on Debian: apt-get install slurm-wlm")
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    try:
        with one_machine(folder) as environment:
            yield environment
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Cluster:
    """``place``: the folder in which commands are given; ``environment``: theirs."""

    place: Path
    environment: dict[str, str]

    def start(self, *command: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(part) for part in command], cwd=self.place, env=self.environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, process_group=0,
        )  # fmt: skip

    def run(self, *command: str | Path, code: int = 0) -> str:
        """What a command said that ended with this exit code."""
        process = self.start(*command)
        said, _ = process.communicate(timeout=STUCK)
        assert process.returncode == code, said
        return said

    def train(self, *settings: str) -> subprocess.Popen[str]:
        return self.start(sys.executable, ROOT / "train.py", *settings)

    def sweep(self, *settings: str, code: int = 0) -> str:
        return self.run(sys.executable, ROOT / "train.py", "-m", *ON_THIS_CLUSTER, *SETTINGS, *settings, code=code)

    def jobs(self, states: str = "all") -> list[str]:
        """ "12_0 RUNNING", of this user's jobs."""
        return self.run("squeue", "--me", "--noheader", "--array", f"--states={states}", "--format=%i %T").splitlines()


@pytest.fixture
def cluster(slurm: dict[str, str], tmp_path: Path) -> Iterator[Cluster]:
    yield (here := Cluster(tmp_path, slurm))
    for job in here.jobs("pending,running,suspended,completing"):
        here.run("scancel", job.split()[0])


@pytest.fixture(scope="session")
def whole(slurm: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``whole(*TWO)``: the same run on this machine, without SLURM and never stopped."""
    made: dict[tuple[str, ...], Path] = {}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}

    def run(*settings: str) -> Path:
        if settings not in made:
            folder = tmp_path_factory.mktemp("whole") / "run"
            command = [sys.executable, str(ROOT / "train.py"), *SETTINGS, *settings, f"hydra.run.dir={folder}"]
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            made[settings] = folder
        return made[settings]

    return run


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    end = time.monotonic() + STUCK
    while not condition():
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)


def interrupt(process: subprocess.Popen[str]) -> str:
    """Ctrl-C in a command's terminal; what it said."""
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=STUCK)
    return said
