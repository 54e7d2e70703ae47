"""MathVerse: Zhang et al. 2024, "MathVerse: Does Your Multi-modal LLM Truly See the Diagrams in Visual Math Problems?"

Source: ZrrSkywalker/MathVerse (hub: AI4Math/MathVerse), testmini 788 problems in 5 versions, and 788 "Text Only" rows
that do not count for the overall score; MIT. Metric: accuracy with the prompt ``query_wo``, by version, subject and
subfield. A row:

    {"sample_index": "3424", "problem_index": "685", "problem_version": "Vision Dominant", "question": "Find L.",
     "image": "images_version_5/image_685.png", "answer": "14", "question_type": "free-form",
     "metadata": {"subject": "Solid Geometry", "subfield": "Length", ...}, "query_wo": "...", "query_cot": "..."}

An LLM extracts the answer (extract_answer_s1.py; it sees the last ``trunk_response`` words, 30 as in the authors'
command, -1 for all) and an LLM judges it (score_answer_s2.py, the examples of 2024-04-19). There are three differences
from the released script, where it cannot work. Groups are read from "metadata"; the script reads a key that no row has.
A Vision Only row has an empty question; the judge sees its ``question_for_eval``, else the question of its Text
Dominant version. A judge's reply counts if it is 0 or 1 after "Judgement:" is removed, as in the script; after any
other reply the script asks again without end, and here the row is not scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mathse.config.evaluation import MathVerse as Settings
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
MAX_TOKENS = 256  # of a reply
_REQUIRED = ("sample_index", "problem_index", "problem_version", "question_type", "answer")
_TEXT_ONLY = "Text Only"
_VERSIONS = ("Text Dominant", _TEXT_ONLY, "Text Lite", "Vision Intensive", "Vision Dominant")  # the fullest text first
_QUESTION_IN_IMAGE = "According to the question shown in the image, please "
_FORMS = {
    "multi-choice": "provide the correct option letter, e.g., A, B, C, D",
    "free-form": "provide the final value, e.g., 1, 2.5, 300",
}


class MathVerse:
    """Options: ``prompt`` and ``trunk_response`` (number of last words that the extractor sees; -1: all)."""

    name: ClassVar[str] = "mathverse"
    title: ClassVar[str] = "MathVerse"
    prompts: ClassVar[tuple[str, ...]] = ("query_wo", "query_cot", "plain")
    splits: ClassVar[tuple[str, ...]] = ("testmini", "testmini_text_only")
    hub: ClassVar[str | None] = "AI4Math/MathVerse"
    needs_llm: ClassVar[str] = "an LLM extracts every answer, and an LLM judges it"

    def __init__(self, settings: Settings) -> None:
        self.prompt, self.trunk_response = settings.prompt, settings.trunk_response
        check_choice("benchmark.mathverse.prompt", self.prompt, self.prompts)
        self._models: dict[str, str] = {}

    def check(self) -> None:
        """Do nothing: scoring needs only Python."""

    def load(
        self, problems: Path | None, images: Path | None = None, split: str | None = None, need_images: bool = True
    ) -> list[Item]:
        """Read the rows; see ``Benchmark.load``."""
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
        """Ask ``llm`` for all extractions at once."""
        responses = [response for _, response in paired(items, responses)]
        if llm is None:
            return [Extraction(None, NOT_SCORED)] * len(responses)
        self._models["extractor"] = llm.model
        prompts = [extraction_prompt(response, self.trunk_response) for response in responses]
        extractions = []
        for reply in llm.ask(prompts, EXTRACT, MAX_TOKENS):
            if reply is None:
                extractions.append(Extraction(None, NOT_SCORED))
            else:
                text = reply.replace("Extracted Answer: ", "").strip()
                extractions.append(Extraction(text, f"llm:{EXTRACT}"))
        return extractions

    def score(
        self, items: Sequence[Item], responses: Sequence[str], extractions: Sequence[Extraction], llm: LLM | None
    ) -> list[Scored]:
        """Ask ``llm`` to judge. A row without extraction, judge or readable judgement is not scored."""
        # 1. The judge's replies, by position.
        table = list(paired(items, responses, extractions))
        questions = judge_questions(items)
        texts = {k: extraction.text for k, extraction in enumerate(extractions) if extraction.text is not None}
        replies: dict[int, str | None] = {}
        if llm is not None and texts:
            self._models["judge"] = llm.model
            prompts = [judge_prompt(questions[k], items[k].problem.answer, text) for k, text in texts.items()]
            replies = dict(zip(texts, llm.ask(prompts, JUDGE, MAX_TOKENS), strict=True))

        # 2. The verdicts.
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
                note = f"the judge's reply is {content}, neither 0 nor 1"
            if correct is None:
                scored.append(unscored(item, response, extraction, answer, note))
            else:
                decided_by = f"{extraction.decided_by}+llm:{JUDGE}"
                scored.append(Scored(item.problem.id, response, text, text, answer, correct, decided_by))
        return scored

    def mapped(self, response: str) -> str:
        """Return the response unchanged: an LLM reads any marker."""
        return response

    def second_opinions(self, items: Sequence[Item], responses: Sequence[str]) -> list[bool | None]:
        """Ask math-verify, with letter or value as reference; None for references with several letters."""
        questions = []
        for item, response in paired(items, responses):
            references = [] if "\n" in item.problem.answer else [item.problem.answer]
            questions.append((references, response, item.raw["question_type"] == "multi-choice"))
        return second_opinions(questions)

    def buckets(self, items: Sequence[Item], scored: Sequence[Scored]) -> dict[str, Any]:
        """Return the "total", and accuracies by "version", "subject" and "subfield" ("Plane Geometry-Angle").

        Text Only rows count only under "version", unless all rows are Text Only: the benchmark's overall score leaves
        them out.
        """
        pairs = list(paired(items, scored))
        counted = [pair for pair in pairs if pair[0].raw["problem_version"] != _TEXT_ONLY] or pairs
        versions = group_accuracy(pairs, lambda item: [("version", item.raw["problem_version"])])
        return {"total": overall([row for _, row in counted]), **versions, **group_accuracy(counted, _groups)}

    def protocol(self) -> dict[str, Any]:
        """Return prompts, models and rules."""
        words = f", the last {self.trunk_response} words" if self.trunk_response > 0 else ""
        return {
            "benchmark": self.title,
            "prompt": self.prompt,
            "extraction": f"LLM ({EXTRACT}){words}",
            "scoring": f"LLM ({JUDGE}), replies other than 0 and 1 not scored",
            "extractor": self._models.get("extractor"),
            "judge": self._models.get("judge"),
            "second_opinion": version(),
        }


def query(row: Mapping[str, Any], name: str) -> str:
    """Return the row's ``query_wo`` or ``query_cot``, or build it in the authors' form."""
    if isinstance(published := row.get(name), str) and published.strip():
        return published
    form = _FORMS[row["question_type"]]
    request = f"first conduct reasoning, and then answer the question and {form}, at the end."
    if name == "query_wo":
        request = f"directly answer the question and {form}."
    question = row.get("question")
    return f"Please {request}\nQuestion: {question}" if question else f"{_QUESTION_IN_IMAGE}{request}"


def extraction_prompt(response: str, last_words: int) -> str:
    """Build the extractor's prompt with the last words of a response. Only spaces separate words, as in the script."""
    end = " ".join(response.split(" ")[-last_words:]) if last_words > 0 else response
    return f"{prompt_file('mathverse_extract')}\n\nModel response: '{end}'\nExtracted Answer: "


def judge_prompt(question: str, reference: str, extraction: str) -> str:
    """Build the judge's prompt."""
    return prompt_file("mathverse_judge").format(question=question, gt=reference, extraction=extraction)


def judgement(reply: str | None) -> bool | None:
    """Read the judge's 0 or 1. Any other reply, such as "The answer 10 is wrong", is None."""
    return {"1": True, "0": False}.get((reply or "").replace("Judgement:", "").strip())


def judge_questions(items: Sequence[Item]) -> list[str]:
    """Return the question of each item for the judge."""
    # Questions of all versions: problem -> version -> question.
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
