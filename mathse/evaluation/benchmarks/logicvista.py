"""LogicVista: Xiao et al. 2024, "LogicVista: Multimodal LLM Logical Reasoning Benchmark in Visual Contexts" (arXiv
2407.04973).

Source: Yijia-Xiao/LogicVista, data/dataset.json and eval/extract_accuracy_new.py (Apache-2.0): 448 multiple-choice
questions, an object of id -> row. The options stand in the picture, and several may be right. One row:

    "v1_1": {"imagename": "v1_1.png", "question": "Which choices in the image (A-D) ...?", "answer": "A, C",
             "skill": ["inductive"], "capability": ["diagram"]}

An LLM names the options that a response chose (the authors: gpt-4); right is exactly the reference's set. Two rules
come first, as in the script: the text before "ASSISTANT:" is left out, and a lone character that is none of A to E and
no digit has chosen nothing. A third rule is ours: a response of nothing but options, such as "B" or "A, C", chose
these. The authors ask their LLM for these too; in their published results it never answered otherwise.

Tested on published answers and extractions of LLaVA-7B; no published figure was reproduced.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from mathse.config.evaluation import LogicVistaConfig
from mathse.errors import ConfigError, DataError
from mathse.evaluation.benchmark import LLM, NOT_SCORED, Extraction, Item, Scored, check_choice, paired, share
from mathse.evaluation.benchmarks.common import overall, prompt_file, score_by_rule
from mathse.evaluation.benchmarks.marker import marked_answer
from mathse.evaluation.benchmarks.math_verifier import second_opinions, version
from mathse.evaluation.benchmarks.rows import SourceRow, load_items
from mathse.evaluation.benchmarks.rows import image_path as path_of_image
from mathse.types import Problem

EXTRACT = "logicvista-extract-1"  # the wording of prompts/logicvista_extract.txt
MAX_TOKENS = 256  # of the extractor's reply
NOTHING = "ZZZZZ"  # the script's word for no option
MAX_RESPONSE = 20_000  # characters that the extractor reads
SKILLS = ("inductive", "deductive", "numerical", "spatial", "mechanical")
CAPABILITIES = {"Diagram": {"diagram"}, "OCR": {"ocr"}, "OCR and Diagram": {"diagram", "ocr"}}
_REQUIRED = ("id", "question", "answer", "imagename", "skill", "capability")
_OPTIONS = re.compile(r"[A-Ia-i1-9](?:, ?[A-Ia-i1-9]){0,8}")


class LogicVista:
    """Options: ``prompt``; "question" is the question alone, as the authors ask it."""

    name: ClassVar[str] = "logicvista"
    title: ClassVar[str] = "LogicVista"
    prompts: ClassVar[tuple[str, ...]] = ("question",)
    splits: ClassVar[tuple[str, ...]] = ("test",)
    hub: ClassVar[str | None] = None
    needs_llm: ClassVar[str] = "an LLM extracts the options from responses that are more than options"

    def __init__(self, settings: LogicVistaConfig) -> None:
        self.prompt = settings.prompt
        check_choice("benchmark.logicvista.prompt", self.prompt, self.prompts)
        self._extractor: str | None = None

    def check(self) -> None:
        """Nothing beyond Python is needed."""

    def load(
        self, problems: Path | None, images: Path | None = None, split: str | None = None, need_images: bool = True
    ) -> list[Item]:
        """See ``Benchmark.load``; ConfigError without a file. The pictures lie in images/ beside it."""
        check_choice("benchmark.logicvista.split", split or "test", self.splits)
        if problems is None:
            raise ConfigError("LogicVista is read from its file: benchmark.logicvista.problems=data/dataset.json")
        folder = images or problems.parent / "images"
        return load_items(self._item, self.name, "id", _REQUIRED, problems, folder, need_images)

    def _item(self, source: SourceRow, folder: Path, need_images: bool) -> Item:
        position, row = source
        for key in ("skill", "capability"):
            if not isinstance(row[key], list):
                raise DataError(f'{position}: "{key}" is a list of words, got {row[key]!r:.80}; correct the row')
        problem = Problem(
            id=row["id"],
            question=str(row["question"]).strip(),
            images=path_of_image(position, row["imagename"], folder, need_images),
            answer=str(row["answer"]),
            source=self.name,
            metadata={"skill": row["skill"], "capability": row["capability"]},
        )
        return Item(problem, row, problem.question)

    def extract(self, items: Sequence[Item], responses: Sequence[str], llm: LLM | None) -> list[Extraction]:
        """Extract by rule if a response is nothing but options; else by ``llm``, all together."""
        extractions = [Extraction(read_options_by_rule(response)) for _, response in paired(items, responses)]
        open_ = [k for k, extraction in enumerate(extractions) if extraction.text is None]
        replies: list[str | None] = [None] * len(open_)
        if llm is not None and open_:
            self._extractor = llm.model
            prompts = [build_extraction_prompt(items[k].problem.question, responses[k]) for k in open_]
            replies = list(llm.ask(prompts, EXTRACT, MAX_TOKENS))
        for k, reply in zip(open_, replies, strict=True):
            found = None if reply is None else read_options_in(reply)
            extractions[k] = Extraction(found, NOT_SCORED if found is None else f"llm:{EXTRACT}")
        return extractions

    def score(
        self, items: Sequence[Item], responses: Sequence[str], extractions: Sequence[Extraction], llm: LLM | None = None
    ) -> list[Scored]:
        """Compare each set of options with the reference."""

        def verdict(item: Item, answer: str) -> tuple[str, bool, str]:
            chosen = _split_options(answer)
            return ", ".join(chosen), chosen == _split_options(item.problem.answer), ""

        return score_by_rule(items, responses, extractions, verdict)

    def mapped(self, response: str) -> str:
        """Return the student's marked answer, if it is nothing but options."""
        answer = marked_answer(response)
        return response if answer is None or not _OPTIONS.fullmatch(answer) else answer

    def second_opinions(self, items: Sequence[Item], responses: Sequence[str]) -> list[bool | None]:
        """Ask math-verify about the letter or number; None where several options are right."""
        pairs = paired(items, responses)
        return second_opinions(
            [
                ([answer] if len(_split_options(answer := item.problem.answer)) == 1 else [], text, True)
                for item, text in pairs
            ]
        )

    def buckets(self, items: Sequence[Item], scored: Sequence[Scored]) -> dict[str, Any]:
        """Return the authors' figures under their names: "Total", by reasoning skill, by capability."""
        marks = [(item.raw, row.correct) for item, row in paired(items, scored) if row.correct is not None]

        def of(key: str, wanted: set[str]) -> dict[str, float | int]:
            correct = [mark for row, mark in marks if wanted <= set(row[key])]
            return share(sum(correct), len(correct))

        return {
            "Total": overall(scored),
            **{skill.capitalize(): of("skill", {skill}) for skill in SKILLS},
            **{name: of("capability", wanted) for name, wanted in CAPABILITIES.items()},
        }

    def protocol(self) -> dict[str, Any]:
        """Return prompt and rules."""
        return {
            "benchmark": self.title,
            "prompt": self.prompt,
            "extraction": f"rule for responses of options alone, else LLM ({EXTRACT})",
            "scoring": "rule: the set of options",
            "extractor": self._extractor,
            "second_opinion": version(),
        }


def read_options_by_rule(response: str) -> str | None:
    """Return the options of a response that needs no LLM; "" for an empty response, None for any other."""
    entry = _strip_marker(response)
    if not entry:
        return ""
    if len(entry) == 1 and not (entry.isnumeric() or entry.lower() in "abcde"):
        return NOTHING
    return entry if _OPTIONS.fullmatch(entry) else None


def build_extraction_prompt(question: str, response: str) -> str:
    """Build the prompt of the extractor."""
    return prompt_file("logicvista_extract").format(question=question, entry=_strip_marker(response)[:MAX_RESPONSE])


def read_options_in(reply: str) -> str:
    """Return the options in an extractor's reply; ``NOTHING`` for a reply without such a JSON object, as in the
    script, which gives up after its retries."""
    start, end = reply.find("{"), reply.rfind("}")
    try:
        found = json.loads(reply[start : end + 1])
    except (ValueError, RecursionError):
        return NOTHING
    choices = found.get("choices") if isinstance(found, dict) else None
    return ", ".join(map(str, choices)) if isinstance(choices, list) and choices else NOTHING


def _strip_marker(response: str) -> str:
    _, marker, behind = response.partition("ASSISTANT:")
    return (behind.partition("ASSISTANT:")[0] if marker else response).strip()


def _split_options(text: str) -> list[str]:
    """Return the options of "A, C", sorted, in lower case."""
    return sorted(option.strip().lower() for option in text.split(","))
