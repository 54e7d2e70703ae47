"""Convert the files that the authors' README names to problems and paths of ``data=jsonl``.

    mathse convert-data official sft_chosen.jsonl hard_problems.jsonl reflection_sft.jsonl --out DIR
    python train.py task=sft data=jsonl data.path=DIR/problems.jsonl sft.train=DIR/train.jsonl data.test_path=FILE
    python train.py task=orm data=jsonl data.path=DIR/problems.jsonl orm.train=DIR/orm_train.jsonl \\
        orm.held=DIR/orm_held.jsonl

Source    README of the authors' repository, https://arxiv.org/abs/2511.06805; it has no code and no example file
Licence   that of your files

The beginning of a file's name is the kind of its records:

sft_chosen       {"prompt": "<image>Find x.", "media": ["images/1.png"], "reasoning": "Step 1: ..."}
sft_rejected     the same, with a wrong path; "error_step" and "error_analysis" are optional
hard_problems    as sft_rejected, with an optional "reasoning" and an optional "answer"
reflection_sft   {"instruction": "Find x.", "input": "", "draft": "...", "reflection": "...",
                  "output": "Step 1: ..."}, with an optional "media"

The README names the keys of reflection_sft, and (prompt, input media, reasoning) for sft_chosen. The other keys and
the records of the tests are our own choice.

DIR has the files of ``exchanges``. train.jsonl has the paths of sft_chosen and the outputs of reflection_sft, with
their draft as parent. Wrong paths are those of sft_rejected and hard_problems, and the drafts of reflection_sft.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mathse.commands.convert_data.exchanges import (
    Exchange,
    PictureFinder,
    make_bad_row,
    read_optional_text,
    read_picture_refs,
    run_command,
    write_folder,
)
from mathse.data.json_records import BadRow, read_lines
from mathse.data.readers.base import text_of
from mathse.data.readers.llava import question_of
from mathse.errors import DataError

MARKER = "official.json"
KINDS = ("sft_chosen", "sft_rejected", "hard_problems", "reflection_sft")


def main(argv: Sequence[str]) -> int:
    """Run the subcommand and print the counts. Raises DataError for files or a folder that cannot be used."""
    description = "Convert the authors' files to data=jsonl, sft.train and orm.train."
    return run_command(argv, "official", f"{', '.join(KINDS)}: .jsonl, .jsonl.gz", description, convert)


def convert(files: Sequence[Path], out: Path, images: Path | None = None) -> dict[str, int]:
    """Write the folder ``out``. Returns the number of rows by file.

    Raises DataError for a file with another name, a file that cannot be read, or files in which no record makes a
    problem.
    """
    return write_folder(OfficialFiles(files, images), out, MARKER)


class OfficialFiles:
    """Reads the authors' files. ``images``: the folder of the pictures' paths; None: that of each file."""

    writer = "the authors' pipeline"

    def __init__(self, files: Iterable[Path], images: Path | None) -> None:
        self.files, self.images = list(files), images
        self._pictures = PictureFinder()
        for file in self.files:
            _read_kind(file)
            if not file.is_file():
                raise DataError(f"{file}: no such file; give the paths of the authors' files")

    def entries(self, bad: list[dict[str, object]] | None = None) -> Iterator[Exchange]:
        """Yield all usable records (``exchanges.Exchanges``)."""
        for file in self.files:
            for record in read_lines(file):
                try:
                    if record.values is None:
                        raise BadRow(record.reason)
                    yield self._read(record.values, file, record.line)
                except BadRow as error:
                    if bad is not None:
                        bad.append(make_bad_row(file, record.line, None, error))

    def _read(self, values: Mapping[str, Any], file: Path, line: int) -> Exchange:
        kind = _read_kind(file)
        prompt: str
        accepted: str | None = None
        wrong: str | None = None
        analysis = read_optional_text(values, "error_analysis")
        if kind == "reflection_sft":
            more = read_optional_text(values, "input")
            prompt = text_of(values, "instruction") + (f"\n{more}" if more else "")
            accepted, wrong = text_of(values, "output"), read_optional_text(values, "draft")
            analysis = analysis or read_optional_text(values, "reflection")
        else:
            prompt, path = text_of(values, "prompt", "question"), read_optional_text(values, "reasoning")
            if path is None and kind != "hard_problems":
                text_of(values, "reasoning")  # raises BadRow with the mistake
            if kind == "sft_chosen":
                accepted = path
            else:
                wrong = path
        refs = read_picture_refs(values)
        question, choices = question_of(prompt, len(refs))
        if not question:
            raise BadRow("there is no question but pictures and hints; leave the row out")
        return Exchange(
            file,
            line,
            "official",
            kind,
            question,
            tuple(choices),
            tuple(self._pictures.find(ref, self.images or file.parent) for ref in refs),
            text_of(values, "answer") if values.get("answer") not in (None, "") else None,
            accepted,
            wrong,
            read_optional_text(values, "error_step"),
            analysis,
            revised=kind == "reflection_sft",
        )


def _read_kind(file: Path) -> str:
    """Return the kind of a file's records. Raises DataError for a name with another beginning."""
    for kind in KINDS:
        if file.name.startswith(kind):
            return kind
    raise DataError(f"{file}: the name must begin with one of {', '.join(KINDS)}, the kind of its records; rename it")
