"""Tables of the ``datasets`` library. ``hf:root=...&row=...`` refers to an image in a table.

Rows and images stay in the library's memory-mapped table until they are needed. With HF_HUB_OFFLINE or
HF_DATASETS_OFFLINE nothing is fetched, and the library's cache is used. A set cannot run a program of its own: the
library dropped loading scripts in version 4.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from PIL import Image

from mathse.config.extras import explain_missing
from mathse.data.image_decoding import decode
from mathse.data.json_records import JsonRecord
from mathse.errors import ConfigError, DataError

BATCH = 64  # rows to read at once


class ImageReference(str):
    """A reference to an image that is no file below the root of its data set: inside a table, or beside a table.

    ``content``: a hash of the image's bytes, for ids.
    """

    content = ""


@dataclass(frozen=True)
class HubTable:
    """The arguments that open a table, in any process."""

    root: str
    subset: str | None
    split: str
    revision: str | None = None

    @property
    def name(self) -> str:
        return ":".join(filter(None, (self.root, self.subset, self.split)))


def records(table: HubTable) -> Iterator[JsonRecord]:
    """Yield the rows of a table, counted from 1. An image becomes an ImageReference, any other cell a JSON value."""
    data = open_table(table)
    # Columns of images, or of lists of images.
    image_columns = []
    for name, feature in data.features.items():
        if "Image" in (type(feature).__name__, type(getattr(feature, "feature", None)).__name__):
            image_columns.append(name)
    for start in range(0, len(data), BATCH):
        for row, values in enumerate(data[start : start + BATCH].to_pylist(), start=start):
            plain = {name: _to_json_value(value) for name, value in values.items()}
            for column in image_columns:
                cell = values[column]
                items = cell if isinstance(cell, list) else [cell]
                refs = [
                    _make_reference(table, row, column, k, item) for k, item in enumerate(items) if item is not None
                ]
                if isinstance(cell, list):
                    plain[column] = refs
                else:
                    plain[column] = refs[0] if refs else None
            yield JsonRecord(row + 1, plain)


def image(ref: str) -> Image.Image:
    """Load the image of a reference into a table. Raises DataError as ``image_decoding.decode``."""
    return decode(*_stored_cell(ref))


def stored_bytes(ref: str) -> bytes:
    """Read the bytes of an image in its table."""
    return _stored_cell(ref)[0]


def _stored_cell(ref: str) -> tuple[bytes, str]:
    """Read an image's bytes, and make its name for errors."""
    query = dict(parse_qsl(ref.removeprefix("hf:"), keep_blank_values=True))
    table = HubTable(query["root"], query.get("subset"), query["split"], query.get("revision"))
    row, item = int(query["row"]), int(query["item"])
    cell = open_table(table)[row : row + 1].column(query["column"])[0].as_py()
    stored = cell[item] if isinstance(cell, list) else cell
    return stored["bytes"], f"{query['column']} of row {row + 1} of {table.name}"


def lasting(root: str) -> str:
    """Make a folder's path absolute, so that references open from any working directory; a hub id stays."""
    return str(Path(root).absolute()) if Path(root).exists() else root


def is_saved(root: Path) -> bool:
    """Whether a folder holds a table that ``save_to_disk`` of the library wrote."""
    return any((root / name).is_file() for name in ("state.json", "dataset_dict.json"))


@lru_cache(maxsize=16)
def open_table(table: HubTable) -> Any:
    """Open a table with rows as Arrow. Raises DataError for a table that cannot be opened, ConfigError without the
    library."""
    library = _import_library()
    local = Path(table.root)
    # Errors of the library for a missing table, a missing split, and a damaged table.
    errors = (OSError, ValueError, KeyError, library.exceptions.DatasetsError)
    try:
        if is_saved(local):
            data = library.load_from_disk(table.root)
            data = data[table.split] if isinstance(data, library.DatasetDict) else data
        else:
            revision = None if local.exists() else table.revision
            data = library.load_dataset(table.root, table.subset, split=table.split, revision=revision)
    except errors as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{table.name}: cannot be opened ({reason}); check data.root, subset and split") from None
    return data.with_format("arrow")


def _import_library() -> Any:
    """Import ``datasets``. Raises ConfigError if it is not installed."""
    if sentence := explain_missing("hub"):
        raise ConfigError(f"data.root: a hub id or a table {sentence}")
    return import_module("datasets")


def _make_reference(table: HubTable, row: int, column: str, item: int, cell: Mapping[str, Any]) -> str:
    """Make the reference of a cell's image: to the table's row, or to a path if the table holds a path and no bytes."""
    if cell.get("bytes") is None:
        path = str(cell.get("path") or "")
        # The path must lie beside the table or in the library's cache. Any other path is returned as text, which the
        # caller refuses.
        root = Path(table.root) if Path(table.root).exists() else Path(_import_library().config.HF_CACHE_HOME)
        target = Path(path).resolve()
        return ImageReference(target) if target.is_relative_to(root.resolve()) else path
    query = {key: value for key, value in asdict(table).items() if value is not None}
    ref = ImageReference("hf:" + urlencode({**query, "row": row, "column": column, "item": item}))
    ref.content = hashlib.sha256(cell["bytes"]).hexdigest()[:16]
    return ref


def _to_json_value(value: Any) -> Any:
    """Convert a cell to a JSON value; None if it has no JSON form."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return None
