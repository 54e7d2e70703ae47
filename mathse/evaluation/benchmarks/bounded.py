"""Parsing of model text in processes of their own, with a limit in seconds that no answer can outlast.

A parser may loop for ever inside a C function or take all memory, which no thread or signal of this process could end.
``worker.py`` is such a process; here is who starts it, asks it, and survives its end. Each question has the whole
limit, whatever came before it, so that a verdict depends on its own answer alone; a file of hostile answers takes its
seconds on all cores.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from mathse.errors import RunError

LIMIT = 1.0  # seconds for one expression
_SLACK = 20.0  # seconds; the process ends itself at the limit, and this is for a machine too busy to let it
_START = 120.0  # seconds until a started process is ready


class Overrun(Exception):
    """An answer took longer than its limit, or more memory than there is."""


class Workers:
    """Scoring processes for one job ("latex" or "verify"), one a core, each started when it is first needed.

    Equal questions are answered once; the memory of it is kept for the life of this object. RunError if a process
    cannot start.
    """

    def __init__(self, job: str, limit: float = LIMIT, size: int | None = None) -> None:
        self.size = size or os.cpu_count() or 1
        self._known: dict[str, Any] = {}
        self._idle: queue.LifoQueue[Worker] = queue.LifoQueue()  # the last one back is asked again, being warm
        for _ in range(self.size):
            self._idle.put(Worker(job, limit))

    def ask(self, question: Any) -> Any:
        """The answer; Overrun where there is none within the limit."""
        self.ask_all([question])
        answer = self._known[json.dumps(question)]
        if isinstance(answer, Overrun):
            raise answer
        return answer

    def ask_all(self, questions: Iterable[Any]) -> None:
        """Answer these side by side, so that ``ask`` has each answer at once."""
        new = {key: question for question in questions if (key := json.dumps(question)) not in self._known}
        if len(new) == 1:
            ((key, question),) = new.items()
            self._known[key] = self._answer(question)
        elif new:
            with ThreadPoolExecutor(self.size) as threads:
                self._known.update(zip(new, threads.map(self._answer, new.values()), strict=True))

    def _answer(self, question: Any) -> Any:
        worker = self._idle.get()
        try:
            return worker.ask(question)
        except Overrun as overrun:
            return overrun
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End the processes."""
        for worker in list(self._idle.queue):
            worker.close()


class Worker:
    """One scoring process, started at the first question. RunError if it cannot start."""

    def __init__(self, job: str, limit: float = LIMIT) -> None:
        self.job, self.limit = job, limit
        self._questions = 0  # asked; the number of the last one is its id
        self._process: subprocess.Popen[bytes] | None = None
        self._replies: queue.Queue[dict[str, Any] | None] = queue.Queue()  # None: the process's output ended
        atexit.register(self.close)

    def ask(self, question: Any) -> Any:
        """The answer; Overrun where there is none within the limit."""
        if self._process is None:
            self._start()
        assert self._process is not None and self._process.stdin is not None
        self._questions += 1
        request = {"id": self._questions, "limit": self.limit, "ask": question}
        reply: dict[str, Any] | None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            # A reply to an earlier question may be late. {"ready": ...}, without id, says that the process was ended at
            # the limit and that a fresh copy took over.
            while (reply := self._replies.get(timeout=self.limit + _SLACK)) is not None:
                if reply.get("id", self._questions) == self._questions:
                    break
        except (OSError, queue.Empty):
            reply = None
        if reply is not None and "answer" in reply:
            return reply["answer"]
        if reply is None:
            self.close()  # it is gone, or hangs; the next question starts another
        raise Overrun("more memory than there is" if reply and "failed" in reply else f"more than {self.limit:g} s")

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
