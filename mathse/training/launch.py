"""Starts a run on several devices: the same command once for each device (a "rank"), supervised by one process.

A rank's environment is the one that torchrun sets, so everything after the start is the same for ranks that we,
torchrun or SLURM started. Loads no torch: the supervising process holds no model.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from mathse.config.extras import missing
from mathse.errors import INTERRUPTED, ConfigError

SUPERVISED, RESULT = "MATHSE_WATCHED", "MATHSE_RESULT"  # a pipe that closes when the supervisor ends; a file
LOST_OTHERS = 75  # exit code of a rank that lost the others: it is not the one that failed
KEPT_LINES = 30  # of the output of each rank but the first
POLL, PATIENCE = 0.1, 10.0  # seconds; how long a rank may take to end by itself


@dataclass(frozen=True)
class RankInfo:
    """Which of a run's processes one is. ``local_rank``: its number on its machine; it picks the device."""

    rank: int
    size: int
    local_rank: int


@dataclass(frozen=True)
class RankProcess:
    """A rank that ``run`` started, and the last lines it wrote (none of rank 0, which writes to the terminal)."""

    number: int
    process: subprocess.Popen[bytes]
    last_lines: deque[str]


class RanksFailed(Exception):
    """A rank failed, and the reason has been printed; ``code`` is the exit code for the whole command."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


def own_rank(environment: Mapping[str, str] = os.environ) -> RankInfo | None:
    """Which rank this process is, if torchrun, SLURM's srun or ``run`` started several; None: it is alone."""
    if "RANK" in environment and "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif environment.get("SLURM_STEP_NUM_TASKS", "1") != "1":  # srun sets it; sbatch's own script does not have it
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    else:
        return None
    rank, size, local_rank = (int(environment.get(name, "0")) for name in names)
    return RankInfo(rank, size, local_rank) if size > 1 else None


def meeting_point(environment: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """Address and port at which rank 0 listens. SLURM does not say: its first node, and a port that follows from the
    numbers of job and step, which every rank can work out."""
    address, port = environment.get("MASTER_ADDR"), environment.get("MASTER_PORT")
    if address is None:
        from lightning_fabric.plugins.environments import SLURMEnvironment

        nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or "127.0.0.1"
        address = SLURMEnvironment.resolve_root_node_address(nodes)
    if port is None:
        job, step = (int(environment.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
        port = str(15_000 + (job + 37 * step) % 10_000)
    return address, int(port)


def is_supervised() -> bool:
    """Whether ``run`` started this process, so that its supervisor prints the final error."""
    return SUPERVISED in os.environ


def require(strategy: str) -> None:
    """Raise ConfigError where the packages of a strategy are not installed; called before any rank is started."""
    if strategy == "deepspeed" and (sentence := missing("deepspeed")):
        raise ConfigError(f"trainer.strategy = 'deepspeed': {sentence}, or pass trainer=fsdp")


# --- in the supervising process -------------------------------------------------------------------------------------


def run(command: Sequence[str], ranks: int) -> Any:
    """Start ``command`` ``ranks`` times on this machine and wait until all have ended; what rank 0 gave ``report``.

    Rank 0 writes to the terminal; the last lines of the others are kept, and printed for the one that failed. No rank
    outlives another one's failure, Ctrl-C, or the end of this process, however it ends.
    Raises RanksFailed, KeyboardInterrupt.
    """
    with tempfile.TemporaryDirectory(prefix="mathse-") as folder, _terminated_like_interrupted():
        result = Path(folder) / "result.json"
        with socket.socket() as s:  # a free port, for rank 0 to listen on
            s.bind(("127.0.0.1", 0))
            port = int(s.getsockname()[1])
        read_end, write_end = os.pipe()  # never written to: a rank sees it close when this process has ended
        started: list[RankProcess] = []
        try:
            for number in range(ranks):
                environment = {
                    "RANK": str(number),
                    "LOCAL_RANK": str(number),
                    "WORLD_SIZE": str(ranks),
                    "LOCAL_WORLD_SIZE": str(ranks),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                    SUPERVISED: str(read_end),
                    RESULT: str(result),
                }
                captured: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} if number else {}
                process = subprocess.Popen(
                    command,
                    env={**os.environ, **environment},
                    stdin=subprocess.DEVNULL,
                    pass_fds=(read_end,),
                    process_group=0,  # Ctrl-C comes to this process alone, which passes it on
                    **captured,
                )
                started.append(rank := RankProcess(number, process, deque(maxlen=KEPT_LINES)))
                if captured:
                    threading.Thread(target=_keep_lines, args=(rank,), daemon=True).start()
            _wait(started)
            return json.loads(result.read_text()) if result.exists() else None
        except KeyboardInterrupt:
            for rank in started[:1]:
                rank.process.send_signal(signal.SIGINT)
            _wait_at_most(PATIENCE, started[:1])
            raise
        finally:
            # Asked to end first, so that they can tidy up; then killed.
            for sent, patience in ((signal.SIGTERM, PATIENCE / 2), (signal.SIGKILL, PATIENCE)):
                alive = [r for r in started if r.process.poll() is None]
                for rank in alive:
                    with suppress(ProcessLookupError, PermissionError):
                        os.killpg(rank.process.pid, sent)  # with its loader processes
                _wait_at_most(patience, alive)
            os.close(read_end)
            os.close(write_end)


def _keep_lines(rank: RankProcess) -> None:
    for line in rank.process.stdout or ():
        rank.last_lines.append(line.decode("utf-8", "replace").rstrip())


def _wait(started: Sequence[RankProcess]) -> None:
    """Until rank 0 has ended well. Raises RanksFailed once a rank has failed, after printing which, unless rank 0 has
    printed the reason itself."""

    def failed_by_themselves() -> list[RankProcess]:
        return [r for r in started if r.process.poll() not in (None, 0, LOST_OTHERS)]

    while not (failed := [r for r in started if r.process.poll()]):
        if started[0].process.poll() == 0:
            _wait_at_most(PATIENCE, started)
            return
        time.sleep(POLL)
    _wait_at_most(PATIENCE, started[:1])  # as a rule it notices, and tidies up
    if not (candidates := failed_by_themselves()):
        _wait_at_most(PATIENCE / 5, started)  # the one that failed may end later than those that lost it
        candidates = failed_by_themselves() or failed
    # Of several the one that ended first; the others may have failed because of it.
    culprit = min(candidates, key=lambda r: r not in failed)
    code = culprit.process.returncode
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if culprit.number or code < 0 or code == LOST_OTHERS:
        end = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if code == LOST_OTHERS:
            end = "lost its connection to the others"
        time.sleep(POLL)  # its last lines may still be under way
        lines = [f"rank {culprit.number}: {line}" for line in culprit.last_lines]
        remedy = "the others were stopped with it; the same command in the same run folder goes on from here"
        print(*lines, f"error: rank {culprit.number} {end}; {remedy}", sep="\n", file=sys.stderr, flush=True)
    raise RanksFailed(code if 0 < code != LOST_OTHERS else 1)


def _wait_at_most(seconds: float, ranks: Sequence[RankProcess]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(r.process.poll() is None for r in ranks):
        time.sleep(POLL)


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM, with which schedulers stop a job, acts like Ctrl-C: it ends the ranks too."""

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    in_main_thread = threading.current_thread() is threading.main_thread()  # no other may set signal handlers
    if not in_main_thread or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:  # a command line's handler does so too
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# --- in a rank ------------------------------------------------------------------------------------------------------


def end_with_supervisor() -> None:
    """In a rank that ``run`` started: end this process as soon as the supervising one has ended."""
    if not is_supervised():
        return

    def watch(pipe: int) -> None:
        os.read(pipe, 1)  # returns when the other end is closed
        os._exit(LOST_OTHERS)

    threading.Thread(target=watch, args=(int(os.environ[SUPERVISED]),), daemon=True).start()


@cache
def end_with_sweep() -> None:
    """In a worker process of a sweep (joblib's): end this process as soon as the sweep's own has ended.

    Else it would go on with its job, and hold that run's folder when the same command is started again.
    """
    if multiprocessing.current_process().name == "MainProcess":
        return
    sweep = os.getppid()

    def watch() -> None:
        while os.getppid() == sweep:
            time.sleep(POLL)
        os._exit(LOST_OTHERS)

    threading.Thread(target=watch, daemon=True).start()


def report(value: Any) -> None:
    """Hand what rank 0's task returned to the supervising process."""
    info = own_rank()
    if is_supervised() and (info is None or info.rank == 0):
        Path(os.environ[RESULT]).write_text(json.dumps(value))
