"""``Track``, and progress as plain lines for log files: few lines, each readable by itself and by ``grep``."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Self

from mathse.reporting.progress.safe_stream import SafeStream
from mathse.reporting.progress.wording import clean, duration, figures, speed


class Track(ABC):
    """A piece of work with a known number of rows or optimiser steps.

    The figures ``info`` (loss=..., accuracy=...) are shown beside the count until newer figures replace them.
    """

    @abstractmethod
    def advance(self, n: int = 1, **info: float | str) -> None:
        """Count ``n`` more rows or steps."""

    @abstractmethod
    def resume(self, n: int) -> None:
        """Count ``n`` rows that an earlier process made. They do not count for the rate."""

    @abstractmethod
    def close(self) -> None:
        """End the track. A second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PlainDisplay:
    """Writes one line for each message: the time of day, the stage if a track writes it, and the text."""

    def __init__(self, stream: SafeStream, every: float, clock: Callable[[], float]) -> None:
        self._stream, self._every, self._clock = stream, every, clock
        self._stage = ""

    def stage(self, name: str, description: str, outlook: str) -> None:
        self._stage = name
        self.say(f"{name}: {description} ({outlook})" if outlook else f"{name}: {description}")

    def track(self, description: str, total: int, done: int, run_left: Callable[[], str]) -> Track:
        head = f"{self._stage} | {description}" if self._stage else description
        return PlainTrack(self.say, head, total, done, self._every, self._clock, run_left)

    def say(self, text: str) -> None:
        self._write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {clean(text)}")

    def table(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._write(line)

    def _write(self, line: str) -> None:
        self._stream.write(line.rstrip() + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Do nothing: each line is flushed when it is written."""


class PlainTrack(Track):
    """Writes a line at the start, a line at most every ``every`` seconds, and a line at the end."""

    def __init__(
        self,
        write: Callable[[str], None],
        head: str,
        total: int,
        done: int,
        every: float,
        clock: Callable[[], float],
        run_left: Callable[[], str],
    ) -> None:
        self._write, self._head, self._every, self._clock, self._run_left = write, head, every, clock, run_left
        self._total, self._done = total, done
        self._done_before = done  # rows of earlier processes, which the rate leaves out
        self._start = self._last_line = clock()  # s
        self._info: dict[str, float | str] = {}
        self._closed = False
        resumed = f", {done:,} of them done before" if done else ""
        write(f"{head} | {total:,} to do{resumed}")

    def advance(self, n: int = 1, **info: float | str) -> None:
        self._done += n
        self._info.update(info)
        if self._clock() - self._last_line >= self._every and self._done < self._total:
            self._last_line = self._clock()
            self._write(self._state())

    def resume(self, n: int) -> None:
        self._done += n
        self._done_before += n
        self._write(f"{self._head} | continues from {n:,} of {self._total:,}")

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._write(self._state(ended=True))

    def _state(self, ended: bool = False) -> str:
        """Write "sampling | 256 of 2,400 | 8.31/s | 4 min 18 s left | loss 1.2 | about 2 h of the run left"."""
        seconds = self._clock() - self._start
        rate = (self._done - self._done_before) / seconds if seconds > 0 else 0.0
        parts = [self._head, f"{self._done:,} of {self._total:,}"]
        if rate:
            parts.append(f"{speed(rate)}/s")
        if ended:
            parts.append(f"took {duration(seconds)}")
        elif rate:
            parts.append(f"{duration((self._total - self._done) / rate)} left")
        if self._info:
            parts.append(", ".join(figures(self._info)))
        if not ended and (run_left := self._run_left()):
            parts.append(run_left)
        return " | ".join(parts)
