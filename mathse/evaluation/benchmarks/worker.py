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
from typing import IO, Any

from mathse.evaluation.benchmarks import math_verifier, official_latex

MEMORY = 4 << 30  # bytes of address space beyond which an answer fails
JOBS: dict[str, Callable[[], Callable[[Any], Any]]] = {"latex": official_latex.load, "verify": math_verifier.load}


def main(job: str) -> int:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)  # the parsers print
    answer = JOBS[job]()
    os.dup2(silence, 2)
    if not hasattr(os, "fork"):
        serve(answer, answers)
        return 0
    gc.freeze()  # what is loaded stays shared with the copies
    while (child := os.fork()) != 0:
        _, status = os.waitpid(child, 0)
        if status == 0:  # the input ended
            return 0
    _bound_memory()
    serve(answer, answers)
    os._exit(0)


def serve(answer: Callable[[Any], Any], answers: IO[str]) -> None:
    """Answer line after line until the input ends."""
    _write(answers, {"ready": True})
    while line := _read_line():
        request = json.loads(line)
        _alarm(request["limit"])
        try:
            reply = {"answer": answer(request["ask"])}
        except (MemoryError, RecursionError):
            reply = {"failed": True}
        _alarm(0)
        _write(answers, {"id": request["id"], **reply})


def _read_line() -> bytes:
    """The last line that standard input holds: a question before it was given up. Nothing is left in a buffer, which
    would go down with a process that is ended."""
    line = bytearray()
    while not line.endswith(b"\n"):
        chunk = os.read(0, 65536)
        if not chunk:
            return b""
        line += chunk
    return bytes(line).splitlines()[-1]


def _write(answers: IO[str], reply: dict[str, Any]) -> None:
    answers.write(json.dumps(reply) + "\n")
    answers.flush()


def _alarm(seconds: float) -> None:
    try:
        from signal import ITIMER_PROF, setitimer
    except ImportError:  # Windows: the other side's own time-out ends this process
        return
    setitimer(ITIMER_PROF, seconds)


def _bound_memory() -> None:
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
