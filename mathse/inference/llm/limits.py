"""Requests and tokens a minute, spread evenly; and one pause for all when the server asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]


class Pace:
    """At most ``per_minute`` units a minute, evenly spread: a burst is what servers answer with 429. None: no limit."""

    def __init__(self, per_minute: float | None, clock: Clock = time.monotonic) -> None:
        self.limited = per_minute is not None
        self._seconds_a_unit = 60 / per_minute if per_minute else 0.0
        self._clock = clock
        self._free = clock()  # when the next unit may be used

    def book(self, units: float) -> float:
        """Seconds to wait before these units may be used; they are booked from then on."""
        now = self._clock()
        start = max(now, self._free)
        self._free = start + units * self._seconds_a_unit
        return start - now

    def correct(self, units: float) -> None:
        """``units`` more were used than booked (negative: fewer)."""
        self._free += units * self._seconds_a_unit


class Limits:
    """The limits that all requests of a process share."""

    def __init__(
        self, requests_per_minute: float | None, tokens_per_minute: float | None, clock: Clock = time.monotonic
    ) -> None:
        self.requests, self.tokens = Pace(requests_per_minute, clock), Pace(tokens_per_minute, clock)
        self._clock = clock
        self._resume_at = clock()

    def book(self, tokens: int) -> float:
        """Seconds to wait before one more request of about ``tokens`` tokens may go out."""
        return max(self.requests.book(1), self.tokens.book(tokens))

    def pause(self, seconds: float) -> None:
        """Hold all requests back: the server asked for a pause."""
        self._resume_at = max(self._resume_at, self._clock() + seconds)

    @property
    def paused(self) -> float:
        """Seconds until the pause is over."""
        return max(0.0, self._resume_at - self._clock())
