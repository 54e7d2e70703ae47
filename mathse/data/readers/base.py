"""What a reader of a published set is: where its files lie, and how a record becomes a row of our own form.

The functions below read fields of published records, which are less regular than their descriptions: a number where
text is promised, a list of one, a path from another folder. What cannot be read raises BadRow with the field's name.
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
    """Where a record comes from: ``file`` below ``root``, of the set's own ``split``. Of a hub's table, ``file`` is the
    table's root and split, which is no file."""

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
    """A published set.

    ``patterns``: globs below the root for a split's files, the first that matches any is taken; ``{split}`` is
    replaced. ``rows``: a record and its origin -> rows of our form; BadRow for a record that makes none. A row's
    ``images`` are paths below the root, or an ImageReference.
    """

    name: str
    title: str
    home: str
    licence: str
    patterns: Sequence[str]
    rows: Callable[[Values, RecordOrigin], Iterator[dict[str, Any]]]
    refused: Mapping[str, str] | None = None  # ending -> why such a file is not read
    split_names: Mapping[str, str] | None = None  # our name of a split -> the set's own

    def splits_of(self, split: str) -> tuple[str, ...]:
        """The set's own names of the splits that the setting ``split`` stands for."""
        names = self.split_names or {}
        splits = ("train", "val", "test") if split == "all" else (split,)
        return tuple(names.get(name, name) for name in splits)


def tagged(name: str, record_id: object, question: str, answer: str, **more: Any) -> dict[str, Any]:
    """A row of our form with the tags every published set's rows have: language, and the form of its answer.

    ``record_id`` None: a hash of the question and the images. Of a choice the answer is its letter.
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
    """Twelve hex digits of a question and its images: the id of a row that has none of its own. Of images it takes the
    references that the record has, so that the id does not depend on the folder that a set was unpacked to."""
    text = "\x1f".join([question, *(getattr(ref, "content", ref) or ref for ref in images)])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


class PublishedImage(str):
    """The path of an image below the root. ``content``: the reference as the record has it, which is the same wherever
    the root is."""

    content: str

    def __new__(cls, path: str, reference: str) -> PublishedImage:
        image = super().__new__(cls, path)
        image.content = reference
        return image


def found_image(ref: object, origin: RecordOrigin, folders: Sequence[str]) -> str:
    """The image ``ref`` of a record as a path below the root: the first of ``folders`` that has it.

    Raises BadRow for what is no path below the root. A path that is in none of them is returned unchanged, and refused
    when the row is validated.
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
    """The first of these fields that holds text, or a number as text. Raises BadRow if none does."""
    for name in names:
        value = values.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value.strip():
            return value
    present = next((name for name in names if name in values), None)
    if present is None:
        raise BadRow(f'"{names[0]}" is missing; is this file of another set?')
    if isinstance(values[present], str):
        raise BadRow(f'"{present}" is empty; fill it in, or leave the row out')
    raise BadRow(f'"{present}" is text, got {kind(values[present])}; correct the record')


def answer_of(values: Values, *names: str) -> str:
    """A reference answer: text, a number, or a list of one of these. Raises BadRow for anything else."""
    name = next((name for name in names if name in values), names[0])
    if isinstance(answers := values.get(name), list):
        if len(answers) != 1:
            raise BadRow(f'"{name}" holds {len(answers)} answers; one is needed')
        return text_of({name: answers[0]}, name)
    return text_of(values, *names)


def list_of(values: Values, name: str) -> list[Any]:
    """A field's list, [] where it is null or missing. Raises BadRow for anything else."""
    value = values.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadRow(f'"{name}" is a list, got {kind(value)}; correct the record')
    return value


def letter_of(values: Values, name: str, choices: Sequence[Any]) -> str:
    """The letter of a choice that is given by its number from 0. Raises BadRow for a number that is none of them."""
    label = values.get(name)
    if isinstance(label, str) and label.strip().isdigit():
        label = int(label)
    if isinstance(label, bool) or not isinstance(label, int):
        raise BadRow(f'"{name}" is the number of a choice, got {kind(label)}; correct the record')
    if not 0 <= label < len(choices):
        raise BadRow(f'"{name}" {label} is none of the {len(choices)} choices, counted from 0; correct one of them')
    return chr(ord("A") + label)
