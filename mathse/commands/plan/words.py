"""What ``plan`` prints."""

from __future__ import annotations

from collections.abc import Iterator

from mathse.commands.plan.amounts import Range, StagePlan
from mathse.commands.plan.plan import Pair, Plan
from mathse.reporting.progress.wording import aligned

HEADING = (
    "stage",
    "rows",
    "requests",
    "tokens in",
    "tokens out",
    "dollars",
    "answers",
    "verdicts",
    "steps",
    "GPU-hours",
    "disk",
)


def said(plan: Plan) -> Iterator[str]:
    """The table, the totals, and how each number was come to."""
    yield f"task={plan.config.task}, before anything is started"
    yield from (f"  {line}" for line in aligned([HEADING, *(_cells(plan, s) for s in plan.stages), _totals(plan)]))
    yield "A number alone is exact; LOW-HIGH holds whatever the judge accepts."
    yield "answers, verdicts: by the student's and the ORM's own models, test and dev problems included."
    for stage in plan.stages:
        if len(stage.jobs) > 1:
            jobs = ", ".join(f"{job} {_count(asked.requests)}" for job, asked in stage.jobs.items())
            yield f"{stage.name}: {jobs}"
    yield from plan.notes


def _cells(plan: Plan, stage: StagePlan) -> tuple[str, ...]:
    into, out = stage.tokens
    answers = stage.samples + Range.of(stage.evaluated)
    counts = (stage.rows, stage.requests, into, out)
    work = (answers, stage.verdicts, stage.steps)
    return (
        stage.name,
        *map(_count, counts),
        _dollars(plan.dollars(stage)),
        *map(_count, work),
        _hours(plan.hours(stage)),
        _bytes(plan.disk(stage)),
    )


def _totals(plan: Plan) -> tuple[str, ...]:
    stages = plan.stages
    requests = sum((s.requests for s in stages), Range())
    into = sum((s.tokens[0] for s in stages), Range())
    out = sum((s.tokens[1] for s in stages), Range())
    answers = sum((s.samples + Range.of(s.evaluated) for s in stages), Range())
    work = (answers, sum((s.verdicts for s in stages), Range()), sum((s.steps for s in stages), Range()))
    disk = plan.total("disk")
    return (
        "total",
        "",
        *map(_count, (requests, into, out)),
        _dollars(plan.total("dollars")),
        *map(_count, work),
        _hours(plan.total("hours")),
        _bytes(None if disk is None else round(disk[0])),
    )


def _count(number: Range) -> str:
    if number.exact:
        return f"{number.low:,}" if number.low else "-"
    return f"{number.low:,}-{number.high:,}"


def _dollars(pair: Pair | None) -> str:
    return _pair(pair, "not known", "{:,.2f}")


def _hours(pair: Pair | None) -> str:
    return _pair(pair, "-", "{:,.1f}")


def _pair(pair: Pair | None, unknown: str, form: str) -> str:
    if pair is None:
        return unknown
    low, high = (form.format(value) for value in pair)
    if pair == (0.0, 0.0):
        return "-"
    return low if low == high else f"{low}-{high}"


def _bytes(count: int | None) -> str:
    """GiB; "?" where the size is not known."""
    if count is None:
        return "?"
    return f"{count / 2**30:,.1f} GiB" if count else "-"
