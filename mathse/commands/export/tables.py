"""Parquet files that ``datasets.load_dataset(FOLDER)`` opens, pictures and all, written a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

from mathse.config.extras import missing
from mathse.errors import ConfigError

GROUP = 100  # rows held in memory, and read at once by whoever shows pictures
SHARD = 5_000  # rows a file


def write_table(folder: Path, rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Any]) -> None:
    """``data/train-00000.parquet`` and so on. ``columns``: "text", "image", [of them] or {name: of them}.

    Raises ConfigError where the library is not installed.
    """
    schema = features(columns).arrow_schema
    arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    groups = _groups(iter(rows))
    group: list[Mapping[str, Any]] | None = next(groups, [])  # a table without rows has its columns all the same
    (folder / "data").mkdir()
    for number in count():
        if group is None:
            return
        with parquet.ParquetWriter(folder / "data" / f"train-{number:05d}.parquet", schema) as file:
            for some in chain([group], islice(groups, SHARD // GROUP - 1)):
                file.write_table(arrow.Table.from_pylist(some, schema=schema))
        group = next(groups, None)


def _groups(rows: Iterator[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    while group := list(islice(rows, GROUP)):
        yield group


def features(columns: Mapping[str, Any]) -> Any:
    """The library's description of the columns, which the files carry in their metadata."""
    library = _library()
    kinds = {"text": library.Value("string"), "image": library.Image()}

    def made(column: Any) -> Any:
        if isinstance(column, str):
            return kinds[column]
        if isinstance(column, Sequence):
            return library.List(made(column[0]))
        return {name: made(inner) for name, inner in column.items()}

    return library.Features({name: made(column) for name, column in columns.items()})


def _library() -> Any:
    if sentence := missing("hub"):
        raise ConfigError(f"--format trl or hf: {sentence}, or choose --format llamafactory or swift")
    return import_module("datasets")
