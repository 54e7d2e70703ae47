"""The two calls of SLURM that a sweep needs: submit an array of jobs, and query their states.

The states come from squeue, which every cluster has, and which still lists jobs that ended some minutes ago. sacct
would need a cluster with accounting.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mathse.errors import ConfigError, MathSEError

# A job in any other state has ended.
ALIVE_STATES = {
    "PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD",
    "RESIZING", "RESV_DEL_HOLD", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED",
}  # fmt: skip


@dataclass(frozen=True)
class JobState:
    """The state of a job in SLURM."""

    state: str  # SLURM's word: "RUNNING"
    where_or_why: str  # the nodes that it runs on, or the reason for which it waits: "one", "(Resources)"

    @property
    def is_alive(self) -> bool:
        return self.state in ALIVE_STATES

    def __str__(self) -> str:
        state = self.state.lower().replace("_", " ")
        return f"{state} on {self.where_or_why}" if self.state == "RUNNING" else f"{state} {self.where_or_why}".strip()


def submit(options: Sequence[str], script: Sequence[str], environment: Mapping[str, str]) -> str:
    """Submit a script with its arguments to sbatch. Returns the job's number.

    Raises ConfigError for a machine without SLURM and for a refused job.
    """
    if shutil.which("sbatch") is None:
        raise ConfigError(
            "hydra/launcher=slurm: there is no sbatch on this machine's path; start the command on a machine "
            "that submits jobs, usually a login node"
        )
    # sbatch repeats its reason for each task of the array: keep each line once.
    command = ["sbatch", "--parsable", *options, *script]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in done.stderr.splitlines()]
        reason = "; ".join(dict.fromkeys(line.strip() for line in lines if line.strip()))
        requested = " ".join(option for option in options if not option.startswith(("--output", "--chdir")))
        raise ConfigError(f"hydra/launcher=slurm: sbatch refuses the jobs: {reason} (requested: {requested})")
    return done.stdout.strip().partition(";")[0]  # "12", or "12;cluster"


def query_states() -> dict[str, JobState]:
    """Return the states of this user's jobs by number, in an array "12_3". Raises MathSEError without an answer."""
    # %F|%K|%T|%R: array, index in the array, state, nodes or reason.
    command = ["squeue", "--me", "--noheader", "--array", "--states=all", "--format=%F|%K|%T|%R"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as e:
        raise MathSEError("hydra/launcher=slurm: there is no squeue on this machine's path") from e
    if done.returncode:
        raise MathSEError(f"squeue fails: {' '.join(done.stderr.split())}")
    by_number = {}
    for line in done.stdout.splitlines():
        array, index, state, where_or_why = line.split("|", 3)
        number = array if index == "N/A" else f"{array}_{index}"
        by_number[number] = JobState(state, "" if where_or_why == "(None)" else where_or_why)
    return by_number
