"""Starts an engine and ends it with the run, however that ends: ``python -I supervisor.py PIPE COMMAND...``.

The run holds the other end of the pipe and never writes to it; the kernel closes it with the run's process, also where
that was killed. Engines start processes of their own, so the whole process group is ended. Standard library only:
it runs as a script, outside this package.
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
NOT_FOUND = 127  # the shell's code for a command that cannot be started


def main(pipe: int, command: Sequence[str]) -> int:
    """The engine's exit code."""
    try:
        engine = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    except OSError as e:
        print(f"{command[0]}: {e.strerror}", flush=True)
        return NOT_FOUND
    threading.Thread(target=_end_with_the_run, args=(pipe, engine), daemon=True).start()
    code = engine.wait()
    _signal(engine, signal.SIGKILL)  # processes of its group that are still there
    return code if code >= 0 else 128 - code


def _end_with_the_run(pipe: int, engine: subprocess.Popen[bytes]) -> None:
    os.read(pipe, 1)  # returns when the other end is closed
    _signal(engine, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        engine.wait(PATIENCE)
        return
    _signal(engine, signal.SIGKILL)


def _signal(engine: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(engine.pid, number)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
