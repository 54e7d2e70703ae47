"""The student that a stage ends with: a checkpoint in the stage's folder, and its name in lineage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mathse.runs.layout import CHECKPOINT
from mathse.runs.stage_cache import Stage


@dataclass(frozen=True)
class Student:
    """``carried_on``: the stage had nothing to fit on and took the last student over."""

    stage: Stage
    carried_on: bool = False

    @property
    def checkpoint(self) -> Path:
        return self.stage.path / CHECKPOINT

    @property
    def name(self) -> str:
        """As lineage has it: ``round_01/checkpoint``."""
        return f"{self.stage.name}/{CHECKPOINT}"
