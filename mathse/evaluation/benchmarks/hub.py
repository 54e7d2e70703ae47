"""A benchmark's rows from the hub, through ``datasets``: its cache, and HF_HUB_OFFLINE, are honoured."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mathse.config.extras import missing
from mathse.errors import ConfigError, DataError
from mathse.evaluation.benchmarks.rows import Place

_ENDINGS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"RIFF": ".webp"}


def image_folder(name: str) -> Path:
    """Where a data set's images are laid out as files."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "mathse" / "benchmarks" / name


def read(repository: str, config: str | None, split: str, key: str, folder: Path, images: bool) -> Iterator[Place]:
    """The rows of a data set; each row's picture is written below ``folder`` once, undecoded.

    ConfigError where ``datasets`` is not installed, DataError where the data set cannot be had.
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
        yield Place(f"{repository}, row {number}", _with_file(dict(row), key, folder, images))


def _with_file(row: dict[str, Any], key: str, folder: Path, wanted: bool) -> dict[str, Any]:
    """The row with its picture's file name as ``image``, and the bytes gone."""
    picture = next((row[name] for name in ("decoded_image", "image") if isinstance(row.get(name), dict)), None)
    row.pop("decoded_image", None)
    content = (picture or {}).get("bytes")
    if not content:
        return {**row, "image": row["image"] if isinstance(row.get("image"), str) else ""}
    name = row["image"] if isinstance(row.get("image"), str) else f"images/{row.get(key)}{_ending(content)}"
    target = folder / PurePosixPath(name)
    if ".." in PurePosixPath(name).parts or target.is_absolute() and not target.is_relative_to(folder):
        raise DataError(f"image {name!r} of {row.get(key)!r} leads out of {folder}; do not use this data set")
    if wanted and not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f"{target.name}.{os.getpid()}.part")
        unfinished.write_bytes(content)
        unfinished.replace(target)
    return {**row, "image": name}


def _ending(content: bytes) -> str:
    return next((ending for start, ending in _ENDINGS.items() if content.startswith(start)), ".png")
