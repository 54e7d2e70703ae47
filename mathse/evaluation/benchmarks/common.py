"""What the benchmarks share: an item from an official row, accuracies of groups, a prompt's own text file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mathse.errors import ConfigError, DataError
from mathse.evaluation.benchmarks import hub, rows
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


def load_items(
    build: Callable[[rows.Place, Path, bool], Item],
    name: str,
    key: str,
    required: Sequence[str],
    source: Path | tuple[str, str | None, str],
    images: Path | None,
    need_images: bool,
) -> list[Item]:
    """Items from a file, or from the hub's data set ``(id, configuration, split)``; DataError where there is none."""
    if isinstance(source, Path):
        places, folder = rows.read(source, key), images or source.parent
    else:
        folder = images or hub.image_folder(name)
        places = hub.read(*source, key, folder, need_images)
    items = [build(place, folder, need_images) for place in rows.checked(places, name, key, required)]
    if not items:
        raise DataError(f"{source}: no rows; give {name}'s problems")
    return items


def unscored(item: Item, response: str, extraction: Extraction, answer: str, note: str = "") -> Scored:
    """A row without a verdict."""
    return Scored(item.problem.id, response, extraction.text, None, answer, None, NOT_SCORED, note)


def group_accuracy(pairs: Iterable[tuple[Item, Scored]], groups: Callable[[Item], Iterable[Group]]) -> dict[str, Any]:
    """group -> key -> {"accuracy", "correct", "total"} over scored rows, in order of first appearance."""
    counts: dict[str, dict[str, list[int]]] = {}
    for item, row in pairs:
        if row.correct is not None:
            for group, key in groups(item):
                count = counts.setdefault(group, {}).setdefault(key, [0, 0])
                count[0] += row.correct
                count[1] += 1
    return {group: {key: share(*count) for key, count in keys.items()} for group, keys in counts.items()}


def share(correct: int, total: int) -> dict[str, float | int]:
    return {"accuracy": correct / total if total else 0.0, "correct": correct, "total": total}


def metadata(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row's ``metadata`` object; the row itself where its fields stand at the top."""
    found = row.get("metadata")
    return found if isinstance(found, Mapping) else row


def paired(items: Sequence[Item], *others: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """``zip`` that says what went wrong where the lengths differ."""
    if any(len(other) != len(items) for other in others):
        raise DataError(f"{len(items)} items, but {[len(other) for other in others]} values; pass one for each item")
    return zip(items, *others, strict=True)
