"""MathVista: Lu et al. 2024, "MathVista: Evaluating Mathematical Reasoning of Foundation Models in Visual Contexts".

Source: lupantech/MathVista (hub: AI4Math/MathVista), testmini 1,000 rows with answers, test 5,141 without; annotations
CC BY-SA 4.0, not to be trained on. Metric: accuracy, and accuracy by type, language, source, category, task, context,
grade and skill (74 groups on testmini). One row:

    {"pid": "2", "question": "what is the total volume of the measuring cup?", "image": "images/2.jpg",
     "choices": null, "unit": "g", "precision": null, "answer": "1000", "question_type": "free_form",
     "answer_type": "integer", "metadata": {"task": "visual question answering", "skills": ["..."], ...}}

Extraction (extract_answer.py): by rule where the response is a choice, an int or a float as it stands, else by an LLM
with five examples. Scoring (calculate_score.py): by rule; a multiple-choice answer that names no option becomes the
option at the smallest edit distance, so something is always chosen. ``rule="released"`` reads an integer as
``int(float(x))``, as every released script does; ``rule="strict"`` as ``int(x)``, which the score files of 2023 obey.

The student's own marker is mapped to ``The answer is "x".``, the sentence that --quick_extract reads; a response that
is this sentence and no more is read by that rule always, any other only with ``quick_extract=True``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mathse.errors import DataError
from mathse.evaluation.benchmarks import rows
from mathse.evaluation.benchmarks.base import LLM, NOT_SCORED, Extraction, Item, Scored
from mathse.evaluation.benchmarks.common import (
    Group,
    check_choice,
    group_accuracy,
    load_items,
    metadata,
    paired,
    prompt_file,
    share,
    unscored,
)
from mathse.evaluation.benchmarks.edit_distance import nearest
from mathse.evaluation.benchmarks.marker import marked_answer
from mathse.evaluation.benchmarks.math_verifier import second_opinion, version
from mathse.evaluation.benchmarks.mathvista_query import query, solution_query
from mathse.inference.prompts import question_text
from mathse.types import Problem

EXTRACT = "mathvista-extract/1"
MAX_TOKENS = 1024  # of the extractor's reply
_REQUIRED = ("pid", "question_type", "answer_type", "choices", "precision")
_QUICK = ('The answer is "', '".')  # an answer stands between them, in one line
_LETTER = re.compile(r"\(([a-zA-Z])\)")
_GROUPS = ("question_type", "answer_type", "language", "source", "category", "task", "context", "grade")
_RENAMED = {"not applicable": "daily life"}  # a grade in the data, as the score files call it


class MathVista:
    """Options: ``prompt``, ``rule``, ``quick_extract`` and ``ignore_empty`` (an empty extraction picks no option)."""

    name: ClassVar[str] = "mathvista"
    title: ClassVar[str] = "MathVista"
    prompts: ClassVar[tuple[str, ...]] = ("query", "solution", "plain")
    splits: ClassVar[tuple[str, ...]] = ("testmini", "test")
    hub: ClassVar[str | None] = "AI4Math/MathVista"
    needs_llm: ClassVar[str] = "an LLM extracts the answer from each response that is not an answer and no more"

    def __init__(
        self, prompt: str = "query", rule: str = "released", quick_extract: bool = False, ignore_empty: bool = False
    ) -> None:
        check_choice("benchmark.mathvista.prompt", prompt, self.prompts)
        check_choice("benchmark.mathvista.rule", rule, ("released", "strict"))
        self.prompt, self.rule, self.quick_extract, self.ignore_empty = prompt, rule, quick_extract, ignore_empty
        self._model: str | None = None

    def check(self) -> None:
        """Nothing beyond Python is needed."""

    def load(
        self, problems: Path | None, images: Path | None = None, split: str | None = None, need_images: bool = True
    ) -> list[Item]:
        """See ``base.Benchmark.load``."""
        check_choice("benchmark.mathvista.split", split or self.splits[0], self.splits)
        source = problems or (str(self.hub), None, split or self.splits[0])
        return load_items(self._item, self.name, "pid", _REQUIRED, source, images, need_images)

    def _item(self, place: rows.Place, folder: Path, need_images: bool) -> Item:
        where, row = place
        if need_images and not row.get("question"):
            raise DataError(f"{where}: a row without question, as in an output file; give the problems (testmini.json)")
        problem = Problem(
            id=row["pid"],
            question=row.get("question") or "",
            images=rows.image_path(where, row.get("image") or "", folder, need_images),
            answer=str(row.get("answer") or ""),
            choices=tuple(row["choices"] or ()),
            source=self.name,
        )
        return Item(problem, row, self._asked(problem, row))

    def _asked(self, problem: Problem, row: Mapping[str, Any]) -> str:
        if self.prompt == "plain":
            return question_text(problem)
        return query(row) if self.prompt == "query" else solution_query(row)

    def extract(self, items: Sequence[Item], responses: Sequence[str], llm: LLM | None) -> list[Extraction]:
        """By rule where the official script does so, the rest by ``llm`` in one go."""
        found = {k: text for k, pair in enumerate(paired(items, responses)) if (text := self._ruled(*pair)) is not None}
        rest = [k for k in range(len(items)) if k not in found]
        replies: Sequence[str | None] = [None] * len(rest)
        if llm is not None and rest:
            self._model = llm.model
            replies = llm.ask([extraction_prompt(items[k], responses[k]) for k in rest], EXTRACT, MAX_TOKENS)
        asked = dict(zip(rest, replies, strict=True))
        return [
            Extraction(found[k]) if k in found else _from_llm(asked[k], f"llm:{EXTRACT}") for k in range(len(items))
        ]

    def _ruled(self, item: Item, response: str) -> str | None:
        row = item.raw
        if response == "" or row["question_type"] == "multi_choice" and response in (row["choices"] or ()):
            return response
        try:
            if row["answer_type"] == "integer":
                return str(int(response))
            if row["answer_type"] == "float":
                return str(float(response))
        except ValueError:
            pass
        return _quick(response) if self.quick_extract else _whole_quick(response)

    def score(
        self, items: Sequence[Item], responses: Sequence[str], extractions: Sequence[Extraction], llm: LLM | None = None
    ) -> list[Scored]:
        """The official verdicts; an LLM has no part in them."""
        return [self._verdict(*row) for row in paired(items, responses, extractions)]

    def _verdict(self, item: Item, response: str, extraction: Extraction) -> Scored:
        answer = item.raw.get("answer")
        if extraction.text is None:
            return unscored(item, response, extraction, str(answer or ""), "the answer was not extracted")
        if answer is None or answer == "":
            return unscored(item, response, extraction, "", "the answers of this split are not public")
        prediction = self.normalized(extraction.text, item.raw)
        correct = prediction == answer
        return Scored(
            item.problem.id, response, extraction.text, prediction, answer, correct, f"{extraction.decided_by}+rule"
        )

    def normalized(self, extraction: str, row: Mapping[str, Any]) -> str | None:
        """The extraction in the form of the reference; None where it has none (and so is wrong)."""
        if row["question_type"] == "multi_choice":
            return self._option(extraction.strip(), row["choices"])
        try:
            if row["answer_type"] == "integer":
                return str(int(extraction) if self.rule == "strict" else int(float(extraction)))
            if row["answer_type"] == "float":
                return str(round(float(extraction), int(row["precision"])))
        except (ValueError, TypeError, OverflowError):
            return None
        return extraction

    def _option(self, extraction: str, choices: list[str]) -> str | None:
        if self.ignore_empty and not extraction:
            return None
        if letter := _LETTER.search(extraction):
            extraction = letter[1].upper()
        if len(extraction) == 1 and 0 <= (place := ord(extraction) - ord("A")) < len(choices):
            return choices[place]
        return nearest(extraction, choices)

    def mapped(self, response: str) -> str:
        """The marked answer in the sentence that the official quick rule reads."""
        answer = marked_answer(response)
        return response if answer is None else f'The answer is "{answer}".'

    def second_opinions(self, items: Sequence[Item], responses: Sequence[str]) -> list[bool | None]:
        """math-verify on option letter and text, or on the value."""
        return [
            second_opinion(_references(item.problem), response, bool(item.problem.choices))
            for item, response in paired(items, responses)
        ]

    def buckets(self, items: Sequence[Item], scored: Sequence[Scored]) -> dict[str, Any]:
        """The "average", then group -> key -> {"accuracy", "correct", "total"}, the best first."""
        found = group_accuracy(paired(items, scored), _groups)
        marks = [row.correct for row in scored if row.correct is not None]
        ordered = {
            group: dict(sorted(found.get(group, {}).items(), key=lambda entry: entry[1]["accuracy"], reverse=True))
            for group in (*_GROUPS, "skills")
        }
        return {"average": share(sum(marks), len(marks)), **ordered}

    def protocol(self) -> dict[str, Any]:
        """What decided."""
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


def _quick(response: str) -> str | None:
    """What the script's 'The answer is "(.*)"\\.' finds, in linear time: of the first line that has both ends."""
    start, end = _QUICK
    for line in response.split("\n"):
        _, begun, rest = line.partition(start)
        if begun and end in rest:
            return rest.rpartition(end)[0]
    return None


def _whole_quick(response: str) -> str | None:
    """The same where it is the whole response."""
    found = _quick(response)
    return found if found is not None and response == found.join(_QUICK) else None


def extraction_prompt(item: Item, response: str) -> str:
    """What the official script asks the extractor; the example's tag "Model response:" is missing there too."""
    return f"{prompt_file('mathvista_extract')}\n\n{query(item.raw)}\n\n{response}\n\nExtracted answer: "


def _from_llm(reply: str | None, decided_by: str) -> Extraction:
    return Extraction(None, NOT_SCORED) if reply is None else Extraction(reply.strip(), decided_by)


def _references(problem: Problem) -> list[str]:
    if problem.answer in problem.choices:
        return [problem.answer, chr(ord("A") + problem.choices.index(problem.answer))]
    return [problem.answer]


def _groups(item: Item) -> Iterator[Group]:
    row = {**item.raw, **metadata(item.raw)}
    for group in _GROUPS:
        if (key := row.get(group)) is not None:
            yield group, _RENAMED.get(key, key) if group == "grade" else str(key)
    yield from (("skills", str(skill)) for skill in row.get("skills") or ())
