"""Hash lists: they stand for a benchmark where its own file is not at hand.

A line a problem, its id and a hash of its normalised question; whoever has the list can recognise a question, and
cannot read one. Only equal questions are found by it, no nearly equal ones and no pictures, so the benchmark's own file
is better. Questions that are not distinctive ("Find x.") are left out. Two lists come with the package, of benchmarks
whose licence (MIT) allows it: ``decontaminate.against=[stored:mathvision,stored:mathverse]``. MathVista's terms are
narrower: none of it.

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
    """16 hex digits of a normalised question."""
    return hashlib.blake2b(question.spelt.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def location(entry: str) -> Path:
    """The file behind an entry of ``decontaminate.against``: a path, or ``stored:NAME``."""
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
    """(id, digest) of each problem of a list. Raises DataError at a line of another form."""
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("#") or not line.strip():
            continue
        problem_id, _, digits = line.rpartition(" ")
        if not problem_id or len(digits) != 16 or set(digits) - set("0123456789abcdef"):
            raise DataError(f"{file}:{number}: no line of a hash list (ID and 16 hex digits); make the list again")
        yield problem_id, digits


def lines(problems: Iterable[Problem], about: str) -> Iterator[str]:
    """The lines of a list of these problems; ``about``: their set and its licence, for the list's head."""
    yield HEAD
    yield f"# {about}"
    for problem in problems:
        question = normalised(problem.question)
        if question.is_distinctive:
            yield f"{problem.id} {digest(question)}"
