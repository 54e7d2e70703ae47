"""Limits on requests and tokens a minute, evenly spread, and a common pause when the server asks for one."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]


class Pace:
    """At most ``per_minute`` units a minute, evenly spread, since servers answer a burst with 429. None: no limit."""

    def __init__(self, per_minute: float | None, clock: Clock = time.monotonic) -> None:
        self.limited = per_minute is not None
        self._seconds_a_unit = 60 / per_minute if per_minute else 0.0
        self._clock = clock
        self._next_at = clock()  # when the next unit may be used

    def book(self, units: float) -> float:
        """Book units, and return the seconds to wait before they may be used."""
        now = self._clock()
        start = max(now, self._next_at)
        self._next_at = start + units * self._seconds_a_unit
        return start - now

    def correct(self, units: float) -> None:
        """Correct a booking by the number of units that were used beyond it; negative: fewer."""
        self._next_at += units * self._seconds_a_unit


class Limits:
    """The limits that all requests of a process share."""

    def __init__(
        self, requests_per_minute: float | None, tokens_per_minute: float | None, clock: Clock = time.monotonic
    ) -> None:
        self.requests, self.tokens = Pace(requests_per_minute, clock), Pace(tokens_per_minute, clock)
        self._clock = clock
        self._resume_at = clock()

    def book(self, tokens: int) -> float:
        """Book a request of about ``tokens`` tokens, and return the seconds to wait before it may be sent."""
        return max(self.requests.book(1), self.tokens.book(tokens))

    def pause(self, seconds: float) -> None:
        """Hold all requests back, since the server asked for a pause."""
        self._resume_at = max(self._resume_at, self._clock() + seconds)

    @property
    def paused(self) -> float:
        """Seconds until the end of the pause."""
        return max(0.0, self._resume_at - self._clock())
