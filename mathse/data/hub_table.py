"""Tables of the ``datasets`` library, and the pictures in them: ``hf:root=...&row=...`` refers to one.

Rows stay in the library's memory-mapped table, pictures too, and are read from there when they are needed. Nothing is
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
from mathse.data.pictures import decode
from mathse.data.records import Record
from mathse.errors import ConfigError, DataError

BATCH = 64  # rows read at a time


class Reference(str):
    """An image that is no file below the root, such as one inside a table: it is taken as it stands.

    ``content``: a hash of its bytes, where ids are made from it.
    """

    content = ""


@dataclass(frozen=True)
class Table:
    """A table by what opens it again, in whatever process."""

    root: str
    subset: str | None
    split: str
    revision: str | None = None

    @property
    def name(self) -> str:
        return ":".join(filter(None, (self.root, self.subset, self.split)))


def records(table: Table) -> Iterator[Record]:
    """The rows of a table, counted from 1; a picture in it is a Reference, other cells are JSON values."""
    data = opened(table)
    pictures = [name for name, feature in data.features.items() if _holds_pictures(feature)]
    for start in range(0, len(data), BATCH):
        for k, values in enumerate(data[start : start + BATCH].to_pylist(), start=start):
            refs = {name: _references(table, k, name, values[name]) for name in pictures}
            yield Record(k + 1, {name: _plain(value) for name, value in values.items()} | refs)


def image(ref: str) -> Image.Image:
    """The picture behind a reference into a table. Raises DataError as ``pictures.decode``."""
    return decode(*_cell(ref))


def stored(ref: str) -> bytes:
    """The bytes of a picture as its table holds them."""
    return _cell(ref)[0]


def _cell(ref: str) -> tuple[bytes, str]:
    """A picture's bytes, and what errors call it."""
    asked = dict(parse_qsl(ref.removeprefix("hf:"), keep_blank_values=True))
    table = Table(asked["root"], asked.get("subset"), asked["split"], asked.get("revision"))
    row, item = int(asked["row"]), int(asked["item"])
    cell = opened(table)[row : row + 1].column(asked["column"])[0].as_py()
    found = cell[item] if isinstance(cell, list) else cell
    return found["bytes"], f"{asked['column']} of row {row + 1} of {table.name}"


def lasting(root: str) -> str:
    """A folder's absolute path, so that references open from any working directory; a hub id as it is."""
    return str(Path(root).absolute()) if Path(root).exists() else root


@lru_cache(maxsize=16)
def opened(table: Table) -> Any:
    """The library's table, its rows as Arrow. Raises DataError where it cannot be opened, ConfigError where the library
    is not installed."""
    library = _library()
    local = Path(table.root)
    saved = any((local / name).is_file() for name in ("state.json", "dataset_dict.json"))
    errors = (OSError, ValueError, KeyError, library.exceptions.DatasetsError)
    try:
        if saved:
            found = library.load_from_disk(table.root)
            found = found[table.split] if isinstance(found, library.DatasetDict) else found
        else:
            revision = None if local.exists() else table.revision
            found = library.load_dataset(table.root, table.subset, split=table.split, revision=revision)
    except errors as error:
        said = " ".join(str(error).split())[:300]
        raise DataError(f"{table.name}: cannot be opened ({said}); check data.root, subset and split") from None
    return found.with_format("arrow")


def _library() -> Any:
    if sentence := missing("hub"):
        raise ConfigError(f"data.root: a hub id or a table {sentence}")
    return import_module("datasets")


# --- cells ------------------------------------------------------------------------------------------------------------


def _holds_pictures(feature: Any) -> bool:
    """Whether a column is of pictures, or of lists of them."""
    inner = getattr(feature, "feature", None)
    return type(feature).__name__ == "Image" or (inner is not None and type(inner).__name__ == "Image")


def _references(table: Table, row: int, column: str, cell: Any) -> Any:
    """A picture's cell as references; a path where the table holds a path and no bytes."""
    if isinstance(cell, list):
        return [_reference(table, row, column, k, one) for k, one in enumerate(cell) if one is not None]
    return None if cell is None else _reference(table, row, column, 0, cell)


def _reference(table: Table, row: int, column: str, item: int, cell: Mapping[str, Any]) -> str:
    if cell.get("bytes") is None:
        return _path_in(table, str(cell.get("path") or ""))
    where = {key: value for key, value in asdict(table).items() if value is not None}
    ref = Reference("hf:" + urlencode({**where, "row": row, "column": column, "item": item}))
    ref.content = hashlib.sha256(cell["bytes"]).hexdigest()[:16]
    return ref


def _path_in(table: Table, path: str) -> str:
    """A picture that lies beside the table, or in the library's own cache; any other path is to be complained of."""
    root = Path(table.root) if Path(table.root).exists() else Path(_library().config.HF_CACHE_HOME)
    target = Path(path).resolve()
    return Reference(target) if target.is_relative_to(root.resolve()) else path


def _plain(value: Any) -> Any:
    """A cell as a JSON value; what has none is left out."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return None
