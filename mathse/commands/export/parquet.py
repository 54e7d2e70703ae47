"""Write parquet files, with their pictures, for ``datasets.load_dataset(FOLDER)``, a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from itertools import count, islice
from pathlib import Path
from typing import Any

from mathse.config.extras import missing
from mathse.errors import ConfigError

GROUP_ROWS = 100  # rows in memory, and rows that a reader of the file loads at once
SHARD_ROWS = 5_000  # rows per file


def write_table(folder: Path, rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Any]) -> None:
    """Write ``data/train-00000.parquet`` and the next files.

    Args:
        columns: name -> type: "text", "image", a list [type], or {name: type}.

    Raises ConfigError if the datasets library is not installed.
    """
    if sentence := missing("hub"):
        raise ConfigError(f"--format trl or hf: {sentence}, or choose --format llamafactory or swift")
    schema = _build_features(columns).arrow_schema
    arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    rest = iter(rows)
    group = list(islice(rest, GROUP_ROWS))
    (folder / "data").mkdir()
    for number in count():
        with parquet.ParquetWriter(folder / "data" / f"train-{number:05d}.parquet", schema) as file:
            for _ in range(SHARD_ROWS // GROUP_ROWS):
                file.write_table(
                    arrow.Table.from_pylist(group, schema=schema)
                )  # also without rows: the file then has its columns
                if not (group := list(islice(rest, GROUP_ROWS))):
                    return


def _build_features(columns: Mapping[str, Any]) -> Any:
    """Return the library's description of the columns, which the files have in their metadata."""
    library = import_module("datasets")
    kinds = {"text": library.Value("string"), "image": library.Image()}

    def build(column: Any) -> Any:
        if isinstance(column, str):
            return kinds[column]
        if isinstance(column, Sequence):
            return library.List(build(column[0]))
        return {name: build(inner) for name, inner in column.items()}

    return library.Features({name: build(column) for name, column in columns.items()})
