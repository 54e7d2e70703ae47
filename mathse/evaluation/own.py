"""``benchmark=synthetic``: the test split of ``data=...`` (the embedded world; own problems with ``data=jsonl``).

Metric: the final answer equals the reference (mathse.scoring.answers). One row, as its problem:

    digits/muladd/1201-0005-0017   question "muladd" about three pictures of digits, answer "23"
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from mathse.data.problems import ProblemSource
from mathse.evaluation.benchmarks.base import LLM, RULE, Extraction, Item, Scored
from mathse.inference.prompts import question_text
from mathse.scoring.answers import extract_answer, same_answer

STUDENT = "student"  # the prompt that the student was trained with, in its backbone's style


class OwnBenchmark:
    """The contract of ``mathse.evaluation.benchmarks.base.Benchmark`` over a source's test split."""

    name: ClassVar[str] = "synthetic"
    title: ClassVar[str] = "own test split"
    prompts: ClassVar[tuple[str, ...]] = (STUDENT,)
    splits: ClassVar[tuple[str, ...]] = ("test",)
    hub: ClassVar[str | None] = None
    needs_llm: ClassVar[str] = ""

    def __init__(self, source: ProblemSource) -> None:
        self.source = source
        self.prompt = STUDENT

    def check(self) -> None:
        """Nothing is needed."""

    def load(
        self, problems: Path | None, images: Path | None = None, split: str | None = None, need_images: bool = True
    ) -> list[Item]:
        return [Item(p, p.to_json(), question_text(p)) for p in self.source.splits()["test"]]

    def extract(self, items: Sequence[Item], responses: Sequence[str], llm: LLM | None) -> list[Extraction]:
        return [Extraction(extract_answer(response), RULE) for response in responses]

    def score(
        self, items: Sequence[Item], responses: Sequence[str], extractions: Sequence[Extraction], llm: LLM | None
    ) -> list[Scored]:
        return [
            self._scored(item, response, found)
            for item, response, found in zip(items, responses, extractions, strict=True)
        ]

    def _scored(self, item: Item, response: str, found: Extraction) -> Scored:
        problem = item.problem
        correct = same_answer(found.text, problem.answer, problem.choices)
        return Scored(problem.id, response, found.text, found.text, problem.answer, correct, found.decided_by)

    def mapped(self, response: str) -> str:
        """Its own marker is what it reads."""
        return response

    def second_opinions(self, items: Sequence[Item], responses: Sequence[str]) -> list[bool | None]:
        return [None] * len(responses)

    def buckets(self, items: Sequence[Item], scored: Sequence[Scored]) -> dict[str, Any]:
        """By kind of question, where the source names kinds."""
        marks: dict[str, list[bool]] = {}
        for item, row in zip(items, scored, strict=True):
            if (kind := item.problem.metadata.get("kind")) is not None:
                marks.setdefault(str(kind), []).append(bool(row.correct))
        return {
            kind: {"accuracy": sum(found) / len(found), "correct": sum(found), "total": len(found)}
            for kind, found in sorted(marks.items())
        }

    def protocol(self) -> dict[str, Any]:
        return {"metric": "final answer equals the reference (mathse.scoring.answers)", "prompt": self.prompt}
