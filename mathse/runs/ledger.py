"""The ledger of a run: its costs in teacher calls, tokens, operations and seconds.

Each stage records its costs in stage.json under "ledger", on two accounts. "method" has the costs of making the stage's
student. "measuring" has the costs of its figures (test and dev answers, held-out paths and their verdicts, validation),
which a user of the student does not pay:

    {"method":    {"teacher_calls", "prefilled_tokens", "sampled_tokens", "trained_tokens", "trained_rows",
                   "flops", "training_flops"},
     "measuring": {the same without calls},
     "seconds":   {"cpu": of all processes} or {"gpu": wall-clock seconds times the number of GPUs},
     "counted_by": sources of the token counts,
     "kept": keys of features and hidden states that the stage was the first to compute}

Tokens and operations are properties of the work, not of the machine: they do not depend on batch sizes, kills, or an
engine's cache of prompt prefixes (fields: ``mathse.runs.meter.Spent``). Seconds exclude work that a kill interrupted,
like all times of a stage.

A stage of an earlier version has no ledger. Its costs are unknown (None), and so is each sum with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mathse.runs.meter import ACCOUNTS, UNKNOWN, Account, Meter, Spent
from mathse.runs.teacher_calls import ASKED, CALLS, count_calls_until, find_needed_stages

if TYPE_CHECKING:
    from mathse.runs.reader import FinishedStage

LEDGER = "ledger"
SECONDS = "seconds"
KEPT = "kept"
FLOPS = "flops"
# Keys of a row of summary.json: the costs of the method up to its stage.
TOKENS = ("prefilled_tokens", "sampled_tokens", "trained_tokens")
CURRENCIES = (CALLS, *TOKENS, FLOPS)


def build_ledger(meter: Meter, summary: Mapping[str, Any], seconds: Mapping[str, float | None]) -> dict[str, Any]:
    """Return the ledger of a stage that is about to finish with ``summary``."""
    totals = meter.add_up()
    ledger = {
        "method": {CALLS: summary.get(ASKED), **totals["method"].to_json()},
        "measuring": totals["measuring"].to_json(),
        SECONDS: dict(seconds),
        "counted_by": meter.list_sources(),
    }
    if kept := meter.list_kept():
        ledger[KEPT] = kept
    return ledger


def list_kept_until(names: Iterable[str], stages: Sequence[FinishedStage]) -> set[str]:
    """Return the keys of lasting results of the stages ``names`` and of all stages that they were made from."""
    keys: set[str] = set()
    for name in names:
        for stage in find_needed_stages(name, stages) or ():
            keys.update(stage.manifest.get(LEDGER, {}).get(KEPT, ()))
    return keys


def read_spent(stage: FinishedStage, account: Account = "method") -> Spent:
    """Return the tokens and operations of a stage."""
    ledger = stage.manifest.get(LEDGER)
    return UNKNOWN if ledger is None else Spent.from_json(ledger[account])


def sum_spent(stages: Iterable[FinishedStage], account: Account = "method") -> Spent:
    """Return the tokens and operations of several stages."""
    return sum((read_spent(stage, account) for stage in stages), Spent())


def sum_spent_until(name: str, stages: Sequence[FinishedStage]) -> Spent:
    """Return the method's tokens and operations in the stage ``name`` and all stages that it was made from."""
    needed = find_needed_stages(name, stages)
    return UNKNOWN if needed is None else sum_spent(needed)


def sum_seconds(*stages: FinishedStage) -> dict[str, float] | None:
    """Return CPU or GPU seconds of stages, measuring included; None if some are unknown."""
    sums: dict[str, float] = {}
    for stage in stages:
        for device, seconds in stage.manifest.get(LEDGER, {}).get(SECONDS, {"": None}).items():
            if seconds is None:
                return None
            sums[device] = sums.get(device, 0.0) + float(seconds)
    return sums or None


def sum_seconds_until(name: str, stages: Sequence[FinishedStage]) -> dict[str, float] | None:
    """Return the seconds of the stage ``name`` and of all stages that it was made from."""
    return sum_seconds(*(find_needed_stages(name, stages) or ()))


def name_seconds(name: str, stages: Sequence[FinishedStage]) -> dict[str, float]:
    """Return these seconds as figures, {"cpu_seconds": ...}; without figures if they are unknown."""
    return {f"{device}_seconds": seconds for device, seconds in (sum_seconds_until(name, stages) or {}).items()}


def add_costs(entry: Mapping[str, Any], stages: Sequence[FinishedStage]) -> dict[str, Any]:
    """Return a row of summary.json's "stages" with the method's costs up to it, in each of CURRENCIES."""
    missing: dict[str, Any] = {}
    if entry.get(CALLS) is None:
        missing[CALLS] = count_calls_until(entry["stage"], stages)
    if any(entry.get(currency) is None for currency in (*TOKENS, FLOPS)):
        spent = sum_spent_until(entry["stage"], stages).to_json()
        missing |= {currency: spent[currency] for currency in (*TOKENS, FLOPS)}
    return {**entry, **missing}


def sum_accounts(stages: Sequence[FinishedStage]) -> dict[str, dict[str, int | None]]:
    """Return the tokens and operations of all stages of a run by account, for summary.json."""
    return {account: sum_spent(stages, account).to_json() for account in ACCOUNTS}


# --- for controls of equal compute ------------------------------------------------------------------------------------


def sum_flops(stages: Sequence[FinishedStage]) -> int | None:
    """Return the method's operations in all stages of a run; None if some are unknown."""
    return sum_spent(stages).flops


def compute_row_flops(stage: FinishedStage) -> float | None:
    """Return the mean operations of training per row and pass; None without training, or if they are unknown."""
    spent = read_spent(stage)
    return spent.training_flops / spent.trained_rows if spent.training_flops and spent.trained_rows else None
