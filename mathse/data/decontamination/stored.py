"""Hash lists: what stands for a benchmark where the benchmark itself is not here.

A line a problem, its id and a hash of its normalised question; whoever has the list can recognise a question, and
cannot read one. Only equal questions are found by it, no nearly equal ones and no pictures, so the benchmark's own file
is better. Questions that do not tell which problem it is are left out. Two lists come with the package, of benchmarks
whose licence (MIT) allows it: ``decontaminate.against=[stored:mathvision,stored:mathverse]``. MathVista's terms are
narrower: none of it.

    python -m mathse data hashes BENCHMARK.jsonl LIST.txt
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path

from mathse.data.decontamination.text import Question, normalised
from mathse.errors import DataError
from mathse.types import Problem

HEAD = "# mathse question hashes, version 1"
PREFIX = "stored:"
NAMES = ("mathvision", "mathverse")


def digest(question: Question) -> str:
    """16 hex digits of a normalised question."""
    return hashlib.blake2b(question.text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


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
    """(id, digest) of each problem of a list. Raises DataError at a line that is none."""
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("#") or not line.strip():
            continue
        identity, _, found = line.rpartition(" ")
        if not identity or len(found) != 16 or set(found) - set("0123456789abcdef"):
            raise DataError(f"{file}:{number}: no line of a hash list (ID and 16 hex digits); make the list again")
        yield identity, found


def lines(problems: Iterable[Problem], about: str) -> Iterator[str]:
    """The lines of a list of these problems; ``about``: what they are, and under which licence."""
    yield HEAD
    yield f"# {about}"
    for problem in problems:
        question = normalised(problem.question)
        if question.tells:
            yield f"{problem.id} {digest(question)}"
