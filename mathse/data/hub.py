"""Any table of the ``datasets`` library as a source of problems: ``data=hf``.

The table is a folder (saved, or of parquet, JSON or CSV files, or of images) or a hub id. Settings map its columns to
our fields:
``data=hf data.root=... data.columns.question=NAME data.columns.answer=NAME data.columns.images=NAME``.

    {"query": "Find x.", "label": "12", "image": <image>}     columns: question=query, answer=label, images=image

``mathse.data.hub_table`` opens the table and its images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mathse.config.data import HubColumnsConfig, HubDataConfig
from mathse.data.answer_form import answer_form
from mathse.data.hub_table import HubTable, ImageReference, lasting, open_table, records
from mathse.data.json_records import BadRow, JsonRecord, kind
from mathse.data.language import language
from mathse.data.problems import FileData
from mathse.data.readers.base import RecordOrigin, content_id, find_image, read_answer, read_letter, text_of
from mathse.data.row_validation import ValidatedRow, validate
from mathse.errors import ConfigError


class HubData(FileData):
    """The rows of a table, split by a hash of (seed, id) as own data.

    Raises DataError for a table that cannot be used, ConfigError for columns that it lacks.
    """

    def __init__(self, settings: HubDataConfig) -> None:
        root, split, columns = settings.root, settings.split, settings.columns
        if root is None:
            raise ConfigError("data.root is not set; give a folder or a hub id: data.root=org/name")
        super().__init__(root, settings)
        table = HubTable(lasting(root), settings.subset, split, settings.revision)
        _check_columns(open_table(table).column_names, columns, table)
        below = Path(settings.images or root)
        self._take(self._read_table(table, columns, RecordOrigin(below, below / split, split)), table.name)
        self._refuse_bad_rows()

    def _read_table(self, table: HubTable, columns: HubColumnsConfig, origin: RecordOrigin) -> Iterator[ValidatedRow]:
        for record in records(table):
            try:
                values = _read_row(record.values or {}, columns, origin)
            except BadRow as error:
                yield ValidatedRow(table.name, record.line, None, None, str(error))
            else:
                source = Path(table.root).name
                yield validate(JsonRecord(record.line, values), table.name, origin.root, self.images, source)


def _check_columns(present: Sequence[str], columns: HubColumnsConfig, table: HubTable) -> None:
    named = {name: column for name, column in asdict(columns).items() if column is not None}
    for name, column in named.items():
        by_default = name == "images" and column == HubColumnsConfig.images  # a table without images needs no setting
        if column not in present and not by_default:
            raise ConfigError(
                f"data.columns.{name} = {column!r}: {table.name} has no such column; it has {', '.join(present)}"
            )
    if "question" not in named or not {"answer", "answer_index"} & named.keys():
        raise ConfigError("data.columns: question, and answer or answer_index, must each name a column")


def _read_row(values: Mapping[str, Any], columns: HubColumnsConfig, origin: RecordOrigin) -> dict[str, Any]:
    """Bring a table's row into our form. Raises BadRow for a row that makes no problem."""
    question = text_of(values, str(columns.question))

    cell = values.get(columns.choices) if columns.choices else None
    texts = cell.values() if isinstance(cell, Mapping) else cell or []
    choices = [str(choice) for choice in texts]

    cell = values.get(columns.images or "")
    if cell not in (None, "") and not isinstance(cell, (str, list)):
        raise BadRow(f"images are pictures or paths, got {kind(cell)}; choose data.columns.images")
    refs = cell if isinstance(cell, list) else list(filter(None, [cell]))
    images = [find_image(ref, origin, ("",)) for ref in refs]

    if columns.answer_index:
        answer = read_letter(values, columns.answer_index, choices).strip()
    else:
        answer = read_answer(values, str(columns.answer)).strip()
    form = answer_form(answer, tuple(choices))

    # Columns that no setting names become metadata. Images do not, because records of a run hold JSON only.
    mapped = {column for column in asdict(columns).values() if column}
    more = {name: v for name, v in values.items() if name not in mapped and v is not None and not _is_image(v)}
    return {
        **more,
        "id": text_of(values, columns.id) if columns.id else content_id(question, images),
        "question": question.strip(),
        "images": images,
        "answer": form.letter or answer,
        "choices": choices,
        "solution": text_of(values, columns.solution) if columns.solution and values.get(columns.solution) else None,
        "language": language(question, choices),
        "answer_form": form.to_json(),
    }


def _is_image(value: Any) -> bool:
    return any(isinstance(v, ImageReference) for v in (value if isinstance(value, list) else [value]))
