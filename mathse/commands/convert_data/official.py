"""The files that the authors' README names -> problems and paths in our own forms.

    mathse convert-data official sft_chosen.jsonl hard_problems.jsonl reflection_sft.jsonl --out DIR
    python train.py task=sft data=jsonl data.path=DIR/problems.jsonl sft.train=DIR/train.jsonl data.test_path=FILE
    python train.py task=orm data=jsonl data.path=DIR/problems.jsonl orm.train=DIR/orm_train.jsonl \\
        orm.held=DIR/orm_held.jsonl

Source    README of the authors' repository, https://arxiv.org/abs/2511.06805; it holds no code and no example file
Licence   that of your files
Records   mathse/commands/convert_data/official_records.py

What DIR holds: ``exchanges``. In train.jsonl are sft_chosen's paths and the outputs of reflection_sft, with their draft
as parent; wrong paths are sft_rejected's, hard_problems' and the drafts of reflection_sft.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mathse.commands.convert_data.exchanges import command_line, write
from mathse.commands.convert_data.official_records import KINDS, Files

MARKER = "official.json"


def main(argv: Sequence[str]) -> int:
    """``convert-data official``: prints what was written; a DataError for files or a folder that cannot be used."""
    description = "The authors' files -> data=jsonl, sft.train, orm.train"
    return command_line(argv, "official", f"{', '.join(KINDS)}: .jsonl, .jsonl.gz", description, convert)


def convert(files: Sequence[Path], out: Path, images: Path | None = None) -> dict[str, int]:
    """Write ``out`` whole; how many rows each of its files holds.

    Raises DataError for a file of another name, one that cannot be read, or where no record makes a problem.
    """
    return write(Files(files, images), out, MARKER)
