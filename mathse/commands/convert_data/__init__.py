"""Public data sets -> rows of ``data=jsonl``, next to copies of their images.

    mathse convert-data SRC DST.jsonl --format geometry3k|mathvision|mathverse|dynamath
    mathse convert-data official FILE... --out DIR   # the authors' files: official.py

SRC is a folder with ``records.jsonl`` (or that file), whose records name their picture in ``image_file``, relative to
it. Ids are ``<format>/<id>``, so converted files can be concatenated.

geometry3k: Lu et al. 2021, "Inter-GPS", records as in its repository (problem_text, choices, answer a letter)
mathvision: Wang et al. 2024, "MATH-V" (question with <imageN> tags, options, answer a letter or a value)
mathverse:  Zhang et al. 2024, "MathVerse", records of its web page (question, choices "A:...", problem versions)
dynamath:   Zou et al. 2024, "DynaMath" (question with its choices in it, answer)

The last three are benchmarks: their rows are for trying things out, and to be kept out of real training data. Rows of
MathVista are not converted: its licence forbids training on it.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mathse.commands.convert_data import official
from mathse.config.program import program
from mathse.data.json_records import read_lines
from mathse.data.readers.llava import question_of
from mathse.errors import DataError

Record = dict[str, Any]
_LETTER = re.compile(r"\A[A-J]:\s*")
_IMAGE_TAG = re.compile(r"\s*<image\d+>")


def geometry3k(record: Record) -> Record:
    """The letter of the answer and the choices are kept; the question is the data set's own text."""
    return {
        "id": f"geometry3k/{record['id']}",
        "question": record["problem_text"].strip(),
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
    """A "Vision Only" record has its question in the picture, a "Text Only" record no picture."""
    meta = record["metadata"]
    return {
        "id": f"mathverse/{record['pid']}",
        "question": record["question"].strip() or IN_THE_PICTURE,
        "answer": str(record["answer"]),
        "choices": [_LETTER.sub("", choice) for choice in record["choices"] or []],
        "version": meta["problem_version"],
        "subject": meta["subjects"],
    }


def dynamath(record: Record) -> Record:
    """The choices are taken out of the question's text."""
    question, choices = question_of(record["question"])
    return {
        "id": f"dynamath/{record['pid']}",
        "question": question,
        "answer": str(record["answer"]),
        "choices": choices,
        "level": record["level"],
        "subject": record["subject"],
    }


IN_THE_PICTURE = "Answer the question in the picture."
FORMATS: dict[str, Callable[[Record], Record]] = {
    "geometry3k": geometry3k,
    "mathvision": mathvision,
    "mathverse": mathverse,
    "dynamath": dynamath,
}
REFUSED = {
    "mathvista": "MathVista's licence forbids training on it; use it as a benchmark, and keep it out of your training "
    "data with decontaminate.against=[FILE]"
}


def main(argv: Sequence[str]) -> int:
    """``convert-data``: prints what was written, returns 0; a DataError for a source or target that cannot be used."""
    if argv and argv[0] == "official":
        return official.main(argv[1:])
    parser = argparse.ArgumentParser(prog=program("convert-data"), description="Public records -> data=jsonl")
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
    records = source if source.is_file() else source / "records.jsonl"
    if not records.is_file():
        raise DataError(f"{records}: no such file; SRC is a folder that holds records.jsonl")
    rows: list[Record] = []
    pictures: dict[Path, Path] = {}  # from, to
    for number, record, reason in read_lines(records):
        if record is None:
            raise DataError(f"{records}:{number}: no {format} record ({reason}); check --format and SRC")
        try:
            file: str | None = record["image_file"] if record.get("image", "") is not None else None
            row = FORMATS[format](record)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{records}:{number}: no {format} record ({error!r}); check --format and SRC") from None
        images: list[str] = []
        if file is not None:
            picture = records.parent / file
            if not picture.is_file() or not picture.resolve().is_relative_to(records.parent.resolve()):
                raise DataError(f"{records}:{number}: no image {file!r} in {records.parent}; fetch the set's images")
            images = [f"images/{format}/{file.removeprefix('images/')}"]
            pictures[picture] = target.parent / images[0]
        first = {"id": row.pop("id"), "question": row.pop("question"), "images": images}
        rows.append(first | {name: value for name, value in row.items() if value not in ("", [])})

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
