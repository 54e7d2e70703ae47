"""MMMU-Pro, mathematics: Yue et al. 2024, "MMMU-Pro: A More Robust Multi-discipline Multimodal Understanding Benchmark"
(arXiv 2409.02813).

Source: MMMU-Benchmark/MMMU, mmmu-pro/evaluate.py, prompts.yaml and infer/ (Apache-2.0), and the hub's MMMU/MMMU_Pro:
1,730 test problems of all subjects in three settings. Those of the subject Math are asked. One row:

    {"id": "test_Math_12", "question": "... <image 1> ...", "options": "['1', '<image 2>', ...]", "answer": "B",
     "image_1": ..., "image_2": ..., "subject": "Math", "topic_difficulty": "Medium"}

A picture has the place of its mark, in the question or in an option. In the setting "vision" the whole question is in
the picture, "image".

The authors' rule looks for one option's letter behind the last "Answer:". Where there is none, or several, it looks for
"(B)", then for "B " and for "B." anywhere in the response, then, in a response of more than five words, for an option's
text; of several the last one counts. A response without any gets an option by chance, which is drawn here from the
problem's id; its ``note`` says so. So "J. A dramatic increase" is A, as in their published results.

Tested on published responses and verdicts of GPT-4o (setting standard_10, prompt direct); no published figure was
reproduced.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mathse.config.evaluation import MMMUProConfig
from mathse.data.picture_marks import MARK
from mathse.errors import DataError
from mathse.evaluation.benchmark import LLM, RULE, Extraction, Item, Scored, check_choice, group_accuracy, paired
from mathse.evaluation.benchmarks.common import overall, score_by_rule
from mathse.evaluation.benchmarks.marker import marked_answer
from mathse.evaluation.benchmarks.math_verifier import second_opinions, version
from mathse.evaluation.benchmarks.rows import (
    SourceRow,
    checked,
    find_image_folder,
    image_path,
    picture_to_file,
    read_file,
    read_hub,
    source_of,
)
from mathse.inference.prompts import question_text
from mathse.seeds import derive
from mathse.types import Problem

SUBJECT = "Math"
CONFIGS = {
    "standard_10": "standard (10 options)",
    "standard_4": "standard (4 options)",
    "vision": "vision",
}  # the hub's
BY_CHANCE = "no option was found: one was drawn by chance, as in the authors' script"
LETTERS = "ABCDEFGHIJ"
MAX_OPTIONS_TEXT = 20_000  # characters of a row's options
_REQUIRED = ("id", "options", "answer", "subject")
_PLACE = re.compile(r"<image ([1-7])>")
_PROMPTS = {
    ("cot", "vision"): "Write out the multiple-choice question in the image and then solve it. The last line of your "
    "response should be of the following format: 'Answer: $LETTER' (without quotes) where LETTER is one of options. "
    "Think step by step before answering.",
    ("cot", "standard"): "Answer the preceding multiple choice question. The last line of your response should be of "
    "the following format: 'Answer: $LETTER' (without quotes) where LETTER is one of options. Think step by step "
    "before answering.",
    ("direct", "vision"): "Answer with the option letter from the given choices directly. The last line of your "
    "response should be of the following format: 'Answer: $LETTER' (without quotes) where LETTER is one of options.",
    ("direct", "standard"): "Answer with the option letter from the given choices directly.",
}


class MMMUPro:
    """Options: ``setting``, of the three; ``prompt``: "cot" and "direct" are the authors' own."""

    name: ClassVar[str] = "mmmu_pro"
    title: ClassVar[str] = "MMMU-Pro (Math)"
    prompts: ClassVar[tuple[str, ...]] = ("cot", "direct", "plain")
    splits: ClassVar[tuple[str, ...]] = ("test",)
    hub: ClassVar[str | None] = "MMMU/MMMU_Pro"
    needs_llm: ClassVar[str] = ""

    def __init__(self, settings: MMMUProConfig) -> None:
        self.prompt, self.setting = settings.prompt, settings.setting
        check_choice("benchmark.mmmu_pro.prompt", self.prompt, self.prompts)

    def check(self) -> None:
        """Nothing beyond Python is needed."""

    def load(
        self, problems: Path | None, images: Path | None = None, split: str | None = None, need_images: bool = True
    ) -> list[Item]:
        """See ``Benchmark.load``. Rows of other subjects are left out."""
        split = split or self.splits[0]
        source = source_of(self.name, self.splits, str(self.hub), problems, split, config=CONFIGS[self.setting])
        folder = images or find_image_folder(self.name, source)
        rows = read_file(source, "id") if isinstance(source, Path) else read_hub(*source, "id", folder, need_images)
        with_options = (
            SourceRow(position, {**row, "options": read_options(position, row.get("options"))})
            for position, row in rows
        )
        items = [
            self._item(row, folder, need_images)
            for row in checked(with_options, self.name, "id", _REQUIRED)
            if row.row["subject"] == SUBJECT
        ]
        if not items:
            raise DataError(f"{source}: no row has the subject {SUBJECT!r}; give MMMU-Pro's problems")
        return items

    def _item(self, source: SourceRow, folder: Path, need_images: bool) -> Item:
        position, row = source
        options: list[str] = row["options"]
        letters = LETTERS[: len(options)]
        if str(row["answer"]) not in letters:
            raise DataError(f'{position}: "answer" {row["answer"]!r:.40} is none of {len(options)} options; correct it')
        vision = self.setting == "vision"
        question = "" if vision else str(row.get("question", "")).strip()
        keys = ["image"] if vision else _list_pictures(row, question, options)
        problem = Problem(
            id=row["id"],
            question=_PLACE.sub(MARK, question) or "Answer the question in the picture.",
            images=tuple(path for key in keys for path in _find_image(position, row, key, folder, need_images)),
            answer=str(row["answer"]),
            choices=tuple(_PLACE.sub(MARK, option) for option in options),
            source=self.name,
            metadata={"topic_difficulty": row.get("topic_difficulty"), "img_type": row.get("img_type")},
        )
        if self.prompt == "plain":
            return Item(problem, row, question_text(problem))
        request = _PROMPTS[self.prompt, "vision" if vision else "standard"]
        if vision:
            return Item(problem, row, request)
        lines = [f"{letter}. {option}" for letter, option in zip(letters, problem.choices, strict=True)]
        return Item(problem, row, "\n".join([problem.question, *lines, request]))

    def extract(self, items: Sequence[Item], responses: Sequence[str], llm: LLM | None = None) -> list[Extraction]:
        """Extract by the authors' rule; "" if it finds no option."""
        return [
            Extraction(find_option(response, item.raw["options"]), RULE) for item, response in paired(items, responses)
        ]

    def score(
        self, items: Sequence[Item], responses: Sequence[str], extractions: Sequence[Extraction], llm: LLM | None = None
    ) -> list[Scored]:
        """Compare each letter with the reference."""

        def verdict(item: Item, answer: str) -> tuple[str, bool, str]:
            letters = LETTERS[: len(item.problem.choices)]
            prediction = answer or letters[derive(0, "mmmu_pro", item.problem.id) % len(letters)]
            return prediction, prediction == item.problem.answer, "" if answer else BY_CHANCE

        return score_by_rule(items, responses, extractions, verdict)

    def mapped(self, response: str) -> str:
        """Return the student's marked answer behind "Answer:"."""
        answer = marked_answer(response)
        return response if answer is None else f"Answer: {answer}"

    def second_opinions(self, items: Sequence[Item], responses: Sequence[str]) -> list[bool | None]:
        """Ask math-verify about the letter and the option's text."""
        questions = []
        for item, response in paired(items, responses):
            answer = item.problem.answer
            text = item.problem.choices[LETTERS.index(answer)]
            questions.append(([answer] if MARK in text else [answer, text], response, True))
        return second_opinions(questions)

    def buckets(self, items: Sequence[Item], scored: Sequence[Scored]) -> dict[str, Any]:
        """Return the accuracy of the subject, by difficulty, and the number of answers drawn by chance."""
        pairs = list(paired(items, scored))
        groups = group_accuracy(
            pairs,
            lambda item: [("topic_difficulty", str(value))] if (value := item.raw.get("topic_difficulty")) else [],
        )
        return {SUBJECT: overall(scored), **groups, "by chance": str(sum(row.note == BY_CHANCE for row in scored))}

    def protocol(self) -> dict[str, Any]:
        """Return prompt and rules."""
        return {
            "benchmark": self.title,
            "setting": self.setting,
            "prompt": self.prompt,
            "extraction": "rule (mmmu-pro/evaluate.py)",
            "scoring": "rule: the letter; without one an option drawn by chance",
            "comparable": "with published figures of the subject Math in the same setting and prompt",
            "second_opinion": version(),
        }


def read_options(position: str, options: Any) -> list[str]:
    """Return the options of a row, which are a list or the text of a list. Raises DataError for anything else."""
    values = options
    if isinstance(options, str) and len(options) <= MAX_OPTIONS_TEXT:
        try:
            values = ast.literal_eval(options)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            values = None
    if not isinstance(values, list) or not 2 <= len(values) <= len(LETTERS):
        raise DataError(
            f'{position}: "options" is a list of 2 to {len(LETTERS)} texts, got {options!r:.80}; correct it'
        )
    return [str(value) for value in values]


def find_option(response: str, options: Sequence[str]) -> str:
    """Return the letter that the authors' rule finds; "" if it finds none."""
    letters = LETTERS[: len(options)]
    _, marker, behind = response.rpartition("Answer:")
    if marker:
        within = [letter for letter in letters if letter in behind]
        if len(within) == 1:
            return within[0]
    for mark in ",.!?;:'":
        response = response.strip(mark)
    response = f" {response} "
    lower = response.lower()

    # How an option is named, and where the last of several is looked for: not always by the same text.
    ways: Iterator[tuple[Mapping[str, str], Mapping[str, str], str]] = iter(
        (
            ({k: f"({k})" for k in letters}, {k: f"({k})" for k in letters}, response),
            ({k: f"{k} " for k in letters}, {k: f" {k} " for k in letters}, response),
            ({k: f"{k}." for k in letters}, {k: f" {k} " for k in letters}, response),
            *([(_lower_texts(options), _lower_texts(options), lower)] if len(response.split()) > 5 else []),
        )
    )
    for named, looked_for, text in ways:
        found = [letter for letter in letters if named[letter] in text]
        if found:
            return max(found, key=lambda letter: text.rfind(looked_for[letter])) if len(found) > 1 else found[0]
    return ""


def _lower_texts(options: Sequence[str]) -> dict[str, str]:
    return {letter: option.lower() for letter, option in zip(LETTERS, options, strict=False)}


def _list_pictures(row: Mapping[str, Any], question: str, options: Sequence[str]) -> list[str]:
    """Return the keys of a row's pictures: in the order of their marks, then those without a mark."""
    placed = [f"image_{number}" for text in (question, *options) for number in _PLACE.findall(text)]
    return placed + [key for k in range(1, 8) if row.get(key := f"image_{k}") and key not in placed]


def _find_image(position: str, row: Mapping[str, Any], key: str, folder: Path, needed: bool) -> tuple[str, ...]:
    """Return the path of a picture. A picture inside the hub's row is written below ``folder`` first."""
    picture = row.get(key)
    if isinstance(picture, dict):
        named = picture_to_file({"id": f"{row['id']}_{key}", "image": picture}, "id", folder, needed)
        picture = named["image"]
    return image_path(position, picture or "", folder, needed)
