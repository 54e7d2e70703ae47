"""MATH-Vision: Wang et al. 2024, "Measuring Multimodal Mathematical Reasoning with MATH-Vision Dataset".

Source: mathllm/MATH-V (hub: MathLLMs/MathVision), test 3,040 rows, testmini a subset of 304; MIT. Metric: accuracy,
over all rows and by level, subject and both, as 178 strings such as "218/3040=7.17%". A row:

    {"id": "2", "question": "Which bike is most expensive?\\n<image1>", "options": ["A", "B", "C", "D", "E"],
     "answer": "A", "solution": null, "level": 2, "subject": "arithmetic", "image": "images/2.jpg"}

Extraction and comparison are rules (``mathvision_answer``). latex2sympy2 1.9.1 computes the value of a LaTeX text
(``official_latex``), in a separate process and within a second. A response with an answer in a form that the script
does not expect is wrong by these rules; ``mapped`` puts the student's marked answer into \\boxed{}.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from mathse.config.evaluation import MathVision as Settings
from mathse.errors import DataError
from mathse.evaluation.benchmark import LLM, OVERRUN, Extraction, Item, Scored, check_choice, paired
from mathse.evaluation.benchmarks import official_latex
from mathse.evaluation.benchmarks.arithmetic import Number
from mathse.evaluation.benchmarks.bounded import Overrun, Workers
from mathse.evaluation.benchmarks.common import unscored
from mathse.evaluation.benchmarks.marker import mapped_response
from mathse.evaluation.benchmarks.math_verifier import second_opinions, version
from mathse.evaluation.benchmarks.mathvision_answer import equal, find_answer, quick_value
from mathse.evaluation.benchmarks.rows import SourceRow, image_path, load_items, source_of
from mathse.inference.prompts import question_text
from mathse.types import Problem

SIZES = {"test": 3040, "testmini": 304}
_REQUIRED = ("id", "question", "options", "answer", "level", "subject")
_COT = (
    'Please solve the problem step by step and put your answer in one "\\boxed{}". If it is a multiple choice '
    'question, only one letter is allowed in the "\\boxed{}".\n'
)
_DIRECT = "\nAnswer the question using a single word or phrase."


@cache
def _workers() -> Workers:
    return Workers("latex")


class MathVision:
    """Option ``prompt``: "cot" and "direct" are the authors' prompts."""

    name: ClassVar[str] = "mathvision"
    title: ClassVar[str] = "MATH-Vision"
    prompts: ClassVar[tuple[str, ...]] = ("cot", "direct", "plain")
    splits: ClassVar[tuple[str, ...]] = tuple(SIZES)
    hub: ClassVar[str | None] = "MathLLMs/MathVision"
    needs_llm: ClassVar[str] = ""

    def __init__(self, settings: Settings) -> None:
        self.prompt = settings.prompt
        check_choice("benchmark.mathvision.prompt", self.prompt, self.prompts)

    def check(self) -> None:
        """Raise ConfigError if the official parser cannot work; see ``official_latex.check``."""
        official_latex.check()

    def load(
        self, problems: Path | None, images: Path | None = None, split: str | None = None, need_images: bool = True
    ) -> list[Item]:
        """Read the rows; see ``Benchmark.load``. Raises DataError for a file with more rows than the given split."""
        source = source_of(self.name, self.splits, str(self.hub), problems, split or "test")
        items = load_items(self._item, self.name, "id", _REQUIRED, source, images, need_images)
        if split is not None and len(items) > SIZES[split]:
            raise DataError(f"{problems}: {len(items)} rows, and {split} has {SIZES[split]}; give the file of {split}")
        return items

    def _item(self, source: SourceRow, folder: Path, need_images: bool) -> Item:
        position, row = source
        options, answer = row["options"] or [], str(row["answer"])
        if options and answer not in _letters(options):
            raise DataError(
                f'{position}: "answer" {answer!r} is none of {", ".join(_letters(options))}; correct the row'
            )
        problem = Problem(
            id=row["id"],
            question=row["question"],
            images=image_path(position, row.get("image", ""), folder, need_images),
            answer=answer,
            choices=tuple(str(option) for option in options),
            solution=row.get("solution"),
            source=self.name,
            metadata={"level": row["level"], "subject": row["subject"]},
        )
        if self.prompt == "plain":
            return Item(problem, row, question_text(problem))
        # Options with the texts A to E are in the picture; all others are listed.
        listed = problem.choices if "".join(problem.choices) != "ABCDE" else ()
        option_lines = "".join(f"({letter}) {text}\n" for letter, text in zip(_letters(listed), listed, strict=True))
        question = f"{problem.question}\n{option_lines}"
        return Item(problem, row, f"{_COT}{question}" if self.prompt == "cot" else f"{question}{_DIRECT}")

    def extract(self, items: Sequence[Item], responses: Sequence[str], llm: LLM | None = None) -> list[Extraction]:
        """Extract by rule."""
        return [Extraction(find_answer(response)) for _, response in paired(items, responses)]

    def score(
        self, items: Sequence[Item], responses: Sequence[str], extractions: Sequence[Extraction], llm: LLM | None = None
    ) -> list[Scored]:
        """Return the official verdicts. Raises ConfigError if the official parser cannot work."""
        self.check()
        # 1. Find the texts that the comparisons will parse, and parse them in parallel.
        texts: list[str] = []

        def record_text(text: str) -> Number:
            texts.append(text)
            return len(texts)  # all values differ, so that no comparison ends early

        for item, extraction in paired(items, extractions):
            for reference in _references(item.problem) if extraction.text is not None else ():
                equal(reference, extraction.text, record_text)
        _workers().ask_all(text for text in texts if not quick_value(text)[0])

        # 2. Compare.
        scored = []
        for item, response, extraction in paired(items, responses, extractions):
            answer, problem = extraction.text, item.problem
            if answer is None:
                note = "the answer was not extracted"
                scored.append(unscored(item, response, extraction, problem.answer, note))
                continue
            value = _BoundedValue()
            correct = any(equal(reference, answer, value) for reference in _references(problem))
            decided_by, note = f"{extraction.decided_by}+rule", "; ".join(value.overruns)
            scored.append(Scored(problem.id, response, answer, answer, problem.answer, correct, decided_by, note))
        return scored

    def mapped(self, response: str) -> str:
        """Return the student's marked answer in \\boxed{}."""
        return mapped_response(response)

    def second_opinions(self, items: Sequence[Item], responses: Sequence[str]) -> list[bool | None]:
        """Ask math-verify, with the option's letter and text or the value as references."""
        questions = []
        for item, response in paired(items, responses):
            questions.append((_references(item.problem), response, bool(item.problem.choices)))
        return second_opinions(questions)

    def buckets(self, items: Sequence[Item], scored: Sequence[Scored]) -> dict[str, Any]:
        """Return the official strings by their official keys, sorted."""
        counts: dict[str, list[int]] = {}  # key -> [correct, scored]
        for item, row in paired(items, scored):
            if row.correct is None:
                continue
            level, subject = item.raw["level"], item.raw["subject"]
            names = ("-all", f"-level{level}", subject, f"{subject}_level{level}", f"-level{level}_{subject}")
            for name in names:
                count = counts.setdefault(name, [0, 0])
                count[0] += row.correct
                count[1] += 1
        return {name: f"{c}/{n}={round(c / n * 100, 2)}%" for name, (c, n) in sorted(counts.items())}

    def protocol(self) -> dict[str, Any]:
        """Return prompt, rules and parser."""
        return {
            "benchmark": self.title,
            "prompt": self.prompt,
            "extraction": "rule",
            "scoring": "rule, values to 2 decimals",
            "parser": official_latex.parser_versions(),
            "second_opinion": version(),
        }


class _BoundedValue:
    """The value of a LaTeX text. ``overruns`` lists the texts that took too long and therefore have no value."""

    def __init__(self) -> None:
        self.overruns: list[str] = []

    def __call__(self, text: str) -> Number | None:
        needs_no_parser, value = quick_value(text)
        if needs_no_parser:
            return value
        try:
            parsed: Number | None = _workers().ask(text)
        except Overrun as overrun:
            self.overruns.append(f"{text[:60]!r} {OVERRUN}: {overrun}")
            return None
        return parsed


def _letters(options: Sequence[str]) -> list[str]:
    return [chr(ord("A") + k) for k in range(len(options))]


def _references(problem: Problem) -> list[str]:
    """Return the right answers: the reference, and the text of the option that it names."""
    if not problem.choices:
        return [problem.answer]
    return [problem.answer, problem.choices[ord(problem.answer) - ord("A")]]
