"""How a field of a settings dataclass says which numbers it takes. Which words, its type says: ``Literal["a"]``."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def allow(default: Any, *, low: float | None = None, high: float | None = None, above: float | None = None) -> Any:
    """A field with a range: ``low <= value <= high``, or ``value > above``; None passes if the type is optional."""
    return field(default=default, metadata={"low": low, "high": high, "above": above})
