"""Helpers of several benchmarks: published prompts, rows without a verdict, the accuracy of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mathse.evaluation.benchmark import NOT_SCORED, Extraction, Item, Scored, share


@cache
def prompt_file(name: str) -> str:
    """Read a published prompt from prompts/NAME.txt, without surrounding blanks."""
    return (Path(__file__).with_name("prompts") / f"{name}.txt").read_text(encoding="utf-8").strip()


def unscored(item: Item, response: str, extraction: Extraction, answer: str, note: str = "") -> Scored:
    """Return a row without a verdict."""
    return Scored(item.problem.id, response, extraction.text, None, answer, None, NOT_SCORED, note)


def overall(scored: Sequence[Scored]) -> dict[str, float | int]:
    """Return {"accuracy", "correct", "total"} over the rows with a verdict."""
    marks = [row.correct for row in scored if row.correct is not None]
    return share(sum(marks), len(marks))


def metadata(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the row's ``metadata`` object; the row itself if its fields are at the top level."""
    values = row.get("metadata")
    return values if isinstance(values, Mapping) else row
