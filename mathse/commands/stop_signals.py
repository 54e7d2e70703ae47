"""Ctrl-C, SIGTERM and SIGUSR1 stop a run once, however often they come.

The first raises KeyboardInterrupt, and what is open is closed on the way out: files, engines, loggers. A second one,
while that lasts, would tear it apart and end in a traceback, so it is answered with a line; the third ends the process
at once, which loses no more than a kill does.

SIGTERM and SIGUSR1 are what schedulers send before they stop a job. A fit then finishes its step and writes a resume
point before it stops (Ctrl-C after it: at once).
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mathse.errors import INTERRUPTED
from mathse.training import launch, leaving

OF_SCHEDULERS = (signal.SIGTERM, signal.SIGUSR1)


class StopSignals:
    """What has come so far; ``handle`` is the handler."""

    def __init__(self, speaks: bool = True) -> None:
        self.received: list[int] = []
        self.process = os.getpid()
        self.speaks = speaks
        self.stops_by_itself = False  # whether what is under way does, once told to

    @property
    def exit_code(self) -> int:
        """As shells have it: 128 and the signal's number."""
        return 128 + self.received[0] if self.received else INTERRUPTED

    @property
    def stopped(self) -> str:
        """How the sentence begins that ends a stopped run."""
        first = self.received[0] if self.received else signal.SIGINT
        return "stopped" if first == signal.SIGINT else f"stopped by {signal.Signals(first).name}"

    def handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:
            self._as_usual(number)
            return
        if number == signal.SIGUSR1 and self.received:  # a scheduler may send it to a job and to its steps
            return
        self.received.append(number)
        # written past Python's buffers, which may be in use where the signal came
        if len(self.received) == 1:
            if number in OF_SCHEDULERS:
                self.stops_by_itself = leaving.ask()
                after = b" after this step's resume point" if self.stops_by_itself else b""
                self._line(signal.Signals(number).name.encode() + b": stopping" + after)
                if self.stops_by_itself:
                    return
            raise KeyboardInterrupt
        if number == signal.SIGINT and self.stops_by_itself:
            self.stops_by_itself = False
            raise KeyboardInterrupt
        if len(self.received) == 2:
            self._line(b"stopping already; once more ends it at once, and it can be gone on with all the same")
            return
        os._exit(self.exit_code)

    def _line(self, text: bytes) -> None:
        if self.speaks:
            os.write(2, text + b"\n")

    def _as_usual(self, number: int) -> None:
        """In a forked worker, which has inherited the handler: what happens without one; SIGUSR1 is not for it."""
        if number == signal.SIGUSR1:
            return
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise KeyboardInterrupt


@contextmanager
def stopping_once() -> Iterator[StopSignals]:
    """Within it the signals are handled so, in the main thread alone.

    Of several ranks the first one decides for all: the others leave SIGTERM as it is (``leaving``: but for fits) and
    take no notice of SIGUSR1. What another process watches says nothing: that one speaks for its ranks.
    """
    signals = StopSignals(speaks=not launch.is_supervised())
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    rank = launch.read_own_rank()
    decides = rank is None or rank.rank == 0
    numbers = [signal.SIGINT, *OF_SCHEDULERS] if decides else [signal.SIGINT, signal.SIGUSR1]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] != signal.SIG_IGN:  # as a shell's background jobs have Ctrl-C
            ignored = number == signal.SIGUSR1 and not decides
            signal.signal(number, signal.SIG_IGN if ignored else signals.handle)
    try:
        yield signals
    finally:
        if not signals.received:  # else this process is about to end, and threads are joined on the way
            for number, handler in before.items():
                signal.signal(number, handler)
