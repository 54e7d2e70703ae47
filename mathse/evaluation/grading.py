"""The official verdicts on every answer, for the unchanged response and for the response with a mapped answer marker,
and math-verify's verdict beside them."""

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
    raw: Scored  # verdict on the unchanged response
    mapped: Scored  # verdict on the response with its marker in the official form; ``raw`` for one without marker
    verified: bool | None  # math-verify's verdict; None: no verdict
    use_mapped: bool  # whether ``mapped`` counts, else ``raw``
    p_correct: float | None = None  # the ORM's

    @property
    def scored(self) -> Scored:
        """The verdict that counts."""
        return self.mapped if self.use_mapped else self.raw

    def to_json(self, several: bool = False) -> dict[str, Any]:
        """Return a row of scored.jsonl, with its sample if a problem has ``several`` answers."""
        verdict = {key: value for key, value in self.scored.to_json().items() if key != "note" or value}
        row = {**verdict, "raw_correct": self.raw.correct, "mapped_correct": self.mapped.correct}
        row["math_verify"] = self.verified
        if several:
            row |= {"sample": self.answer.sample, "p_correct": self.p_correct}
        return row


def item_of(item: Item, answer: Answer) -> Item:
    """Return the item with the metadata of its answer, if the answer has metadata."""
    if answer.metadata is None:
        return item
    return replace(item, raw={**item.raw, "metadata": {**(item.raw.get("metadata") or {}), **answer.metadata}})


def grade(
    bench: Benchmark, items: Sequence[Item], answers: Sequence[Answer], llm: LLM | None, use_mapped: bool
) -> list[GradedAnswer]:
    """Score each answer. ``items`` and ``answers`` are paired by position.

    The LLM's cache answers equal questions once.
    """
    raw = _verdicts(bench, items, answers, llm)
    # Only responses with a marker that the official extractor does not read are scored a second time.
    mapped = list(raw)
    texts = [bench.mapped(a.response) if a.extraction is None else a.response for a in answers]
    changed = [k for k, answer in enumerate(answers) if texts[k] != answer.response]
    rewritten = [replace(answers[k], response=texts[k]) for k in changed]
    for k, scored in zip(changed, _verdicts(bench, [items[k] for k in changed], rewritten, llm), strict=True):
        mapped[k] = replace(scored, response=answers[k].response)
    verified = bench.second_opinions(items, [a.response for a in answers])
    return [GradedAnswer(*fields, use_mapped) for fields in zip(items, answers, raw, mapped, verified, strict=True)]


def _verdicts(bench: Benchmark, items: Sequence[Item], answers: Sequence[Answer], llm: LLM | None) -> list[Scored]:
    """Return the official verdicts. An extraction in the predictions file is used, all others are made."""
    missing = [k for k, answer in enumerate(answers) if answer.extraction is None]
    extracted = bench.extract([items[k] for k in missing], [answers[k].response for k in missing], llm)
    extractions = [Extraction(answer.extraction, GIVEN) for answer in answers]
    for k, extraction in zip(missing, extracted, strict=True):
        extractions[k] = extraction
    return bench.score(items, [a.response for a in answers], extractions, llm)
