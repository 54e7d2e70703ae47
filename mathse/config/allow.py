"""How a field of a settings dataclass says what its value may be."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def allow(
    default: Any,
    *,
    choices: tuple[Any, ...] | None = None,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
) -> Any:
    """A field with a rule: one of ``choices``, or ``low <= value <= high``, or ``value > above``; None passes if the
    type is optional."""
    meta = {"choices": choices, "low": low, "high": high, "above": above}
    if callable(default):
        return field(default_factory=default, metadata=meta)
    return field(default=default, metadata=meta)
