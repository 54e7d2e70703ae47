"""Starts the ranks of a machine with torch's launcher, and starts them again after a failure.

Used from torch, all by public names: ``elastic_launch`` with ``LaunchConfig`` (a rendezvous as in ``torchrun
--standalone``), ``DefaultLogsSpecs`` for the ranks' output, ``ChildFailedError`` for their ends, and the error file of
``@record``, in which a rank reports a mistake (``launch.record_mistake``).

The loop around it is our own. Each launch has ``max_restarts=0``, because torch's restarts would repeat a reported
mistake and name no rank. The launcher runs in a thread, where it does not change signal handlers. Signals go to rank 0,
and the launcher ends with its ranks. This module imports torch but no model, and is imported only to start ranks.
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
from mathse.training.launch import (
    LOOPBACK,
    LOST,
    LOST_OTHERS,
    PATIENCE_SECONDS,
    PID,
    POLL_SECONDS,
    RESULT,
    RUN_PREFIX,
    RanksFailed,
)

STOPPED_CODES = (INTERRUPTED, 128 + signal.SIGTERM, 128 + signal.SIGUSR1)  # exit codes of a rank that was stopped
MAX_LAST_LINES, MAX_LAST_BYTES = 30, 2**16  # of each stream of a failed rank


def run(command: Sequence[str], ranks: int, max_restarts: int) -> Any:
    """Start ``command`` ``ranks`` times on this machine, wait until all have ended, and return rank 0's report.

    Rank 0 writes to the terminal. The others write to files, and the last lines of a failed rank are printed. When a
    rank dies, all ranks start again, at most ``max_restarts`` times. No rank outlives Ctrl-C or the end of this
    process.

    Raises:
        RanksFailed: a rank failed; the reason is printed.
        KeyboardInterrupt: this process was asked to stop.
    """
    torch_logger = logging.getLogger("torch.distributed.elastic")
    torch_logger.propagate = False  # each line that a user needs is printed below
    torch_logger.addHandler(logging.NullHandler())
    for restart in range(1, max_restarts + 2):  # the number of the restart after this launch
        with tempfile.TemporaryDirectory(prefix="mathse-") as name:
            folder = Path(name)
            failed = _launch(command, ranks, folder)
            if reported := _find_files(folder, 0, RESULT):
                return json.loads(reported[0].read_text())
            if failed is None:
                return None

            # The rank that failed first. A rank that has lost the others waits before it ends. If such a rank ends
            # first, a rank without its mark is stuck.
            rank, failure = failed.get_first_failure()
            code = failure.exitcode
            if code in STOPPED_CODES:
                raise KeyboardInterrupt
            if code == LOST_OTHERS:
                rank = min((r for r in failed.failures if not _find_files(folder, r, LOST)), default=rank)
                end = f"rank {rank} did not answer the others any more"
            elif code < 0:
                end = f"rank {rank} was ended by {signal.Signals(-code).name}"
            else:
                end = f"rank {rank} ended with exit code {code}"

            # Its last lines, and the remedy. A reported mistake needs no further line.
            lines = [] if rank == 0 else [f"rank {rank}: {line}" for line in _read_last_lines(folder, rank)]
            is_reported, starts_again = Path(failure.error_file).exists(), restart <= max_restarts
            if not is_reported and starts_again:
                restarts = f"(restart {restart} of {max_restarts})"
                lines.append(f"{end}; all ranks start again and continue from the run folder {restarts}")
            elif not is_reported:
                tried = "the others were stopped with it"
                if max_restarts:
                    tried = f"after {max_restarts} restarts (trainer.max_restarts)"
                lines.append(f"error: {end}; {tried}; the same command in the same run folder continues from here")
            print(*(f"{line}\n" for line in lines), sep="", end="", file=sys.stderr, flush=True)
            if is_reported or not starts_again:
                raise RanksFailed(1 if code < 0 or code == LOST_OTHERS else code)
    return None


def _launch(command: Sequence[str], ranks: int, folder: Path) -> ChildFailedError | None:
    """Start the ranks once, wait until all have ended, and return their failure, if any.

    Args:
        folder: for the ranks' files.

    Raises:
        KeyboardInterrupt: this process was asked to stop; all ranks have ended.
    """
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=f"{RUN_PREFIX}{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr=LOOPBACK,
        max_restarts=0,
        monitor_interval=POLL_SECONDS,
        logs_specs=DefaultLogsSpecs(str(folder), {rank: Std.ALL if rank else Std.NONE for rank in range(ranks)}),
    )
    arguments = [part.replace("$", "$$") for part in command[1:]]  # torch replaces ${local_rank} in them
    is_asked = False

    def ask_rank_0() -> None:
        """Ask rank 0 to stop. During training all ranks then write a resume point; at other times it stops at once."""
        nonlocal is_asked
        is_asked = True
        if not _send_signal(folder, 0, signal.SIGUSR1):
            raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as thread, leaving.listen(ask_rank_0):
        launched = thread.submit(elastic_launch(config, command[0]), *arguments)
        try:
            while not wait([launched], PATIENCE_SECONDS / 10).done:
                # After rank 0's report the run is finished, and the other ranks have PATIENCE_SECONDS to end.
                reported = _find_files(folder, 0, RESULT)
                if reported and time.time() - reported[0].stat().st_mtime > PATIENCE_SECONDS:
                    _kill(folder, range(1, ranks))
        except KeyboardInterrupt:
            _send_signal(folder, 0, signal.SIGINT)  # rank 0 closes its files and logs
            wait([launched], PATIENCE_SECONDS)
            while not wait([launched], POLL_SECONDS).done:
                _kill(folder, range(ranks))
            raise
    failed = launched.exception()
    if failed is not None and not isinstance(failed, ChildFailedError):
        raise failed
    if failed is not None and is_asked:
        raise KeyboardInterrupt
    return failed


def _find_files(folder: Path, rank: int, name: str) -> list[Path]:
    """Return files of a rank. DefaultLogsSpecs decides the place of its output and its error file."""
    return list(folder.glob(f"*/attempt_0/{rank}/{name}"))


def _send_signal(folder: Path, rank: int, number: signal.Signals) -> bool:
    """Send a signal to a rank. Returns False if the rank has not started yet."""
    pid_files = _find_files(folder, rank, f"{PID}*")
    for file in pid_files:
        with suppress(ProcessLookupError):
            os.kill(int(file.name.removeprefix(PID)), number)
    return bool(pid_files)


def _kill(folder: Path, ranks: Sequence[int]) -> None:
    for rank in ranks:
        _send_signal(folder, rank, signal.SIGKILL)


def _read_last_lines(folder: Path, rank: int) -> Iterator[str]:
    for file in (*_find_files(folder, rank, "stdout.log"), *_find_files(folder, rank, "stderr.log")):
        with file.open("rb") as f:
            f.seek(max(0, file.stat().st_size - MAX_LAST_BYTES))
            text = f.read().decode("utf-8", "replace")
        yield from text.splitlines()[-MAX_LAST_LINES:]
