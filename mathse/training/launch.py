"""This process's rank, and its messages to the agent that started it.

The environment of a rank is torchrun's, so only the start differs between ranks of our agent (``agent.py``), torchrun
and SLURM. This module does not import torch.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from mathse.config.extras import missing
from mathse.errors import ConfigError, RankLost
from mathse.training import leaving

RUN_ID, ERROR_FILE = "TORCHELASTIC_RUN_ID", "TORCHELASTIC_ERROR_FILE"  # variables that torch's launcher sets in a rank
RUN_PREFIX = "mathse-"  # first part of a run's id under our agent; the agent's process id follows
PID, LOST, RESULT = "pid_", "lost", "result.json"  # files of a rank for our agent, in the folder of its error file
LOST_OTHERS = 75  # exit code of a rank that lost the others; another rank has failed
POLL_SECONDS = 0.1
PATIENCE_SECONDS = 10.0  # time for a rank to end by itself
LOOPBACK = "127.0.0.1"
PR_SET_PDEATHSIG = 1  # an operation of Linux's prctl


@dataclass(frozen=True)
class RankInfo:
    """A process among the processes of its run.

    Attributes:
        rank: its number.
        size: the number of processes.
        local_rank: its number on its machine, which selects the device.
    """

    rank: int
    size: int
    local_rank: int


class RanksFailed(Exception):
    """A rank failed and the reason was printed.

    Attributes:
        code: exit code of the whole command.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


def read_own_rank(environment: Mapping[str, str] = os.environ) -> RankInfo | None:
    """Return this process's rank if torchrun, SLURM's srun or our agent started several processes, else None."""
    if "RANK" in environment and "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif environment.get("SLURM_STEP_NUM_TASKS", "1") != "1":  # srun sets it; the script of sbatch does not have it
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    else:
        return None
    rank, size, local_rank = (int(environment.get(name, "0")) for name in names)
    return RankInfo(rank, size, local_rank) if size > 1 else None


def count_local_ranks(environment: Mapping[str, str] = os.environ) -> int | None:
    """Return the number of ranks on this machine; None without variables of torchrun or srun.

    With srun it is the mean over the nodes.
    """
    if "LOCAL_WORLD_SIZE" in environment:
        return int(environment["LOCAL_WORLD_SIZE"])
    if "SLURM_STEP_NUM_NODES" in environment and "SLURM_STEP_NUM_TASKS" in environment:
        return -(-int(environment["SLURM_STEP_NUM_TASKS"]) // int(environment["SLURM_STEP_NUM_NODES"]))
    return None


def find_meeting_point(environment: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """Return the address and port at which rank 0 listens.

    SLURM sets neither. Then it is the first node, and a port that every rank computes from the numbers of job and step.
    """
    address, port = environment.get("MASTER_ADDR"), environment.get("MASTER_PORT")
    if address is None and environment.get("SLURM_STEP_NUM_NODES") == "1":
        address = LOOPBACK  # the name of a node may have no address
    elif address is None:
        from lightning_fabric.plugins.environments import SLURMEnvironment

        nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or LOOPBACK
        address = SLURMEnvironment.resolve_root_node_address(nodes)
    if port is None:
        job, step = (int(environment.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
        port = str(15_000 + (job + 37 * step) % 10_000)
    return address, int(port)


def is_supervised() -> bool:
    """Whether our agent started this process. The agent then prints the final error."""
    return os.environ.get(RUN_ID, "").startswith(RUN_PREFIX)


def require_packages(strategy: str) -> None:
    """Raise ConfigError if packages of a strategy are not installed. It is called before any rank starts."""
    if strategy == "deepspeed" and (sentence := missing("deepspeed")):
        raise ConfigError(f"trainer.strategy = 'deepspeed': {sentence}, or pass trainer=fsdp")


# --- in a rank ------------------------------------------------------------------------------------------------------


def end_with_agent() -> None:
    """In a rank of our agent or torchrun: end this process as soon as the agent has ended for any reason."""
    if is_supervised():
        (_own_folder() / f"{PID}{os.getpid()}").touch()
        end_with_parent(int(os.environ[RUN_ID].removeprefix(RUN_PREFIX)))
    elif RUN_ID in os.environ:
        end_with_parent(os.getppid())


def _own_folder() -> Path:
    return Path(os.environ[ERROR_FILE]).parent


def end_with_parent(parent: int) -> None:
    """End this process as soon as its ``parent`` has ended, or now if it has.

    On Linux the kernel does it, also for a process that is stuck.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(LOST_OTHERS)
    else:
        _watch_parent(parent)


def _watch_parent(parent: int) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os._exit(LOST_OTHERS)

    threading.Thread(target=watch, daemon=True).start()


@cache
def end_with_sweep() -> None:
    """In a worker of a sweep (joblib): end this process as soon as the sweep's process has ended.

    Otherwise the worker would finish its job, and hold the run's folder when the same command is started again.
    """
    if multiprocessing.current_process().name != "MainProcess":
        # Linux would end the worker with the thread that started it, which is earlier.
        _watch_parent(os.getppid())


def report(value: Any) -> None:
    """Send the return value of rank 0's task to the agent."""
    info = read_own_rank()
    if is_supervised() and (info is None or info.rank == 0):
        (_own_folder() / RESULT).write_text(json.dumps(value))


def record_mistake(error: BaseException) -> None:
    """In a rank of our agent or torchrun: write the printed error to torch's error file.

    ``@record`` does this for errors that leave a program. Our agent then does not start the ranks again, and torchrun
    prints the cause.
    """
    if os.environ.get(ERROR_FILE) and not isinstance(error, RankLost):
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)


def end_after_others() -> NoReturn:
    """End a rank that has lost the others, and leave a mark. A rank without the mark is stuck.

    The rank waits until the agent ends it, so that the agent sees the failed rank end first. After SIGTERM the agent
    has seen it already.
    """
    (_own_folder() / LOST).touch()
    if not leaving.is_asked():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(PATIENCE_SECONDS)
    sys.exit(LOST_OTHERS)
