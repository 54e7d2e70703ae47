"""The official verdict on every answer, as it stands and with the student's answer marker mapped, and math-verify's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mathse.evaluation.benchmarks.base import GIVEN, LLM, Benchmark, Extraction, Item, Scored
from mathse.evaluation.predictions import Answer


def item_of(item: Item, answer: Answer) -> Item:
    """The problem with the metadata that its answer brought along."""
    if answer.metadata is None:
        return item
    own = item.raw.get("metadata")
    return replace(item, raw={**item.raw, "metadata": {**(own if own else {}), **answer.metadata}})


@dataclass(frozen=True)
class Graded:
    """An answer and what was found of it. ``raw``: scored as it stands; ``mapped``: with its marker as the official
    extractor reads it (the same where it has none); ``verified``: math-verify's opinion, None where it has none."""

    item: Item
    answer: Answer
    raw: Scored
    mapped: Scored
    verified: bool | None
    use_mapped: bool
    p_correct: float | None = None  # by the ORM

    @property
    def scored(self) -> Scored:
        """The verdict that counts."""
        return self.mapped if self.use_mapped else self.raw

    def to_json(self, several: bool = False) -> dict[str, Any]:
        """A row of scored.jsonl."""
        verdict = {key: value for key, value in self.scored.to_json().items() if key != "note" or value}
        row = {**verdict, "raw_correct": self.raw.correct, "mapped_correct": self.mapped.correct}
        row["math_verify"] = self.verified
        if several:
            row |= {"sample": self.answer.sample, "p_correct": self.p_correct}
        return row


def grade(
    bench: Benchmark, items: Sequence[Item], answers: Sequence[Answer], llm: LLM | None, use_mapped: bool
) -> list[Graded]:
    """One verdict an answer; ``items`` and ``answers`` are paired by position. Equal responses are asked about once by
    the LLM's cache."""
    raw = _verdicts(bench, items, answers, llm)
    mapped = _with_marker(bench, items, answers, raw, llm)
    opinions = bench.second_opinions(items, [a.response for a in answers])
    return [
        Graded(item, answer, first, second, opinion, use_mapped)
        for item, answer, first, second, opinion in zip(items, answers, raw, mapped, opinions, strict=True)
    ]


def _verdicts(bench: Benchmark, items: Sequence[Item], answers: Sequence[Answer], llm: LLM | None) -> list[Scored]:
    """An extraction that came with the file stands; the others are made."""
    open_ones = [k for k, answer in enumerate(answers) if answer.extraction is None]
    made = bench.extract([items[k] for k in open_ones], [answers[k].response for k in open_ones], llm)
    extractions = [Extraction(answer.extraction, GIVEN) for answer in answers]
    for k, extraction in zip(open_ones, made, strict=True):
        extractions[k] = extraction
    return bench.score(items, [a.response for a in answers], extractions, llm)


def _with_marker(
    bench: Benchmark, items: Sequence[Item], answers: Sequence[Answer], raw: Sequence[Scored], llm: LLM | None
) -> list[Scored]:
    """``raw``, with the answers scored anew whose marker the official extractor does not read by itself."""
    found = list(raw)
    texts = [bench.mapped(a.response) if a.extraction is None else a.response for a in answers]
    changed = [k for k, answer in enumerate(answers) if texts[k] != answer.response]
    again = [replace(answers[k], response=texts[k]) for k in changed]
    for k, scored in zip(changed, _verdicts(bench, [items[k] for k in changed], again, llm), strict=True):
        found[k] = replace(scored, response=answers[k].response)
    return found
