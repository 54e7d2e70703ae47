"""We-Math: Qiao et al. 2024, "We-Math: Does Your Large Multimodal Model Achieve Human-like Mathematical Reasoning?".

Source: We-Math/We-Math, data/testmini.json, 1,740 rows of 525 composite problems; CC BY-NC 4.0; for evaluation only.
Each composite problem (key "2steps_multi", "3steps_multi") and its one-step problems ("2steps_1", "2steps_2", ...) have
the same ID. A row:

    {"ID": "2steps_5", "key": "2steps_1", "question": "...", "option": "A. 1 cm;B. 1.5 cm;C. 3.14 cm; D. ...",
     "answer": "A", "image_path": "2steps/image/5-1.png", "knowledge concept": "Circumference of Circles"}

By the authors' rule the answer is the first letter behind the last "Answer" in a response. Their aggregates are the
accuracy by number of steps, and four outcomes of composite problems: insufficient knowledge (the problem and a step are
wrong), inadequate generalization (all steps are right, the problem is wrong), complete mastery (both are right), rote
memorization (the problem is right, steps are wrong). Rote memorization needs a wrong step under the strict rule, and
only wrong steps under the loose rule. Score (strict) = mastery + half of inadequate generalization. Rote memorization
is a share of the composite problems with a right answer.

Tests use 14 real rows, all of them the first of two steps, and each rule by itself; no published figure was reproduced.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mathse.config.evaluation import WeMathConfig
from mathse.data.readers.llava import options_of
from mathse.errors import ConfigError, DataError
from mathse.evaluation.benchmark import LLM, Extraction, Item, Scored, check_choice, paired, share
from mathse.evaluation.benchmarks.common import score_by_rule
from mathse.evaluation.benchmarks.marker import marked_answer
from mathse.evaluation.benchmarks.math_verifier import second_opinions, version
from mathse.evaluation.benchmarks.rows import SourceRow, checked, image_path, read_file
from mathse.inference.prompts import question_text
from mathse.types import Problem

_REQUIRED = ("ID", "key", "question", "answer")
_KEY = re.compile(r"([23])steps_(1|2|3|multi)")
_LETTERS = "ABCDEFGH"
_ASK = (
    "Now, we require you to solve a multiple-choice math question. Please briefly describe your thought process and "
    "provide the final answer(option).\nQuestion: {question}\nOption: {option}\nRegarding the format, please answer "
    "following the template below, and be sure to include two <> symbols:\n<Thought process>: <<your thought process>> "
    "<Answer>: <<your option>>"
)


class WeMath:
    """Option ``prompt``: "cot" is the authors' prompt."""

    name: ClassVar[str] = "wemath"
    title: ClassVar[str] = "We-Math"
    prompts: ClassVar[tuple[str, ...]] = ("cot", "plain")
    splits: ClassVar[tuple[str, ...]] = ("testmini",)
    hub: ClassVar[str | None] = None
    needs_llm: ClassVar[str] = ""

    def __init__(self, settings: WeMathConfig) -> None:
        self.prompt = settings.prompt
        check_choice("benchmark.wemath.prompt", self.prompt, self.prompts)

    def check(self) -> None:
        """Do nothing: scoring needs only Python."""

    def load(
        self, problems: Path | None, images: Path | None = None, split: str | None = None, need_images: bool = True
    ) -> list[Item]:
        """Read the rows; see ``Benchmark.load``. Raises ConfigError without a file."""
        check_choice("benchmark.wemath.split", split or "testmini", self.splits)
        if problems is None:
            raise ConfigError("We-Math is read from its file: benchmark.wemath.problems=data/testmini.json")
        rows = (SourceRow(position, _add_id(row)) for position, row in read_file(problems, "id"))
        folder = images or problems.parent
        items = [self._item(row, folder, need_images) for row in checked(rows, self.name, "id", _REQUIRED)]
        if not items:
            raise DataError(f"{problems}: no rows; give We-Math's problems")
        return items

    def _item(self, source: SourceRow, folder: Path, need_images: bool) -> Item:
        position, row = source
        options = row.get("options") or options_of(str(row.get("option", "")))
        if not _KEY.fullmatch(str(row["key"])):
            raise DataError(
                f'{position}: "key" {row["key"]!r:.40} is none of 2steps_1 to 3steps_multi; correct the row'
            )
        if str(row["answer"]) not in _LETTERS[: len(options)]:
            raise DataError(f'{position}: "answer" {row["answer"]!r:.40} is none of {len(options)} options; correct it')
        problem = Problem(
            id=row["id"],
            question=str(row["question"]).strip(),
            images=image_path(position, row.get("image_path") or row.get("image") or "", folder, need_images),
            answer=str(row["answer"]),
            choices=tuple(options),
            source=self.name,
            metadata={"ID": row["ID"], "key": row["key"]},
        )
        if self.prompt == "plain":
            return Item(problem, row, question_text(problem))
        option = row.get("option") or "; ".join(f"{a}. {b}" for a, b in zip(_LETTERS, options, strict=False))
        return Item(problem, row, _ASK.format(question=row["question"], option=option))

    def extract(self, items: Sequence[Item], responses: Sequence[str], llm: LLM | None = None) -> list[Extraction]:
        """Extract by the authors' rule; "" if it finds no letter."""
        return [Extraction(_letter(response)) for _, response in paired(items, responses)]

    def score(
        self, items: Sequence[Item], responses: Sequence[str], extractions: Sequence[Extraction], llm: LLM | None = None
    ) -> list[Scored]:
        """Compare each letter with the reference."""
        return score_by_rule(
            items, responses, extractions, lambda item, answer: (answer, answer == item.problem.answer, "")
        )

    def mapped(self, response: str) -> str:
        """Return the student's marked answer behind "<Answer>:"."""
        answer = marked_answer(response)
        return response if answer is None else f"<Answer>: <<{answer}>>"

    def second_opinions(self, items: Sequence[Item], responses: Sequence[str]) -> list[bool | None]:
        """Ask math-verify, with the option's letter and text as references."""
        pairs = paired(items, responses)
        return second_opinions([(_references(item.problem), response, True) for item, response in pairs])

    def buckets(self, items: Sequence[Item], scored: Sequence[Scored]) -> dict[str, Any]:
        """Return the official aggregates: accuracy by number of steps, and the four outcomes of composite problems.

        Outcomes are the official strings "share (count)", over the composite problems with all of their steps.
        """
        # 1. Accuracy by number of steps.
        correct_by_id: dict[str, dict[str, bool]] = {}  # ID -> step ("1", ..., "multi") -> correct
        marks: dict[str, list[bool]] = {"One-step(S1)": [], "Two-step(S2)": [], "Three-step(S3)": []}
        for item, row in paired(items, scored):
            if row.correct is None:
                continue
            number, step = _steps(item)
            correct_by_id.setdefault(item.raw["ID"], {})[step] = row.correct
            name = "One-step(S1)"
            if step == "multi":
                name = "Two-step(S2)" if number == 2 else "Three-step(S3)"
            marks[name].append(row.correct)
        by_steps = {name: share(sum(values), len(values)) for name, values in marks.items() if values}

        # 2. Outcomes of the composite problems with all of their steps.
        number_of_steps = {item.raw["ID"]: _steps(item)[0] for item in items}
        complete = []
        for problem_id, steps in correct_by_id.items():
            if "multi" in steps and len(steps) == number_of_steps[problem_id] + 1:
                complete.append(steps)
        if not complete:
            return by_steps
        return {**by_steps, "composite problems": str(len(complete)), **_outcomes(complete)}

    def protocol(self) -> dict[str, Any]:
        """Return prompt and rules."""
        return {
            "benchmark": self.title,
            "prompt": self.prompt,
            "extraction": 'rule: the letter behind the last "Answer"',
            "scoring": "rule: the letter",
            "comparable": "only if all 1,740 problems of testmini were asked",
            "second_opinion": version(),
        }


def _outcomes(complete: Sequence[Mapping[str, bool]]) -> dict[str, str]:
    """Return the four outcomes and the score, strict and loose, under their official names.

    ``complete``: step -> correct, for each composite problem.
    """
    counts: Counter[str] = Counter()
    for marks in complete:
        steps = [mark for step, mark in marks.items() if step != "multi"]
        composite = marks["multi"]
        if not composite:
            counts["InadequateGeneralization" if all(steps) else "InsufficientKnowledge"] += 1
            continue
        for rule, known in (("Strict", all(steps)), ("Loose", any(steps))):
            counts[f"{'CompleteMastery' if known else 'RoteMemorization'} ({rule})"] += 1
    n, unknown, stuck = len(complete), counts["InsufficientKnowledge"], counts["InadequateGeneralization"]
    outcomes: dict[str, str] = {}
    for rule in ("Strict", "Loose"):
        mastered, by_rote = counts[f"CompleteMastery ({rule})"], counts[f"RoteMemorization ({rule})"]
        score = (n - 0.5 * stuck - by_rote - unknown) / n
        outcomes |= {
            f"Score ({rule})": f"{score:.2%}",
            f"InsufficientKnowledge ({rule})": f"{unknown / n:.2%} ({unknown})",
            f"InadequateGeneralization ({rule})": f"{stuck / n:.2%} ({stuck})",
            f"CompleteMastery ({rule})": f"{mastered / n:.2%} ({mastered})",
            f"RoteMemorization ({rule})": f"{by_rote / ((mastered + by_rote) or 1):.2%} ({by_rote})",
        }
    return outcomes


def _add_id(row: dict[str, Any]) -> dict[str, Any]:
    """Add a unique id to a published row: the steps of a problem share its ID."""
    if "ID" in row and "key" in row and "id" not in row:
        return {**row, "id": f"{row['ID']}/{row['key']}"}
    return row


def _letter(response: str) -> str:
    """Apply the authors' rule: the first letter behind the last "Answer"; "" if it names no option."""
    answer = re.sub(r"[><:.]", "", response.split("Answer")[-1].strip()).strip()
    return answer[0] if answer and answer[0] in _LETTERS else ""


def _steps(item: Item) -> tuple[int, str]:
    """Split the key "2steps_multi" into (2, "multi")."""
    steps, _, step = str(item.raw["key"]).partition("steps_")
    return int(steps), step


def _references(problem: Problem) -> list[str]:
    return [problem.answer, problem.choices[ord(problem.answer) - ord("A")]]
