"""Answers from a file: JSONL, ``.gz`` too, a row an answer.

    {"id": "17", "response": "... so the answer is (B)", "extraction": "B"}

``id`` is the benchmark's own (MathVista's pid, MATH-V's id, MathVerse's sample_index). ``extraction`` is optional and,
where present, even empty, used as it stands. With several answers a problem, ``sample`` counts them from 0. A row may
bring its ``metadata`` (MathVista's output files do): groups then go by it, as in the official script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mathse.data.records import read_lines
from mathse.errors import DataError
from mathse.types import mended

OFFICIAL = {"pid": "mathvista", "sample_index": "mathverse"}  # how official output files name an id, and whose it is


@dataclass(frozen=True)
class Answer:
    """One answer to a problem. ``extraction``, ``metadata`` None: none was given."""

    id: str
    response: str
    sample: int = 0
    extraction: str | None = None
    metadata: Mapping[str, Any] | None = None

    def to_json(self, several: bool) -> dict[str, Any]:
        """A row of predictions.jsonl; ``sample`` is said where there are several."""
        row: dict[str, Any] = {"id": self.id, "response": self.response}
        if several:
            row["sample"] = self.sample
        if self.extraction is not None:
            row["extraction"] = self.extraction
        if self.metadata is not None:
            row["metadata"] = dict(self.metadata)
        return row


def read_predictions(file: Path, benchmark: str, known: Sequence[str], n_samples: int) -> dict[tuple[str, int], Answer]:
    """The answers in ``file`` by (id, sample). Raises DataError, naming file, line and remedy, at a row that is broken,
    of an unknown problem, or there twice."""
    ids = set(known)
    found: dict[tuple[str, int], Answer] = {}
    lines: dict[tuple[str, int], int] = {}
    for number, row, reason in read_lines(file):
        where = f"{file}:{number}"
        if row is None:
            raise DataError(f"{where}: {reason}")
        answer = _answer(mended(row), where, benchmark)
        if answer.id not in ids:
            raise DataError(f"{where}: {_unknown(answer.id, benchmark, known)}")
        if answer.sample >= n_samples:
            raise DataError(f"{where}: sample {answer.sample} of {answer.id!r}, and n_samples = {n_samples}; raise it")
        key = (answer.id, answer.sample)
        if key in found:
            again = f"id {answer.id!r}" + (f", sample {answer.sample}," if n_samples > 1 else "")
            raise DataError(f"{where}: {again} stands already in line {lines[key]}; keep one of the two")
        found[key], lines[key] = answer, number
    if not found:
        raise DataError(f'{file}: holds no rows; write one answer a line, {{"id": ..., "response": ...}}')
    return found


def require_all(
    file: Path, found: dict[tuple[str, int], Answer], benchmark: str, known: Sequence[str], n_samples: int
) -> None:
    """Raises DataError if the file lacks answers: an accuracy over some of the problems is not the benchmark's."""
    missing = [key for i in known for j in range(n_samples) if (key := (i, j)) not in found]
    if missing:
        lacking, sample = missing[0]
        example = f"{lacking!r}" + (f", sample {sample}" if n_samples > 1 else "")
        raise DataError(
            f"{file}: lacks {len(missing):,} of {benchmark}'s {len(known) * n_samples:,} answers, for example "
            f"{example}; is it another benchmark's or split's file? add them, or score those it has with partial=true"
        )


def _answer(row: dict[str, Any], where: str, benchmark: str) -> Answer:
    name = next((key for key in ("id", *OFFICIAL) if key in row), None)
    if name is None or "response" not in row:
        lacking = "id" if name is None else "response"
        raise DataError(f'{where}: "{lacking}" is missing; a row has "id" and "response"')
    if OFFICIAL.get(name, benchmark) != benchmark:
        raise DataError(f'{where}: "{name}" is how {OFFICIAL[name]} names a problem; pass benchmark={OFFICIAL[name]}')
    identity, response, extraction = row[name], row["response"], row.get("extraction")
    if response is None:  # an answer that failed
        response = ""
    if isinstance(identity, bool) or not isinstance(identity, (str, int)) or identity == "":
        raise DataError(f'{where}: "{name}" is text or a whole number, got {identity!r:.40}; correct it')
    if not isinstance(response, str):
        raise DataError(f'{where}: "response" is text, got {response!r:.40}; put it in quotes')
    if isinstance(extraction, (bool, list, dict)):
        raise DataError(f'{where}: "extraction" is text, got {extraction!r:.40}; put it in quotes, or leave it out')
    metadata = row.get("metadata")
    return Answer(
        str(identity),
        response,
        _sample(row, where),
        None if extraction is None else str(extraction),
        metadata if isinstance(metadata, dict) else None,
    )


def _sample(row: dict[str, Any], where: str) -> int:
    sample = row.get("sample", 0)
    if isinstance(sample, bool) or not isinstance(sample, int) or sample < 0:
        raise DataError(f'{where}: "sample" counts the answers to a problem from 0, got {sample!r:.40}; correct it')
    return sample


def _unknown(identity: str, benchmark: str, known: Sequence[str]) -> str:
    near = get_close_matches(identity, known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return (
        f"id {identity!r} is none of {benchmark}'s {len(known):,} problems{hint}; remove the row, or choose the "
        "benchmark and split that the file belongs to"
    )
