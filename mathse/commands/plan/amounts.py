"""How much a stage does: numbers that are known beforehand, and ranges where a judge's acceptance decides."""

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

    def __sub__(self, part: Range) -> Range:
        """Without a part of it, whose ends belong to its own."""
        return Range(self.low - part.low, self.high - part.high)

    def __mul__(self, factor: float) -> Range:
        """In whole numbers."""
        return Range(round(self.low * factor), round(self.high * factor))

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and self.low <= number <= self.high

    @property
    def exact(self) -> bool:
        return self.low == self.high

    def at_most(self, number: int | None) -> Range:
        return self if number is None else Range(min(self.low, number), min(self.high, number))

    def through(self, function: Callable[[int], int]) -> Range:
        """Of a function that grows with its argument."""
        return Range(function(self.low), function(self.high))

    def to_json(self) -> int | list[int]:
        return self.low if self.exact else [self.low, self.high]


@dataclass(frozen=True)
class JobRequests:
    """Requests of one job to the teacher's server, and the mean tokens of one of them, in and out."""

    requests: Range
    tokens_in: float
    tokens_out: float


@dataclass
class StagePlan:
    """One stage.

    Attributes:
        rows: paths or rewrites that it makes.
        jobs: what the teacher's server is asked, by job.
        samples: answers by the student's own model, those to test and dev problems left out.
        verdicts: by the ORM's own model.
        evaluated: answers to test and dev problems; 0 where no student is fitted.
        steps: of the optimiser.
        seen: rows that its fit sees, each as often as it does.
        new: rows among them that are seen for the first time.
        validated: rows of all validations in its fit.
        held_samples, held_verdicts: those of ``samples`` and ``verdicts`` that only measure.
        prompts_share: prompts an answer of ``samples``, where several are drawn for one.
        checkpoints: models that it leaves on the disk.
        warnings: of its training run, as far as they are known beforehand.
    """

    name: str
    rows: Range = Range()
    jobs: dict[str, JobRequests] = field(default_factory=dict)
    samples: Range = Range()
    verdicts: Range = Range()
    evaluated: int = 0
    steps: Range = Range()
    seen: Range = Range()
    new: Range = Range()
    validated: Range = Range()
    held_samples: Range = Range()
    held_verdicts: Range = Range()
    prompts_share: float = 1.0
    checkpoints: int = 0
    warnings: list[str] = field(default_factory=list)

    def ask(self, job: str, requests: Range, tokens_in: float, tokens_out: float) -> None:
        """Add requests of a job; those that it has already are of the same length."""
        before = self.jobs[job].requests if job in self.jobs else Range()
        if requests.high:
            self.jobs[job] = JobRequests(before + requests, tokens_in, tokens_out)

    @property
    def requests(self) -> Range:
        return sum((job.requests for job in self.jobs.values()), Range())

    @property
    def tokens_in(self) -> Range:
        return sum((job.requests * job.tokens_in for job in self.jobs.values()), Range())

    @property
    def tokens_out(self) -> Range:
        return sum((job.requests * job.tokens_out for job in self.jobs.values()), Range())

    @property
    def answers(self) -> Range:
        """All that the student's model writes."""
        return self.samples + Range.of(self.evaluated)

    def to_json(self) -> dict[str, Any]:
        return {
            "stage": self.name,
            "rows": self.rows.to_json(),
            "requests": self.requests.to_json(),
            "jobs": {name: job.requests.to_json() for name, job in self.jobs.items()},
            "tokens_in": self.tokens_in.to_json(),
            "tokens_out": self.tokens_out.to_json(),
            "samples": self.samples.to_json(),
            "verdicts": self.verdicts.to_json(),
            "evaluated": self.evaluated,
            "steps": self.steps.to_json(),
        }
