"""The spending of a run: the currencies in which a gain in accuracy is paid.

Each stage records what it spent in stage.json under "ledger", in two accounts. "method" is what the stage needs to come
to its student; "measuring" is what its figures cost (test and dev answers, held-out paths and their verdicts,
validation), which somebody who uses the student does not pay:

    {"method":    {"teacher_calls", "prefilled_tokens", "sampled_tokens", "trained_tokens", "trained_rows",
                   "flops", "training_flops"},
     "measuring": {the same without calls},
     "seconds":   {"cpu": of all processes} or {"gpu": by the clock, times the GPUs},
     "counted_by": who counted the tokens,
     "kept": keys of features and hidden states that the stage was the first to compute}

Tokens and operations are those of the work, not of the machine: they depend neither on the sizes of batches, nor on
kills, nor on what an engine keeps of prompts that begin alike. Their fields: ``mathse.runs.meter.Spent``. Seconds are
those of the processes that finished what they were at, as all times of a stage.

A stage that an earlier version made has no ledger. What it spent is not known (None), and so is each sum with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mathse.runs.meter import ACCOUNTS, UNKNOWN, Account, Meter, Spent
from mathse.runs.teacher_calls import ASKED, CALLS, calls_until, stages_behind

if TYPE_CHECKING:
    from mathse.runs.reader import FinishedStage

LEDGER = "ledger"
SECONDS = "seconds"
KEPT = "kept"
FLOPS = "flops"
# Keys of a row of summary.json: the spending of the method until then.
TOKENS = ("prefilled_tokens", "sampled_tokens", "trained_tokens")
CURRENCIES = (CALLS, *TOKENS, FLOPS)


def recorded(meter: Meter, summary: Mapping[str, Any], seconds: Mapping[str, float | None]) -> dict[str, Any]:
    """The ledger of a stage that is about to be finished with ``summary``."""
    totals = meter.total()
    return {
        "method": {CALLS: summary.get(ASKED), **totals["method"].to_json()},
        "measuring": totals["measuring"].to_json(),
        SECONDS: dict(seconds),
        "counted_by": meter.counted_by(),
        **({KEPT: kept} if (kept := meter.kept()) else {}),
    }


def kept_until(names: Iterable[str], stages: Sequence[FinishedStage]) -> set[str]:
    """Keys of what the stages ``names``, and those that they were made from, have paid for and kept."""
    behind = {stage.name: stage for name in names for stage in stages_behind(name, stages) or ()}
    return {key for stage in behind.values() for key in stage.manifest.get(LEDGER, {}).get(KEPT, ())}


def spent_in(stage: FinishedStage, account: Account = "method") -> Spent:
    """The spending of one stage."""
    ledger = stage.manifest.get(LEDGER)
    return UNKNOWN if ledger is None else Spent.from_json(ledger[account])


def spent_in_all(stages: Iterable[FinishedStage], account: Account = "method") -> Spent:
    return sum((spent_in(stage, account) for stage in stages), Spent())


def spent_until(name: str, stages: Sequence[FinishedStage]) -> Spent:
    """The spending of the method on the stage ``name`` and on all stages that it was made from."""
    behind = stages_behind(name, stages)
    return UNKNOWN if behind is None else spent_in_all(behind)


def seconds_of(*stages: FinishedStage) -> dict[str, float] | None:
    """CPU or GPU seconds of stages, measuring included; None where one of them does not tell."""
    sums: dict[str, float] = {}
    for stage in stages:
        for device, seconds in stage.manifest.get(LEDGER, {}).get(SECONDS, {"": None}).items():
            if seconds is None:
                return None
            sums[device] = sums.get(device, 0.0) + float(seconds)
    return sums or None


def seconds_until(name: str, stages: Sequence[FinishedStage]) -> dict[str, float] | None:
    """The same of the stage ``name`` and of all stages that it was made from."""
    return seconds_of(*(stages_behind(name, stages) or ()))


def seconds_by_name(name: str, stages: Sequence[FinishedStage]) -> dict[str, float]:
    """The same as figures, {"cpu_seconds": ...}; none where they are not known."""
    return {f"{device}_seconds": seconds for device, seconds in (seconds_until(name, stages) or {}).items()}


def with_costs(entry: Mapping[str, Any], stages: Sequence[FinishedStage]) -> dict[str, Any]:
    """A row of summary.json's "stages" with what the method spent until then, in each of CURRENCIES."""
    missing: dict[str, Any] = {}
    if entry.get(CALLS) is None:
        missing[CALLS] = calls_until(entry["stage"], stages)
    if any(entry.get(currency) is None for currency in (*TOKENS, FLOPS)):
        spent = spent_until(entry["stage"], stages).to_json()
        missing |= {currency: spent[currency] for currency in (*TOKENS, FLOPS)}
    return {**entry, **missing}


def of_run(stages: Sequence[FinishedStage]) -> dict[str, dict[str, int | None]]:
    """For summary.json: what all stages of a run spent, by account."""
    return {account: spent_in_all(stages, account).to_json() for account in ACCOUNTS}


# --- what a control of equal compute is computed from -----------------------------------------------------------------


def flops_of_run(stages: Sequence[FinishedStage]) -> int | None:
    """Operations of the method in all stages of a run; None where one of them does not tell."""
    return spent_in_all(stages).flops


def flops_of_trained_row(stage: FinishedStage) -> float | None:
    """Operations of a fit for each time that it sees a row, a mean over the rows that the stage's fits have seen; None
    where the stage fitted nothing or does not tell."""
    spent = spent_in(stage)
    return spent.training_flops / spent.trained_rows if spent.training_flops and spent.trained_rows else None
