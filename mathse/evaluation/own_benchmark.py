"""``benchmark=synthetic``: the test split of ``data=...``: synthetic problems, or the user's with ``data=jsonl``.

Metric: the final answer equals the reference (mathse.scoring.answers). The problem of a row:

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
    """The test split of a data source. Groups are the kinds of questions if the source names kinds."""

    name: ClassVar[str] = "synthetic"
    title = "own test split"
    prompts: ClassVar[tuple[str, ...]] = (STUDENT_PROMPT,)

    def __init__(self, source: ProblemSource) -> None:
        super().__init__()
        self.source = source

    def problems(self, file: Path | None, images: Path | None, split: str) -> Iterable[Problem]:
        return self.source.splits()["test"]

    def score(self, problem: Problem, answer: str | None) -> bool:
        """Whether the answer is right by the rules of the problem's domain. A response without answer is wrong."""
        return has_answer(problem, answer)

    def group(self, problem: Problem) -> str | None:
        kind = problem.metadata.get("kind")
        return None if kind is None else str(kind)

    def protocol(self) -> dict[str, Any]:
        return {"metric": "final answer equals the reference (mathse.scoring.answers)", "prompt": self.prompt}
