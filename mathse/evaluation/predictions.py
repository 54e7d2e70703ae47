"""Answers from a file: JSONL, ``.gz`` too, a row for each answer.

    {"id": "17", "response": "... so the answer is (B)", "extraction": "B"}

``id`` is the benchmark's id (MathVista's pid, MATH-V's id, MathVerse's sample_index). ``extraction`` is optional; if
present, even if empty, it is used unchanged. With several answers to a problem, ``sample`` counts them from 0. If a row
has ``metadata`` (as MathVista's output files do), its groups come from there, as in the official script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

from mathse.data.json_records import read_lines
from mathse.errors import DataError
from mathse.types import whole_characters

# Name of the id in official output files -> the benchmark of these files.
OFFICIAL_IDS = {"pid": "mathvista", "sample_index": "mathverse"}


@dataclass(frozen=True)
class Answer:
    """An answer to a problem. ``extraction``, ``metadata``: from a file; None: it has none."""

    id: str
    response: str
    sample: int = 0
    extraction: str | None = None
    metadata: Mapping[str, Any] | None = None

    def to_json(self, several: bool) -> dict[str, Any]:
        """Return a row of predictions.jsonl, with ``sample`` if a problem has ``several`` answers."""
        row: dict[str, Any] = {"id": self.id, "response": self.response}
        if several:
            row["sample"] = self.sample
        if self.extraction is not None:
            row["extraction"] = self.extraction
        if self.metadata is not None:
            row["metadata"] = dict(self.metadata)
        return row


def read_predictions(
    file: Path, benchmark: str, known_ids: Sequence[str], n_samples: int
) -> dict[tuple[str, int], Answer]:
    """Read the answers in ``file`` by (id, sample).

    Raises DataError with file, line and remedy at a broken row, an unknown problem, or a second row for an answer.
    """
    ids = set(known_ids)
    answers: dict[tuple[str, int], Answer] = {}
    lines: dict[tuple[str, int], int] = {}  # line of each answer
    for record in read_lines(file):
        position, row = f"{file}:{record.line}", record.values
        if row is None:
            raise DataError(f"{position}: {record.reason}")
        answer = _answer(whole_characters(row), position, benchmark)
        if answer.id not in ids:
            nearest = get_close_matches(answer.id, known_ids, n=1)
            hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
            raise DataError(
                f"{position}: id {answer.id!r} is none of {benchmark}'s {len(known_ids):,} problems{hint}; remove the "
                "row, or choose the benchmark and split that the file belongs to"
            )
        if answer.sample >= n_samples:
            raise DataError(
                f"{position}: sample {answer.sample} of {answer.id!r}, and n_samples = {n_samples}; raise it"
            )
        key = (answer.id, answer.sample)
        if key in answers:
            repeated = f"id {answer.id!r}" + (f", sample {answer.sample}," if n_samples > 1 else "")
            raise DataError(f"{position}: {repeated} is already in line {lines[key]}; keep one of the two rows")
        answers[key], lines[key] = answer, record.line
    if not answers:
        raise DataError(f'{file}: holds no rows; write one answer a line, {{"id": ..., "response": ...}}')
    return answers


def require_all(
    file: Path, answers: Mapping[tuple[str, int], Answer], benchmark: str, problem_ids: Sequence[str], n_samples: int
) -> None:
    """Raise DataError if the file lacks answers: the accuracy over a part of the problems is not the benchmark's."""
    missing = [key for key in product(problem_ids, range(n_samples)) if key not in answers]
    if missing:
        problem_id, sample = missing[0]
        example = f"{problem_id!r}" + (f", sample {sample}" if n_samples > 1 else "")
        raise DataError(
            f"{file}: lacks {len(missing):,} of {benchmark}'s {len(problem_ids) * n_samples:,} answers, for example "
            f"{example}; is it the file of another benchmark or split? add the answers, or score the others with "
            "partial=true"
        )


def _answer(row: dict[str, Any], position: str, benchmark: str) -> Answer:
    """Check each field of a row."""
    id_key = next((key for key in ("id", *OFFICIAL_IDS) if key in row), None)
    if id_key is None or "response" not in row:
        missing = "id" if id_key is None else "response"
        raise DataError(f'{position}: "{missing}" is missing; a row has "id" and "response"')
    if (owner := OFFICIAL_IDS.get(id_key, benchmark)) != benchmark:
        raise DataError(f'{position}: "{id_key}" is the id of a problem in {owner}; pass benchmark={owner}')
    problem_id, response, extraction = row[id_key], row["response"], row.get("extraction")
    if response is None:  # official output files write null after a failure of the model
        response = ""
    if isinstance(problem_id, bool) or not isinstance(problem_id, (str, int)) or problem_id == "":
        raise DataError(f'{position}: "{id_key}" is text or a whole number, got {problem_id!r:.40}; correct it')
    if not isinstance(response, str):
        raise DataError(f'{position}: "response" is text, got {response!r:.40}; put it in quotes')
    if isinstance(extraction, (bool, list, dict)):
        raise DataError(f'{position}: "extraction" is text, got {extraction!r:.40}; put it in quotes, or leave it out')
    sample = row.get("sample", 0)
    if isinstance(sample, bool) or not isinstance(sample, int) or sample < 0:
        raise DataError(f'{position}: "sample" counts the answers to a problem from 0, got {sample!r:.40}; correct it')
    metadata = row.get("metadata")
    return Answer(
        str(problem_id),
        response,
        sample,
        None if extraction is None else str(extraction),
        metadata if isinstance(metadata, dict) else None,
    )
