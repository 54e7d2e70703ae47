"""Starting a run on several devices: the same command once a device ("rank"), and one process that watches over them.

The environment of a rank is the one that torchrun sets, so ours, torchrun's and SLURM's ranks are alike from there on.
Loads no torch: the watching process holds no model.
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

WATCHED, RESULT = "MATHSE_WATCHED", "MATHSE_RESULT"  # a pipe that closes when the watching process ends; a file
LEFT_ALONE = 75  # exit code of a rank that lost the others: not the one to blame
LAST_WORDS = 30  # lines kept of what a rank other than the first says
POLL, PATIENCE = 0.1, 10.0  # seconds; how long a rank may take to end by itself


@dataclass(frozen=True)
class Place:
    """Where a process stands among those of a run. ``local_rank``: on its machine; it picks the device."""

    rank: int
    size: int
    local_rank: int


@dataclass(frozen=True)
class Rank:
    number: int
    process: subprocess.Popen[bytes]
    last_words: deque[str]


class RanksFailed(Exception):
    """A rank failed, and what there was to say has been said; ``code`` is the exit code to go with."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


def place(environment: Mapping[str, str] = os.environ) -> Place | None:
    """This process's place, if several were started, by torchrun, SLURM's srun or ``run``; None: it is alone."""
    if "RANK" in environment and "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif environment.get("SLURM_STEP_NUM_TASKS", "1") != "1":  # srun sets it, and sbatch's own script has none
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    else:
        return None
    rank, size, local_rank = (int(environment.get(name, "0")) for name in names)
    return Place(rank, size, local_rank) if size > 1 else None


def is_ours() -> bool:
    """Whether ``run`` started this process, and a watching process has the last word."""
    return WATCHED in os.environ


def require(strategy: str) -> None:
    """Raise ConfigError where what a strategy needs is not installed; asked before any rank is started."""
    if strategy == "deepspeed" and (sentence := missing("deepspeed")):
        raise ConfigError(f"trainer.strategy = 'deepspeed': {sentence}, or pass trainer=fsdp")


# --- in the watching process ----------------------------------------------------------------------------------------


def run(command: Sequence[str], ranks: int) -> Any:
    """Start ``command`` ``ranks`` times on this machine and wait for the end of all; what rank 0 told ``report``.

    Rank 0 speaks for the run; the words of the others are kept, and shown for the one that failed. No rank outlives
    another one's failure, Ctrl-C, or the end of this process, however it ends.
    Raises RanksFailed, KeyboardInterrupt.
    """
    with tempfile.TemporaryDirectory(prefix="mathse-") as aside, _terminated_like_interrupted():
        result = Path(aside) / "result.json"
        watched, open_end = os.pipe()  # never written to: a rank sees it close when this process is gone
        started: list[Rank] = []
        try:
            port = _free_port()
            for number in range(ranks):
                started.append(_start(command, Place(number, ranks, number), port, watched, result))
            _wait(started)
            return json.loads(result.read_text()) if result.exists() else None
        except KeyboardInterrupt:
            for rank in started[:1]:
                rank.process.send_signal(signal.SIGINT)
            _ended_within(started[:1], PATIENCE)
            raise
        finally:
            _end(started)
            os.close(watched)
            os.close(open_end)


def _start(command: Sequence[str], place: Place, port: int, watched: int, result: Path) -> Rank:
    environment = {
        **os.environ,
        "RANK": str(place.rank),
        "LOCAL_RANK": str(place.local_rank),
        "WORLD_SIZE": str(place.size),
        "LOCAL_WORLD_SIZE": str(place.size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        WATCHED: str(watched),
        RESULT: str(result),
    }
    quiet: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} if place.rank else {}
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        pass_fds=(watched,),
        process_group=0,  # Ctrl-C comes to the watching process alone, which passes it on
        **quiet,
    )
    rank = Rank(place.rank, process, deque(maxlen=LAST_WORDS))
    if process.stdout is not None:
        threading.Thread(target=_listen, args=(rank,), daemon=True).start()
    return rank


def _listen(rank: Rank) -> None:
    for line in rank.process.stdout or ():
        rank.last_words.append(line.decode("utf-8", "replace").rstrip())


def _wait(started: Sequence[Rank]) -> None:
    """Until rank 0 has ended well. Raises RanksFailed once a rank has not, after saying which if it has not itself."""
    while not (failed := [r for r in started if r.process.poll()]):
        if started[0].process.poll() == 0:
            _ended_within(started, PATIENCE)
            return
        time.sleep(POLL)
    _ended_within(started[:1], PATIENCE)  # it notices, as a rule, and tidies up
    if not (to_blame := _to_blame(started)):
        _ended_within(started, PATIENCE / 5)
        to_blame = _to_blame(started) or failed
    guilty = min(to_blame, key=lambda r: r not in failed)
    code = guilty.process.returncode
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if guilty.number or code < 0 or code == LEFT_ALONE:
        _tell_of(guilty)
    raise RanksFailed(code if 0 < code != LEFT_ALONE else 1)


def _to_blame(started: Sequence[Rank]) -> list[Rank]:
    return [r for r in started if r.process.poll() not in (None, 0, LEFT_ALONE)]


def _tell_of(rank: Rank) -> None:
    code = rank.process.returncode
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    if code == LEFT_ALONE:
        how = "lost its connection to the others"
    time.sleep(POLL)  # its last lines may still be under way
    lines = [f"rank {rank.number}: {line}" for line in rank.last_words]
    remedy = "the others were stopped with it; the same command in the same run folder goes on from here"
    print(*lines, f"error: rank {rank.number} {how}; {remedy}", sep="\n", file=sys.stderr, flush=True)


def _end(started: Sequence[Rank]) -> None:
    for how, patience in ((signal.SIGTERM, PATIENCE / 2), (signal.SIGKILL, PATIENCE)):
        if alive := [r for r in started if r.process.poll() is None]:
            for rank in alive:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(rank.process.pid, how)  # with its loader processes
            _ended_within(alive, patience)


def _ended_within(ranks: Sequence[Rank], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(r.process.poll() is None for r in ranks):
        time.sleep(POLL)


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM, a scheduler's word for stop, ends the ranks too."""

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


# --- in a rank ------------------------------------------------------------------------------------------------------


def end_with_the_watcher() -> None:
    """In a rank that ``run`` started: end this process as soon as the watching one is gone."""
    if not is_ours():
        return

    def watch(pipe: int) -> None:
        os.read(pipe, 1)  # returns at its end
        os._exit(LEFT_ALONE)

    threading.Thread(target=watch, args=(int(os.environ[WATCHED]),), daemon=True).start()


@cache
def end_with_the_sweep() -> None:
    """In a worker process of a sweep (joblib's): end this process as soon as the sweep's own is gone.

    Else it would go on with its job, and hold that run's folder when the same command is started again.
    """
    if multiprocessing.current_process().name == "MainProcess":
        return
    sweep = os.getppid()

    def watch() -> None:
        while os.getppid() == sweep:
            time.sleep(POLL)
        os._exit(LEFT_ALONE)

    threading.Thread(target=watch, daemon=True).start()


def report(value: Any) -> None:
    """What rank 0's task returned, for the watching process."""
    here = place()
    if is_ours() and (here is None or here.rank == 0):
        Path(os.environ[RESULT]).write_text(json.dumps(value))
