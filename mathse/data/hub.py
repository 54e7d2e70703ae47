"""Tables of the ``datasets`` library: a folder (saved, or of parquet, JSON or CSV files, or of pictures) or a hub id.

``data=hf data.root=... data.columns.question=NAME data.columns.answer=NAME data.columns.images=NAME``. Rows stay in the
library's memory-mapped table, pictures too: one in a table is referred to as ``hf:root=...&row=...`` and read from
there when it is needed. Nothing is fetched where HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set: the library's cache is
used then. No program that a set brings along is run: the library has no such thing since version 4.

    {"query": "Find x.", "label": "12", "image": <picture>}     columns: question=query, answer=label, images=image
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from PIL import Image

from mathse.config.data import Columns
from mathse.config.extras import missing
from mathse.data import images
from mathse.data.forms import answer_form, language
from mathse.data.problems import FileData, Shares
from mathse.data.readers.base import Place, content_id, found_image, letter_of, list_of, text_of
from mathse.data.records import BadRow, Record, kind
from mathse.data.rows import Reference, Row, checked
from mathse.errors import ConfigError, DataError

BATCH = 64  # rows read at a time
USUAL = Columns()


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


class HubData(FileData):
    """The rows of a table, split by a hash of (seed, id) as own data is.

    Raises DataError for a table that cannot be used, ConfigError for columns that it does not have.
    """

    def __init__(
        self,
        root: str | None = None,
        subset: str | None = None,
        split: str = "train",
        revision: str | None = None,
        images: str | None = None,
        columns: Columns | Mapping[str, str | None] = USUAL,
        seed: int = 0,
        test_share: float = 0.2,
        dev_share: float = 0.1,
        orm_share: float = 0.2,
        seed_share: float = 0.4,
        on_bad_row: str = "error",
    ) -> None:
        if root is None:
            raise ConfigError("data.root is not set; give a folder or a hub id: data.root=org/name")
        super().__init__(root, seed, Shares(test_share, dev_share, orm_share, seed_share), on_bad_row)
        table = Table(lasting(root), subset, split, revision)
        named = columns if isinstance(columns, Columns) else Columns(**columns)
        _check_columns(opened(table).column_names, named, table)
        below = Path(images or root)
        self._take(self._rows(table, named, Place(below, below / split, split)), table.name)
        self._opened()

    def _rows(self, table: Table, columns: Columns, place: Place) -> Iterator[Row]:
        for record in records(table):
            try:
                values = _row(record.values or {}, columns, place)
            except BadRow as error:
                yield Row(table.name, record.line, None, None, str(error))
            else:
                yield checked(Record(record.line, values), table.name, place.root, self.images, Path(table.root).name)


def records(table: Table) -> Iterator[Record]:
    """The rows of a table, counted from 1; a picture in it is a Reference, other cells are JSON values."""
    data = opened(table)
    pictures = [name for name, feature in data.features.items() if _holds_pictures(feature)]
    for start in range(0, len(data), BATCH):
        for k, values in enumerate(data[start : start + BATCH].to_pylist(), start=start):
            refs = {name: _references(table, k, name, values[name]) for name in pictures}
            yield Record(k + 1, {name: _plain(value) for name, value in values.items()} | refs)


def image(ref: str) -> Image.Image:
    """The picture behind a reference into a table. Raises DataError as ``images.load_image``."""
    return images.decode(*_cell(ref))


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


# --- rows -------------------------------------------------------------------------------------------------------------


def _check_columns(present: Sequence[str], columns: Columns, table: Table) -> None:
    wanted = {name: column for name, column in _named(columns).items() if column is not None}
    optional = {"images": Columns.images}  # a table without pictures needs no setting
    for name, column in wanted.items():
        if column not in present and optional.get(name) != column:
            raise ConfigError(
                f"data.columns.{name} = {column!r}: {table.name} has no such column; it has {', '.join(present)}"
            )
    if "question" not in wanted or not {"answer", "answer_index"} & wanted.keys():
        raise ConfigError("data.columns: question, and answer or answer_index, must each name a column")


def _named(columns: Columns) -> dict[str, str | None]:
    return asdict(columns)


def _row(values: Mapping[str, Any], columns: Columns, place: Place) -> dict[str, Any]:
    """A table's row in our form. Raises BadRow for one that makes none."""
    question = text_of(values, str(columns.question))
    listed = values.get(columns.choices) if columns.choices else None
    choices = [str(c) for c in (list(listed.values()) if isinstance(listed, Mapping) else listed or [])]
    pictures = [found_image(ref, place, ("",)) for ref in _listed(values.get(columns.images or ""))]
    mapped = {column for column in _named(columns).values() if column}
    more = {name: v for name, v in values.items() if name not in mapped and v is not None and not _refers(v)}
    solution = text_of(values, columns.solution) if columns.solution and values.get(columns.solution) else None
    identity = text_of(values, columns.id) if columns.id else content_id(question, pictures)
    answer = _answer(values, columns, choices).strip()
    form = answer_form(answer, tuple(choices))
    return {
        **more,
        "id": identity,
        "question": question.strip(),
        "images": pictures,
        "answer": form.letter or answer,
        "choices": choices,
        "solution": solution,
        "language": language(question),
        "answer_form": form.to_json(),
    }


def _answer(values: Mapping[str, Any], columns: Columns, choices: Sequence[str]) -> str:
    if columns.answer_index:
        return letter_of(values, columns.answer_index, choices)
    found = values.get(str(columns.answer))
    if isinstance(found, list):
        if len(list_of(values, str(columns.answer))) != 1:
            raise BadRow(f'"{columns.answer}" holds {len(found)} answers; one is needed')
        return text_of({"answer": found[0]}, "answer")
    return text_of(values, str(columns.answer))


def _listed(cell: Any) -> list[Any]:
    if cell in (None, ""):
        return []
    if not isinstance(cell, (str, list)):
        raise BadRow(f"images are pictures or paths, got {kind(cell)}; choose data.columns.images")
    return cell if isinstance(cell, list) else [cell]


def _refers(value: Any) -> bool:
    return isinstance(value, Reference) or (isinstance(value, list) and any(isinstance(v, Reference) for v in value))
