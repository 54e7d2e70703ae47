"""The position of a run among its stages, and an estimate of the time until its end.

The stages and the amount of work in each are known before the run (``mathse plan`` counts the same). The time for each
kind of work is measured in this run only: optimiser steps of the student, optimiser steps of the ORM, answers, verdicts
and the teacher's answers each have their own rate. No time is given until every kind of work in the rest of the run has
been measured. Where the judge's decisions determine the amount, the middle of the possible range counts; a training
that may be skipped counts as made.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

from mathse.reporting.progress.wording import duration

# The kinds of work: optimiser steps of the student and of the ORM, answers, verdicts, requests to the teacher.
Unit = Literal["fit", "fit_orm", "sample", "judge", "ask"]


class Amount(Protocol):
    """A range from ``low`` to ``high``, both included."""

    @property
    def low(self) -> int: ...
    @property
    def high(self) -> int: ...


class PlannedStage(Protocol):
    """The work that a stage will do: optimiser steps, the student's answers, the ORM's verdicts, requests to the
    teacher's server."""

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
    """Estimates the remaining time of a run.

    Args:
        stages: in the order in which the run makes them. Empty: they are not known, and all texts are empty.
        clock: the current time in seconds.
    """

    def __init__(self, stages: Sequence[PlannedStage] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self._names = [stage.name for stage in stages]
        self._expected = {stage.name: _work_of(stage) for stage in stages}
        self._clock = clock
        self._stage = ""
        self._done: Counter[Unit] = Counter()  # work done in the current stage
        # Work measured in this run, and the seconds that it took.
        self._units: Counter[Unit] = Counter()
        self._seconds: dict[Unit, float] = {}
        self._last = 0.0  # s, the last report of the current work

    # --- reports of the run ---

    def begin(self, stage: str) -> None:
        """Enter a stage."""
        self._stage = stage
        self._done = Counter()

    def start_work(self) -> None:
        """Start the clock of a piece of work."""
        self._last = self._clock()

    def record_work(self, unit: Unit, count: int) -> None:
        """Count the units of work done since ``start_work`` or the last call."""
        now = self._clock()
        self.record_time(unit, count, now - self._last)
        self._last = now
        self._done[unit] += count

    def record_time(self, unit: Unit, count: int, seconds: float) -> None:
        """Count the seconds that ``count`` units of work took, in this process or in an earlier one."""
        if count:
            self._units[unit] += count
            self._seconds[unit] = self._seconds.get(unit, 0.0) + seconds

    # --- estimates ---

    def position(self, stage: str) -> str:
        """Write "stage 3 of 10"; empty for a stage that was not planned."""
        return f"stage {self._names.index(stage) + 1} of {len(self._names)}" if stage in self._names else ""

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end of the run; None while a remaining kind of work has not been measured."""
        if self._stage not in self._names:
            return None
        # Counters do not fall below 0 in a subtraction.
        units_left = self._expected[self._stage] - self._done
        for name in self._names[self._names.index(self._stage) + 1 :]:
            units_left += self._expected[name]
        if any(unit not in self._seconds for unit in units_left):
            return None
        return sum(count * self._seconds[unit] / self._units[unit] for unit, count in units_left.items())

    @property
    def time_left(self) -> str:
        """ "about 12 min of the run left", or empty. It is an estimate, so it is rounded."""
        seconds = self.seconds_left
        if seconds is None:
            return ""
        # Round to ten seconds, from two minutes to whole minutes, from two hours to ten minutes.
        unit = 600
        if seconds < 120:
            unit = 10
        elif seconds < 7200:
            unit = 60
        text = duration(max(1, round(seconds / unit)) * unit)
        return f"about {text.removesuffix(' 00 s').removesuffix(' 00 min')} of the run left"

    def heading(self, stage: str) -> str:
        """Write "stage 3 of 10, about 12 min of the run left", without the parts that are not known."""
        return ", ".join(part for part in (self.position(stage), self.time_left) if part)


def fit_unit(stage: str) -> Unit:
    """Return the kind of work of a stage's optimiser steps. The ORM's rows are longer than a student's."""
    return "fit_orm" if stage == "orm" else "fit"


def _work_of(stage: PlannedStage) -> Counter[Unit]:
    def middle(amount: Amount) -> int:
        return (amount.low + amount.high) // 2

    counts: Mapping[Unit, int] = {
        fit_unit(stage.name): stage.steps.high,
        "sample": middle(stage.answers),
        "judge": middle(stage.verdicts),
        "ask": middle(stage.requests),
    }
    return +Counter(counts)  # "+" drops the kinds whose count is 0
