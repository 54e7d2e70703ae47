"""MathVista: Lu et al. 2024, "MathVista: Evaluating Mathematical Reasoning of Foundation Models in Visual Contexts".

Source: lupantech/MathVista (hub: AI4Math/MathVista), testmini 1,000 rows with answers, test 5,141 without; annotations
CC BY-SA 4.0, not for training. Metric: accuracy, and accuracy by type, language, source, category, task, context, grade
and skill (74 groups on testmini). A row:

    {"pid": "2", "question": "what is the total volume of the measuring cup?", "image": "images/2.jpg",
     "choices": null, "unit": "g", "precision": null, "answer": "1000", "question_type": "free_form",
     "answer_type": "integer", "metadata": {"task": "visual question answering", "skills": ["..."], ...}}

Extraction (extract_answer.py): by rule if the response is only a choice, an int or a float; else by an LLM with five
examples. Scoring (calculate_score.py): by rule. A multiple-choice answer that names no option becomes the option at the
smallest edit distance, so an option is always chosen. ``rule="released"`` reads an integer as ``int(float(x))``, as
every released script does; ``rule="strict"`` as ``int(x)``, which agrees with the score files of 2023.

The student's marker is mapped to ``The answer is "x".``, the sentence that --quick_extract reads. A response that is
only this sentence is always read by that rule, any other response only with ``quick_extract=True``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mathse.config.evaluation import MathVista as Settings
from mathse.errors import DataError
from mathse.evaluation.benchmark import (
    LLM,
    NOT_SCORED,
    Extraction,
    Group,
    Item,
    Scored,
    check_choice,
    group_accuracy,
    paired,
)
from mathse.evaluation.benchmarks.common import metadata, overall, prompt_file, unscored
from mathse.evaluation.benchmarks.marker import marked_answer
from mathse.evaluation.benchmarks.math_verifier import second_opinions, version
from mathse.evaluation.benchmarks.rows import SourceRow, image_path, load_items, source_of
from mathse.inference.prompts import question_text
from mathse.types import Problem

EXTRACT = "mathvista-extract/1"
_REQUIRED = ("pid", "question_type", "answer_type", "choices", "precision")
_QUICK = ('The answer is "', '".')  # the answer is between the two, in the same line
_LETTER = re.compile(r"\(([a-zA-Z])\)")
_GROUPS = ("question_type", "answer_type", "language", "source", "category", "task", "context", "grade")
_GRADE_NAMES = {"not applicable": "daily life"}  # a grade in the data -> its name in the score files


class MathVista:
    """Options: ``prompt``, ``rule``, ``quick_extract`` and ``ignore_empty`` (an empty extraction picks no option)."""

    name: ClassVar[str] = "mathvista"
    title: ClassVar[str] = "MathVista"
    prompts: ClassVar[tuple[str, ...]] = ("query", "solution", "plain")
    splits: ClassVar[tuple[str, ...]] = ("testmini", "test")
    hub: ClassVar[str | None] = "AI4Math/MathVista"
    needs_llm: ClassVar[str] = "an LLM extracts the answer from each response that is not an answer and no more"

    def __init__(self, settings: Settings) -> None:
        self.prompt, self.rule = settings.prompt, settings.rule
        self.quick_extract, self.ignore_empty = settings.quick_extract, settings.ignore_empty
        check_choice("benchmark.mathvista.prompt", self.prompt, self.prompts)
        check_choice("benchmark.mathvista.rule", self.rule, ("released", "strict"))
        self._model: str | None = None

    def check(self) -> None:
        """Do nothing: scoring needs only Python."""

    def load(
        self, problems: Path | None, images: Path | None = None, split: str | None = None, need_images: bool = True
    ) -> list[Item]:
        """Read the rows; see ``Benchmark.load``."""
        source = source_of(self.name, self.splits, str(self.hub), problems, split or self.splits[0])
        return load_items(self._item, self.name, "pid", _REQUIRED, source, images, need_images)

    def _item(self, source: SourceRow, folder: Path, need_images: bool) -> Item:
        position, row = source
        if need_images and not row.get("question"):
            raise DataError(
                f"{position}: a row without question, as in an output file; give the problems (testmini.json)"
            )
        problem = Problem(
            id=row["pid"],
            question=row.get("question") or "",
            images=image_path(position, row.get("image") or "", folder, need_images),
            answer=str(row.get("answer") or ""),
            choices=tuple(row["choices"] or ()),
            source=self.name,
        )
        if self.prompt == "plain":
            return Item(problem, row, question_text(problem))
        return Item(problem, row, query(row) if self.prompt == "query" else solution_query(row))

    def extract(self, items: Sequence[Item], responses: Sequence[str], llm: LLM | None) -> list[Extraction]:
        """Extract by rule if the official script does; ask ``llm`` for all other responses at once."""
        pairs = list(paired(items, responses))
        texts = [self._extract_by_rule(item, response) for item, response in pairs]
        extractions = [Extraction(text) for text in texts]
        without_rule = [k for k, text in enumerate(texts) if text is None]
        replies: Sequence[str | None] = [None] * len(without_rule)
        if llm is not None and without_rule:
            self._model = llm.model
            prompts = [extraction_prompt(*pairs[k]) for k in without_rule]
            replies = llm.ask(prompts, EXTRACT, max_tokens=1024)
        for k, reply in zip(without_rule, replies, strict=True):
            extractions[k] = Extraction(None, NOT_SCORED)
            if reply is not None:
                extractions[k] = Extraction(reply.strip(), f"llm:{EXTRACT}")
        return extractions

    def _extract_by_rule(self, item: Item, response: str) -> str | None:
        """Return the script's extraction without an LLM; None if the script asks an LLM."""
        row = item.raw
        # 1. The response is only a choice, an integer or a float.
        if response == "" or row["question_type"] == "multi_choice" and response in (row["choices"] or ()):
            return response
        try:
            if row["answer_type"] == "integer":
                return str(int(response))
            if row["answer_type"] == "float":
                return str(float(response))
        except ValueError:
            pass
        # 2. The script's 'The answer is "(.*)"\.' (--quick_extract) in linear time: the first line with both ends.
        start, end = _QUICK
        for line in response.split("\n"):
            _, begins, rest = line.partition(start)
            if begins and end in rest:
                text = rest.rpartition(end)[0]
                return text if self.quick_extract or response == text.join(_QUICK) else None
        return None

    def score(
        self, items: Sequence[Item], responses: Sequence[str], extractions: Sequence[Extraction], llm: LLM | None = None
    ) -> list[Scored]:
        """Return the official verdicts, by rule."""
        scored = []
        for item, response, extraction in paired(items, responses, extractions):
            answer = item.raw.get("answer")
            if extraction.text is None:
                note = "the answer was not extracted"
                scored.append(unscored(item, response, extraction, str(answer or ""), note))
            elif answer is None or answer == "":
                note = "the answers of this split are not public"
                scored.append(unscored(item, response, extraction, "", note))
            else:
                prediction = self.normalized(extraction.text, item.raw)
                correct, decided_by = prediction == answer, f"{extraction.decided_by}+rule"
                scored.append(
                    Scored(item.problem.id, response, extraction.text, prediction, answer, correct, decided_by)
                )
        return scored

    def normalized(self, extraction: str, row: Mapping[str, Any]) -> str | None:
        """Return the extraction in the form of the reference; None if it has no such form, which counts as wrong."""
        if row["question_type"] == "multi_choice":
            choices: list[str] = row["choices"]
            text = extraction.strip()
            if self.ignore_empty and not text:
                return None
            # "(b)" anywhere in the text, else a single capital, else the option nearest to the text.
            if letter := _LETTER.search(text):
                text = letter[1].upper()
            if len(text) == 1 and 0 <= (number := ord(text) - ord("A")) < len(choices):
                return choices[number]
            return nearest(text, choices)
        # The reference is text: "1000", or "12.0" with precision 1.
        try:
            if row["answer_type"] == "integer":
                return str(int(extraction) if self.rule == "strict" else int(float(extraction)))
            if row["answer_type"] == "float":
                return str(round(float(extraction), int(row["precision"])))
        except (ValueError, TypeError, OverflowError):
            return None
        return extraction

    def mapped(self, response: str) -> str:
        """Return the marked answer in the sentence that the official quick rule reads."""
        answer = marked_answer(response)
        return response if answer is None else f'The answer is "{answer}".'

    def second_opinions(self, items: Sequence[Item], responses: Sequence[str]) -> list[bool | None]:
        """Ask math-verify, with the option's letter and text or the value as references."""
        questions = []
        for item, response in paired(items, responses):
            answer, choices = item.problem.answer, item.problem.choices
            references = [answer]
            if answer in choices:
                references.append(chr(ord("A") + choices.index(answer)))
            questions.append((references, response, bool(choices)))
        return second_opinions(questions)

    def buckets(self, items: Sequence[Item], scored: Sequence[Scored]) -> dict[str, Any]:
        """Return the "average", then group -> key -> {"accuracy", "correct", "total"}, the best key first."""
        shares = group_accuracy(paired(items, scored), _groups)
        aggregates: dict[str, Any] = {"average": overall(scored)}
        for group in (*_GROUPS, "skills"):
            keys = shares.get(group, {}).items()
            aggregates[group] = dict(sorted(keys, key=lambda entry: entry[1]["accuracy"], reverse=True))
        return aggregates

    def protocol(self) -> dict[str, Any]:
        """Return prompt, rules and models."""
        return {
            "benchmark": self.title,
            "prompt": self.prompt,
            "extraction": f"rule, else LLM ({EXTRACT})",
            "quick_extract": self.quick_extract,
            "extractor": self._model,
            "scoring": f"rule ({self.rule}: {'int(float(x))' if self.rule == 'released' else 'int(x)'})",
            "ignore_empty": self.ignore_empty,
            "second_opinion": version(),
        }


def _groups(item: Item) -> Iterator[Group]:
    row = {**item.raw, **metadata(item.raw)}
    for group in _GROUPS:
        if (key := row.get(group)) is not None:
            yield group, _GRADE_NAMES.get(key, key) if group == "grade" else str(key)
    for skill in row.get("skills") or ():
        yield "skills", str(skill)


# --- prompts: the hub's ``query`` (data/query.json), and the prompts of the scripts -----------------------------------

_HINTS: dict[tuple[str, int | None], str] = {
    ("integer", None): "requiring an integer answer and provide the final value, e.g., 1, 2, 3, at the end.",
    ("float", 1): "requiring a floating-point number with one decimal place and provide the final value, e.g., 1.2, "
    "1.3, 1.4, at the end.",
    ("float", 2): "requiring a floating-point number with two decimal places and provide the final value, e.g., 1.23, "
    "1.34, 1.45, at the end.",
    ("list", None): "requiring a Python list as an answer and provide the final list, e.g., [1, 2, 3], [1.2, 1.3, "
    "1.4], at the end.",
}
_CHOICE_HINT = "and provide the correct option letter, e.g., A, B, C, D, at the end."


def query(row: Mapping[str, Any]) -> str:
    """Return the row's ``query``, or build it: hint, question, choices. Published multimodal scores use this prompt.

    The prompt changes scores: GPT-4o is listed with 61.6 for this prompt, and 65.3 with "Solution:" at its end.
    """
    if isinstance(published := row.get("query"), str) and published.strip():
        return published.strip()
    return "\n".join((_hint(row), *_question(row))).strip()


def solution_query(row: Mapping[str, Any]) -> str:
    """Build question, choices, hint, "Solution:": the zero-shot prompt of build_query.py."""
    return "\n".join((*_question(row), _hint(row), "Solution: ")).strip()


def _question(row: Mapping[str, Any]) -> list[str]:
    unit = f" (Unit: {row['unit']})" if row.get("unit") else ""
    lines = [f"Question: {row.get('question') or ''}{unit}"]
    if row.get("choices"):
        lines.append("Choices:")
        lines += [f"({chr(ord('A') + k)}) {choice}" for k, choice in enumerate(row["choices"])]
    return lines


def _hint(row: Mapping[str, Any]) -> str:
    if row["question_type"] == "multi_choice":
        return f"Hint: Please answer the question {_CHOICE_HINT}"
    kind, precision = row["answer_type"], None
    if kind == "float" and row.get("precision"):
        precision = int(row["precision"])
    return f"Hint: Please answer the question {_HINTS.get((kind, precision), '')}".strip()


def extraction_prompt(item: Item, response: str) -> str:
    """Build the extractor's prompt. The examples' tag "Model response:" is missing here as in the official script."""
    return f"{prompt_file('mathvista_extract')}\n\n{query(item.raw)}\n\n{response}\n\nExtracted answer: "


# --- the nearest option -----------------------------------------------------------------------------------------------


def nearest(text: str, options: list[str]) -> str:
    """Return the option at the smallest edit distance; the first of several."""
    return min(options, key=lambda option: edit_distance(text, option))


def edit_distance(left: str, right: str) -> int:
    """Compute Levenshtein's distance: insertions, deletions and substitutions cost 1.

    Myers 1999, "A fast bit-vector algorithm", in the form of Hyyro 2001 for the distance: O(len(right)) integer steps.
    Bit k of ``rises`` (``falls``) is set if the distance grows (shrinks) by 1 from row k to row k + 1 of the table.
    """
    if not left or not right:
        return len(left) + len(right)
    positions: dict[str, int] = {}  # character -> the bits of its positions in ``left``
    for k, character in enumerate(left):
        positions[character] = positions.get(character, 0) | 1 << k
    full, last = (1 << len(left)) - 1, 1 << (len(left) - 1)
    rises, falls, total = full, 0, len(left)
    for character in right:
        match = positions.get(character, 0)
        diagonal = (((match & rises) + rises) ^ rises) | match | falls
        across_up = falls | ~(diagonal | rises) & full
        across_down = rises & diagonal
        total += (across_up & last != 0) - (across_down & last != 0)
        across_up = (across_up << 1 | 1) & full
        rises = (across_down << 1 | ~(diagonal | across_up)) & full
        falls = across_up & diagonal
    return total
