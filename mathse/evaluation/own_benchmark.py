"""``benchmark=synthetic``: the test split of ``data=...``, of the synthetic problems or, with ``data=jsonl``, of a
user's own.

Metric: the final answer equals the reference (mathse.scoring.answers). One row, as its problem:

    digits/muladd/1201-0005-0017   question "muladd" about three pictures of digits, answer "23"
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from mathse.data.domains import has_answer
from mathse.data.problems import ProblemSource
from mathse.evaluation.benchmark import STUDENT_PROMPT
from mathse.evaluation.simple_benchmark import SimpleBenchmark
from mathse.types import Problem


class OwnBenchmark(SimpleBenchmark):
    """A source's test split; the settings that name files have no part in it. Groups are kinds of question, where the
    source names kinds."""

    name: ClassVar[str] = "synthetic"
    title = "own test split"
    prompts: ClassVar[tuple[str, ...]] = (STUDENT_PROMPT,)

    def __init__(self, source: ProblemSource) -> None:
        super().__init__()
        self.source = source

    def problems(self, file: Path | None, images: Path | None, split: str) -> Iterable[Problem]:
        return self.source.splits()["test"]

    def score(self, problem: Problem, answer: str | None) -> bool:
        """By the rules of the problem's domain; a response without answer is wrong."""
        return has_answer(problem, answer)

    def group(self, problem: Problem) -> str | None:
        kind = problem.metadata.get("kind")
        return None if kind is None else str(kind)

    def protocol(self) -> dict[str, Any]:
        return {"metric": "final answer equals the reference (mathse.scoring.answers)", "prompt": self.prompt}
