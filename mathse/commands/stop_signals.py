"""Ctrl-C, SIGTERM and SIGUSR1 stop a run in order, however often they come.

The first signal raises KeyboardInterrupt, and files, engines and loggers are closed on the way out. A second signal
during this time would interrupt the closing and end in a traceback, so a line answers it. The third ends the process at
once, which loses no more than a kill does.

Schedulers send SIGTERM and SIGUSR1 before they stop a job. A training then finishes its step and writes a resume point
before it stops. Ctrl-C after that stops it at once.
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

SCHEDULER_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopSignals:
    """The signals received so far. ``handle`` is the signal handler."""

    def __init__(self, speaks: bool = True) -> None:
        self.received: list[int] = []
        self.process = os.getpid()
        self.speaks = speaks
        self.training_stops = False  # whether a training was asked to stop and will do so after its step

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number, as in shells."""
        return 128 + self.received[0] if self.received else INTERRUPTED

    @property
    def stopped(self) -> str:
        """The beginning of the sentence that ends a stopped run."""
        first = self.received[0] if self.received else signal.SIGINT
        return "stopped" if first == signal.SIGINT else f"stopped by {signal.Signals(first).name}"

    def handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:
            self._handle_in_worker(number)
            return
        if number == signal.SIGUSR1 and self.received:  # a scheduler may send it to a job and to its steps
            return
        self.received.append(number)
        if len(self.received) == 1:
            if number in SCHEDULER_SIGNALS:
                self.training_stops = leaving.ask()
                after = b" after this step's resume point" if self.training_stops else b""
                self._write(signal.Signals(number).name.encode() + b": stopping" + after)
                if self.training_stops:
                    return
            raise KeyboardInterrupt
        if number == signal.SIGINT and self.training_stops:
            self.training_stops = False
            raise KeyboardInterrupt
        if len(self.received) == 2:
            self._write(b"stopping already; a third signal ends the process at once, and the run can still be resumed")
            return
        os._exit(self.exit_code)

    def _write(self, text: bytes) -> None:
        # Directly to stderr: Python's buffers may be in use where the signal came.
        if self.speaks:
            os.write(2, text + b"\n")

    def _handle_in_worker(self, number: int) -> None:
        """Act in a forked worker, which has inherited the handler, as the default handler does. SIGUSR1 is ignored."""
        if number == signal.SIGUSR1:
            return
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise KeyboardInterrupt


@contextmanager
def handle_stop_signals() -> Iterator[StopSignals]:
    """Handle the signals within this context, in the main thread only.

    With several ranks, rank 0 decides for all. The others keep their handler of SIGTERM, except during a training
    (``leaving``), and ignore SIGUSR1. A process that an agent watches prints nothing: the agent speaks for its ranks.
    """
    signals = StopSignals(speaks=not launch.is_supervised())
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    rank = launch.read_own_rank()
    decides = rank is None or rank.rank == 0
    numbers = [signal.SIGINT, *SCHEDULER_SIGNALS] if decides else [signal.SIGINT, signal.SIGUSR1]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] != signal.SIG_IGN:  # a shell ignores Ctrl-C for its background jobs
            ignored = number == signal.SIGUSR1 and not decides
            signal.signal(number, signal.SIG_IGN if ignored else signals.handle)
    try:
        yield signals
    finally:
        # After a signal the process is about to end. Its threads are joined first, so the handlers stay until then.
        if not signals.received:
            for number, handler in before.items():
                signal.signal(number, handler)
