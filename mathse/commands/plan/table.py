"""The text of ``mathse plan``: one row per stage, the totals, and the source of each number."""

from __future__ import annotations

from collections.abc import Iterator

from mathse.commands.plan.plan import LowHigh, Plan
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


def format_plan(plan: Plan) -> Iterator[str]:
    """Yield the lines of a plan."""
    table: list[tuple[str, ...]] = [HEADING]
    for stage in plan.stages:
        table.append(
            (
                stage.name,
                *map(_format_count, (stage.rows, stage.requests, stage.tokens_in, stage.tokens_out)),
                _format_interval(plan.dollars(stage), "not known", "{:,.2f}"),
                *map(_format_count, (stage.answers, stage.verdicts, stage.steps)),
                _format_interval(plan.hours(stage), "-", "{:,.1f}"),
                _format_bytes(plan.disk(stage)),
            )
        )

    # Stored features are a row of their own: several stages share them.
    if plan.tower_features != 0:
        blank = [""] * (len(HEADING) - 3)
        table.append(("tower features", f"{plan.pictures:,}", *blank, _format_bytes(plan.tower_features)))

    def total(name: str) -> str:
        return _format_count(sum((getattr(stage, name) for stage in plan.stages), Range()))

    disk = plan.total("disk")
    table.append(
        (
            "total",
            "",  # a sum over the rows of different stages would mean nothing
            *map(total, ("requests", "tokens_in", "tokens_out")),
            _format_interval(plan.total("dollars"), "not known", "{:,.2f}"),
            *map(total, ("answers", "verdicts", "steps")),
            _format_interval(plan.total("hours"), "-", "{:,.1f}"),
            _format_bytes(None if disk is None else round(disk[0])),
        )
    )
    yield f"task={plan.config.task}, before anything is started"
    yield from (f"  {line}" for line in align_columns(table))
    yield "tokens and operations of the run's own models, and the operations to measure them:"
    yield from (f"  {line}" for line in align_columns(_list_spending(plan)))
    yield "A single number is exact; LOW-HIGH bounds the number for any decisions of the judge."
    yield "answers, verdicts: by the student's and the ORM's own models, test and dev problems included."
    if needs_orm(plan.config) and plan.config.orm.own_answer:
        yield "orm.own_answer: the ORM also solves each problem of the paths that it judges once, not counted here"
    for stage in plan.stages:
        if len(stage.jobs) > 1:
            jobs = ", ".join(f"{name} {_format_count(job.requests)}" for name, job in stage.jobs.items())
            yield f"{stage.name}: {jobs}"
    yield from plan.notes
    yield from memory.describe_plan(plan.config, plan.device)


def _list_spending(plan: Plan) -> list[tuple[str, ...]]:
    """Return one row per stage: tokens and operations of its method, and the operations to measure it."""
    rows = [("stage", *(CURRENCY_NAMES[currency] for currency in (*TOKENS, FLOPS)), "FLOPs to measure")]
    method_total, measuring_total = PlannedSpending(), PlannedSpending()
    spendings: list[tuple[str, PlannedSpending, PlannedSpending]] = []
    for stage in plan.stages:
        method, measuring = plan.spending.predict_method(stage), plan.spending.predict_measuring(stage)
        method_total, measuring_total = method_total + method, measuring_total + measuring
        spendings.append((stage.name, method, measuring))
    for name, method, measuring in (*spendings, ("total", method_total, measuring_total)):
        tokens = (_format_count(getattr(method, currency)) for currency in TOKENS)
        rows.append((name, *tokens, _format_flops(method.flops), _format_flops(measuring.flops)))
    return rows


def _format_flops(number: Range | None) -> str:
    if number is None:
        return "not known"
    if not number.high:
        return "-"
    return shorten_number(number.low) if number.exact else f"{shorten_number(number.low)}-{shorten_number(number.high)}"


def _format_count(number: Range) -> str:
    if number.exact:
        return f"{number.low:,}" if number.low else "-"
    return f"{number.low:,}-{number.high:,}"


def _format_interval(interval: LowHigh | None, unknown: str, form: str) -> str:
    if interval is None:
        return unknown
    low, high = (form.format(value) for value in interval)
    if interval == (0.0, 0.0):
        return "-"
    return low if low == high else f"{low}-{high}"


def _format_bytes(count: int | None) -> str:
    """Return GiB, or "?" for an unknown size."""
    if count is None:
        return "?"
    return f"{count / 2**30:,.1f} GiB" if count else "-"
