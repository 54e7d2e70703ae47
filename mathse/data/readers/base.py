"""The definition of a published set, and functions that read a field of a published record.

Published records are less regular than their descriptions: a number where text is promised, a list with a single entry,
a path from another folder. The functions below raise BadRow with the field's name where a field cannot be read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathse.data.answer_form import answer_form
from mathse.data.hub_table import ImageReference
from mathse.data.json_records import BadRow, kind
from mathse.data.language import language
from mathse.data.row_validation import path_inside

Values = Mapping[str, Any]


@dataclass(frozen=True)
class RecordOrigin:
    """The place of a record: ``file`` below ``root``, in ``split`` by the set's own name. In a hub's table, ``file``
    joins the table's root and split, and no such file exists."""

    root: Path
    file: Path
    split: str

    @property
    def folder(self) -> str:
        """The file's folder as a path below the root; "" for the root itself."""
        folder = self.file.parent.relative_to(self.root).as_posix()
        return "" if folder == "." else folder


@dataclass(frozen=True)
class PublishedSet:
    """A published set: its terms, its files and its reader.

    ``patterns``: globs below the root for a split's files; the first pattern with a match is used. ``{split}`` stands
    for the split's name. ``rows``: (record, origin) -> rows of our form; raises BadRow for a record that makes none. A
    row's ``images`` are paths below the root, or an ImageReference.
    """

    name: str
    title: str
    home: str
    licence: str
    patterns: Sequence[str]
    rows: Callable[[Values, RecordOrigin], Iterator[dict[str, Any]]]
    refused: Mapping[str, str] | None = None  # file suffix -> why such a file is not read
    split_names: Mapping[str, str] | None = None  # our name of a split -> the set's own

    def splits_of(self, split: str) -> tuple[str, ...]:
        """Give the set's own names of the splits that the setting ``split`` stands for."""
        names = self.split_names or {}
        splits = ("train", "val", "test") if split == "all" else (split,)
        return tuple(names.get(name, name) for name in splits)


def make_row(name: str, record_id: object, question: str, answer: str, **more: Any) -> dict[str, Any]:
    """Make a row of our form, with two tags that every published set's rows have: language and form of the answer.

    Args:
        name: name of the set, which begins the row's id.
        record_id: id of the record. None: a hash of the question and the images.
        answer: reference answer. The row of a choice question holds its letter.
        more: images, choices, unit, solution, and metadata. Empty values are left out.
    """
    images, choices = list(more.pop("images", [])), [str(choice).strip() for choice in more.pop("choices", None) or []]
    unit = more.pop("unit", None) or None
    question, answer = question.strip(), answer.strip()
    form = answer_form(answer, tuple(choices), unit)
    row_id = content_id(question, images) if record_id is None else str(record_id)
    row = {"id": f"{name}/{row_id}", "question": question, "images": images, "answer": form.letter or answer}
    filled = {key: value for key, value in more.items() if value not in (None, "", [])}
    return {**row, "choices": choices, **filled, "language": language(question, choices), "answer_form": form.to_json()}


def content_id(question: str, images: Sequence[str]) -> str:
    """Hash a question and its images to twelve hex digits: the id of a row without an id.

    The hash takes the image references of the record, so that the id does not depend on the folder of the set.
    """
    text = "\x1f".join([question, *(getattr(ref, "content", ref) or ref for ref in images)])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


class PublishedImage(str):
    """The path of an image below the root. ``content``: the reference in the record, which does not depend on the
    root."""

    content: str

    def __new__(cls, path: str, reference: str) -> PublishedImage:
        image = super().__new__(cls, path)
        image.content = reference
        return image


def find_image(ref: object, origin: RecordOrigin, folders: Sequence[str]) -> str:
    """Find the image ``ref`` of a record in the first of ``folders`` that has it; return its path below the root.

    A path that no folder has is returned unchanged, and refused when the row is validated. Raises BadRow for a value
    that is no path below the root.
    """
    if isinstance(ref, ImageReference):
        return ref
    if not isinstance(ref, str) or not ref.strip():
        raise BadRow(f"an image is the path of a file, got {kind(ref)}; correct the record")
    ref = ref.removeprefix("./")
    for folder in folders:
        path = "/".join(filter(None, (folder.replace("{split}", origin.split), ref)))
        if Path(path_inside(path, origin.root)).is_file():
            return PublishedImage(path, ref)
    return ref


def text_of(values: Values, *names: str) -> str:
    """Read the first of these fields that holds text, or a number as text. Raises BadRow if none does."""
    for name in names:
        value = values.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value.strip():
            return value
    # No field holds text: report the first that the record has at all.
    present = next((name for name in names if name in values), None)
    if present is None:
        raise BadRow(f'"{names[0]}" is missing; is this file of another set?')
    if isinstance(values[present], str):
        raise BadRow(f'"{present}" is empty; fill it in, or leave the row out')
    raise BadRow(f'"{present}" is text, got {kind(values[present])}; correct the record')


def read_answer(values: Values, *names: str) -> str:
    """Read a reference answer: text, a number, or a list with a single text or number. Raises BadRow otherwise."""
    name = next((name for name in names if name in values), names[0])
    if isinstance(answers := values.get(name), list):
        if len(answers) != 1:
            raise BadRow(f'"{name}" holds {len(answers)} answers; one is needed')
        return text_of({name: answers[0]}, name)
    return text_of(values, *names)


def read_list(values: Values, name: str) -> list[Any]:
    """Read a field's list, [] where it is null or missing. Raises BadRow for any other value."""
    value = values.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadRow(f'"{name}" is a list, got {kind(value)}; correct the record')
    return value


def read_letter(values: Values, name: str, choices: Sequence[Any]) -> str:
    """Read the number of a choice, counted from 0, as its letter. Raises BadRow for a number without a choice."""
    label = values.get(name)
    if isinstance(label, str) and label.strip().isdigit():
        label = int(label)
    if isinstance(label, bool) or not isinstance(label, int):
        raise BadRow(f'"{name}" is the number of a choice, got {kind(label)}; correct the record')
    if not 0 <= label < len(choices):
        raise BadRow(f'"{name}" {label} is none of the {len(choices)} choices, counted from 0; correct one of them')
    return chr(ord("A") + label)
