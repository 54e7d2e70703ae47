"""MathVL-test: Yang et al. 2024, "MathGLM-Vision" (arXiv 2409.13729); 2,000 Chinese K12 problems held out of MathVL.

Neither the problems nor a scorer are public. This module reads the problems from a file of the user and scores them
with MathSE's protocol; a number on other problems is not comparable with published numbers. Metric: accuracy. A row:

    {"id": "17", "question": "如图,求 x。", "images": ["images/17.png"], "answer": "B",
     "options": ["3", "4", "5", "6"], "question_type": "choice"}

"image" (a path) may replace "images", "choices" may replace "options"; options and question_type may be missing. An
answer is right if MathSE's rules (``mathse.scoring.answers``) or math-verify find it equal to the reference. An LLM, if
there is one, judges the answers to open questions that both refuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from mathse.config.evaluation import MathVLTest as Settings
from mathse.errors import ConfigError, DataError
from mathse.evaluation.benchmark import LLM, Extraction, Group, Item, Scored, check_choice, group_accuracy, paired
from mathse.evaluation.benchmarks.common import overall, unscored
from mathse.evaluation.benchmarks.math_verifier import second_opinions, version
from mathse.evaluation.benchmarks.mathverse import JUDGE, MAX_TOKENS, judge_prompt, judgement
from mathse.evaluation.benchmarks.rows import SourceRow, image_path, load_items
from mathse.inference.prompts import question_text
from mathse.scoring.answers import extract_answer, same_answer
from mathse.types import Problem

_REQUIRED = ("id", "question", "answer")
_ZH = "请一步一步地解答下面的问题,并在最后写出“本题的答案是”和你的答案。"


class MathVLTest:
    """Option ``prompt``: "zh" asks for steps and the Chinese marker, "plain" is the question and its options."""

    name: ClassVar[str] = "mathvl_test"
    title: ClassVar[str] = "MathVL-test"
    prompts: ClassVar[tuple[str, ...]] = ("zh", "plain")
    splits: ClassVar[tuple[str, ...]] = ("test",)
    hub: ClassVar[str | None] = None
    needs_llm: ClassVar[str] = ""

    def __init__(self, settings: Settings) -> None:
        self.prompt = settings.prompt
        check_choice("benchmark.mathvl_test.prompt", self.prompt, self.prompts)
        self._judge: str | None = None

    def check(self) -> None:
        """Do nothing: scoring needs only Python."""

    def load(
        self, problems: Path | None, images: Path | None = None, split: str | None = None, need_images: bool = True
    ) -> list[Item]:
        """Read the rows; see ``Benchmark.load``. Raises ConfigError without a file."""
        check_choice("benchmark.mathvl_test.split", split or "test", self.splits)
        if problems is None:
            raise ConfigError(
                "MathVL-test is not public; give your own file of its problems: benchmark.mathvl_test.problems=FILE"
            )
        return load_items(self._item, self.name, "id", _REQUIRED, problems, images, need_images)

    def _item(self, source: SourceRow, folder: Path, need_images: bool) -> Item:
        position, row = source
        refs: Any = row.get("images") or []
        if not refs and row.get("image"):
            refs = [row["image"]]
        options = row.get("options") or row.get("choices") or []
        if not isinstance(refs, list):
            raise DataError(f'{position}: "images" is a list; write ["...", ...]')
        paths: list[str] = []
        for ref in refs:
            paths += image_path(position, ref, folder, need_images)
        problem = Problem(
            id=row["id"],
            question=row["question"],
            images=tuple(paths),
            answer=str(row["answer"]),
            choices=tuple(str(option) for option in options),
            source=self.name,
        )
        question = question_text(problem)
        return Item(problem, row, f"{_ZH}\n{question}" if self.prompt == "zh" else question)

    def extract(self, items: Sequence[Item], responses: Sequence[str], llm: LLM | None = None) -> list[Extraction]:
        """Extract by MathSE's rules; "" for a response without answer."""
        return [Extraction(extract_answer(response) or "") for _, response in paired(items, responses)]

    def score(
        self, items: Sequence[Item], responses: Sequence[str], extractions: Sequence[Extraction], llm: LLM | None
    ) -> list[Scored]:
        """Score by rule, then by math-verify, then by ``llm`` if both refuse an answer to an open question."""
        # 1. MathSE's rules.
        scored = []
        for item, response, extraction in paired(items, responses, extractions):
            problem, answer = item.problem, extraction.text
            if answer is None:
                scored.append(unscored(item, response, extraction, problem.answer, "the answer was not extracted"))
                continue
            correct = same_answer(answer, problem.answer, problem.choices)
            decided_by = f"{extraction.decided_by}+rule"
            scored.append(Scored(problem.id, response, answer, answer, problem.answer, correct, decided_by))

        def refused_open_questions() -> list[int]:
            refused = []
            for k, row in enumerate(scored):
                if row.correct is False and row.extraction and not items[k].problem.choices:
                    refused.append(k)
            return refused

        # 2. math-verify, on answers to open questions that the rules refuse.
        refused = refused_open_questions()
        opinions = second_opinions([([scored[k].answer], f"${scored[k].extraction}$", False) for k in refused])
        for k, opinion in zip(refused, opinions, strict=True):
            decided_by = f"{extractions[k].decided_by}+math-verify"
            scored[k] = replace(scored[k], correct=opinion is True, decided_by=decided_by)

        # 3. The LLM, on answers that math-verify refuses too.
        refused = refused_open_questions()
        if llm is None or not refused:
            return scored
        self._judge = llm.model
        prompts = []
        for k in refused:
            problem = items[k].problem
            prompts.append(judge_prompt(problem.question, problem.answer, str(scored[k].extraction)))
        for k, reply in zip(refused, llm.ask(prompts, JUDGE, MAX_TOKENS), strict=True):
            row, verdict = scored[k], judgement(reply)
            if verdict is None:
                note = "the judge's reply is neither 0 nor 1"
                scored[k] = unscored(items[k], row.response, extractions[k], row.answer, note)
            else:
                decided_by = f"{extractions[k].decided_by}+llm:{JUDGE}"
                scored[k] = replace(row, correct=verdict, decided_by=decided_by)
        return scored

    def mapped(self, response: str) -> str:
        """Return the response unchanged: MathSE's rules read its marker."""
        return response

    def second_opinions(self, items: Sequence[Item], responses: Sequence[str]) -> list[bool | None]:
        """Ask math-verify, with the answer as reference."""
        pairs = paired(items, responses)
        return second_opinions(
            [([item.problem.answer], response, bool(item.problem.choices)) for item, response in pairs]
        )

    def buckets(self, items: Sequence[Item], scored: Sequence[Scored]) -> dict[str, Any]:
        """Return the "average", and the accuracies by "question_type" if rows have it."""

        def groups(item: Item) -> list[Group]:
            kind = item.raw.get("question_type")
            return [("question_type", str(kind))] if kind else []

        return {"average": overall(scored), **group_accuracy(paired(items, scored), groups)}

    def protocol(self) -> dict[str, Any]:
        """Return prompt, rules and judge."""
        return {
            "benchmark": self.title,
            "prompt": self.prompt,
            "extraction": "rule (mathse.scoring.answers)",
            "scoring": "MathSE's own: rule (mathse.scoring.answers), then math-verify, then an LLM for open questions",
            "judge": f"{self._judge} ({JUDGE})" if self._judge else None,
            "comparable": "only if the problems are the authors' own 2,000",
            "second_opinion": version(),
        }
