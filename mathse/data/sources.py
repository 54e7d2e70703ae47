"""The problems behind a run's settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mathse.config import build
from mathse.types import Problem


def problem_lookup(run_config: Mapping[str, Any]) -> Callable[[str], Problem]:
    """Problem by id, from the ``config`` of a run.json; a DataError for an id that its data does not have."""
    lookup: Callable[[str], Problem] = build(run_config["data"]).get
    return lookup
