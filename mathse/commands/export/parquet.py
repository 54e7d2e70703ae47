"""Parquet files that ``datasets.load_dataset(FOLDER)`` opens, pictures and all, written a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from itertools import count, islice
from pathlib import Path
from typing import Any

from mathse.config.extras import explain_missing
from mathse.errors import ConfigError

GROUP = 100  # rows held in memory, and read at once by whoever shows pictures
SHARD = 5_000  # rows a file


def write_table(folder: Path, rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Any]) -> None:
    """``data/train-00000.parquet`` and so on. ``columns``: "text", "image", [of them] or {name: of them}.

    Raises ConfigError where the library is not installed.
    """
    if sentence := explain_missing("hub"):
        raise ConfigError(f"--format trl or hf: {sentence}, or choose --format llamafactory or swift")
    schema = _features(columns).arrow_schema
    arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    rest = iter(rows)
    group = list(islice(rest, GROUP))
    (folder / "data").mkdir()
    for number in count():
        with parquet.ParquetWriter(folder / "data" / f"train-{number:05d}.parquet", schema) as file:
            for _ in range(SHARD // GROUP):
                file.write_table(arrow.Table.from_pylist(group, schema=schema))  # even of no row: it has its columns
                if not (group := list(islice(rest, GROUP))):
                    return


def _features(columns: Mapping[str, Any]) -> Any:
    """The library's description of the columns, which the files carry in their metadata."""
    library = import_module("datasets")
    kinds = {"text": library.Value("string"), "image": library.Image()}

    def made(column: Any) -> Any:
        if isinstance(column, str):
            return kinds[column]
        if isinstance(column, Sequence):
            return library.List(made(column[0]))
        return {name: made(inner) for name, inner in column.items()}

    return library.Features({name: made(column) for name, column in columns.items()})
