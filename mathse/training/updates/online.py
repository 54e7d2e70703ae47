"""The settings by which an update samples its own batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class OnlineSettings:
    """An update with the attribute ``online`` samples the batch of each optimiser step from the current student.

    Attributes:
        steps: optimiser steps of a round.
        problems_per_step: groups of a step.
        max_draws: most draws of so many problems for a step.
        staleness: optimiser steps between sampling and learning.
    """

    steps: int
    problems_per_step: int = 32
    max_draws: int = 3
    staleness: int = 0

    @classmethod
    def of(cls, settings: Any) -> Self | None:
        """Return those of an update's section; None where it learns from the paths of the round."""
        if settings.steps is None:
            return None
        return cls(settings.steps, settings.problems_per_step, settings.max_draws, settings.staleness)
