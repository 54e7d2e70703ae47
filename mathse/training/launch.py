"""The rank of this process among the processes of its run, and its messages to the agent that started it.

A rank's environment is torchrun's, so everything after the start is the same for ranks that our own agent
(``agent.py``), torchrun or SLURM started. Loads no torch.
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

from mathse.config.extras import explain_missing
from mathse.errors import ConfigError, RankLost
from mathse.training import leaving

RUN_ID, ERROR_FILE = "TORCHELASTIC_RUN_ID", "TORCHELASTIC_ERROR_FILE"  # set by torch's launcher in each rank
OUR_RUN = "mathse-"  # how the id of a run begins that our agent launched; the agent's process id follows
PID, LOST, RESULT = "pid_", "lost", "result.json"  # files that a rank leaves for our agent beside its error file
LOST_OTHERS = 75  # exit code of a rank that lost the others: it is not the rank that failed
POLL, PATIENCE = 0.1, 10.0  # seconds; how long a rank may take to end by itself
PR_SET_PDEATHSIG = 1  # of Linux's prctl


@dataclass(frozen=True)
class RankInfo:
    """A process's number among those of its run. ``local_rank``: its number on its machine, which picks the device."""

    rank: int
    size: int
    local_rank: int


class RanksFailed(Exception):
    """A rank failed, and the reason has been printed; ``code`` is the exit code for the whole command."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


def own_rank(environment: Mapping[str, str] = os.environ) -> RankInfo | None:
    """This process's rank, if torchrun, SLURM's srun or our agent started several; None in a single process."""
    if "RANK" in environment and "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif environment.get("SLURM_STEP_NUM_TASKS", "1") != "1":  # srun sets it; sbatch's own script does not have it
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    else:
        return None
    rank, size, local_rank = (int(environment.get(name, "0")) for name in names)
    return RankInfo(rank, size, local_rank) if size > 1 else None


def ranks_here(environment: Mapping[str, str] = os.environ) -> int | None:
    """The number of ranks on this machine, from torchrun's or srun's variables (srun's: the mean over its nodes); None
    without either."""
    if "LOCAL_WORLD_SIZE" in environment:
        return int(environment["LOCAL_WORLD_SIZE"])
    if "SLURM_STEP_NUM_NODES" in environment and "SLURM_STEP_NUM_TASKS" in environment:
        return -(-int(environment["SLURM_STEP_NUM_TASKS"]) // int(environment["SLURM_STEP_NUM_NODES"]))
    return None


def meeting_point(environment: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """Address and port at which rank 0 listens. SLURM sets neither: then its first node, and a port that every rank can
    compute from the numbers of job and step."""
    address, port = environment.get("MASTER_ADDR"), environment.get("MASTER_PORT")
    if address is None and environment.get("SLURM_STEP_NUM_NODES") == "1":
        address = "127.0.0.1"  # a node's name need not be an address
    elif address is None:
        from lightning_fabric.plugins.environments import SLURMEnvironment

        nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or "127.0.0.1"
        address = SLURMEnvironment.resolve_root_node_address(nodes)
    if port is None:
        job, step = (int(environment.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
        port = str(15_000 + (job + 37 * step) % 10_000)
    return address, int(port)


def is_supervised() -> bool:
    """Whether our agent started this process, so that it prints the final error."""
    return os.environ.get(RUN_ID, "").startswith(OUR_RUN)


def require(strategy: str) -> None:
    """Raise ConfigError where the packages of a strategy are not installed; called before any rank is started."""
    if strategy == "deepspeed" and (sentence := explain_missing("deepspeed")):
        raise ConfigError(f"trainer.strategy = 'deepspeed': {sentence}, or pass trainer=fsdp")


# --- in a rank ------------------------------------------------------------------------------------------------------


def end_with_agent() -> None:
    """In a rank that our agent or torchrun started: end this process as soon as the agent has ended, however."""
    if is_supervised():
        (_own_folder() / f"{PID}{os.getpid()}").touch()
        end_with_parent(int(os.environ[RUN_ID].removeprefix(OUR_RUN)))
    elif RUN_ID in os.environ:
        end_with_parent(os.getppid())


def _own_folder() -> Path:
    return Path(os.environ[ERROR_FILE]).parent


def end_with_parent(parent: int) -> None:
    """End this process as soon as its ``parent`` has ended, or now, if it has. The kernel does it where it can (Linux),
    whatever this process is stuck in."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(LOST_OTHERS)
    else:
        _watch(parent)


def _watch(parent: int) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL)
        os._exit(LOST_OTHERS)

    threading.Thread(target=watch, daemon=True).start()


@cache
def end_with_sweep() -> None:
    """In a worker process of a sweep (joblib's): end this process as soon as the sweep's own has ended.

    Else it would go on with its job, and hold that run's folder when the same command is started again.
    """
    if multiprocessing.current_process().name != "MainProcess":
        _watch(os.getppid())  # the kernel's way would end it with the thread that started it


def report(value: Any) -> None:
    """Hand the value that rank 0's task returned to the agent."""
    info = own_rank()
    if is_supervised() and (info is None or info.rank == 0):
        (_own_folder() / RESULT).write_text(json.dumps(value))


def record_mistake(error: BaseException) -> None:
    """In a rank that our agent or torchrun started: write the error that it has printed into torch's error file, as
    ``@record`` does for errors that leave a program. Our agent then starts no rank again; torchrun shows the cause."""
    if os.environ.get(ERROR_FILE) and not isinstance(error, RankLost):
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)


def lost_others() -> NoReturn:
    """End a rank that has lost the others, and leave a mark: a rank without it is stuck.

    The rank waits for the agent to end it, so that the rank that failed is seen to end first. Where SIGTERM has come
    already, the agent has seen that.
    """
    (_own_folder() / LOST).touch()
    if not leaving.is_asked():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(PATIENCE)
    sys.exit(LOST_OTHERS)
