"""Rows whose keys are called otherwise than ours (``data.columns.answer=label``), and rows that lack keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mathse.config.data import JsonlColumns
from mathse.data.json_records import BadRow
from mathse.data.readers.base import content_id
from mathse.data.row_validation import FIELDS, REQUIRED, check_names, missing_keys

SHOWN = 12  # keys of a row in a sentence


def in_own_form(values: Mapping[str, Any], columns: JsonlColumns) -> Mapping[str, Any]:
    """A row with our keys; the others become its metadata.

    Where a key is named, the file was not made for us: then a row without ``id`` gets a hash of its question and
    pictures, a row without ``images`` has none, one path counts as a list, and a number as an answer. Raises BadRow
    that names all missing keys.
    """
    named = {field: column for field, column in asdict(columns).items() if column is not None}
    if named:
        row = {key: value for key, value in values.items() if key not in (*named, *named.values())}
        row |= {field: values[column] for field, column in named.items() if column in values}
        for field in ("id", "answer"):
            if isinstance(row.get(field), (int, float)) and not isinstance(row[field], bool):
                row[field] = str(row[field])
        pictures = row.get("images")
        row["images"] = [] if pictures is None else [pictures] if isinstance(pictures, str) else pictures
        if "id" not in row and isinstance(row.get("question"), str) and isinstance(row["images"], list):
            row["id"] = content_id(row["question"], [str(picture) for picture in row["images"]])
    else:
        row = dict(values)
    check_names(row, FIELDS)
    if (missing := missing_keys(row)) is not None:
        lacking = [name for name in REQUIRED if name not in row]
        keys = ", ".join(list(values)[:SHOWN]) or "no key"
        remedy = " ".join(f"data.columns.{name}=KEY" for name in lacking)
        raise BadRow(f"{missing}; this one has {keys}; {remedy} takes other keys")
    return row
