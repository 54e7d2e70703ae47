"""Settings by dotted key: how a run records, compares and names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"evolution.reflect.when": "last", ...}``, in the order of ``settings``; an empty mapping is a value."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        dotted = f"{prefix}{key}"
        flat |= flatten(value, f"{dotted}.") if isinstance(value, Mapping) and value else {dotted: value}
    return flat
