"""Convert preference sets, a chosen and a rejected answer per question, to problems and paths of ``data=jsonl``.

    mathse convert-data preferences MMPR-v1.2/meta.json --out DIR
    mathse convert-data preferences pairs.jsonl --images images --out DIR

Source    MMPR: Wang et al. 2024, "Mixed Preference Optimization", arXiv 2411.10442, hub OpenGVLab/MMPR-v1.2; MIT
Files     JSONL or a JSON list; or MMPR's meta.json, which names each annotation file and the folder of its pictures
A record  {"image": "a/1.png", "question": "<image>\\nFind x.", "chosen": "... Final answer: 12",
           "rejected": "... Final answer: 9", "answer_gt": "12"}; "image" may be a list or missing, "answer_gt" too
Out       the folder of ``exchanges``; "chosen" is a right path, "rejected" a wrong path

A preference is not a verdict: MMPR prefers some paths by their final answer and others by style, and the answer of a
rejected path may be right. Therefore a chosen path counts as right only if its answer is the reference answer, or, for
a record without a reference answer, if it announces an answer. A rejected path counts as wrong only if it announces
another answer. The other paths are in bad_rows.jsonl with the reason. A path in several pairs is written once.

The tests use records that we wrote in the published form, because the repository has no record of such a set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from mathse.data.json_records import BadRow, read_records
from mathse.data.readers.base import text_of
from mathse.data.readers.llava import question_of
from mathse.errors import DataError
from mathse.runs.store import read_json
from mathse.scoring.answers import extract_answer, same_answer

MARKER = "preferences.json"
META = "meta.json"


def main(argv: Sequence[str]) -> int:
    """Run the subcommand and print the counts. Raises DataError for files that cannot be used."""
    description = "Convert pairs of a chosen and a rejected answer to data=jsonl, sft.train and orm.train."
    return run_command(argv, "preferences", f".jsonl, .json, .gz; or MMPR's {META}", description, convert)


def convert(files: Sequence[Path], out: Path, images: Path | None = None) -> dict[str, int]:
    """Write the folder ``out``. Returns the number of rows by file. Raises DataError for files that cannot be used."""
    annotations: list[tuple[Path, Path]] = []
    for file in files:
        annotations += _find_annotations(file, images)
    return write_folder(PreferencePairs(annotations), out, MARKER)


class PreferencePairs:
    """Reads files of pairs. ``files``: each file with the folder of its pictures' paths."""

    writer = "a preference set"

    def __init__(self, files: Sequence[tuple[Path, Path]]) -> None:
        self.files, self._pictures = files, PictureFinder()

    def entries(self, bad: list[dict[str, object]] | None = None) -> Iterator[Exchange]:
        """Yield all usable records (``exchanges.Exchanges``)."""
        seen: set[int] = set()  # hashes of paths: the texts of three million paths would not fit into memory
        for file, images in self.files:
            for record in read_records(file):
                reasons: list[object] = []
                try:
                    if record.values is None:
                        raise BadRow(record.reason)
                    yield from self._read(record.values, file, record.line, images, seen, reasons)
                except BadRow as error:
                    reasons.append(error)
                if bad is not None:
                    bad += [make_bad_row(file, record.line, None, reason) for reason in reasons]

    def _read(
        self, values: Mapping[str, Any], file: Path, line: int, images: Path, seen: set[int], reasons: list[object]
    ) -> Iterator[Exchange]:
        """Yield the record's exchange if it has a new path. ``reasons`` receives the reasons against a path."""
        refs = read_picture_refs(values)
        question, choices = question_of(text_of(values, "question", "prompt"), len(refs))
        if not question:
            raise BadRow("there is no question but pictures and hints; leave the row out")
        chosen, rejected = text_of(values, "chosen"), text_of(values, "rejected")
        answer = read_optional_text(values, "answer_gt") or read_optional_text(values, "answer")
        accepted, wrong = extract_answer(chosen), extract_answer(rejected)
        if accepted is None:
            raise BadRow("the chosen path announces no answer, so it is not known to be right; leave the row out")
        if answer is not None and not same_answer(accepted, answer, choices):
            reasons.append(f"the chosen path comes to {accepted!r:.40}, the reference answer is {answer!r:.40}")
            chosen = ""
        if wrong is None or same_answer(wrong, answer or accepted, choices):
            reached = "announces no answer" if wrong is None else "comes to the right answer"
            reasons.append(f"the rejected path {reached}, so it is not known to be wrong")
            rejected = ""
        # From here on an empty text is a path that is not used.
        pictures = tuple(self._pictures.find(ref, images) for ref in refs)

        def keep_new(path: str) -> str | None:
            """Return the path if it is not empty and no earlier record had it."""
            key = hash((question, pictures, path))
            if not path or key in seen:
                return None
            seen.add(key)
            return path

        entry = Exchange(
            file,
            line,
            "preferences",
            "preferences",
            question,
            tuple(choices),
            pictures,
            answer,
            keep_new(chosen),
            keep_new(rejected),
        )
        if entry.accepted is not None or entry.wrong is not None:
            yield entry


def _find_annotations(file: Path, images: Path | None) -> Iterator[tuple[Path, Path]]:
    """Yield a file of pairs with the folder of its pictures. For a meta.json: all files that it names.

    Paths in a meta.json start in its folder, or in the folder above, which is then their first part.
    """
    if file.name != META:
        if not file.is_file():
            raise DataError(f"{file}: no such file; give files of pairs, or {META}")
        yield file, images or file.parent
        return
    # MMPR's meta.json: name -> {"root": folder of pictures, "annotation": file of pairs}.
    parts = read_json(file)
    if not isinstance(parts, dict) or not all(
        isinstance(part, dict) and "annotation" in part for part in parts.values()
    ):
        raise DataError(f'{file}: must be {{name: {{"root", "annotation"}}}} as MMPR has it; give the files of pairs')
    for name, part in parts.items():
        tops = [top for top in (file.parent, file.parent.parent) if (top / str(part["annotation"])).is_file()]
        if not tops:
            raise DataError(f"{file}: {name}: no file {part['annotation']!r} beside it; unpack the annotations there")
        yield tops[0] / part["annotation"], images or tops[0] / str(part.get("root", ""))
