"""Progress as plain lines, for log files: few, each readable by itself and by ``grep``; and what a track is."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Self

from mathse.reporting.progress.safe_stream import SafeStream
from mathse.reporting.progress.wording import clean, duration, figures, speed


class Track(ABC):
    """A piece of work with a known number of rows or optimiser steps; ``info`` (loss=..., accuracy=...) is shown beside
    the count until it is replaced."""

    @abstractmethod
    def advance(self, n: int = 1, **info: float | str) -> None: ...

    @abstractmethod
    def resume(self, n: int) -> None:
        """So many were done by an earlier process: they count for the state, not for the rate."""

    @abstractmethod
    def close(self) -> None:
        """End it; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PlainDisplay:
    """A line for everything that is said, headed by the time of day, and by the stage where it is about a track."""

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
        """Nothing is held back."""


class PlainTrack(Track):
    """A line at the start, at most one every ``every`` seconds, and one at the end."""

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
        self._done_before = done  # by an earlier process
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
        self._write(f"{self._head} | goes on from {n:,} of {self._total:,}")

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._write(self._state(ended=True))

    def _state(self, ended: bool = False) -> str:
        seconds = self._clock() - self._start
        rate = (self._done - self._done_before) / seconds if seconds > 0 else 0.0
        parts = [self._head, f"{self._done:,} of {self._total:,}"]
        if rate:
            parts.append(f"{speed(rate)}/s")
        if ended:
            parts.append(f"took {duration(seconds)}")
        elif rate:
            parts.append(f"{duration((self._total - self._done) / rate)} left")
        info = [", ".join(figures(self._info))] if self._info else []
        run_left = [] if ended or not (text := self._run_left()) else [text]
        return " | ".join([*parts, *info, *run_left])
