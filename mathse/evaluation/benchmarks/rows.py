"""A benchmark's rows, from its published file or from the hub, each with the place it came from.

Files are a JSON list, a JSON object of id -> row, or JSON lines; ``.gz`` too. Rows in our own format (id, question,
images, answer, choices) are read as the benchmark's own. Every mistake is one DataError with file, line and remedy. The
hub is read through ``datasets``, which honours its cache and HF_HUB_OFFLINE.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from types import NoneType
from typing import Any, NamedTuple

from mathse.config.extras import missing
from mathse.data.json_records import read_records
from mathse.errors import ConfigError, DataError
from mathse.evaluation.benchmark import Item, check_choice
from mathse.types import whole_characters

Source = Path | tuple[str, str | None, str]  # a file, or the hub's data set (id, configuration, split)
# A key that only one benchmark's rows have: for the error about another benchmark's file.
_TELLTALE = {
    "mathvista": "pid",
    "mathverse": "sample_index",
    "dynamath": "answer_type",
    "mathvision": "level",
    "wemath": "ID",
    "logicvista": "imagename",
    "mmmu_pro": "topic_difficulty",
}
# What stands in a row of every benchmark that has such a key, and in words.
_KINDS = {
    "question": ((str,), "text"),
    "choices": ((list, NoneType), "a list"),
    "options": ((list, NoneType), "a list"),
}
# The first bytes of a picture -> the ending of its file.
_ENDINGS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"RIFF": ".webp"}


class SourceRow(NamedTuple):
    """A row and where it stands: "test.jsonl:12"."""

    position: str
    row: dict[str, Any]


def source_of(
    name: str, splits: Sequence[str], hub: str, problems: Path | None, split: str, config: str | None = None
) -> Source:
    """Where the rows of a benchmark's split are: in the file that was given, else in the hub's data set (its
    ``config``).

    Raises ConfigError for a split that is none of ``splits``.
    """
    check_choice(f"benchmark.{name}.split", split, splits)
    return problems or (hub, config, split)


def load_items(
    build: Callable[[SourceRow, Path, bool], Item],
    name: str,
    key: str,
    required: Sequence[str],
    source: Source,
    images: Path | None,
    need_images: bool,
) -> list[Item]:
    """The items that ``build`` makes of a benchmark's rows; DataError where there is none.

    Args:
        build: an item of a row, the folder of its images, and whether they are needed.
        name: the benchmark's.
        key: what its rows call the id.
        required: the keys that every row has.
        source: a file, or the hub's data set (id, configuration, split).
        images: the folder of the images; None: the file's own, or where the hub's are laid out.
        need_images: whether missing images are a mistake.
    """
    folder = images or folder_of(name, source)
    source_rows = read_file(source, key) if isinstance(source, Path) else read_hub(*source, key, folder, need_images)
    items = [build(source_row, folder, need_images) for source_row in checked(source_rows, name, key, required)]
    if not items:
        raise DataError(f"{source}: no rows; give {name}'s problems")
    return items


def folder_of(name: str, source: Source) -> Path:
    """The folder of a benchmark's images: the file's own, or where those of the hub are laid out."""
    if isinstance(source, Path):
        return source.parent
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "mathse" / "benchmarks" / name


def read_file(path: Path, key: str) -> Iterator[SourceRow]:
    """The rows of a file; ``key`` is the row's id in the benchmark, filled in from an object's keys."""
    empty = True
    for record in read_records(path, key):
        empty, position = False, f"{path}:{record.line}"
        if record.values is None:
            raise DataError(f"{position}: {record.reason}")
        yield SourceRow(position, whole_characters(record.values))
    if empty:
        raise DataError(f"{path}: the file is empty; give the benchmark's problems")


def read_hub(
    repository: str, config: str | None, split: str, key: str, folder: Path, write_images: bool
) -> Iterator[SourceRow]:
    """The rows of a data set; each row's picture is written below ``folder`` once, undecoded.

    ConfigError where ``datasets`` is not installed, DataError where the data set cannot be loaded.
    """
    if sentence := missing("hub"):
        raise ConfigError(f"reading {repository} from the hub {sentence}, or give a file: benchmark.NAME.problems=FILE")
    import datasets

    try:
        table = datasets.load_dataset(repository, config, split=split)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise DataError(
            f"{repository} ({split}) cannot be had from the hub or its cache ({reason}); give a file: "
            "benchmark.NAME.problems=FILE"
        ) from None
    for column, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            table = table.cast_column(column, datasets.Image(decode=False))
    for number, row in enumerate(table, start=1):
        yield SourceRow(f"{repository}, row {number}", picture_to_file(dict(row), key, folder, write_images))


def picture_to_file(row: dict[str, Any], key: str, folder: Path, write: bool) -> dict[str, Any]:
    """A data set's row with its picture's file name as ``image`` instead of the bytes, which are written below
    ``folder`` if ``write``."""
    picture = next((row[name] for name in ("decoded_image", "image") if isinstance(row.get(name), dict)), None)
    row.pop("decoded_image", None)
    content = (picture or {}).get("bytes")
    if not content:
        return {**row, "image": row["image"] if isinstance(row.get("image"), str) else ""}
    ending = next((ending for start, ending in _ENDINGS.items() if content.startswith(start)), ".png")
    name = row["image"] if isinstance(row.get("image"), str) else f"images/{row.get(key)}{ending}"
    target = folder / PurePosixPath(name)
    if ".." in PurePosixPath(name).parts or target.is_absolute() and not target.is_relative_to(folder):
        raise DataError(f"image {name!r} of {row.get(key)!r} leads out of {folder}; do not use this data set")
    if write and not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        # Another process may write the same picture: the finished file appears at once.
        unfinished = target.with_name(f"{target.name}.{os.getpid()}.part")
        unfinished.write_bytes(content)
        unfinished.replace(target)
    return {**row, "image": name}


def checked(source_rows: Iterable[SourceRow], benchmark: str, key: str, required: Sequence[str]) -> Iterator[SourceRow]:
    """Rows that have every required key and an id of their own; ids as text."""
    seen: dict[str, str] = {}
    for position, row in source_rows:
        row = as_official(row, benchmark, key)
        lacking = next((name for name in required if name not in row), None)
        if lacking is not None:
            remedy = f"give {benchmark}'s own problems file"
            for other, telltale in _TELLTALE.items():
                if other != benchmark and telltale in row:
                    remedy = f"this is a row of {other}: say benchmark={other}, or give {benchmark}'s own file"
                    break
            raise DataError(f'{position}: no row of {benchmark} (it has no "{lacking}"); {remedy}')
        for name, (kinds, words) in _KINDS.items():
            if name in row and not isinstance(row[name], kinds):
                value = f"{row[name]!r:.80}"
                raise DataError(f'{position}: "{name}" is {words}, got {value}; give {benchmark}\'s own file')
        identity = str(row[key])
        if identity in seen:
            raise DataError(
                f'{position}: "{key}" {identity!r:.80} stands already at {seen[identity]}; ids are unique, drop one row'
            )
        seen[identity] = position
        yield SourceRow(position, {**row, key: identity})


def as_official(row: dict[str, Any], benchmark: str, key: str) -> dict[str, Any]:
    """A row in our format under the benchmark's names; any other row unchanged."""
    if "images" not in row or "id" not in row or not isinstance(row["images"], list):
        return row
    images, choices = row["images"], row.get("choices") or row.get("options") or []
    ours = {
        key: str(row["id"]).removeprefix(f"{benchmark}/"),
        "image": images[0] if images else "",
        "choices": choices or None,
        "options": choices,
    }
    return {**row.get("metadata", {}), **row, **ours}


def image_path(position: str, ref: Any, folder: Path, needed: bool) -> tuple[str, ...]:
    """The absolute path of a row's image below ``folder``, with or without the first folder of ``ref``.

    DataError if it is needed and not there, or no path below ``folder``; () if it is not needed.
    """
    if not ref and not needed:
        return ()
    inside = PurePosixPath(ref) if ref and isinstance(ref, str) else None
    if inside is None or inside.is_absolute() or ".." in inside.parts or "\\" in ref or "\x00" in ref:
        raise DataError(
            f"{position}: image {ref!r:.80} is no path below {folder}; give it relative to the images' folder"
        )
    for tail in (inside.parts, inside.parts[1:]):
        if tail:
            file = folder.joinpath(*tail)
            try:
                exists = file.is_file()
            except OSError:  # a name that no file can have, such as a picture's bytes written out
                exists = False
            if exists:
                return (str(file.resolve()),)
    if needed:
        raise DataError(
            f"{position}: no image {ref!r:.80} in {folder}; give the folder that holds the benchmark's images"
        )
    return ()
