"""Starts the ranks of one machine with torch's own launcher, and starts them again where one has failed.

From torch, by their public names: ``elastic_launch`` with ``LaunchConfig`` (a rendezvous as ``torchrun --standalone``
has it), ``DefaultLogsSpecs`` for the ranks' output, ``ChildFailedError`` for how they ended, and the error file that
``@record`` writes, by which a rank reports a mistake itself (``launch.record_mistake``). No private name is used.

Ours is the loop around it. Each launch has ``max_restarts=0``: torch's own restarts would repeat a reported mistake,
and name no rank. The launcher works in a thread, where it leaves signal handlers as they are; a signal is passed on to
rank 0, and the launcher ends with its ranks. Loads torch and no model, and is imported only where ranks are started.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from mathse.errors import INTERRUPTED
from mathse.training import leaving
from mathse.training.launch import LOST, LOST_OTHERS, OUR_RUN, PATIENCE, PID, POLL, RESULT, RanksFailed

LOOPBACK = "127.0.0.1"
STOPPED = (INTERRUPTED, *(128 + number for number in (signal.SIGTERM, signal.SIGUSR1)))  # exit codes of a stopped rank
MAX_LAST_LINES, MAX_LAST_BYTES = 30, 2**16  # of each stream of a rank that failed


def run(command: Sequence[str], ranks: int, max_restarts: int) -> Any:
    """Start ``command`` ``ranks`` times on this machine, wait until all have ended, and return what rank 0 reported.

    Rank 0 writes to the terminal; the others write to files, and the last lines of a rank that failed are printed.
    When a rank dies all are started again, ``max_restarts`` times at most. No rank outlives Ctrl-C or the end of this
    process, however it ends. Raises RanksFailed, KeyboardInterrupt.
    """
    of_torch = logging.getLogger("torch.distributed.elastic")
    of_torch.propagate = False  # each line that a user needs is printed below
    of_torch.addHandler(logging.NullHandler())
    for restart in range(1, max_restarts + 2):  # the restart that follows if this launch fails
        with tempfile.TemporaryDirectory(prefix="mathse-") as name:
            folder = Path(name)
            failed = _launch(command, ranks, folder)
            if reported := _files(folder, 0, RESULT):
                return json.loads(reported[0].read_text())
            if failed is None:
                return None

            # The rank that failed first. A rank that has lost the others waits before it ends, so where such a rank
            # is the first to end, a rank that has lost nobody is stuck.
            rank, failure = failed.get_first_failure()
            code = failure.exitcode
            if code in STOPPED:
                raise KeyboardInterrupt
            if code == LOST_OTHERS:
                rank = min((r for r in failed.failures if not _files(folder, r, LOST)), default=rank)
                end = f"rank {rank} did not answer the others any more"
            elif code < 0:
                end = f"rank {rank} was ended by {signal.Signals(-code).name}"
            else:
                end = f"rank {rank} ended with exit code {code}"

            # Its last lines, and how the run continues. A mistake that the rank has reported needs no further line.
            lines = [] if rank == 0 else [f"rank {rank}: {line}" for line in _last_lines(folder, rank)]
            is_reported, again = Path(failure.error_file).exists(), restart <= max_restarts
            if not is_reported and again:
                restarts = f"(restart {restart} of {max_restarts})"
                lines.append(f"{end}; all ranks start again and go on from the run folder {restarts}")
            elif not is_reported:
                spent = "the others were stopped with it"
                if max_restarts:
                    spent = f"after {max_restarts} restarts (trainer.max_restarts)"
                lines.append(f"error: {end}; {spent}; the same command in the same run folder goes on from here")
            print(*(f"{line}\n" for line in lines), sep="", end="", file=sys.stderr, flush=True)
            if is_reported or not again:
                raise RanksFailed(1 if code < 0 or code == LOST_OTHERS else code)
    return None


def _launch(command: Sequence[str], ranks: int, folder: Path) -> ChildFailedError | None:
    """Start the ranks once and wait until all have ended; returns how they failed. ``folder``: for their files.

    Raises KeyboardInterrupt, after all ranks have ended, where this process was asked to stop.
    """
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=f"{OUR_RUN}{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr=LOOPBACK,
        max_restarts=0,
        monitor_interval=POLL,
        logs_specs=DefaultLogsSpecs(str(folder), {rank: Std.ALL if rank else Std.NONE for rank in range(ranks)}),
    )
    arguments = [part.replace("$", "$$") for part in command[1:]]  # torch fills in ${local_rank}
    is_asked = False

    def ask_rank_0() -> None:
        """In a fit all ranks then write a resume point and end, elsewhere rank 0 stops at once."""
        nonlocal is_asked
        is_asked = True
        if not _send(folder, 0, signal.SIGUSR1):
            raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as thread, leaving.listening(ask_rank_0):
        launched = thread.submit(elastic_launch(config, command[0]), *arguments)
        try:
            while not wait([launched], PATIENCE / 10).done:
                # Once rank 0 has reported the run is finished, and the others have little time to end too.
                reported = _files(folder, 0, RESULT)
                if reported and time.time() - reported[0].stat().st_mtime > PATIENCE:
                    _kill(folder, range(1, ranks))
        except KeyboardInterrupt:
            _send(folder, 0, signal.SIGINT)  # it tidies up
            wait([launched], PATIENCE)
            while not wait([launched], POLL).done:
                _kill(folder, range(ranks))
            raise
    failed = launched.exception()
    if failed is not None and not isinstance(failed, ChildFailedError):
        raise failed
    if failed is not None and is_asked:
        raise KeyboardInterrupt
    return failed


def _files(folder: Path, rank: int, name: str) -> list[Path]:
    """Files of a rank, where DefaultLogsSpecs puts its output and its error file."""
    return list(folder.glob(f"*/attempt_0/{rank}/{name}"))


def _send(folder: Path, rank: int, number: signal.Signals) -> bool:
    """Send a signal to a rank; False where the rank has not begun yet."""
    begun = _files(folder, rank, f"{PID}*")
    for file in begun:
        with suppress(ProcessLookupError):
            os.kill(int(file.name.removeprefix(PID)), number)
    return bool(begun)


def _kill(folder: Path, ranks: Sequence[int]) -> None:
    for rank in ranks:
        _send(folder, rank, signal.SIGKILL)


def _last_lines(folder: Path, rank: int) -> Iterator[str]:
    for file in (*_files(folder, rank, "stdout.log"), *_files(folder, rank, "stderr.log")):
        with file.open("rb") as f:
            f.seek(max(0, file.stat().st_size - MAX_LAST_BYTES))
            text = f.read().decode("utf-8", "replace")
        yield from text.splitlines()[-MAX_LAST_LINES:]
