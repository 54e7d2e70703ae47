"""Public data sets, as they are published -> rows of ``data=jsonl``, next to copies of their images.

    mathse convert-data SRC DST.jsonl --format geometry3k|mathvision|mathverse|dynamath|wemath
    mathse convert-data official FILE... --out DIR      # the authors' files: official.py
    mathse convert-data preferences FILE... --out DIR   # MMPR and its like: preferences.py

SRC is the folder that a set was unpacked to, or one of its files: JSON lines, a JSON list, an object of id -> record,
or Geometry3K's folder a problem. ``FORMATS`` says where the records of each lie and what names a picture; a folder with
``records.jsonl``, whose records name their picture in ``image_file``, is read too. Ids are ``<format>/<id>``, so
converted files can be concatenated.

geometry3k: Lu et al. 2021, "Inter-GPS": train/<number>/data.json beside img_diagram.png
mathvision: Wang et al. 2024, "MATH-V": data/test.jsonl, data/testmini.jsonl beside images/
mathverse:  Zhang et al. 2024, "MathVerse": testmini.json, a list, beside images/
dynamath:   Zou et al. 2024, "DynaMath": dataset.json, an object of id -> record, beside image/
wemath:     Qiao et al. 2024, "We-Math": data/testmini.json, a list, beside 2steps/ and 3steps/; CC BY-NC

All but the first are benchmarks: their rows are for trying things out, and to be kept out of real training data. Rows
of MathVista are not converted: its licence forbids training on it.
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
from mathse.config.program import format_command
from mathse.data.json_records import JsonRecord, read_records
from mathse.data.readers.llava import options_of, question_of
from mathse.data.readers.source import natural_order
from mathse.errors import DataError

Record = dict[str, Any]
_LETTER = re.compile(r"\A[A-J]:\s*")
_IMAGE_TAG = re.compile(r"\s*<image\d+>")


def geometry3k(record: Record) -> Record:
    """The letter of the answer and the choices are kept; the question is the text that the authors cleaned."""
    return {
        "id": f"geometry3k/{record['id']}",
        "question": (record.get("annotat_text") or record["problem_text"]).strip(),
        "answer": record["answer"],
        "choices": record["choices"],
        "solution": (record.get("detailed_solution") or "").strip(),
        "goal": record.get("problem_type_goal", []),
    }


def mathvision(record: Record) -> Record:
    """Without the <imageN> tags: a record has one picture, whatever its tags count."""
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
    """A "Vision Only" record has its question in the picture, a "Text Only" record no picture. The published file has
    the choices in the question; the records of the web page have them in a list."""
    meta = record["metadata"]
    question, choices = question_of(record["question"])
    return {
        "id": f"mathverse/{record.get('sample_index', record.get('pid'))}",
        "question": question or IN_THE_PICTURE,
        "answer": str(record["answer"]),
        "choices": choices or [_LETTER.sub("", choice) for choice in record.get("choices") or []],
        "version": record.get("problem_version", meta.get("problem_version")),
        "subject": meta.get("subject", meta.get("subjects")),
    }


def dynamath(record: Record) -> Record:
    """The choices are taken out of the question's text."""
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
    """The choices are one text. ID and key say which steps belong to one problem; benchmark=wemath reads them."""
    return {
        "id": f"wemath/{record['ID']}/{record['key']}",
        "question": record["question"].strip(),
        "answer": record["answer"],
        "choices": options_of(record["option"]),
        "ID": record["ID"],
        "key": record["key"],
        "subject": record["knowledge concept"],
    }


IN_THE_PICTURE = "Answer the question in the picture."


@dataclass(frozen=True)
class Format:
    """``row``: a record as a row of ours. ``files``: globs below SRC, of which the first that matches is taken.
    ``picture``: the file beside each record's own, where a record does not name one."""

    row: Callable[[Record], Record]
    files: tuple[str, ...]
    picture: str | None = None


FORMATS = {
    "geometry3k": Format(geometry3k, ("records.jsonl", "**/data.json"), "img_diagram.png"),
    "mathvision": Format(mathvision, ("records.jsonl", "**/test.jsonl", "**/testmini.jsonl")),
    "mathverse": Format(mathverse, ("records.jsonl", "**/testmini.json", "**/testmini*.json")),
    "dynamath": Format(dynamath, ("records.jsonl", "**/dataset.json")),
    "wemath": Format(wemath, ("records.jsonl", "**/testmini.json")),
}
OF_PATHS = {"official": official.main, "preferences": preferences.main}  # sets of paths, not of problems alone
REFUSED = {
    "mathvista": "MathVista's licence forbids training on it; use it as a benchmark, and keep it out of your training "
    "data with decontaminate.against=[FILE]"
}


def main(argv: Sequence[str]) -> int:
    """``convert-data``: prints what was written, returns 0; a DataError for a source or target that cannot be used."""
    if argv and argv[0] in OF_PATHS:
        return OF_PATHS[argv[0]](argv[1:])
    parser = argparse.ArgumentParser(prog=format_command("convert-data"), description="Public records -> data=jsonl")
    parser.add_argument("source", type=Path, metavar="SRC", help="a folder with records.jsonl and its images")
    parser.add_argument("target", type=Path, metavar="DST", help="the .jsonl file to write; images go next to it")
    parser.add_argument("--format", required=True, choices=sorted({*FORMATS, *REFUSED}), help="whose records SRC holds")
    arguments = parser.parse_args(argv)
    rows = convert(arguments.source, arguments.target, arguments.format)
    print(f"{arguments.target}: {rows} rows; python train.py data=jsonl data.path={arguments.target}")
    return 0


def convert(source: Path, target: Path, format: str) -> int:
    """Write ``target`` and its images under ``images/<format>/`` beside it; returns the number of rows.

    Nothing is written unless every record converts; a ``target`` with other content is left alone (DataError).
    """
    if format in REFUSED:
        raise DataError(f"--format {format}: {REFUSED[format]}")
    rows: list[Record] = []
    pictures: dict[Path, Path] = {}  # from, to
    for file, record in _records(source, FORMATS[format]):
        position = f"{file}:{record.line}"
        if record.values is None:
            raise DataError(f"{position}: no {format} record ({record.reason}); check --format and SRC")
        values = record.values
        try:
            row = FORMATS[format].row(values)
            reference = values.get("image_file") or values.get("image") or values.get("image_path")
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{position}: no {format} record ({error!r}); check --format and SRC") from None
        images: list[str] = []
        if (beside := FORMATS[format].picture) is not None and reference is None:
            picture, name = _inside(file.parent / beside, file.parent), f"{values['id']}{Path(beside).suffix}"
        else:
            picture, name = _picture(reference, file, source), re.sub(r"\Aimages?/", "", str(reference))
        if picture is None and (reference or beside):
            raise DataError(f"{position}: no image {reference or beside!r} in {file.parent}; fetch the set's images")
        if picture is not None:
            images = [f"images/{format}/{name}"]
            pictures[picture] = target.parent / images[0]
        first = {"id": row.pop("id"), "question": row.pop("question"), "images": images}
        rows.append(first | {key: value for key, value in row.items() if value not in (None, "", [])})

    # Images first, then the file, by rename: a file that is there is whole.
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


def _records(source: Path, format: Format) -> Iterator[tuple[Path, JsonRecord]]:
    """The records of SRC, each with its file. Raises DataError where there is no file of the format."""
    files = [source] if source.is_file() else []
    for pattern in format.files:
        files = files or sorted(source.glob(pattern), key=lambda file: (len(file.parts), natural_order(file)))
    if not files:
        looked_for = ", ".join(format.files)
        raise DataError(f"{source}: no such file; SRC is a folder that holds {looked_for}, or one such file")
    if format.picture is None:
        files = files[:1]  # one file holds all; Geometry3K has one a problem
    for file in files:
        for record in read_records(file):
            yield file, record


def _picture(reference: object, file: Path, source: Path) -> Path | None:
    """The picture that a record names: below its file's folder, or below a folder above it, up to SRC."""
    if not isinstance(reference, str) or not reference:
        return None
    top = source if source.is_dir() else file.parent.parent
    for folder in (file.parent, *file.parent.parents):
        if (picture := _inside(folder / reference, folder)) is not None:
            return picture
        if folder == top:
            return None
    return None


def _inside(picture: Path, folder: Path) -> Path | None:
    """The picture, if it is a file and no way out of its folder."""
    return picture if picture.is_file() and picture.resolve().is_relative_to(folder.resolve()) else None
