"""The scoring process: ``python -m mathse.evaluation.benchmarks.worker JOB``; ``bounded.Worker`` starts and watches it.

Protocol: a JSON line in, ``{"id": 7, "limit": seconds, "ask": ...}``; a JSON line out, ``{"id": 7, "answer": ...}``.
All parsers of model text run here. If an answer takes longer than its limit, the kernel ends the process by a timer,
which also interrupts C functions, and a new copy of the warmed-up process takes over. It writes ``{"ready": true}``:
the question was not answered. The limit counts the CPU time of this process, so that a verdict does not depend on the
load of the machine. Memory is limited too.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from mathse.evaluation.benchmarks import math_verifier, official_latex

MAX_MEMORY = 4 << 30  # bytes of address space; an answer that needs more fails
JOBS: dict[str, Callable[[], Callable[[Any], Any]]] = {"latex": official_latex.load, "verify": math_verifier.load}


def main(job: str) -> int:
    """Serve until the input ends, and return the exit status."""
    # 1. Load the parser. Its own output goes to /dev/null; answers go to the original stdout.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    answer = JOBS[job]()
    os.dup2(null, 2)
    if not hasattr(os, "fork"):
        serve(answer, answers)
        return 0
    # 2. This process only waits. A copy of it answers until it is ended at a limit; then the next copy takes over.
    gc.freeze()  # the loaded modules stay in memory shared with the copies
    while (child := os.fork()) != 0:
        _, status = os.waitpid(child, 0)
        if status == 0:  # the input ended
            return 0
    # 3. The copy.
    with suppress(ImportError):  # Windows lacks this module
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    serve(answer, answers)
    os._exit(0)


def serve(answer: Callable[[Any], Any], answers: IO[str]) -> None:
    """Answer line after line until the input ends."""

    def write(reply: dict[str, Any]) -> None:
        answers.write(json.dumps(reply) + "\n")
        answers.flush()

    write({"ready": True})
    while line := _read_line():
        request = json.loads(line)
        _set_timer(request["limit"])
        try:
            reply = {"answer": answer(request["ask"])}
        except (MemoryError, RecursionError):
            reply = {"failed": True}
        _set_timer(0)
        write({"id": request["id"], **reply})


def _read_line() -> bytes:
    """Read standard input up to its last line: the asker has given up the questions before it.

    The input is read without a buffer: a buffer would be lost when the process is ended.
    """
    line = bytearray()
    while not line.endswith(b"\n"):
        chunk = os.read(0, 65536)
        if not chunk:
            return b""
        line += chunk
    return bytes(line).splitlines()[-1]


def _set_timer(seconds: float) -> None:
    """End this process after so many seconds of CPU time. 0 removes the timer."""
    try:
        from signal import ITIMER_PROF, setitimer
    except ImportError:  # Windows: the time-out of the asking process ends this process
        return
    setitimer(ITIMER_PROF, seconds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
