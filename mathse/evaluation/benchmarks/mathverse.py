"""MathVerse: Zhang et al. 2024, "MathVerse: Does Your Multi-modal LLM Truly See the Diagrams in Visual Math Problems?"

Source: ZrrSkywalker/MathVerse (hub: AI4Math/MathVerse), testmini 788 problems in 5 versions, and 788 "Text Only" rows
which are no part of the overall score; MIT. Metric: accuracy with the prompt ``query_wo``, by version, subject and
subfield. One row:

    {"sample_index": "3424", "problem_index": "685", "problem_version": "Vision Dominant", "question": "Find L.",
     "image": "images_version_5/image_685.png", "answer": "14", "question_type": "free-form",
     "metadata": {"subject": "Solid Geometry", "subfield": "Length", ...}, "query_wo": "...", "query_cot": "..."}

An LLM extracts the answer (extract_answer_s1.py; it sees the last ``trunk_response`` words, 30 as in the authors'
command, -1 for all) and an LLM judges it (score_answer_s2.py, the examples of 2024-04-19). Two departures, both where
the released script cannot work: groups are read from "metadata" (it reads a key that no row has), and the question of
a Vision Only row, which is empty, is its ``question_for_eval``, else the one of its Text Dominant version. A judge's
reply counts if it is 0 or 1 once "Judgement:" is removed, as there; on any other reply the script asks again without
end, and here the row is not scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mathse.config.evaluation import MathVerseConfig
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
from mathse.evaluation.benchmarks.math_verifier import second_opinions, version
from mathse.evaluation.benchmarks.rows import SourceRow, image_path, load_items, source_of
from mathse.inference.prompts import question_text
from mathse.types import Problem

EXTRACT, JUDGE = "mathverse-extract/1", "mathverse-judge/1"
MAX_TOKENS = 256
_REQUIRED = ("sample_index", "problem_index", "problem_version", "question_type", "answer")
_TEXT_ONLY = "Text Only"
_VERSIONS = ("Text Dominant", _TEXT_ONLY, "Text Lite", "Vision Intensive", "Vision Dominant")  # the fullest text first
_QUESTION_IN_IMAGE = "According to the question shown in the image, please "
_FORMS = {
    "multi-choice": "provide the correct option letter, e.g., A, B, C, D",
    "free-form": "provide the final value, e.g., 1, 2.5, 300",
}


class MathVerse:
    """Options: ``prompt`` and ``trunk_response`` (how many last words the extractor sees; -1: all)."""

    name: ClassVar[str] = "mathverse"
    title: ClassVar[str] = "MathVerse"
    prompts: ClassVar[tuple[str, ...]] = ("query_wo", "query_cot", "plain")
    splits: ClassVar[tuple[str, ...]] = ("testmini", "testmini_text_only")
    hub: ClassVar[str | None] = "AI4Math/MathVerse"
    needs_llm: ClassVar[str] = "an LLM extracts every answer, and an LLM judges it"

    def __init__(self, settings: MathVerseConfig) -> None:
        self.prompt, self.trunk_response = settings.prompt, settings.trunk_response
        check_choice("benchmark.mathverse.prompt", self.prompt, self.prompts)
        self._models: dict[str, str] = {}

    def check(self) -> None:
        """Nothing beyond Python is needed."""

    def load(
        self, problems: Path | None, images: Path | None = None, split: str | None = None, need_images: bool = True
    ) -> list[Item]:
        """See ``base.Benchmark.load``."""
        split = split or self.splits[0]
        source = source_of(self.name, self.splits, str(self.hub), problems, split, config=split)
        return load_items(self._item, self.name, "sample_index", _REQUIRED, source, images, need_images)

    def _item(self, source: SourceRow, folder: Path, need_images: bool) -> Item:
        position, row = source
        check_choice(f'{position}: "question_type"', row["question_type"], tuple(_FORMS))
        has_image = row["problem_version"] != _TEXT_ONLY
        problem = Problem(
            id=row["sample_index"],
            question=row.get("question") or row.get("question_for_eval") or "",
            images=image_path(position, row.get("image") or "", folder, need_images and has_image),
            answer=str(row["answer"]),
            source=self.name,
            metadata={"version": row["problem_version"], "problem": str(row["problem_index"])},
        )
        return Item(problem, row, question_text(problem) if self.prompt == "plain" else query(row, self.prompt))

    def extract(self, items: Sequence[Item], responses: Sequence[str], llm: LLM | None) -> list[Extraction]:
        """By ``llm``, all in one go."""
        responses = [response for _, response in paired(items, responses)]
        if llm is None:
            return [Extraction(None, NOT_SCORED)] * len(responses)
        self._models["extractor"] = llm.model
        prompts = [extraction_prompt(response, self.trunk_response) for response in responses]
        return [
            Extraction(None, NOT_SCORED)
            if reply is None
            else Extraction(reply.replace("Extracted Answer: ", "").strip(), f"llm:{EXTRACT}")
            for reply in llm.ask(prompts, EXTRACT, MAX_TOKENS)
        ]

    def score(
        self, items: Sequence[Item], responses: Sequence[str], extractions: Sequence[Extraction], llm: LLM | None
    ) -> list[Scored]:
        """By ``llm``; a row without extraction, without ``llm`` or with an unreadable judgement is not scored."""
        table = list(paired(items, responses, extractions))
        questions = evaluated_questions(items)
        extracted = {k: extraction.text for k, extraction in enumerate(extractions) if extraction.text is not None}
        replies: dict[int, str | None] = {}
        if llm is not None and extracted:
            self._models["judge"] = llm.model
            prompts = [judge_prompt(questions[k], items[k].problem.answer, text) for k, text in extracted.items()]
            replies = dict(zip(extracted, llm.ask(prompts, JUDGE, MAX_TOKENS), strict=True))
        scored = []
        for k, (item, response, extraction) in enumerate(table):
            text, answer = extraction.text, item.problem.answer
            correct, note = None, ""
            if text is None:
                note = "the answer was not extracted"
            elif k not in replies:
                note = "there is no judge"
            elif (correct := judgement(replies[k])) is None:
                reply = replies[k]
                content = "nothing usable" if reply is None else repr(reply[:80])
                note = f"the judge said {content}, neither 0 nor 1"
            if correct is None:
                scored.append(unscored(item, response, extraction, answer, note))
            else:
                decided_by = f"{extraction.decided_by}+llm:{JUDGE}"
                scored.append(Scored(item.problem.id, response, text, text, answer, correct, decided_by))
        return scored

    def mapped(self, response: str) -> str:
        """The response itself: an LLM reads any marker."""
        return response

    def second_opinions(self, items: Sequence[Item], responses: Sequence[str]) -> list[bool | None]:
        """math-verify on letter or value; None for the golds of several letters, which it cannot read."""
        questions = []
        for item, response in paired(items, responses):
            references = [] if "\n" in item.problem.answer else [item.problem.answer]
            questions.append((references, response, item.raw["question_type"] == "multi-choice"))
        return second_opinions(questions)

    def buckets(self, items: Sequence[Item], scored: Sequence[Scored]) -> dict[str, Any]:
        """The "total", and by "version", "subject" and "subfield" ("Plane Geometry-Angle"). Text Only rows count under
        "version" alone, unless there are no others."""
        pairs = list(paired(items, scored))
        # Text Only is no part of the paper's overall score.
        counted = [pair for pair in pairs if pair[0].raw["problem_version"] != _TEXT_ONLY] or pairs
        versions = group_accuracy(pairs, lambda item: [("version", item.raw["problem_version"])])
        return {"total": overall([row for _, row in counted]), **versions, **group_accuracy(counted, _groups)}

    def protocol(self) -> dict[str, Any]:
        """What decided."""
        return {
            "benchmark": self.title,
            "prompt": self.prompt,
            "extraction": f"LLM ({EXTRACT}), the last {self.trunk_response} words"
            if self.trunk_response > 0
            else f"LLM ({EXTRACT})",
            "scoring": f"LLM ({JUDGE}), replies other than 0 and 1 not scored",
            "extractor": self._models.get("extractor"),
            "judge": self._models.get("judge"),
            "second_opinion": version(),
        }


def query(row: Mapping[str, Any], name: str) -> str:
    """``query_wo`` or ``query_cot``: the row's own, else built as the authors' are."""
    if isinstance(published := row.get(name), str) and published.strip():
        return published
    form = _FORMS[row["question_type"]]
    request = f"first conduct reasoning, and then answer the question and {form}, at the end."
    if name == "query_wo":
        request = f"directly answer the question and {form}."
    question = row.get("question")
    return f"Please {request}\nQuestion: {question}" if question else f"{_QUESTION_IN_IMAGE}{request}"


def extraction_prompt(response: str, last_words: int) -> str:
    """What the extractor is asked; only spaces part words, as in the script."""
    shown = " ".join(response.split(" ")[-last_words:]) if last_words > 0 else response
    return f"{prompt_file('mathverse_extract')}\n\nModel response: '{shown}'\nExtracted Answer: "


def judge_prompt(question: str, reference: str, extraction: str) -> str:
    """What the judge is asked."""
    return prompt_file("mathverse_judge").format(question=question, gt=reference, extraction=extraction)


def judgement(reply: str | None) -> bool | None:
    """The judge's 0 or 1, strictly; None for anything else: "The answer 10 is wrong" says neither."""
    return {"1": True, "0": False}.get((reply or "").replace("Judgement:", "").strip())


def evaluated_questions(items: Sequence[Item]) -> list[str]:
    """The question that the judge sees of each item."""
    # problem -> version -> question
    versions: dict[str, dict[str, str]] = {}
    for item in items:
        if question := item.raw.get("question"):
            versions.setdefault(item.problem.metadata["problem"], {})[item.raw["problem_version"]] = question
    questions = []
    for item in items:
        others = versions.get(item.problem.metadata["problem"], {})
        fullest = next((others[name] for name in _VERSIONS if name in others), "")
        questions.append(str(item.raw.get("question_for_eval") or item.raw.get("question") or fullest))
    return questions


def _groups(item: Item) -> Iterator[Group]:
    row = metadata(item.raw)
    subject, subfield = row.get("subject"), row.get("subfield")
    if subject:
        yield "subject", subject
    if subject and subfield:
        yield "subfield", f"{subject}-{subfield}"
