"""Starts an engine and ends it with the run, however that ends: ``python -I supervisor.py PIPE COMMAND...``.

The run holds the other end of the pipe and never writes to it. The kernel closes that end with the run's process, even
if the run is killed. Engines start processes of their own, so the whole process group is ended. This file runs as a
script outside the package, so it imports only the standard library.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

PATIENCE = 15.0  # seconds for an engine to end after SIGTERM
NOT_FOUND = 127  # the shell's exit code for a command that cannot be started


def main(pipe: int, command: Sequence[str]) -> int:
    """Run the command until it ends or the pipe is closed, and return its exit code."""
    try:
        engine = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    except OSError as e:
        print(f"{command[0]}: {e.strerror}", flush=True)
        return NOT_FOUND
    threading.Thread(target=_end_with_the_run, args=(pipe, engine), daemon=True).start()
    code = engine.wait()
    _signal_group(engine, signal.SIGKILL)  # processes of the group that still run
    return code if code >= 0 else 128 - code


def _end_with_the_run(pipe: int, engine: subprocess.Popen[bytes]) -> None:
    os.read(pipe, 1)  # returns when the other end is closed
    _signal_group(engine, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        engine.wait(PATIENCE)
        return
    _signal_group(engine, signal.SIGKILL)


def _signal_group(engine: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(engine.pid, number)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
