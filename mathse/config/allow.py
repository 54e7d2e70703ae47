"""How a field of a settings dataclass says which numbers it takes, and which other setting it follows.

Which words it takes, its type says: ``Literal["a"]``.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any


def allow(default: Any, *, low: float | None = None, high: float | None = None, above: float | None = None) -> Any:
    """A field with a range: ``low <= value <= high``, or ``value > above``; None passes if the type is optional."""
    return field(default=default, metadata={"low": low, "high": high, "above": above})


def follow(setting: str, default: Any) -> Any:
    """A field that a config takes from another setting (``${setting}``) where it is not set itself.

    An object that is made in Python belongs to no config and so has ``default``.
    """
    return field(default=default, metadata={"low": None, "high": None, "above": None, "follows": f"${{{setting}}}"})
