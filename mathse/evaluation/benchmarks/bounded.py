"""Parsing of model text in a process of its own, with a limit in seconds that no answer can outlast.

A parser may loop for ever inside a C function or take all memory, which no thread or signal of this process could end.
``worker.py`` is that process; here is who starts it, asks it, and survives its end.
"""

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
# A file of hostile answers takes minutes, not hours: after so many seconds of overruns ...
SPENT = 40.0
# ... each further question gets this much.
SHORT_LIMIT = 0.01
_SLACK = 20.0  # seconds; the process ends itself at the limit, and this is for a machine too busy to let it
_START = 120.0  # seconds until a started process is ready


class Overrun(Exception):
    """An answer took longer than its limit, or more memory than there is."""


class Worker:
    """A scoring process for one job ("latex" or "verify"), started at the first question; ``ask`` is thread-safe.

    Equal questions are answered once; the memory of it is kept for the life of the worker. RunError if the process
    cannot start.
    """

    def __init__(self, job: str, limit: float = LIMIT) -> None:
        self.job, self.limit = job, limit
        self.spent = 0.0  # seconds of overruns
        self._known: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._questions = 0  # asked; the number of the last one is its id
        self._process: subprocess.Popen[bytes] | None = None
        self._replies: queue.Queue[dict[str, Any] | None] = queue.Queue()  # None: the process's output ended
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
        if self._process is None:
            self._start()
        assert self._process is not None and self._process.stdin is not None
        limit = self.limit if self.spent < SPENT else SHORT_LIMIT
        self._questions += 1
        request = {"id": self._questions, "limit": limit, "ask": question}
        reply: dict[str, Any] | None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            # A reply to an earlier question may be late. {"ready": ...}, without id, says that the process was ended at
            # the limit and that a fresh copy took over.
            while (reply := self._replies.get(timeout=limit + _SLACK)) is not None:
                if reply.get("id", self._questions) == self._questions:
                    break
        except (OSError, queue.Empty):
            reply = None
        if reply is not None and "answer" in reply:
            return reply["answer"]
        if reply is None:
            self.close()  # it is gone, or hangs; the next question starts another
        self.spent += limit
        return Overrun("more memory than there is" if reply and "failed" in reply else f"more than {limit:g} s")

    def _start(self) -> None:
        replies = self._replies = queue.Queue()
        command = [sys.executable, "-m", "mathse.evaluation.benchmarks.worker", self.job]
        # The process must find this package wherever it is started from.
        python_path = os.pathsep.join(filter(None, (str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": python_path}
        )

        def pump(stream: IO[bytes]) -> None:
            for line in stream:
                replies.put(json.loads(line))
            replies.put(None)

        threading.Thread(target=pump, args=(self._process.stdout,), daemon=True).start()
        try:
            ready = replies.get(timeout=_START)
        except queue.Empty:
            ready = None
        if ready is None:
            self.close()
            raise RunError(f"the scoring process ({' '.join(command[1:])}) does not start; run it to see why")

    def close(self) -> None:
        """End the process; it would end by itself when its input does."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(OSError):
                if process.stdin is not None:
                    process.stdin.close()  # the end for its forked copy as well
            process.kill()
            process.wait()
