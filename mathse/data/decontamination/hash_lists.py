"""Hash lists, which replace the file of a benchmark.

A list has a line for each problem: its id and a hash of its normalised question. The list identifies a question and
does not reveal it. It finds only equal questions, no nearly equal questions and no pictures, so the benchmark's own
file is better. Questions that are not distinctive ("Find x.") are left out. The package contains two lists, of
benchmarks with an MIT licence: ``decontaminate.against=[stored:mathvision,stored:mathverse]``. MathVista's terms do not
allow a list.

    python -m mathse data hashes BENCHMARK.jsonl LIST.txt
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path

from mathse.data.decontamination.question_text import NormalisedQuestion, normalised
from mathse.errors import DataError
from mathse.types import Problem

HEAD = "# mathse question hashes, version 1"
PREFIX = "stored:"


def digest(question: NormalisedQuestion) -> str:
    """Hash a normalised question to 16 hex digits."""
    return hashlib.blake2b(question.spelt.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def location(entry: str) -> Path:
    """Resolve an entry of ``decontaminate.against`` to its file: a path, or ``stored:NAME``."""
    if not entry.startswith(PREFIX):
        return Path(entry)
    return Path(str(files("mathse.data.decontamination").joinpath("lists", f"{entry.removeprefix(PREFIX)}.txt")))


def is_list(file: Path) -> bool:
    """Whether a file is a hash list."""
    if not file.is_file() or file.suffix != ".txt":
        return False
    with file.open("rb") as opened:
        return opened.read(len(HEAD)) == HEAD.encode()


def read(file: Path) -> Iterator[tuple[str, str]]:
    """Yield (id, digest) of each problem of a list. Raises DataError for a line of another form."""
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("#") or not line.strip():
            continue
        problem_id, _, digits = line.rpartition(" ")
        if not problem_id or len(digits) != 16 or set(digits) - set("0123456789abcdef"):
            raise DataError(f"{file}:{number}: no line of a hash list (ID and 16 hex digits); make the list again")
        yield problem_id, digits


def lines(problems: Iterable[Problem], about: str) -> Iterator[str]:
    """Yield the lines of a list of problems; ``about``: their set and its licence, for the head of the list."""
    yield HEAD
    yield f"# {about}"
    for problem in problems:
        question = normalised(problem.question)
        if question.is_distinctive:
            yield f"{problem.id} {digest(question)}"
