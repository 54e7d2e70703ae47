"""What ``mathse plan`` prints: a row a stage, the totals, and how each number was come to."""

from __future__ import annotations

from collections.abc import Iterator

from mathse.commands.plan.plan import Pair, Plan
from mathse.commands.plan.spending import PlannedSpending
from mathse.config.schema import needs_orm
from mathse.evolution import memory
from mathse.evolution.planner import Range
from mathse.reporting.progress.costs import CURRENCY_NAMES
from mathse.reporting.progress.wording import align_columns, shorten_number
from mathse.runs.ledger import FLOPS, TOKENS

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


def plan_as_text(plan: Plan) -> Iterator[str]:
    """The lines of a plan."""
    table: list[tuple[str, ...]] = [HEADING]
    for stage in plan.stages:
        table.append(
            (
                stage.name,
                *map(_count, (stage.rows, stage.requests, stage.tokens_in, stage.tokens_out)),
                _pair(plan.dollars(stage), "not known", "{:,.2f}"),
                *map(_count, (stage.answers, stage.verdicts, stage.steps)),
                _pair(plan.hours(stage), "-", "{:,.1f}"),
                _bytes(plan.disk(stage)),
            )
        )

    if plan.tower_features != 0:
        blank = [""] * (len(HEADING) - 3)
        table.append(("tower features", f"{plan.pictures:,}", *blank, _bytes(plan.tower_features)))

    def total(name: str) -> str:
        return _count(sum((getattr(stage, name) for stage in plan.stages), Range()))

    disk = plan.total("disk")
    table.append(
        (
            "total",
            "",  # rows of different stages are no sum of anything
            *map(total, ("requests", "tokens_in", "tokens_out")),
            _pair(plan.total("dollars"), "not known", "{:,.2f}"),
            *map(total, ("answers", "verdicts", "steps")),
            _pair(plan.total("hours"), "-", "{:,.1f}"),
            _bytes(None if disk is None else round(disk[0])),
        )
    )
    yield f"task={plan.config.task}, before anything is started"
    yield from (f"  {line}" for line in align_columns(table))
    yield "what the run's own models will read, write and learn, and what measuring them takes:"
    yield from (f"  {line}" for line in align_columns(_spending(plan)))
    yield "A number alone is exact; LOW-HIGH holds whatever the judge accepts."
    yield "answers, verdicts: by the student's and the ORM's own models, test and dev problems included."
    if needs_orm(plan.config) and plan.config.orm.own_answer:
        yield "orm.own_answer: the ORM also solves each problem of the paths that it judges once, not counted here"
    for stage in plan.stages:
        if len(stage.jobs) > 1:
            jobs = ", ".join(f"{name} {_count(job.requests)}" for name, job in stage.jobs.items())
            yield f"{stage.name}: {jobs}"
    yield from plan.notes
    yield from memory.described(plan.config, plan.device)


def _spending(plan: Plan) -> list[tuple[str, ...]]:
    """A row a stage: of its method the tokens and operations, of measuring the operations."""
    rows = [("stage", *(CURRENCY_NAMES[currency] for currency in (*TOKENS, FLOPS)), "FLOPs to measure")]
    method, measuring_of = plan.spending.method, plan.spending.measuring
    planned = [(stage.name, method(stage), measuring_of(stage)) for stage in plan.stages]
    nothing = PlannedSpending()
    total = sum((spent for _, spent, _ in planned), nothing), sum((measured for _, _, measured in planned), nothing)
    for name, spent, measuring in (*planned, ("total", *total)):
        tokens = (_count(getattr(spent, currency)) for currency in TOKENS)
        rows.append((name, *tokens, _flops(spent.flops), _flops(measuring.flops)))
    return rows


def _flops(number: Range | None) -> str:
    if number is None:
        return "not known"
    if not number.high:
        return "-"
    return shorten_number(number.low) if number.exact else f"{shorten_number(number.low)}-{shorten_number(number.high)}"


def _count(number: Range) -> str:
    if number.exact:
        return f"{number.low:,}" if number.low else "-"
    return f"{number.low:,}-{number.high:,}"


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
