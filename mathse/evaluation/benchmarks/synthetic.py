"""``benchmark=synthetic``: the test split of ``data=...``, of the synthetic problems or, with ``data=jsonl``, of a
user's own.

Metric: the final answer equals the reference (mathse.scoring.answers). One row, as its problem:

    digits/muladd/1201-0005-0017   question "muladd" about three pictures of digits, answer "23"
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from mathse.data.problems import ProblemSource
from mathse.evaluation.benchmarks.base import LLM, RULE, STUDENT_PROMPT, Extraction, Item, Scored
from mathse.evaluation.benchmarks.common import share
from mathse.inference.prompts import question_text
from mathse.scoring.answers import extract_answer, same_answer


class OwnBenchmark:
    """The contract of ``mathse.evaluation.benchmarks.base.Benchmark`` over a source's test split."""

    name: ClassVar[str] = "synthetic"
    title: ClassVar[str] = "own test split"
    prompts: ClassVar[tuple[str, ...]] = (STUDENT_PROMPT,)
    splits: ClassVar[tuple[str, ...]] = ("test",)
    hub: ClassVar[str | None] = None
    needs_llm: ClassVar[str] = ""

    def __init__(self, source: ProblemSource) -> None:
        self.source = source
        self.prompt = STUDENT_PROMPT

    def check(self) -> None:
        """Nothing is needed."""

    def load(
        self, problems: Path | None, images: Path | None = None, split: str | None = None, need_images: bool = True
    ) -> list[Item]:
        """The source's test split; the arguments, which name files, have no part in it."""
        return [Item(p, p.to_json(), question_text(p)) for p in self.source.splits()["test"]]

    def extract(self, items: Sequence[Item], responses: Sequence[str], llm: LLM | None) -> list[Extraction]:
        """By MathSE's rules."""
        return [Extraction(extract_answer(response), RULE) for response in responses]

    def score(
        self, items: Sequence[Item], responses: Sequence[str], extractions: Sequence[Extraction], llm: LLM | None
    ) -> list[Scored]:
        """By MathSE's rules; a response without answer is wrong."""
        scored = []
        for item, response, extraction in zip(items, responses, extractions, strict=True):
            problem, answer = item.problem, extraction.text
            correct = same_answer(answer, problem.answer, problem.choices)
            scored.append(Scored(problem.id, response, answer, answer, problem.answer, correct, extraction.decided_by))
        return scored

    def mapped(self, response: str) -> str:
        """The response itself: MathSE's rules read its marker."""
        return response

    def second_opinions(self, items: Sequence[Item], responses: Sequence[str]) -> list[bool | None]:
        """None: the rules are the same for every student."""
        return [None] * len(responses)

    def buckets(self, items: Sequence[Item], scored: Sequence[Scored]) -> dict[str, Any]:
        """By kind of question, where the source names kinds."""
        marks: dict[str, list[bool]] = {}
        for item, row in zip(items, scored, strict=True):
            if (kind := item.problem.metadata.get("kind")) is not None:
                marks.setdefault(str(kind), []).append(bool(row.correct))
        return {kind: share(sum(correct), len(correct)) for kind, correct in sorted(marks.items())}

    def protocol(self) -> dict[str, Any]:
        return {"metric": "final answer equals the reference (mathse.scoring.answers)", "prompt": self.prompt}
