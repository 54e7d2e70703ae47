"""Questions about model text, each with a limit in seconds that nothing can outstay: asked of a process of its own."""

from __future__ import annotations

import atexit
import json
import os
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from mathse.errors import RunError

LIMIT = 1.0  # seconds for one expression
SPENT = 40.0  # seconds of overrun answers after which ...
SHORT_LIMIT = 0.01  # ... each further one gets this much: a file of hostile answers takes minutes, not hours
_SLACK = 20.0  # seconds; the process ends itself at the limit, and this is for a machine too busy to let it
_START = 120.0  # seconds


class Overrun(Exception):
    """An answer took longer than its limit, or more memory than there is."""


class Worker:
    """A scoring process for one job ("latex" or "verify"), started at the first question; ``ask`` is thread-safe.

    Equal questions are answered once; the memory of it is kept for the life of the worker. RunError if the process
    cannot start.
    """

    def __init__(self, job: str, limit: float = LIMIT) -> None:
        self.job, self.limit = job, limit
        self.spent = 0.0
        self._known: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._asked = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._replies: queue.Queue[dict[str, Any] | None] = queue.Queue()
        atexit.register(self.close)

    def ask(self, question: Any) -> Any:
        """The answer; Overrun where there is none within the limit."""
        key = json.dumps(question)
        with self._lock:
            if key not in self._known:
                self._known[key] = self._ask(question)
            answer = self._known[key]
        if isinstance(answer, Overrun):
            raise answer
        return answer

    def _ask(self, question: Any) -> Any:
        process = self._started()
        limit = self.limit if self.spent < SPENT else SHORT_LIMIT
        assert process.stdin is not None
        self._asked += 1
        try:
            process.stdin.write(json.dumps({"id": self._asked, "limit": limit, "ask": question}).encode() + b"\n")
            process.stdin.flush()
            reply = self._reply(limit + _SLACK)
        except (OSError, queue.Empty):
            reply = None
        if reply is not None and "answer" in reply:
            return reply["answer"]
        if reply is None:
            self.close()  # it is gone, or hangs; the next question starts another
        self.spent += limit
        return Overrun("more memory than there is" if reply and "failed" in reply else f"more than {limit:g} s")

    def _reply(self, seconds: float) -> dict[str, Any] | None:
        """The reply to the question just asked, {"ready": ...} where a fresh copy took over, None where all ended."""
        while True:
            reply = self._replies.get(timeout=seconds)
            if reply is None or reply.get("id", self._asked) == self._asked:  # not a late one to an earlier question
                return reply

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._replies = queue.Queue()
            command = [sys.executable, "-m", "mathse.evaluation.benchmarks.worker", self.job]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": _python_path()}
            )
            threading.Thread(target=_pump, args=(self._process.stdout, self._replies), daemon=True).start()
            try:
                ready = self._replies.get(timeout=_START)
            except queue.Empty:
                ready = None
            if ready is None:
                self.close()
                raise RunError(f"the scoring process ({' '.join(command[1:])}) does not start; run it to see why")
        return self._process

    def close(self) -> None:
        """End the process; it would end by itself when its input does."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(OSError):
                if process.stdin is not None:
                    process.stdin.close()  # the end for its forked copy as well
            process.kill()
            process.wait()


def _python_path() -> str:
    """So that the process finds this package wherever it is started from."""
    return os.pathsep.join(filter(None, (str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH"))))


def _pump(stream: IO[bytes] | None, replies: queue.Queue[dict[str, Any] | None]) -> None:
    """Replies from the pipe into the queue, and None at its end."""
    for line in stream or ():
        replies.put(json.loads(line))
    replies.put(None)
