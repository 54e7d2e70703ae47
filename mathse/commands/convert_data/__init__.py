"""Convert public data sets, as published, to rows of ``data=jsonl``, with copies of their images.

    mathse convert-data SRC DST.jsonl --format geometry3k|mathvision|mathverse|dynamath|wemath
    mathse convert-data official FILE... --out DIR      # the authors' files: official.py
    mathse convert-data preferences FILE... --out DIR   # MMPR and its like: preferences.py

SRC is the folder of an unpacked set, or one of its files: JSON lines, a JSON list, an object of id -> record, or
Geometry3K with one folder per problem. ``FORMATS`` has the files of each set. A folder with ``records.jsonl``, where
``image_file`` is the key of the picture, is read too. Ids are ``<format>/<id>``: converted files can be concatenated.

geometry3k: Lu et al. 2021, "Inter-GPS": train/<number>/data.json beside img_diagram.png
mathvision: Wang et al. 2024, "MATH-V": data/test.jsonl, data/testmini.jsonl beside images/
mathverse:  Zhang et al. 2024, "MathVerse": testmini.json, a list, beside images/
dynamath:   Zou et al. 2024, "DynaMath": dataset.json, an object of id -> record, beside image/
wemath:     Qiao et al. 2024, "We-Math": data/testmini.json, a list, beside 2steps/ and 3steps/; CC BY-NC

All but the first are benchmarks: use their rows for trials, and keep them out of real training data. MathVista is not
converted, because its licence forbids training on it.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathse.commands.convert_data import official, preferences
from mathse.config.program import program
from mathse.data.json_records import JsonRecord, read_records
from mathse.data.readers.llava import options_of, question_of
from mathse.data.readers.source import natural_order
from mathse.errors import DataError

Record = dict[str, Any]
_LETTER = re.compile(r"\A[A-J]:\s*")
_IMAGE_TAG = re.compile(r"\s*<image\d+>")


def geometry3k(record: Record) -> Record:
    """Keep the letter of the answer and the choices. The question is the text that the authors cleaned."""
    return {
        "id": f"geometry3k/{record['id']}",
        "question": (record.get("annotat_text") or record["problem_text"]).strip(),
        "answer": record["answer"],
        "choices": record["choices"],
        "solution": (record.get("detailed_solution") or "").strip(),
        "goal": record.get("problem_type_goal", []),
    }


def mathvision(record: Record) -> Record:
    """Remove the <imageN> tags: a record has one picture, also where its tags count more."""
    return {
        "id": f"mathvision/{record['id']}",
        "question": _IMAGE_TAG.sub("", record["question"]).strip(),
        "answer": str(record["answer"]),
        "choices": record["options"],
        "solution": _IMAGE_TAG.sub("", record.get("solution") or "").strip(),
        "level": record["level"],
        "subject": record["subject"],
    }


def mathverse(record: Record) -> Record:
    """Convert a record of a published file (choices in the question) or of the web page (a list of choices).

    The question of a "Vision Only" record is in the picture. A "Text Only" record has no picture.
    """
    meta = record["metadata"]
    question, choices = question_of(record["question"])
    return {
        "id": f"mathverse/{record.get('sample_index', record.get('pid'))}",
        "question": question or "Answer the question in the picture.",
        "answer": str(record["answer"]),
        "choices": choices or [_LETTER.sub("", choice) for choice in record.get("choices") or []],
        "version": record.get("problem_version", meta.get("problem_version")),
        "subject": meta.get("subject", meta.get("subjects")),
    }


def dynamath(record: Record) -> Record:
    """Move the choices from the question's text to a list."""
    question, choices = question_of(record["question"])
    return {
        "id": f"dynamath/{record.get('id', record.get('pid'))}",
        "question": question,
        "answer": str(record["answer"]),
        "choices": choices,
        "level": record["level"],
        "subject": record["subject"],
    }


def wemath(record: Record) -> Record:
    """Split the text of the choices. ``benchmark=wemath`` groups the steps of a problem by ID and key."""
    return {
        "id": f"wemath/{record['ID']}/{record['key']}",
        "question": record["question"].strip(),
        "answer": record["answer"],
        "choices": options_of(record["option"]),
        "ID": record["ID"],
        "key": record["key"],
        "subject": record["knowledge concept"],
    }


@dataclass(frozen=True)
class PublishedFormat:
    """The format of a published set.

    Attributes:
        convert: converts a record to a row of ``data=jsonl``.
        files: globs below SRC; the first that matches a file is used.
        picture: name of the picture beside the record's file, if the record names no picture.
    """

    convert: Callable[[Record], Record]
    files: tuple[str, ...]
    picture: str | None = None


FORMATS = {
    "geometry3k": PublishedFormat(geometry3k, ("records.jsonl", "**/data.json"), "img_diagram.png"),
    "mathvision": PublishedFormat(mathvision, ("records.jsonl", "**/test.jsonl", "**/testmini.jsonl")),
    "mathverse": PublishedFormat(mathverse, ("records.jsonl", "**/testmini.json", "**/testmini*.json")),
    "dynamath": PublishedFormat(dynamath, ("records.jsonl", "**/dataset.json")),
    "wemath": PublishedFormat(wemath, ("records.jsonl", "**/testmini.json")),
}
PATH_SETS = {"official": official.main, "preferences": preferences.main}  # sets of problems with their paths
REFUSED = {
    "mathvista": "MathVista's licence forbids training on it; use it as a benchmark, and keep it out of your training "
    "data with decontaminate.against=[FILE]"
}


def main(argv: Sequence[str]) -> int:
    """Run the subcommand and return 0. Raises DataError for a source or target that cannot be used."""
    if argv and argv[0] in PATH_SETS:
        return PATH_SETS[argv[0]](argv[1:])
    parser = argparse.ArgumentParser(
        prog=program("convert-data"), description="Convert published records to data=jsonl."
    )
    parser.add_argument("source", type=Path, metavar="SRC", help="a folder with records.jsonl and its images")
    parser.add_argument("target", type=Path, metavar="DST", help="the .jsonl file to write; images go next to it")
    parser.add_argument("--format", required=True, choices=sorted({*FORMATS, *REFUSED}), help="the set that SRC has")
    arguments = parser.parse_args(argv)
    rows = convert(arguments.source, arguments.target, arguments.format)
    print(f"{arguments.target}: {rows} rows; python train.py data=jsonl data.path={arguments.target}")
    return 0


def convert(source: Path, target: Path, format: str) -> int:
    """Write ``target``, and its images to ``images/<format>/`` beside it. Returns the number of rows.

    Nothing is written unless every record converts. Raises DataError for a ``target`` with other content.
    """
    if format in REFUSED:
        raise DataError(f"--format {format}: {REFUSED[format]}")
    # First convert all records, so that a mistake in any record leaves no file.
    rows: list[Record] = []
    pictures: dict[Path, Path] = {}  # source -> copy
    for file, record in _read_files(source, FORMATS[format]):
        position = f"{file}:{record.line}"
        if record.values is None:
            raise DataError(f"{position}: no {format} record ({record.reason}); check --format and SRC")
        values = record.values
        try:
            row = FORMATS[format].convert(values)
            reference = values.get("image_file") or values.get("image") or values.get("image_path")
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{position}: no {format} record ({error!r}); check --format and SRC") from None
        # The picture is beside the record's file (Geometry3K), or the record names it.
        images: list[str] = []
        if (beside := FORMATS[format].picture) is not None and reference is None:
            picture, name = _accept_inside(file.parent / beside, file.parent), f"{values['id']}{Path(beside).suffix}"
        else:
            picture, name = _find_picture(reference, file, source), re.sub(r"\Aimages?/", "", str(reference))
        if picture is None and (reference or beside):
            raise DataError(f"{position}: no image {reference or beside!r} in {file.parent}; fetch the set's images")
        if picture is not None:
            images = [f"images/{format}/{name}"]
            pictures[picture] = target.parent / images[0]
        # id, question and images come first in a row; empty values are left out.
        first = {"id": row.pop("id"), "question": row.pop("question"), "images": images}
        rows.append(first | {key: value for key, value in row.items() if value not in (None, "", [])})

    # Images first, then the file by rename: a file with the final name is complete.
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if target.suffix != ".jsonl":
        raise DataError(f"DST {target}: the name of a .jsonl file is needed; give one")
    if target.exists() and target.read_bytes() != text.encode():
        raise DataError(f"DST {target}: exists with other content; remove it, or choose another name")
    for picture, copy in pictures.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, copy)
    unfinished = target.with_suffix(".jsonl.part")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(target)
    return len(rows)


def _read_files(source: Path, format: PublishedFormat) -> Iterator[tuple[Path, JsonRecord]]:
    """Yield the records of SRC, each with its file. Raises DataError if SRC has no file of the format."""
    files = [source] if source.is_file() else []
    for pattern in format.files:
        files = files or sorted(source.glob(pattern), key=lambda file: (len(file.parts), natural_order(file)))
    if not files:
        patterns = ", ".join(format.files)
        raise DataError(f"{source}: no such file; SRC is a folder that holds {patterns}, or one such file")
    if format.picture is None:
        files = files[:1]  # one file has all records; Geometry3K has one file per problem
    for file in files:
        for record in read_records(file):
            yield file, record


def _find_picture(reference: object, file: Path, source: Path) -> Path | None:
    """Find the picture of a record below the folder of its file, or below a folder above that, up to SRC."""
    if not isinstance(reference, str) or not reference:
        return None
    top = source if source.is_dir() else file.parent.parent
    for folder in (file.parent, *file.parent.parents):
        if (picture := _accept_inside(folder / reference, folder)) is not None:
            return picture
        if folder == top:
            return None
    return None


def _accept_inside(picture: Path, folder: Path) -> Path | None:
    """Return the picture if it is a file that does not lead out of its folder, else None."""
    return picture if picture.is_file() and picture.resolve().is_relative_to(folder.resolve()) else None
