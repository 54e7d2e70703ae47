"""How much a stage does: numbers that are known, and ranges where acceptance decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Range:
    """From ``low`` to ``high``, both included; exact where they are equal."""

    low: int = 0
    high: int = 0

    @classmethod
    def of(cls, number: int) -> Range:
        return cls(number, number)

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)

    def __mul__(self, times: int) -> Range:
        return Range(self.low * times, self.high * times)

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and self.low <= number <= self.high

    @property
    def exact(self) -> bool:
        return self.low == self.high

    def at_most(self, number: int | None) -> Range:
        return self if number is None else Range(min(self.low, number), min(self.high, number))

    def through(self, of: Callable[[int], int]) -> Range:
        """Of a function that grows with its argument."""
        return Range(of(self.low), of(self.high))

    def to_json(self) -> int | list[int]:
        return self.low if self.exact else [self.low, self.high]


@dataclass(frozen=True)
class Asked:
    """Requests of one job to the teacher's server, and the mean tokens of one of them, in and out."""

    requests: Range
    tokens_in: float
    tokens_out: float

    def tokens(self) -> tuple[Range, Range]:
        """(in, out) of all of them, in whole tokens."""
        return tuple(self.requests.through(lambda n, t=t: round(n * t)) for t in (self.tokens_in, self.tokens_out))  # type: ignore[misc, return-value]


@dataclass
class StagePlan:
    """One stage.

    ``rows``: paths or rewrites that it makes. ``jobs``: what the teacher's server is asked. ``samples``, ``verdicts``,
    ``evaluated``: answers and verdicts by the student's or the ORM's own model; ``evaluated`` only where a student is
    fitted. ``steps``: of the optimiser. ``checkpoints``: models that it leaves on the disk.
    """

    name: str
    rows: Range = Range()
    jobs: dict[str, Asked] = field(default_factory=dict)
    samples: Range = Range()
    verdicts: Range = Range()
    evaluated: int = 0
    steps: Range = Range()
    checkpoints: int = 0

    def ask(self, job: str, requests: Range, tokens_in: float, tokens_out: float) -> None:
        """Add requests of a job; those of a job that is here already are alike."""
        before = self.jobs[job].requests if job in self.jobs else Range()
        if requests.high:
            self.jobs[job] = Asked(before + requests, tokens_in, tokens_out)

    @property
    def requests(self) -> Range:
        return sum((asked.requests for asked in self.jobs.values()), Range())

    @property
    def tokens(self) -> tuple[Range, Range]:
        both = [asked.tokens() for asked in self.jobs.values()]
        return sum((one for one, _ in both), Range()), sum((out for _, out in both), Range())

    def to_json(self) -> dict[str, Any]:
        into, out = self.tokens
        return {
            "stage": self.name,
            "rows": self.rows.to_json(),
            "requests": self.requests.to_json(),
            "jobs": {job: asked.requests.to_json() for job, asked in self.jobs.items()},
            "tokens_in": into.to_json(),
            "tokens_out": out.to_json(),
            "samples": self.samples.to_json(),
            "verdicts": self.verdicts.to_json(),
            "evaluated": self.evaluated,
            "steps": self.steps.to_json(),
        }
