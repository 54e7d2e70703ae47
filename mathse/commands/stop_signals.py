"""Ctrl-C and SIGTERM stop a run once, however often they come.

The first raises KeyboardInterrupt, and what is open is closed on the way out: files, engines, loggers. A second one,
while that lasts, would tear it apart and end in a traceback, so it is answered with a line; the third ends the process
at once, which loses no more than a kill does. SIGTERM is what schedulers and ``kill`` send.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from mathse.errors import INTERRUPTED
from mathse.training import launch

TERMINATED = 128 + signal.SIGTERM  # exit code, as shells have it


class StopSignals:
    """What has come so far; ``handle`` is the handler."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.process = os.getpid()

    @property
    def exit_code(self) -> int:
        return TERMINATED if self.received[:1] == [signal.SIGTERM] else INTERRUPTED

    @property
    def stopped(self) -> str:
        """How the sentence begins that ends a stopped run."""
        return "stopped by SIGTERM" if self.exit_code == TERMINATED else "stopped"

    def handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:
            self._as_usual(number)
        self.received.append(number)
        # written past Python's buffers, which may be in use where the signal came
        if len(self.received) == 1:
            if number == signal.SIGTERM:
                os.write(2, b"SIGTERM: stopping\n")
            raise KeyboardInterrupt
        if len(self.received) == 2:
            os.write(2, b"stopping already; once more ends it at once, and it can be gone on with all the same\n")
            return
        os._exit(self.exit_code)

    def _as_usual(self, number: int) -> NoReturn:
        """In a forked worker, which has inherited the handler: what happens without one."""
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise KeyboardInterrupt


@contextmanager
def stopping_once() -> Iterator[StopSignals]:
    """Within it the two signals are handled so, in the main thread alone. A rank of our agent
    leaves SIGTERM as it is: the agent sends it to ranks that may hang, and speaks for them."""
    signals = StopSignals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    rank = launch.own_rank()
    speaks = not launch.is_supervised() and (rank is None or rank.rank == 0)
    numbers = [signal.SIGINT, signal.SIGTERM] if speaks else [signal.SIGINT]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] != signal.SIG_IGN:  # as a shell's background jobs have Ctrl-C
            signal.signal(number, signals.handle)
    try:
        yield signals
    finally:
        if not signals.received:  # else this process is about to end, and threads are joined on the way
            for number, handler in before.items():
                signal.signal(number, handler)
