"""A benchmark's rows, from its published file or from the hub, each with its position there.

Files are a JSON list, a JSON object of id -> row, or JSON lines; ``.gz`` too. Rows in MathSE's format (id, question,
images, answer, choices) are accepted too. Every error is a DataError with file, line and remedy. ``datasets`` reads the
hub, with its cache and HF_HUB_OFFLINE.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from types import NoneType
from typing import Any, NamedTuple

from mathse.config.extras import explain_missing
from mathse.data.json_records import read_records
from mathse.errors import ConfigError, DataError
from mathse.evaluation.benchmark import Item, check_choice
from mathse.types import whole_characters

Source = Path | tuple[str, str | None, str]  # a file, or the hub's data set (id, configuration, split)
# Benchmark -> a key that only its rows have, for the error about a file of another benchmark.
_UNIQUE_KEYS = {
    "mathvista": "pid",
    "mathverse": "sample_index",
    "dynamath": "answer_type",
    "mathvision": "level",
    "wemath": "ID",
    "logicvista": "imagename",
    "mmmu_pro": "topic_difficulty",
}
# Key -> the allowed types of its value, and their name in an error.
_TYPES = {
    "question": ((str,), "text"),
    "choices": ((list, NoneType), "a list"),
    "options": ((list, NoneType), "a list"),
}
# First bytes of a picture -> ending of its file.
_ENDINGS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"RIFF": ".webp"}


class SourceRow(NamedTuple):
    """A row with its position in the source: "test.jsonl:12"."""

    position: str
    row: dict[str, Any]


def source_of(
    name: str, splits: Sequence[str], hub: str, problems: Path | None, split: str, config: str | None = None
) -> Source:
    """Return the source of a split's rows: the given file, else the hub's data set with its configuration ``config``.

    Raises ConfigError for a split that is not in ``splits``.
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
    """Read a benchmark's rows and build an item from each. Raises DataError for a source without rows.

    Args:
        build: makes an item from a row, the folder of its images, and whether they are needed.
        name: name of the benchmark.
        key: name of the id in its rows.
        required: keys of every row.
        source: a file, or the hub's data set (id, configuration, split).
        images: the folder of the images. None: the file's folder, or the folder with the hub's pictures.
        need_images: whether a missing image is an error.
    """
    folder = images or find_image_folder(name, source)
    source_rows = read_file(source, key) if isinstance(source, Path) else read_hub(*source, key, folder, need_images)
    items = [build(source_row, folder, need_images) for source_row in checked(source_rows, name, key, required)]
    if not items:
        raise DataError(f"{source}: no rows; give {name}'s problems")
    return items


def find_image_folder(name: str, source: Source) -> Path:
    """Return the folder of a benchmark's images: the file's folder, or the folder with the hub's pictures."""
    if isinstance(source, Path):
        return source.parent
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "mathse" / "benchmarks" / name


def read_file(path: Path, key: str) -> Iterator[SourceRow]:
    """Yield the rows of a file. ``key``: name of the id; in a JSON object of id -> row, its keys become ids."""
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
    """Yield the rows of a data set. Each picture is written below ``folder`` once, without decoding.

    Raises ConfigError without ``datasets``, DataError if the data set cannot be loaded.
    """
    if sentence := explain_missing("hub"):
        raise ConfigError(f"reading {repository} from the hub {sentence}, or give a file: benchmark.NAME.problems=FILE")
    import datasets

    try:
        table = datasets.load_dataset(repository, config, split=split)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise DataError(
            f"{repository} ({split}) cannot be loaded from the hub or its cache ({reason}); give a file: "
            "benchmark.NAME.problems=FILE"
        ) from None
    for column, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            table = table.cast_column(column, datasets.Image(decode=False))
    for number, row in enumerate(table, start=1):
        yield SourceRow(f"{repository}, row {number}", picture_to_file(dict(row), key, folder, write_images))


def picture_to_file(row: dict[str, Any], key: str, folder: Path, write: bool) -> dict[str, Any]:
    """Return a data set's row with the name of its picture's file as ``image``; the bytes go below ``folder``.

    ``write``: False leaves the file out.
    """
    picture = next((row[name] for name in ("decoded_image", "image") if isinstance(row.get(name), dict)), None)
    row.pop("decoded_image", None)
    content = (picture or {}).get("bytes")
    if not content:
        return {**row, "image": row["image"] if isinstance(row.get("image"), str) else ""}
    ending = next((ending for start, ending in _ENDINGS.items() if content.startswith(start)), ".png")
    name = row["image"] if isinstance(row.get("image"), str) else f"images/{row.get(key)}{ending}"
    # The name comes from the data set: it must not lead out of the folder.
    target = folder / PurePosixPath(name)
    if ".." in PurePosixPath(name).parts or target.is_absolute() and not target.is_relative_to(folder):
        raise DataError(f"image {name!r} of {row.get(key)!r} leads out of {folder}; do not use this data set")
    if write and not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        # Another process may write the same picture, so a finished file replaces it in a single step.
        unfinished = target.with_name(f"{target.name}.{os.getpid()}.part")
        unfinished.write_bytes(content)
        unfinished.replace(target)
    return {**row, "image": name}


def checked(source_rows: Iterable[SourceRow], benchmark: str, key: str, required: Sequence[str]) -> Iterator[SourceRow]:
    """Yield the rows, with ids as text. Raises DataError for a missing key, a wrong type, or a repeated id."""
    positions: dict[str, str] = {}  # id -> position of its row
    for position, row in source_rows:
        row = as_official(row, benchmark, key)
        missing_key = next((name for name in required if name not in row), None)
        if missing_key is not None:
            remedy = f"give {benchmark}'s own problems file"
            for other, unique_key in _UNIQUE_KEYS.items():
                if other != benchmark and unique_key in row:
                    remedy = f"this is a row of {other}: pass benchmark={other}, or give {benchmark}'s own file"
                    break
            raise DataError(f'{position}: no row of {benchmark} (it has no "{missing_key}"); {remedy}')
        for name, (types, type_name) in _TYPES.items():
            if name in row and not isinstance(row[name], types):
                value = f"{row[name]!r:.80}"
                raise DataError(f'{position}: "{name}" is {type_name}, got {value}; give {benchmark}\'s own file')
        row_id = str(row[key])
        if row_id in positions:
            raise DataError(
                f'{position}: "{key}" {row_id!r:.80} is already at {positions[row_id]}; ids are unique, drop one row'
            )
        positions[row_id] = position
        yield SourceRow(position, {**row, key: row_id})


def as_official(row: dict[str, Any], benchmark: str, key: str) -> dict[str, Any]:
    """Convert a row in MathSE's format to the benchmark's names. Any other row is returned unchanged."""
    if "images" not in row or "id" not in row or not isinstance(row["images"], list):
        return row
    images, choices = row["images"], row.get("choices") or row.get("options") or []
    official = {
        key: str(row["id"]).removeprefix(f"{benchmark}/"),
        "image": images[0] if images else "",
        "choices": choices or None,
        "options": choices,
    }
    return {**row.get("metadata", {}), **row, **official}


def image_path(position: str, ref: Any, folder: Path, needed: bool) -> tuple[str, ...]:
    """Find a row's image below ``folder``, with or without the first folder of ``ref``.

    Returns its absolute path in a tuple; () if it is missing and not needed. Raises DataError for a missing image that
    is needed, and for a path that is not below ``folder``.
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
            except OSError:  # an impossible file name, such as the bytes of a picture as text
                exists = False
            if exists:
                return (str(file.resolve()),)
    if needed:
        raise DataError(
            f"{position}: no image {ref!r:.80} in {folder}; give the folder that holds the benchmark's images"
        )
    return ()
