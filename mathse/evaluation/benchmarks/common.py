"""Helpers of several benchmarks: published prompts, rows without a verdict, the accuracy of a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mathse.evaluation.benchmark import NOT_SCORED, Extraction, Item, Scored, paired, share


@cache
def prompt_file(name: str) -> str:
    """Read a published prompt from prompts/NAME.txt, without surrounding blanks."""
    return (Path(__file__).with_name("prompts") / f"{name}.txt").read_text(encoding="utf-8").strip()


def unscored(item: Item, response: str, extraction: Extraction, answer: str, note: str = "") -> Scored:
    """Return a row without a verdict."""
    return Scored(item.problem.id, response, extraction.text, None, answer, None, NOT_SCORED, note)


def score_by_rule(
    items: Sequence[Item],
    responses: Sequence[str],
    extractions: Sequence[Extraction],
    verdict: Callable[[Item, str], tuple[str, bool, str]],
) -> list[Scored]:
    """Return a verdict on each extraction.

    Args:
        verdict: returns, for an item and an extracted answer, the answer in the benchmark's normal form, whether it is
            correct, and a note.
    """
    scored = []
    for item, response, extraction in paired(items, responses, extractions):
        reference = item.problem.answer
        if extraction.text is None:
            scored.append(unscored(item, response, extraction, reference, "the answer was not extracted"))
            continue
        prediction, correct, note = verdict(item, extraction.text)
        decided_by = f"{extraction.decided_by}+rule"
        scored.append(
            Scored(item.problem.id, response, extraction.text, prediction, reference, correct, decided_by, note)
        )
    return scored


def overall(scored: Sequence[Scored]) -> dict[str, float | int]:
    """Return {"accuracy", "correct", "total"} over the rows with a verdict."""
    marks = [row.correct for row in scored if row.correct is not None]
    return share(sum(marks), len(marks))


def metadata(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the row's ``metadata`` object; the row itself if its fields are at the top level."""
    values = row.get("metadata")
    return values if isinstance(values, Mapping) else row
