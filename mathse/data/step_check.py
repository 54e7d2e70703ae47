"""The result of a step checker, which the synthetic problems and the word problems have."""

from __future__ import annotations

from dataclasses import dataclass

from mathse.types import Verdict


@dataclass(frozen=True)
class StepCheck:
    """The first wrong step of a path, None if all steps are right, and the check of each step as text."""

    error_step: int | None
    analysis: str

    def to_verdict(self, path_id: str = "", judge: str = "") -> Verdict:
        """Make a verdict: correct without a wrong step."""
        if self.error_step is None:
            return Verdict(path_id, "correct", None, self.analysis, judge=judge)
        return Verdict(path_id, "wrong", f"Step {self.error_step}", self.analysis, judge=judge)
