"""The documentation as its tests read it: fenced blocks of the Markdown pages, and the commands in them.

How a block is tried is said where it stands:

    ```bash                               its commands are run, with small sizes added
    ```bash title="Not run: REASON"       they are not; settings are still read by the real parser where they can be
    <!-- slow -->                         on the line before: run by `make test-slow`, read by the parser in `make test`
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
NOT_RUN = "Not run: "
FENCE = re.compile(r"^( *)```(\w*)(?: title=\"(.*)\")?$")
INLINE = re.compile(r"`((?:python (?:train|evaluate)\.py|python -m mathse|mathse) [^`]+)`")
ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")


@dataclass(frozen=True)
class Block:
    page: str  # from the repository
    line: int
    language: str
    title: str  # a file's name, or why the block is not run
    text: str
    slow: bool

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_run(self) -> bool:
        return self.language == "bash" and not self.title.startswith(NOT_RUN)

    @property
    def commands(self) -> list[list[str]]:
        """Each command as a list of arguments; comments and variables set in front of it are left out."""
        lines = self.text.replace("\\\n", " ").splitlines()
        split = (shlex.split(line, comments=True) for line in lines)
        return [words for words in (_without_variables(words) for words in split) if words]


def _without_variables(words: list[str]) -> list[str]:
    while words and ASSIGNMENT.fullmatch(words[0]):
        words = words[1:]
    return words


def blocks(page: Path) -> Iterator[Block]:
    before, inside = "", None
    text: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = FENCE.match(line)
        if inside is None and fence and fence[2]:
            inside, text, slow = (number, fence), [], before.strip() == "<!-- slow -->"
        elif inside is not None and line.strip() == "```":
            start, (indent, language, title) = inside[0], inside[1].groups()
            body = "\n".join(row.removeprefix(indent) for row in text) + "\n"
            yield Block(page.relative_to(ROOT).as_posix(), start, language, title or "", body, slow)
            inside = None
        elif inside is not None:
            text.append(line)
        before = line


def all_blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks(page)]


def inline_commands(page: Path) -> list[list[str]]:
    """Commands that stand in a sentence or a table, each once; "..." in one stands for what a reader adds."""
    texts = dict.fromkeys(INLINE.findall(page.read_text(encoding="utf-8")))
    return [[word for word in shlex.split(text) if word != "..."] for text in texts]


def program(words: list[str]) -> tuple[str, list[str]]:
    """("train", arguments) of a command of ours, however it is started; ("", words) of any other."""
    if words[:2] in (["python", "train.py"], ["python", "evaluate.py"]):
        return words[1].removesuffix(".py"), words[2:]
    if words[:3] == ["python", "-m", "mathse"]:
        words = words[2:]
    if words[0] == "mathse" and len(words) > 1:
        return words[1], words[2:]
    if words[0] == "python" and words[1].endswith(".py"):
        return words[1], words[2:]
    return "", words
