"""Preference sets, a better and a worse answer to each question -> problems, training rows and labelled paths.

    mathse convert-data preferences MMPR-v1.2/meta.json --out DIR
    mathse convert-data preferences pairs.jsonl --images images --out DIR

Source    MMPR: Wang et al. 2024, "Mixed Preference Optimization", arXiv 2411.10442, hub OpenGVLab/MMPR-v1.2; MIT
Files     JSONL or a JSON list; or MMPR's meta.json, which names each annotation file and the folder of its pictures
A record  {"image": "a/1.png", "question": "<image>\\nFind x.", "chosen": "... Final answer: 12",
           "rejected": "... Final answer: 9", "answer_gt": "12"}; "image" may be a list or missing, "answer_gt" too
Out       ``exchanges``; "chosen" is a right path, "rejected" a wrong one

A preference is not yet a verdict: MMPR prefers some paths by their final answer and others by style, and a rejected
path may come to the right answer. So a chosen path counts as right only if it comes to the reference answer, or
announces one where there is none; a rejected path counts as wrong only if it announces another answer. What is left
over stands in bad_rows.jsonl with its reason. A path that is paired several times is written once.
We hold no record of such a set: tested against records written by us in the published shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mathse.commands.convert_data.exchanges import Exchange, Pictures, bad_row, command_line, write
from mathse.commands.convert_data.official_records import optional_text, picture_refs
from mathse.data.json_records import BadRow, read_records
from mathse.data.readers.base import text_of
from mathse.data.readers.llava import question_of
from mathse.errors import DataError
from mathse.runs.store import read_json
from mathse.scoring.answers import extract_answer, same_answer

MARKER = "preferences.json"
META = "meta.json"
PAIR = ("chosen", "rejected")


def main(argv: Sequence[str]) -> int:
    """``convert-data preferences``: prints what was written; a DataError for files that cannot be used."""
    description = "Pairs of a chosen and a rejected answer -> data=jsonl, sft.train, orm.train"
    return command_line(argv, "preferences", f".jsonl, .json, .gz; or MMPR's {META}", description, convert)


def convert(files: Sequence[Path], out: Path, images: Path | None = None) -> dict[str, int]:
    """Write ``out`` whole; how many rows each of its files holds. Raises DataError for files that cannot be used."""
    return write(Pairs([pair for file in files for pair in _annotations(file, images)]), out, MARKER)


class Pairs:
    """``files``: each with the folder that its paths of pictures start from."""

    writer = "a preference set"

    def __init__(self, files: Sequence[tuple[Path, Path]]) -> None:
        self.files, self._pictures = files, Pictures()

    def entries(self, bad: list[dict[str, object]] | None = None) -> Iterator[Exchange]:
        """See ``exchanges.Exchanges``."""
        seen: set[int] = set()  # hashes: three million paths would not fit
        for file, images in self.files:
            for record in read_records(file):
                reasons: list[object] = []
                try:
                    if record.values is None:
                        raise BadRow(record.reason)
                    yield from self._entry(record.values, file, record.line, images, seen, reasons)
                except BadRow as error:
                    reasons.append(error)
                if bad is not None:
                    bad += [bad_row(file, record.line, None, reason) for reason in reasons]

    def _entry(
        self, values: Mapping[str, Any], file: Path, line: int, images: Path, seen: set[int], reasons: list[object]
    ) -> Iterator[Exchange]:
        """The record's exchange, if it has a path that is new; ``reasons``: why one of its two is not used."""
        refs = picture_refs(values)
        question, choices = question_of(text_of(values, "question", "prompt"), len(refs))
        if not question:
            raise BadRow("there is no question but pictures and hints; leave the row out")
        chosen, rejected = (text_of(values, name) for name in PAIR)
        answer = optional_text(values, "answer_gt") or optional_text(values, "answer")
        accepted, wrong = extract_answer(chosen), extract_answer(rejected)
        if accepted is None:
            raise BadRow("the chosen path announces no answer, so nothing says that it is right; leave the row out")
        if answer is not None and not same_answer(accepted, answer, choices):
            reasons.append(f"the chosen path comes to {accepted!r:.40}, the reference answer is {answer!r:.40}")
            chosen = ""
        if wrong is None or same_answer(wrong, answer or accepted, choices):
            reached = "announces no answer" if wrong is None else "comes to the right answer"
            reasons.append(f"the rejected path {reached}, so nothing says that it is wrong")
            rejected = ""
        pictures = tuple(self._pictures.find(ref, images) for ref in refs)

        def new(path: str) -> str | None:
            """The path, if there is one and it was not there before."""
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
            new(chosen),
            new(rejected),
        )
        if entry.accepted is not None or entry.wrong is not None:
            yield entry


def _annotations(file: Path, images: Path | None) -> Iterator[tuple[Path, Path]]:
    """A file of pairs with the folder of its pictures; of a meta.json all that it names. Paths in that start in its own
    folder, or in the one above, which they then name."""
    if file.name != META:
        if not file.is_file():
            raise DataError(f"{file}: no such file; give files of pairs, or {META}")
        yield file, images or file.parent
        return
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
