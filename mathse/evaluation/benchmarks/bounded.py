"""Parsing of model text in separate processes, with a limit in seconds for each answer.

A parser may loop forever inside a C function or take all memory; no thread or signal of this process could end it.
``worker.py`` is the separate process; this module starts it, asks it, and survives its end. Each question has its own
limit, so that a verdict depends only on its answer. A file of hostile answers takes its seconds on all cores.
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

LIMIT_SECONDS = 1.0  # for an expression
_EXTRA_SECONDS = 20.0  # the process ends itself at the limit; on a busy machine this takes longer
_START_SECONDS = 120.0  # until a started process is ready


class Overrun(Exception):
    """An answer took longer than its limit, or more memory than allowed."""


class Workers:
    """Scoring processes for a job ("latex" or "verify"): one for each core, started when it is first needed.

    Equal questions are answered once, for the life of this object. Raises RunError if a process cannot start.
    """

    def __init__(self, job: str, limit: float = LIMIT_SECONDS, size: int | None = None) -> None:
        self.size = size or os.cpu_count() or 1
        self._answers: dict[str, Any] = {}  # question as JSON -> answer or Overrun
        # Last in, first out: the process that answered last is warm.
        self._idle: queue.LifoQueue[Worker] = queue.LifoQueue()
        for _ in range(self.size):
            self._idle.put(Worker(job, limit))

    def ask(self, question: Any) -> Any:
        """Return the answer. Raises Overrun if there is none within the limit."""
        self.ask_all([question])
        answer = self._answers[json.dumps(question)]
        if isinstance(answer, Overrun):
            raise answer
        return answer

    def ask_all(self, questions: Iterable[Any]) -> None:
        """Answer questions in parallel. ``ask`` then returns each answer at once."""
        new: dict[str, Any] = {}
        for question in questions:
            key = json.dumps(question)
            if key not in self._answers:
                new[key] = question
        if len(new) == 1:
            ((key, question),) = new.items()
            self._answers[key] = self._answer(question)
        elif new:
            with ThreadPoolExecutor(self.size) as threads:
                self._answers.update(zip(new, threads.map(self._answer, new.values()), strict=True))

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
    """A scoring process, started at the first question. Raises RunError if it cannot start."""

    def __init__(self, job: str, limit: float = LIMIT_SECONDS) -> None:
        self.job, self.limit = job, limit
        self._questions = 0  # number of questions so far, the id of the last question
        self._process: subprocess.Popen[bytes] | None = None
        self._replies: queue.Queue[dict[str, Any] | None] = queue.Queue()  # None: the process's output has ended
        atexit.register(self.close)

    def ask(self, question: Any) -> Any:
        """Return the answer. Raises Overrun if there is none within the limit."""
        if self._process is None:
            self._start()
        assert self._process is not None and self._process.stdin is not None
        self._questions += 1
        request = {"id": self._questions, "limit": self.limit, "ask": question}
        reply: dict[str, Any] | None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            # Late replies to earlier questions are skipped. {"ready": ...} has no id: the process was ended at the
            # limit, and a new copy took over.
            while (reply := self._replies.get(timeout=self.limit + _EXTRA_SECONDS)) is not None:
                if reply.get("id", self._questions) == self._questions:
                    break
        except (OSError, queue.Empty):
            reply = None
        if reply is not None and "answer" in reply:
            return reply["answer"]
        if reply is None:
            self.close()  # the process has ended or hangs; the next question starts a new process
        raise Overrun("more memory than there is" if reply and "failed" in reply else f"more than {self.limit:g} s")

    def _start(self) -> None:
        replies = self._replies = queue.Queue()
        command = [sys.executable, "-m", "mathse.evaluation.benchmarks.worker", self.job]
        # The process must find this package from any working folder.
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
            ready = replies.get(timeout=_START_SECONDS)
        except queue.Empty:
            ready = None
        if ready is None:
            self.close()
            raise RunError(f"the scoring process ({' '.join(command[1:])}) does not start; run it to see why")

    def close(self) -> None:
        """End the process and its forked copy."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(OSError):
                if process.stdin is not None:
                    process.stdin.close()  # the end of its input ends the copy
            process.kill()
            process.wait()
