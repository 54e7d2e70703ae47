"""Costs as text: the currencies of ``mathse.runs.ledger`` by the names that tables call them.

What was not recorded says so, and is never 0: earlier versions recorded no ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mathse.reporting.progress.wording import NOT_RECORDED, duration, scaled
from mathse.runs.ledger import CURRENCIES, FLOPS

NAMES = {
    "teacher_calls": "teacher calls",
    "prefilled_tokens": "tokens read",
    "sampled_tokens": "tokens sampled",
    "trained_tokens": "tokens trained",
    FLOPS: "FLOPs",
}
SECONDS = "time computed"


def amount(currency: str, value: float | None) -> str:
    """An amount of a currency, as text."""
    if value is None:
        return NOT_RECORDED
    return scaled(value) if currency == FLOPS else f"{value:,.0f}"


def spent(values: Mapping[str, Any]) -> list[str]:
    """A cell a currency, in the order of NAMES."""
    return [amount(currency, values.get(currency)) for currency in CURRENCIES]


def time_computed(seconds: Mapping[str, float] | None) -> str:
    """ "3 h 20 min of CPU"."""
    if seconds is None:
        return NOT_RECORDED
    return ", ".join(f"{duration(count)} of {device.upper()}" for device, count in seconds.items())


def ledger_line(ledger: Mapping[str, Mapping[str, int | None]]) -> str:
    """One sentence on the "ledger" of summary.json."""
    method, measuring = ledger["method"], ledger["measuring"]
    return (
        f"spent: {_tokens(method)}, {amount(FLOPS, method[FLOPS])} FLOPs; and to measure it: {_tokens(measuring)}, "
        f"{amount(FLOPS, measuring[FLOPS])} FLOPs"
    )


def _tokens(account: Mapping[str, int | None]) -> str:
    kinds = {name.removeprefix("tokens "): currency for currency, name in NAMES.items() if name.startswith("tokens")}
    return "tokens " + ", ".join(
        f"{kind} {amount(currency, account[currency])}" for kind, currency in kinds.items() if account[currency] != 0
    )
