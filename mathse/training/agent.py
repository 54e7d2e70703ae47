"""Supervises the ranks of one machine: torch's elastic agent, in this process.

It starts the command once a device, and when a rank dies ends the others and starts all of them again, as ``torchrun``
does; they go on from the run folder. The agent is built here and not by ``elastic_launch``, for what that has no place
for: a mistake that a rank has told is not tried again, Ctrl-C lets rank 0 tidy up, the rank that failed is named.
Loads torch and no model, and is imported only where ranks are started.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

from mathse.errors import INTERRUPTED
from mathse.training import leaving
from mathse.training.launch import (
    AGENT,
    LOST_OTHERS,
    PATIENCE,
    POLL,
    RESULT,
    TOLD,
    RanksFailed,
    lost_file,
)

HERE = "127.0.0.1"
MEETING_SECONDS = 60  # to reach the agent's store, which is in this process
STOPPED = (INTERRUPTED, *(128 + number for number in (signal.SIGTERM, signal.SIGUSR1)))  # exit codes of a stopped rank
KEPT_LINES, KEPT_BYTES = 30, 2**16  # of each stream of a rank that failed
HANDLED_BY_TORCH = "TORCHELASTIC_SIGNALS_TO_HANDLE"  # its handlers would take the place of ours


def run(command: Sequence[str], ranks: int, max_restarts: int) -> Any:
    """Start ``command`` ``ranks`` times on this machine and wait until all have ended; what rank 0 gave ``report``.

    Rank 0 writes to the terminal; the others write to files, of which the last lines are printed for one that failed.
    When a rank dies all are started again, ``max_restarts`` times at most. None outlives Ctrl-C or the end of this
    process, however it ends. Raises RanksFailed, KeyboardInterrupt.
    """
    of_torch = logging.getLogger("torch.distributed.elastic")
    of_torch.propagate = False  # what is worth a line is said below
    of_torch.addHandler(logging.NullHandler())
    with tempfile.TemporaryDirectory(prefix="mathse-") as name, _terminated_like_interrupted():
        folder = Path(name)
        result = folder / "result.json"
        with socket.socket() as s:  # a free port, for the store through which the ranks find each other
            s.bind((HERE, 0))
            port = int(s.getsockname()[1])
        spec = WorkerSpec(
            role="rank",
            local_world_size=ranks,
            entrypoint=command[0],
            args=tuple(part.replace("$", "$$") for part in command[1:]),  # torch fills in ${local_rank}
            rdzv_handler=StaticTCPRendezvous(HERE, port, 0, 1, "mathse", MEETING_SECONDS),
            max_restarts=max_restarts,
            monitor_interval=POLL,
            local_addr=HERE,
        )
        with _environment({AGENT: str(os.getpid()), RESULT: str(result), HANDLED_BY_TORCH: ""}):
            agent = Agent(spec, folder)
            with leaving.listening(agent.pass_on):
                run = agent.run()
            if run.state != WorkerState.SUCCEEDED:
                raise RanksFailed(agent.exit_code)
        return json.loads(result.read_text()) if result.exists() else None


@dataclass(frozen=True)
class RankEnd:
    """How the rank ended that failed first: ``code`` is its exit code, below zero a signal's number."""

    rank: int
    code: int

    def __str__(self) -> str:
        if self.code == LOST_OTHERS:
            return f"rank {self.rank} did not answer the others any more"
        if self.code < 0:
            return f"rank {self.rank} was ended by {signal.Signals(-self.code).name}"
        return f"rank {self.rank} ended with exit code {self.code}"


class Agent(LocalElasticAgent):
    """``folder``: where the ranks' output goes, and what they leave for the agent."""

    def __init__(self, spec: WorkerSpec, folder: Path) -> None:
        streams = {rank: Std.ALL if rank else Std.NONE for rank in range(spec.local_world_size)}
        logs = DefaultLogsSpecs(log_dir=str(folder / "logs"), redirects=streams)
        super().__init__(spec, logs)
        self.folder = folder
        self.exit_code = 1  # for the whole command, where a rank fails
        self.rank_0_done: float | None = None  # since when
        self.leaves = False  # once told to
        self.informed: subprocess.Popen[bytes] | None = None  # the rank 0 to which that was passed on

    @property
    def _processes(self) -> list[subprocess.Popen[bytes]]:
        ranks: Any = self._pcontext  # of commands
        return [handler.proc for handler in ranks.subprocess_handlers.values()]

    def pass_on(self) -> None:
        """Tell rank 0 to leave: in a fit all ranks then write a resume point and end, elsewhere it stops at once."""
        if self._pcontext is None:  # none has been started
            raise KeyboardInterrupt
        self.leaves = True

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        if self.leaves and self.informed is not self._processes[0]:  # here, because it may just be started again
            self.informed = self._processes[0]
            self.informed.send_signal(signal.SIGUSR1)
        codes = [process.poll() for process in self._processes]
        failed = {rank: code for rank, code in enumerate(codes) if code}
        if failed and codes[0] is None:
            self._wait_for_rank_0()
        if failed:
            self._kill()
        result: RunResult = super()._monitor_workers(worker_group)
        if result.is_failed() and not failed:  # between the two looks
            failed = {rank: failure.exitcode for rank, failure in result.failures.items()}

        # Once rank 0 has ended well the run is finished, and the others have little time to end too.
        if result.state != WorkerState.SUCCEEDED and codes[0] == 0:
            self.rank_0_done = self.rank_0_done or time.monotonic()
            if failed or time.monotonic() - self.rank_0_done > PATIENCE:
                return RunResult(WorkerState.SUCCEEDED, {worker.global_rank: None for worker in worker_group.workers})
        elif failed:
            end = self._first_to_fail(failed)
            if end.code in STOPPED or self.leaves:
                raise KeyboardInterrupt
            self._tell(end)
            if end.code == TOLD:  # it would be told again
                self._remaining_restarts = 0
            self.exit_code = 1 if end.code < 0 or end.code in (TOLD, LOST_OTHERS) else end.code
        return result

    def _wait_for_rank_0(self) -> None:
        """As a rule it notices that it has lost a rank, and closes what is open."""
        end = time.monotonic() + PATIENCE
        while self._processes[0].poll() is None and not lost_file(self.folder, 0).exists() and time.monotonic() < end:
            time.sleep(POLL)

    def _kill(self) -> None:
        """End what is left of the ranks, with their loader processes. Lightning answers SIGTERM with a message to the
        other ranks."""
        for process in self._processes:
            if process.poll() is None:
                with suppress(ProcessLookupError, PermissionError, subprocess.TimeoutExpired):
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait(PATIENCE)

    def _first_to_fail(self, failed: Mapping[int, int]) -> RankEnd:
        """``failed``: exit codes of those that ended by themselves. One that has lost others waits before it ends, so
        where it is the first to end, a rank that has lost nobody is stuck."""
        rank, code = next(iter(failed.items()))
        if code == LOST_OTHERS:
            stuck = [r for r in range(len(self._processes)) if not lost_file(self.folder, r).exists()]
            rank = min(stuck, default=rank)
        for file in self.folder.glob(lost_file(self.folder, "*").name):
            file.unlink()
        return RankEnd(rank, code)

    def _tell(self, end: RankEnd) -> None:
        """What a rank other than 0 wrote last, and what becomes of the run. Who told a mistake has said enough."""
        limit = self._worker_group.spec.max_restarts
        begun = limit - self._remaining_restarts + 1  # the restart that comes next
        lines = [f"rank {end.rank}: {line}" for line in self._last_lines(end.rank, begun - 1)]
        if end.code != TOLD and begun <= limit:
            lines.append(f"{end}; all ranks start again and go on from the run folder (restart {begun} of {limit})")
        elif end.code != TOLD:
            spent = f"after {limit} restarts (trainer.max_restarts)" if limit else "the others were stopped with it"
            lines.append(f"error: {end}; {spent}; the same command in the same run folder goes on from here")
        print(*(f"{line}\n" for line in lines), sep="", end="", file=sys.stderr, flush=True)

    def _last_lines(self, rank: int, attempt: int) -> Iterator[str]:
        for stream in ("stdout.log", "stderr.log"):
            for file in self.folder.glob(f"logs/*/attempt_{attempt}/{rank}/{stream}"):
                with file.open("rb") as f:
                    f.seek(max(0, file.stat().st_size - KEPT_BYTES))
                    text = f.read().decode("utf-8", "replace")
                yield from text.splitlines()[-KEPT_LINES:]

    def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM, timeout: int = 30) -> None:
        """Ends what is left of the ranks; after Ctrl-C, lets rank 0 tidy up before."""
        if self._pcontext is not None:
            if isinstance(sys.exception(), KeyboardInterrupt):
                self._processes[0].send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    self._processes[0].wait(PATIENCE)
            self._kill()
        super()._shutdown(death_sig, timeout)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """What the ranks inherit, in this process's environment."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


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
