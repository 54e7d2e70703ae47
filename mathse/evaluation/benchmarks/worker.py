"""The scoring process: ``python -m mathse.evaluation.benchmarks.worker JOB``; ``bounded.Worker`` starts and watches it.

One JSON line in, ``{"id": 7, "limit": seconds, "ask": ...}``; one out, ``{"id": 7, "answer": ...}``. Parsers of model
text run here alone. An answer that takes longer than its limit is ended by the kernel (a timer whose default ends a
process in the middle of a C function too), and a fresh copy of the warmed-up process takes over; it greets with
``{"ready": true}``, which tells the other side that its question went unanswered. The limit counts this process's own
time, so that a verdict does not depend on what else the machine does. Memory is bounded too.
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

MEMORY = 4 << 30  # bytes of address space beyond which an answer fails
JOBS: dict[str, Callable[[], Callable[[Any], Any]]] = {"latex": official_latex.load, "verify": math_verifier.load}


def main(job: str) -> int:
    """Serve until the input ends; the exit status."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)  # the parsers print
    answer = JOBS[job]()
    os.dup2(silence, 2)
    if not hasattr(os, "fork"):
        serve(answer, answers)
        return 0
    gc.freeze()  # what is loaded stays shared with the copies
    # This process only waits; copies of it answer, one after the other, each until it is ended at a limit.
    while (child := os.fork()) != 0:
        _, status = os.waitpid(child, 0)
        if status == 0:  # the input ended
            return 0
    with suppress(ImportError):  # Windows has no such module
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
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
    """The last line that standard input holds: a question before it was given up. It is read without a buffer, which
    would be lost with a process that is ended."""
    line = bytearray()
    while not line.endswith(b"\n"):
        chunk = os.read(0, 65536)
        if not chunk:
            return b""
        line += chunk
    return bytes(line).splitlines()[-1]


def _set_timer(seconds: float) -> None:
    """End this process after so many seconds of its own time; 0: do not."""
    try:
        from signal import ITIMER_PROF, setitimer
    except ImportError:  # Windows: the other side's own time-out ends this process
        return
    setitimer(ITIMER_PROF, seconds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
