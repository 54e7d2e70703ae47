"""Costs as text: the currencies of ``mathse.runs.ledger`` under the names that tables use.

A cost that was not recorded is never shown as 0. Earlier versions recorded no ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mathse.reporting.progress.wording import NOT_RECORDED, duration, shorten_number
from mathse.runs.ledger import CURRENCIES, FLOPS

# Currency -> its column in a table.
CURRENCY_NAMES = {
    "teacher_calls": "teacher calls",
    "prefilled_tokens": "tokens read",
    "sampled_tokens": "tokens sampled",
    "trained_tokens": "tokens trained",
    FLOPS: "FLOPs",
}
TIME_COLUMN = "time computed"


def amount(currency: str, value: float | None) -> str:
    """Write an amount of a currency."""
    if value is None:
        return NOT_RECORDED
    return shorten_number(value) if currency == FLOPS else f"{value:,.0f}"


def cost_cells(values: Mapping[str, Any]) -> list[str]:
    """Write one cell for each currency, in the order of CURRENCY_NAMES."""
    return [amount(currency, values.get(currency)) for currency in CURRENCIES]


def device_time(seconds: Mapping[str, float] | None) -> str:
    """Write the seconds of each device as "3 h 20 min of CPU"."""
    if seconds is None:
        return NOT_RECORDED
    return ", ".join(f"{duration(count)} of {device.upper()}" for device, count in seconds.items())


def ledger_line(ledger: Mapping[str, Mapping[str, int | None]]) -> str:
    """Write a sentence about the "ledger" of summary.json."""
    texts = []
    for account in (ledger["method"], ledger["measuring"]):
        # "tokens read 1,234, sampled 567": kinds without tokens are left out.
        kinds = []
        for currency, name in CURRENCY_NAMES.items():
            if name.startswith("tokens ") and account[currency] != 0:
                kinds.append(f"{name.removeprefix('tokens ')} {amount(currency, account[currency])}")
        texts.append(f"tokens {', '.join(kinds)}, {amount(FLOPS, account[FLOPS])} FLOPs")
    method, measuring = texts
    return f"spent: {method}; and to measure it: {measuring}"
