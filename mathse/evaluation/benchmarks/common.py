"""What several benchmarks need: published prompts, rows without a verdict, accuracies of groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mathse.errors import ConfigError, DataError
from mathse.evaluation.benchmarks.base import NOT_SCORED, Extraction, Item, Scored

Group = tuple[str, str]  # ("task", "geometry problem solving")


@cache
def prompt_file(name: str) -> str:
    """A published prompt, from prompts/NAME.txt, without blanks around it."""
    return (Path(__file__).with_name("prompts") / f"{name}.txt").read_text(encoding="utf-8").strip()


def check_choice(option: str, value: object, allowed: Sequence[object]) -> None:
    """ConfigError where ``value`` is none of ``allowed``."""
    if value not in allowed:
        raise ConfigError(f"{option} = {value!r}, allowed: {', '.join(map(str, allowed))}; choose one")


def unscored(item: Item, response: str, extraction: Extraction, answer: str, note: str = "") -> Scored:
    """A row without a verdict."""
    return Scored(item.problem.id, response, extraction.text, None, answer, None, NOT_SCORED, note)


def group_accuracy(pairs: Iterable[tuple[Item, Scored]], groups: Callable[[Item], Iterable[Group]]) -> dict[str, Any]:
    """group -> key -> {"accuracy", "correct", "total"} over scored rows, in order of first appearance."""
    marks: dict[str, dict[str, list[bool]]] = {}
    for item, row in pairs:
        if row.correct is not None:
            for group, key in groups(item):
                marks.setdefault(group, {}).setdefault(key, []).append(row.correct)
    return {
        group: {key: share(sum(correct), len(correct)) for key, correct in keys.items()}
        for group, keys in marks.items()
    }


def overall(scored: Sequence[Scored]) -> dict[str, float | int]:
    """{"accuracy", "correct", "total"} over the rows that have a verdict."""
    marks = [row.correct for row in scored if row.correct is not None]
    return share(sum(marks), len(marks))


def share(correct: int, total: int) -> dict[str, float | int]:
    """An accuracy as a fraction; 0 of nothing, as in the official scripts."""
    return {"accuracy": correct / total if total else 0.0, "correct": correct, "total": total}


def metadata(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row's ``metadata`` object; the row itself where its fields stand at the top."""
    values = row.get("metadata")
    return values if isinstance(values, Mapping) else row


def paired(items: Sequence[Item], *others: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """``zip`` that says what went wrong where the lengths differ."""
    if any(len(other) != len(items) for other in others):
        raise DataError(f"{len(items)} items, but {[len(other) for other in others]} values; pass one for each item")
    return zip(items, *others, strict=True)
