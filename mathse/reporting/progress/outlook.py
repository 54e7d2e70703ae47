"""How far a whole run is: which of its stages is being made, and about how long it still takes.

The stages and how much each does are known before the run (``mathse plan`` counts the same). How long that takes is
measured in this run alone: optimiser steps of student and ORM, answers, verdicts and the teacher's answers each have
their own rate. Until all that the rest of the run needs has been measured, no time is given. Where the judge's
decisions set the amount, the middle of what is possible counts; a fit counts as made.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

from mathse.reporting.progress.wording import duration

Unit = Literal["fit", "fit_orm", "sample", "judge", "ask"]  # what is counted: see above, in this order


class Amount(Protocol):
    """From ``low`` to ``high``, both included."""

    @property
    def low(self) -> int: ...
    @property
    def high(self) -> int: ...


class Expected(Protocol):
    """A stage as it is planned: optimiser steps, answers of the student's model, the ORM's verdicts, and what the
    teacher's server is asked."""

    @property
    def name(self) -> str: ...
    @property
    def steps(self) -> Amount: ...
    @property
    def answers(self) -> Amount: ...
    @property
    def verdicts(self) -> Amount: ...
    @property
    def requests(self) -> Amount: ...


class Outlook:
    """``stages``: in the order in which the run makes them; none where they are not known, and nothing is said then."""

    def __init__(self, stages: Sequence[Expected] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self._names = [stage.name for stage in stages]
        self._expected = {stage.name: _units(stage) for stage in stages}
        self._clock = clock
        self._stage = ""
        self._done: Counter[Unit] = Counter()  # in the current stage
        # measured in this run: units, and the seconds that they took
        self._units: Counter[Unit] = Counter()
        self._seconds: dict[Unit, float] = {}
        self._last = 0.0  # when the work under way was heard of last, s

    # --- what happens ---

    def begin(self, stage: str) -> None:
        self._stage = stage
        self._done = Counter()

    def start_work(self) -> None:
        self._last = self._clock()

    def did(self, unit: Unit, count: int) -> None:
        """So many, since ``start_work`` or the last call."""
        now = self._clock()
        self.measured(unit, count, now - self._last)
        self._last = now
        self._done[unit] += count

    def measured(self, unit: Unit, count: int, seconds: float) -> None:
        """So many took so long, now or in an earlier process."""
        if count:
            self._units[unit] += count
            self._seconds[unit] = self._seconds.get(unit, 0.0) + seconds

    # --- what follows from it ---

    def position(self, stage: str) -> str:
        """ "stage 3 of 10"; nothing for a stage that was not planned."""
        return f"stage {self._names.index(stage) + 1} of {len(self._names)}" if stage in self._names else ""

    @property
    def seconds_left(self) -> float | None:
        """Of the whole run; None while something that it still does has not been measured."""
        if self._stage not in self._names:
            return None
        units_left = self._expected[self._stage] - self._done  # of a Counter no number falls below 0
        for name in self._names[self._names.index(self._stage) + 1 :]:
            units_left += self._expected[name]
        if any(unit not in self._seconds for unit in units_left):
            return None
        return sum(count * self._seconds[unit] / self._units[unit] for unit, count in units_left.items())

    @property
    def time_left(self) -> str:
        """ "about 12 min of the run left", or nothing: to ten seconds, from two minutes on to whole minutes, from two
        hours on to ten minutes, because it is an estimate."""
        seconds = self.seconds_left
        if seconds is None:
            return ""
        unit = 10 if seconds < 120 else 60 if seconds < 7200 else 600
        text = duration(max(1, round(seconds / unit)) * unit)
        return f"about {text.removesuffix(' 00 s').removesuffix(' 00 min')} of the run left"

    def heading(self, stage: str) -> str:
        """ "stage 3 of 10, about 12 min of the run left", as far as it is known."""
        return ", ".join(part for part in (self.position(stage), self.time_left) if part)


def fit_unit(stage: str) -> Unit:
    """What a stage's optimiser steps count as: the ORM's rows are longer than a student's."""
    return "fit_orm" if stage == "orm" else "fit"


def _units(stage: Expected) -> Counter[Unit]:
    def middle(amount: Amount) -> int:
        return (amount.low + amount.high) // 2

    counts: Mapping[Unit, int] = {
        fit_unit(stage.name): stage.steps.high,
        "sample": middle(stage.answers),
        "judge": middle(stage.verdicts),
        "ask": middle(stage.requests),
    }
    return +Counter(counts)  # without those of which there is none
