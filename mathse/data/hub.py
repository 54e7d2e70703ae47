"""Tables of the ``datasets`` library: a folder (saved, or of parquet, JSON or CSV files, or of pictures) or a hub id.

``data=hf data.root=... data.columns.question=NAME data.columns.answer=NAME data.columns.images=NAME``. How a table is
opened, and where its pictures stay: ``mathse.data.hub_table``.

    {"query": "Find x.", "label": "12", "image": <picture>}     columns: question=query, answer=label, images=image
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mathse.config.data import Columns
from mathse.config.data import HubData as Settings
from mathse.data.forms import answer_form
from mathse.data.hub_table import Reference, Table, lasting, opened, records
from mathse.data.language import language
from mathse.data.problems import FileData
from mathse.data.readers.base import Place, content_id, found_image, letter_of, list_of, text_of
from mathse.data.records import BadRow, Record, kind
from mathse.data.rows import Row, checked
from mathse.errors import ConfigError


class HubData(FileData):
    """The rows of a table, split by a hash of (seed, id) as own data is.

    Raises DataError for a table that cannot be used, ConfigError for columns that it does not have.
    """

    def __init__(self, settings: Settings) -> None:
        root, split, columns = settings.root, settings.split, settings.columns
        if root is None:
            raise ConfigError("data.root is not set; give a folder or a hub id: data.root=org/name")
        super().__init__(root, settings)
        table = Table(lasting(root), settings.subset, split, settings.revision)
        _check_columns(opened(table).column_names, columns, table)
        below = Path(settings.images or root)
        self._take(self._rows(table, columns, Place(below, below / split, split)), table.name)
        self._opened()

    def _rows(self, table: Table, columns: Columns, place: Place) -> Iterator[Row]:
        for record in records(table):
            try:
                values = _row(record.values or {}, columns, place)
            except BadRow as error:
                yield Row(table.name, record.line, None, None, str(error))
            else:
                yield checked(Record(record.line, values), table.name, place.root, self.images, Path(table.root).name)


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
        "language": language(question, choices),
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
