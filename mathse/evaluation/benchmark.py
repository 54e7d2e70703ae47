"""The contract of a benchmark, rows in, verdicts and the official aggregates out, and the helpers of all benchmarks.

    bench = make("mathvista", prompt="query", rule="released")   # its settings: mathse/config/evaluation.py
    bench.check()                                                # ConfigError if its scorer cannot work here
    items = bench.load(problems, images, split)                  # DataError names file, line and remedy
    extractions = bench.extract(items, responses, llm)           # by rule; by ``llm`` where the official code asks one
    scored = bench.score(items, responses, extractions, llm)     # the official verdicts, one a row, in order
    bench.buckets(items, scored)                                 # the official aggregates
    bench.protocol()                                             # what decided: rule, parser, prompts, versions

An ``extraction`` that comes with a predictions file is passed as ``Extraction(text, GIVEN)``. ``mapped(response)`` is
the response with the student's own answer marker rewritten into what the official extractor reads; extracting and
scoring it a second time gives the second number. ``second_opinions`` is math-verify beside the official verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from mathse.errors import ConfigError, DataError
from mathse.types import Problem

STUDENT_PROMPT = "student"  # the prompt that the student was trained with; a choice beside every benchmark's own
RULE = "rule"  # decided_by: the official code's own rule
GIVEN = "given"  # decided_by: the extraction came with the predictions file
OVERRUN = "counts as unequal"  # in the note of a verdict on an answer that could not be parsed in time
NOT_SCORED = "not scored"  # decided_by: an LLM is needed and there is none, or it gave no usable answer


Group = tuple[str, str]  # ("task", "geometry problem solving")


class LLM(Protocol):
    """The model that extracts and judges where the official code asks one; temperature 0."""

    model: str

    def ask(self, prompts: Sequence[str], version: str, max_tokens: int) -> Sequence[str | None]:
        """A reply to each prompt, in order; None where there is no usable one (a refusal, an error).

        ``version`` names the prompt's wording; it is part of the cache key and of the protocol.
        """
        ...


@dataclass(frozen=True)
class Item:
    """One row of a benchmark. ``problem.id`` is the benchmark's own (pid, id, sample_index), as text."""

    problem: Problem  # images: absolute paths
    raw: Mapping[str, Any]  # the official row, without decoded images
    prompt: str  # what the student is asked


@dataclass(frozen=True)
class Extraction:
    """The answer found in a response; ``text`` None: not extracted (``decided_by`` is NOT_SCORED), "" is a text."""

    text: str | None
    decided_by: str = RULE  # RULE, GIVEN, NOT_SCORED, or "llm:<prompt version>"


@dataclass(frozen=True)
class Scored:
    """One verdict. ``correct`` None: not scored. ``note`` says what a reader should know, such as a time-out."""

    id: str
    response: str
    extraction: str | None
    prediction: str | None  # the extraction in the benchmark's normal form
    answer: str  # the reference, as the benchmark has it
    correct: bool | None
    decided_by: str  # "<extraction's>" or "<extraction's>+<judge's>"
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Benchmark(Protocol):
    """One benchmark with its options chosen. ``prompts``, ``splits``: names to choose from, the default first."""

    prompt: str  # the prompt chosen

    @property
    def name(self) -> str:
        """As in benchmark=NAME."""
        ...

    @property
    def title(self) -> str:
        """As in a table's head."""
        ...

    @property
    def prompts(self) -> tuple[str, ...]: ...

    @property
    def splits(self) -> tuple[str, ...]: ...

    @property
    def hub(self) -> str | None:
        """The data set's id on the hub."""
        ...

    @property
    def needs_llm(self) -> str:
        """ "" or what cannot be scored without one, as a sentence for the user."""
        ...

    def check(self) -> None:
        """ConfigError, with the command that fixes it, where the official scorer cannot work on this machine."""
        ...

    def load(
        self, problems: Path | None, images: Path | None = None, split: str | None = None, need_images: bool = True
    ) -> list[Item]:
        """The rows of an official JSON or JSONL file, or of one in our format, ``.gz`` too; of the hub if None.

        ``images``: the folder that the rows' image paths start from (default: the file's own). ``need_images`` False,
        for rows that are only scored, leaves out missing images. Raises DataError with file, line and remedy.
        """
        ...

    def extract(self, items: Sequence[Item], responses: Sequence[str], llm: LLM | None) -> list[Extraction]:
        """The answer in each response."""
        ...

    def score(
        self, items: Sequence[Item], responses: Sequence[str], extractions: Sequence[Extraction], llm: LLM | None
    ) -> list[Scored]:
        """The official verdict on each extraction; all rows of a file at once, so that nothing is parsed twice."""
        ...

    def mapped(self, response: str) -> str:
        """``response`` with the student's answer marker as the official extractor reads it; itself without marker."""
        ...

    def second_opinions(self, items: Sequence[Item], responses: Sequence[str]) -> list[bool | None]:
        """math-verify's verdict on each response; None where it has none. Bounded in time."""
        ...

    def buckets(self, items: Sequence[Item], scored: Sequence[Scored]) -> dict[str, Any]:
        """The official aggregates, under their official names, over the rows whose ``correct`` is not None."""
        ...

    def protocol(self) -> dict[str, Any]:
        """What decided, for metrics.json: JSON values only."""
        ...


def check_choice(option: str, value: object, allowed: Sequence[object]) -> None:
    """ConfigError where ``value`` is none of ``allowed``."""
    if value not in allowed:
        raise ConfigError(f"{option} = {value!r}, allowed: {', '.join(map(str, allowed))}; choose one")


def group_accuracy(pairs: Iterable[tuple[Item, Scored]], groups: Callable[[Item], Iterable[Group]]) -> dict[str, Any]:
    """group -> key -> {"accuracy", "correct", "total"} over scored rows, in order of first appearance."""
    marks: dict[str, dict[str, list[bool]]] = {}
    for item, row in pairs:
        if row.correct is not None:
            for group, key in groups(item):
                marks.setdefault(group, {}).setdefault(key, []).append(row.correct)
    return {
        group: {key: share(sum(correct), len(correct)) for key, correct in keys.items()}
        for group, keys in marks.items()
    }


def share(correct: int, total: int) -> dict[str, float | int]:
    """An accuracy as a fraction; 0 of nothing, as in the official scripts."""
    return {"accuracy": correct / total if total else 0.0, "correct": correct, "total": total}


def paired(items: Sequence[Item], *others: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """``zip`` that says what went wrong where the lengths differ."""
    if any(len(other) != len(items) for other in others):
        raise DataError(f"{len(items)} items, but {[len(other) for other in others]} values; pass one for each item")
    return zip(items, *others, strict=True)
