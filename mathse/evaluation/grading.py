"""The official verdict on every answer, on the response unchanged and with the student's answer marker mapped, and
math-verify's verdict beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mathse.evaluation.benchmark import GIVEN, LLM, Benchmark, Extraction, Item, Scored
from mathse.evaluation.predictions import Answer


@dataclass(frozen=True)
class GradedAnswer:
    """An answer and its verdicts."""

    item: Item
    answer: Answer
    raw: Scored  # of the response unchanged
    mapped: Scored  # of the response with its marker as the official extractor reads it; ``raw`` where it has none
    verified: bool | None  # math-verify's verdict; None where it has none
    use_mapped: bool  # which of the two official verdicts counts
    p_correct: float | None = None  # by the ORM

    @property
    def scored(self) -> Scored:
        """The verdict that counts."""
        return self.mapped if self.use_mapped else self.raw

    def to_json(self, several: bool = False) -> dict[str, Any]:
        """A row of scored.jsonl; with its sample where a problem has ``several`` answers."""
        verdict = {key: value for key, value in self.scored.to_json().items() if key != "note" or value}
        row = {**verdict, "raw_correct": self.raw.correct, "mapped_correct": self.mapped.correct}
        row["math_verify"] = self.verified
        if several:
            row |= {"sample": self.answer.sample, "p_correct": self.p_correct}
        return row


def item_of(item: Item, answer: Answer) -> Item:
    """The problem with the metadata that its answer brought along."""
    if answer.metadata is None:
        return item
    return replace(item, raw={**item.raw, "metadata": {**(item.raw.get("metadata") or {}), **answer.metadata}})


def grade(
    bench: Benchmark, items: Sequence[Item], answers: Sequence[Answer], llm: LLM | None, use_mapped: bool
) -> list[GradedAnswer]:
    """Verdicts on each answer; ``items`` and ``answers`` are paired by position. Equal responses are asked about once
    by the LLM's cache."""
    raw = _verdicts(bench, items, answers, llm)
    # Scored again is only what has a marker that the official extractor does not read by itself.
    mapped = list(raw)
    texts = [bench.mapped(a.response) if a.extraction is None else a.response for a in answers]
    changed = [k for k, answer in enumerate(answers) if texts[k] != answer.response]
    rewritten = [replace(answers[k], response=texts[k]) for k in changed]
    for k, scored in zip(changed, _verdicts(bench, [items[k] for k in changed], rewritten, llm), strict=True):
        mapped[k] = replace(scored, response=answers[k].response)
    verified = bench.second_opinions(items, [a.response for a in answers])
    return [GradedAnswer(*verdicts, use_mapped) for verdicts in zip(items, answers, raw, mapped, verified, strict=True)]


def _verdicts(bench: Benchmark, items: Sequence[Item], answers: Sequence[Answer], llm: LLM | None) -> list[Scored]:
    """The official verdicts; an extraction that came with the file is used, the others are made."""
    missing = [k for k, answer in enumerate(answers) if answer.extraction is None]
    extracted = bench.extract([items[k] for k in missing], [answers[k].response for k in missing], llm)
    extractions = [Extraction(answer.extraction, GIVEN) for answer in answers]
    for k, extraction in zip(missing, extracted, strict=True):
        extractions[k] = extraction
    return bench.score(items, [a.response for a in answers], extractions, llm)
