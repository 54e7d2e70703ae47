"""A record of the authors' files as one exchange: the question, the path that answers it, and the verdict on it.

Known by the beginning of a file's name:

sft_chosen       {"prompt": "<image>Find x.", "media": ["images/1.png"], "reasoning": "Step 1: ..."}
sft_rejected     the same, wrong; "error_step" and "error_analysis" where they are there
hard_problems    as sft_rejected, but that "reasoning" may be missing; "answer" where there is one
reflection_sft   {"instruction": "Find x.", "input": "", "draft": "...", "reflection": "...",
                  "output": "Step 1: ..."}, "media" where there are pictures

The README names the keys of reflection_sft and says (prompt, input media, reasoning) of sft_chosen; the rest is ours,
and so are the records that this is tested against.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mathse.commands.convert_data.exchanges import Exchange, Pictures, bad_row
from mathse.data.json_records import BadRow, kind, read_lines
from mathse.data.readers.base import text_of
from mathse.data.readers.llava import question_of
from mathse.errors import DataError

KINDS = ("sft_chosen", "sft_rejected", "hard_problems", "reflection_sft")
MEDIA = ("media", "images", "image")


class Files:
    """The files to read, as often as need be. ``images``: where paths of pictures start; None: at each file."""

    writer = "the authors' pipeline"

    def __init__(self, files: Iterable[Path], images: Path | None) -> None:
        self.files, self.images = list(files), images
        self._pictures = Pictures()
        for file in self.files:
            kind_of(file)
            if not file.is_file():
                raise DataError(f"{file}: no such file; give the paths of the authors' files")

    def entries(self, bad: list[dict[str, object]] | None = None) -> Iterator[Exchange]:
        """All records that say something; the others are added to ``bad``, a row of bad_rows.jsonl each."""
        for file in self.files:
            for record in read_lines(file):
                try:
                    if record.values is None:
                        raise BadRow(record.reason)
                    yield self._entry(record.values, file, record.line)
                except BadRow as error:
                    if bad is not None:
                        bad.append(bad_row(file, record.line, None, error))

    def _entry(self, values: Mapping[str, Any], file: Path, line: int) -> Exchange:
        file_kind = kind_of(file)
        prompt: str
        accepted: str | None = None
        wrong: str | None = None
        analysis = optional_text(values, "error_analysis")
        if file_kind == "reflection_sft":
            more = optional_text(values, "input")
            prompt = text_of(values, "instruction") + (f"\n{more}" if more else "")
            accepted, wrong = text_of(values, "output"), optional_text(values, "draft")
            analysis = analysis or optional_text(values, "reflection")
        else:
            prompt, path = text_of(values, "prompt", "question"), optional_text(values, "reasoning")
            if path is None and file_kind != "hard_problems":
                text_of(values, "reasoning")  # raises BadRow that says what is wrong with it
            if file_kind == "sft_chosen":
                accepted = path
            else:
                wrong = path
        refs = picture_refs(values)
        question, choices = question_of(prompt, len(refs))
        if not question:
            raise BadRow("there is no question but pictures and hints; leave the row out")
        return Exchange(
            file,
            line,
            "official",
            file_kind,
            question,
            tuple(choices),
            tuple(self._pictures.find(ref, self.images or file.parent) for ref in refs),
            text_of(values, "answer") if values.get("answer") not in (None, "") else None,
            accepted,
            wrong,
            optional_text(values, "error_step"),
            analysis,
            revised=file_kind == "reflection_sft",
        )


def kind_of(file: Path) -> str:
    """What a file holds. Raises DataError for a name that does not say it."""
    for name in KINDS:
        if file.name.startswith(name):
            return name
    raise DataError(f"{file}: the name must begin with one of {', '.join(KINDS)}, which says what it holds; rename it")


def picture_refs(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The pictures of a record: a path, several, or none."""
    name = next((name for name in MEDIA if values.get(name) not in (None, "")), MEDIA[0])
    value = values.get(name) or []
    refs = value if isinstance(value, list) else [value]
    for ref in refs:
        if not isinstance(ref, str) or not ref.strip():
            raise BadRow(f'"{name}" is paths of pictures, got {kind(ref)}; correct the record')
    return tuple(refs)


def optional_text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRow(f'"{name}" is text, got {kind(value)}; correct the record')
    return value if value and value.strip() else None
