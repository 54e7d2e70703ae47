"""DynaMath: Zou et al. 2024, "DynaMath: A Dynamic Visual Benchmark for Evaluating Mathematical Reasoning Robustness of
Vision Language Models" (arXiv 2411.00836).

Source: DynaMath/DynaMath, evaluation/opensource_json_eval.py and gpt_4o_json_eval.py (MIT), and the hub's
DynaMath/DynaMath_Sample (Apache-2.0): 501 seed questions in ten variants each, of other numbers, shapes and colours.
Two figures: average accuracy over all variants, and worst-case accuracy, the share of seed questions with every variant
right. One row, in the repository's names and in the hub's:

    {"question": "...", "answer": "2", "image": "image/image176.png", "answer_type": "float", "subject": "...",
     "level": "high school"}
    {"id": "176", "question": "...", "ground_truth": "2", "image": "...", "answer_type": "float", "subject": "...",
     "knowledge_level": "high school"}

"variant" (1 to 10) tells the variants of a seed question apart in a file of several; without it a row is of variant 1.

The student writes a JSON object. Its "short answer" is compared by the row's "answer_type": a float to 0.001, its first
word alone, with π behind it as a factor; a choice by its letter, in the first three characters of a longer answer; a
text is right where it holds the reference. Backslashes are removed before the object is read. Where it cannot be read,
the last line without its last character is the answer.

Tested on 14 real rows and rule by rule; no published figure was reproduced.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mathse.config.evaluation import DynaMathConfig
from mathse.errors import DataError
from mathse.evaluation.benchmark import LLM, Extraction, Item, Scored, check_choice, paired, share
from mathse.evaluation.benchmarks.common import overall, prompt_file, score_by_rule
from mathse.evaluation.benchmarks.marker import marked_answer
from mathse.evaluation.benchmarks.math_verifier import second_opinions, version
from mathse.evaluation.benchmarks.rows import SourceRow, checked, find_image_folder, image_path, read_file, read_hub
from mathse.inference.prompts import question_text
from mathse.types import Problem

VARIANTS = 10  # of a seed question, on the hub
TOLERANCE = 0.001  # of a float answer, absolute
_REQUIRED = ("question", "answer", "answer_type", "seed", "variant")
_KINDS = ("float", "multiple choice", "text")
_OF_HUB = {"ground_truth": "answer", "knowledge_level": "level"}  # its name of a key -> the repository's
_ALL = "all"


class DynaMath:
    """Options: ``prompt``; "json" is the authors' own."""

    name: ClassVar[str] = "dynamath"
    title: ClassVar[str] = "DynaMath"
    prompts: ClassVar[tuple[str, ...]] = ("json", "plain")
    splits: ClassVar[tuple[str, ...]] = (_ALL, *(f"sample_variant{k}" for k in range(1, VARIANTS + 1)))
    hub: ClassVar[str | None] = "DynaMath/DynaMath_Sample"
    needs_llm: ClassVar[str] = ""

    def __init__(self, settings: DynaMathConfig) -> None:
        self.prompt = settings.prompt
        check_choice("benchmark.dynamath.prompt", self.prompt, self.prompts)

    def check(self) -> None:
        """Nothing beyond Python is needed."""

    def load(
        self, problems: Path | None, images: Path | None = None, split: str | None = None, need_images: bool = True
    ) -> list[Item]:
        """See ``Benchmark.load``. A file is taken whole; of the hub, all ten variants or the split named."""
        split = split or _ALL
        check_choice("benchmark.dynamath.split", split, self.splits)
        if problems is not None:
            rows: Iterator[tuple[SourceRow, Path]] = (
                (row, images or problems.parent) for row in read_file(problems, "id")
            )
        else:
            rows = self._read_hub([split] if split != _ALL else self.splits[1:], images, need_images)
        # Variants use the same picture names, so each variant has a folder.
        folders: dict[str, Path] = {}

        def iterate_renamed() -> Iterator[SourceRow]:
            for (position, row), folder in rows:
                row = _rename_keys(row)
                folders[row["id"]] = folder
                yield SourceRow(position, row)

        items = [
            self._item(row, folders[row.row["id"]], need_images)
            for row in checked(iterate_renamed(), self.name, "id", _REQUIRED)
        ]
        if not items:
            raise DataError(f"{problems or self.hub}: no rows; give DynaMath's problems")
        return items

    def _read_hub(
        self, splits: Sequence[str], images: Path | None, need_images: bool
    ) -> Iterator[tuple[SourceRow, Path]]:
        hub = str(self.hub)
        for split in splits:
            folder = (images or find_image_folder(self.name, (hub, None, split))) / split
            for position, row in read_hub(hub, None, split, "id", folder, need_images):
                yield SourceRow(position, {**row, "variant": int(split.removeprefix("sample_variant"))}), folder

    def _item(self, source: SourceRow, folder: Path, need_images: bool) -> Item:
        position, row = source
        check_choice(f'{position}: "answer_type"', row["answer_type"], _KINDS)
        problem = Problem(
            id=row["id"],
            question=str(row["question"]).strip(),
            images=image_path(position, row.get("image") or "", folder, need_images),
            answer=str(row["answer"]),
            source=self.name,
            metadata={"seed": row["seed"], "variant": row["variant"]},
        )
        if self.prompt == "plain":
            return Item(problem, row, question_text(problem))
        number = "Please answer in a floating-point number." if row["answer_type"] == "float" else ""
        return Item(problem, row, f"## Question\n{row['question']}{number}\n{prompt_file('dynamath_ask')}")

    def extract(self, items: Sequence[Item], responses: Sequence[str], llm: LLM | None = None) -> list[Extraction]:
        """Extract the "short answer" of the JSON object in a response."""
        return [Extraction(extract_short_answer(response)) for _, response in paired(items, responses)]

    def score(
        self, items: Sequence[Item], responses: Sequence[str], extractions: Sequence[Extraction], llm: LLM | None = None
    ) -> list[Scored]:
        """Compare by the kind of the row's answer."""
        return score_by_rule(
            items,
            responses,
            extractions,
            lambda item, answer: (answer, compare_answers(answer, item.problem.answer, item.raw["answer_type"]), ""),
        )

    def mapped(self, response: str) -> str:
        """Return the student's marked answer as the "short answer" of a JSON object."""
        answer = marked_answer(response)
        # without backslashes: the script removes those of JSON too
        return response if answer is None else json.dumps({"short answer": answer.replace("\\", "").replace('"', "")})

    def second_opinions(self, items: Sequence[Item], responses: Sequence[str]) -> list[bool | None]:
        """Ask math-verify about the value or the letter; None for texts, which it cannot read."""
        return second_opinions(
            [
                (
                    [item.problem.answer] if item.raw["answer_type"] != "text" else [],
                    response,
                    item.raw["answer_type"] == "multiple choice",
                )
                for item, response in paired(items, responses)
            ]
        )

    def buckets(self, items: Sequence[Item], scored: Sequence[Scored]) -> dict[str, Any]:
        """Return the "average" and the "worst case", of all and by subject and level.

        A seed question counts in the worst case if all its variants in ``items`` have a verdict.
        """
        return {
            "average": overall(scored),
            "worst case": _compute_worst_case(items, scored, None).get("", share(0, 0)),
            "variants": str(max((len(rows) for rows in _group_by_seed(items, scored).values()), default=0)),
            **{
                f"{key}, {figure}": values
                for key in ("subject", "level")
                for figure, values in (
                    ("average", _compute_average(items, scored, key)),
                    ("worst case", _compute_worst_case(items, scored, key)),
                )
                if values
            },
        }

    def protocol(self) -> dict[str, Any]:
        """Return prompt and rules."""
        return {
            "benchmark": self.title,
            "prompt": self.prompt,
            "extraction": 'rule: the "short answer" of the JSON object',
            "scoring": f"rule, by answer type; floats to {TOLERANCE}",
            "comparable": f"only over all 501 seed questions in {VARIANTS} variants each",
            "second_opinion": version(),
        }


def extract_short_answer(response: str) -> str:
    """Return the answer by the authors' rule; "" for a response that is JSON and no object."""
    start, end = response.find("{"), response.rfind("}")
    text = response[start : end + 1].replace("\\", "") if 0 <= start < end else response
    try:
        found = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return text.split("\n")[-1][:-1]
    return str(found.get("short answer")) if isinstance(found, dict) else ""


def compare_answers(answer: str, reference: str, kind: str) -> bool:
    """Return whether a short answer is correct. An answer that is no number is a wrong float."""
    if kind == "multiple choice":
        return answer == reference if len(answer) == 1 else reference in answer[:3]
    if kind == "text":
        return reference in answer
    try:
        value = float(answer) if answer.isdigit() else _parse_number(answer.split(" ")[0])
        return abs(value - float(reference)) <= TOLERANCE
    except ValueError:
        return False


def _parse_number(word: str) -> float:
    """Return the number before a π times π, or the number of the whole word."""
    before, pi, _ = word.partition("π")
    return float(before) * math.pi if pi else float(word)


def _rename_keys(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row under the repository's names, with an id, its seed question and its variant."""
    renamed = {_OF_HUB.get(key, key): value for key, value in row.items()}
    seed = str(row.get("seed", row.get("id", row.get("pid", "")))).removeprefix("dynamath/")
    variant = row.get("variant", 1)
    return {**renamed, "seed": seed, "variant": variant, "id": f"{seed}/{variant}"}


def _group_by_seed(items: Sequence[Item], scored: Sequence[Scored]) -> dict[str, list[Scored]]:
    """Return seed question -> the verdicts on its variants."""
    rows: dict[str, list[Scored]] = {}
    for item, row in paired(items, scored):
        rows.setdefault(item.raw["seed"], []).append(row)
    return rows


def _compute_average(items: Sequence[Item], scored: Sequence[Scored], key: str) -> dict[str, Any]:
    marks: dict[str, list[bool]] = {}
    for item, row in paired(items, scored):
        if row.correct is not None and key in item.raw:
            marks.setdefault(str(item.raw[key]), []).append(row.correct)
    return {value: share(sum(correct), len(correct)) for value, correct in marks.items()}


def _compute_worst_case(items: Sequence[Item], scored: Sequence[Scored], key: str | None) -> dict[str, Any]:
    """Return the share of seed questions with all variants correct, by the value of ``key``; None: of all, under ""."""
    values = {item.raw["seed"]: "" if key is None else str(item.raw.get(key, "")) for item in items}
    marks: dict[str, list[bool]] = {}
    for seed, rows in _group_by_seed(items, scored).items():
        verdicts = [row.correct for row in rows]
        if None not in verdicts and (key is None or values[seed]):
            marks.setdefault(values[seed], []).append(all(verdicts))
    return {value: share(sum(correct), len(correct)) for value, correct in marks.items()}
