"""What a reader of a published set is: where its files lie, and how a record becomes a row of our own form."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mathse.data.forms import answer_form
from mathse.data.hub_table import Reference
from mathse.data.language import language
from mathse.data.records import BadRow, kind
from mathse.data.rows import inside

Values = Mapping[str, Any]
SPLITS = ("train", "val", "test", "all")


@dataclass(frozen=True)
class Place:
    """Where a record stands: ``file`` below ``root`` (the record's table, where it is one of a hub's)."""

    root: Path
    file: Path
    split: str
    SEVERAL: ClassVar[str] = "several"  # split: a file that holds all of them

    def beside(self, name: str) -> str:
        """A file next to this one, as a path below the root."""
        return self.file.with_name(name).relative_to(self.root).as_posix()


@dataclass(frozen=True)
class PublicSet:
    """A published set.

    ``patterns``: globs below the root for a split's files, the first that finds any is taken; ``{split}`` is replaced.
    ``rows``: a record and its place -> rows of our form; BadRow for a record that makes none. A row's ``images`` are
    paths as the record has them; ``folders`` are tried before them, and ``Reference`` is taken as it stands.
    """

    name: str
    title: str
    home: str
    licence: str
    hub: str | None  # the set's id on the hub
    patterns: Sequence[str]
    rows: Callable[[Values, Place], Iterator[dict[str, Any]]]
    folders: Sequence[str] = ("",)
    refused: Mapping[str, str] | None = None  # ending -> why such a file is not read
    split_names: Mapping[str, str] | None = None  # our name of a split -> the set's own

    def splits_of(self, split: str) -> tuple[str, ...]:
        """The set's own names of the splits asked for."""
        names = self.split_names or {}
        asked = ("train", "val", "test") if split == "all" else (split,)
        return tuple(names.get(one, one) for one in asked)


def tagged(name: str, record_id: object, question: str, answer: str, **more: Any) -> dict[str, Any]:
    """A row of our form with the tags every published set's rows have: language, and the form of its answer.

    ``record_id`` None: a hash of the question and the images. Of a choice the answer is its letter.
    """
    images, choices = list(more.pop("images", [])), [str(choice).strip() for choice in more.pop("choices", None) or []]
    unit = more.pop("unit", None) or None
    question, answer = question.strip(), answer.strip()
    form = answer_form(answer, tuple(choices), unit)
    identity = content_id(question, images) if record_id is None else str(record_id)
    row = {"id": f"{name}/{identity}", "question": question, "images": images, "answer": form.letter or answer}
    filled = {key: value for key, value in more.items() if value not in (None, "", [])}
    return {**row, "choices": choices, **filled, "language": language(question, choices), "answer_form": form.to_json()}


def content_id(question: str, images: Sequence[str]) -> str:
    """Twelve hex digits of what is asked about which pictures."""
    text = "\x1f".join([question, *(getattr(ref, "content", ref) or ref for ref in images)])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def found_image(ref: object, place: Place, folders: Sequence[str]) -> str:
    """The image ``ref`` of a record as a path below the root: the first of ``folders`` that has it.

    Raises BadRow for what is no path below it; a path that is nowhere is returned as it is, to be complained of.
    """
    if isinstance(ref, Reference):
        return ref
    if not isinstance(ref, str) or not ref.strip():
        raise BadRow(f"an image is the path of a file, got {kind(ref)}; correct the record")
    ref = ref.removeprefix("./")
    for folder in folders:
        path = "/".join(filter(None, (folder.format(split=place.split), ref)))
        if Path(inside(path, place.root)).is_file():
            return path
    return ref


def text_of(values: Values, *names: str) -> str:
    """The first of these fields that holds text, or a number as text. Raises BadRow if none does."""
    for name in names:
        value = values.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value.strip():
            return value
    found = next((name for name in names if name in values), None)
    if found is None:
        raise BadRow(f'"{names[0]}" is missing; is this file of another set?')
    value = values[found]
    if isinstance(value, str):
        raise BadRow(f'"{found}" is empty; fill it in, or leave the row out')
    raise BadRow(f'"{found}" is text, got {kind(value)}; correct the record')


def list_of(values: Values, name: str) -> list[Any]:
    """A field's list, () where it is null or missing. Raises BadRow for anything else."""
    value = values.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadRow(f'"{name}" is a list, got {kind(value)}; correct the record')
    return value


def letter_of(values: Values, name: str, choices: Sequence[Any]) -> str:
    """The letter of a choice that is named by its number from 0. Raises BadRow for a number that is none of them."""
    label = values.get(name)
    if isinstance(label, str) and label.strip().isdigit():
        label = int(label)
    if isinstance(label, bool) or not isinstance(label, int):
        raise BadRow(f'"{name}" is the number of a choice, got {kind(label)}; correct the record')
    if not 0 <= label < len(choices):
        raise BadRow(f'"{name}" {label} is none of the {len(choices)} choices, counted from 0; correct one of them')
    return chr(ord("A") + label)
