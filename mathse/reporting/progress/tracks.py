"""Tracks: pieces of work with a known number of rows or optimiser steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

from mathse.reporting.progress.wording import describe, duration, speed


class Track(ABC):
    """One piece of work; ``info`` (loss=..., accuracy=...) is shown beside the count until it is replaced."""

    @abstractmethod
    def advance(self, n: int = 1, **info: float | str) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """End it; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PlainTrack(Track):
    """A line at the start, at most one every ``every`` seconds, and one at the end."""

    def __init__(
        self, write: Callable[[str], None], head: str, total: int, done: int, every: float, clock: Callable[[], float]
    ) -> None:
        self._write, self._head, self._every, self._clock = write, head, every, clock
        self._total, self._done, self._first = total, done, done
        self._start = self._said = clock()
        self._info: dict[str, float | str] = {}
        self._closed = False
        resumed = f", {done:,} of them done before" if done else ""
        write(f"{head} | {total:,} to do{resumed}")

    def advance(self, n: int = 1, **info: float | str) -> None:
        self._done += n
        self._info.update(info)
        if self._clock() - self._said >= self._every and self._done < self._total:
            self._said = self._clock()
            self._write(self._state())

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._write(self._state(ended=True))

    def _state(self, ended: bool = False) -> str:
        spent = self._clock() - self._start
        rate = (self._done - self._first) / spent if spent > 0 else 0.0
        parts = [self._head, f"{self._done:,} of {self._total:,}"]
        if rate:
            parts.append(f"{speed(rate)}/s")
        if ended:
            parts.append(f"took {duration(spent)}")
        elif rate:
            parts.append(f"{duration((self._total - self._done) / rate)} left")
        return " | ".join(parts + ([describe(self._info)] if self._info else []))
