"""Tables of the ``datasets`` library, and the images in them: ``hf:root=...&row=...`` refers to one.

Rows stay in the library's memory-mapped table, images too, and are read from there when they are needed. Nothing is
fetched where HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set: the library's cache is used then. No program that a set
brings along is run: the library has no such thing since version 4.
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

from mathse.config.extras import missing
from mathse.data.image_decoding import decode
from mathse.data.json_records import JsonRecord
from mathse.errors import ConfigError, DataError

BATCH = 64  # rows read at a time


class ImageReference(str):
    """A reference that is used unchanged, because the image is no file below the root of its data set: an image inside
    a table, or one beside it.

    ``content``: a hash of its bytes, where ids are made from it.
    """

    content = ""


@dataclass(frozen=True)
class HubTable:
    """What opens a table again, in whatever process."""

    root: str
    subset: str | None
    split: str
    revision: str | None = None

    @property
    def name(self) -> str:
        return ":".join(filter(None, (self.root, self.subset, self.split)))


def records(table: HubTable) -> Iterator[JsonRecord]:
    """The rows of a table, counted from 1. An image in it is an ImageReference, other cells are JSON values."""
    data = open_table(table)
    # Columns of images, or of lists of them.
    image_columns = [
        name
        for name, feature in data.features.items()
        if "Image" in (type(feature).__name__, type(getattr(feature, "feature", None)).__name__)
    ]
    for start in range(0, len(data), BATCH):
        for row, values in enumerate(data[start : start + BATCH].to_pylist(), start=start):
            plain = {name: _json_value(value) for name, value in values.items()}
            for column in image_columns:
                cell = values[column]
                if isinstance(cell, list):
                    plain[column] = [
                        _reference(table, row, column, k, item) for k, item in enumerate(cell) if item is not None
                    ]
                else:
                    plain[column] = None if cell is None else _reference(table, row, column, 0, cell)
            yield JsonRecord(row + 1, plain)


def image(ref: str) -> Image.Image:
    """The image behind a reference into a table. Raises DataError as ``image_decoding.decode``."""
    return decode(*_stored_cell(ref))


def stored_bytes(ref: str) -> bytes:
    """The bytes of an image as its table holds them."""
    return _stored_cell(ref)[0]


def _stored_cell(ref: str) -> tuple[bytes, str]:
    """An image's bytes, and its name in errors."""
    query = dict(parse_qsl(ref.removeprefix("hf:"), keep_blank_values=True))
    table = HubTable(query["root"], query.get("subset"), query["split"], query.get("revision"))
    row, item = int(query["row"]), int(query["item"])
    cell = open_table(table)[row : row + 1].column(query["column"])[0].as_py()
    stored = cell[item] if isinstance(cell, list) else cell
    return stored["bytes"], f"{query['column']} of row {row + 1} of {table.name}"


def lasting(root: str) -> str:
    """A folder's absolute path, so that references open from any working directory; a hub id unchanged."""
    return str(Path(root).absolute()) if Path(root).exists() else root


def is_saved(root: Path) -> bool:
    """Whether a folder holds a table that the library itself saved (``save_to_disk``)."""
    return any((root / name).is_file() for name in ("state.json", "dataset_dict.json"))


@lru_cache(maxsize=16)
def open_table(table: HubTable) -> Any:
    """The library's table, its rows as Arrow. Raises DataError where it cannot be opened, ConfigError where the library
    is not installed."""
    library = _library()
    local = Path(table.root)
    # What the library raises for a table that is not there, has no such split, or is damaged.
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


def _library() -> Any:
    if sentence := missing("hub"):
        raise ConfigError(f"data.root: a hub id or a table {sentence}")
    return import_module("datasets")


def _reference(table: HubTable, row: int, column: str, item: int, cell: Mapping[str, Any]) -> str:
    """What refers to the image of a cell: the table's row, or a path where the table holds a path and no bytes."""
    if cell.get("bytes") is None:
        path = str(cell.get("path") or "")
        # Beside the table, or in the library's own cache. Any other path is returned as text, for the caller to refuse.
        root = Path(table.root) if Path(table.root).exists() else Path(_library().config.HF_CACHE_HOME)
        target = Path(path).resolve()
        return ImageReference(target) if target.is_relative_to(root.resolve()) else path
    query = {key: value for key, value in asdict(table).items() if value is not None}
    ref = ImageReference("hf:" + urlencode({**query, "row": row, "column": column, "item": item}))
    ref.content = hashlib.sha256(cell["bytes"]).hexdigest()[:16]
    return ref


def _json_value(value: Any) -> Any:
    """A cell as a JSON value; None where it has none."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return None
