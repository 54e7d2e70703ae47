"""The contract of a benchmark: rows in, verdicts and the official aggregates out. And helpers of all benchmarks.

    bench = make("mathvista", prompt="query", rule="released")   # settings: mathse/config/evaluation.py
    bench.check()                                                # ConfigError if the scorer cannot work here
    items = bench.load(problems, images, split)                  # DataError names file, line and remedy
    extractions = bench.extract(items, responses, llm)           # by rule; by ``llm`` if the official code asks an LLM
    scored = bench.score(items, responses, extractions, llm)     # the official verdict on each row, in order
    bench.buckets(items, scored)                                 # the official aggregates
    bench.protocol()                                             # rule, parser, prompts, versions

An extraction in a predictions file is passed as ``Extraction(text, GIVEN)``. ``mapped(response)`` replaces the
student's answer marker by the form that the official extractor reads; the mapped response is extracted and scored too,
which gives the second accuracy. ``second_opinions`` are math-verify's verdicts beside the official verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from mathse.errors import ConfigError, DataError
from mathse.types import Problem

STUDENT_PROMPT = "student"  # the prompt of the student's training; every benchmark allows it beside its own prompts
OVERRUN = "counts as unequal"  # in the note of a verdict on an answer that could not be parsed in time
# Values of decided_by.
RULE = "rule"  # the official code's rule
GIVEN = "given"  # the extraction came with the predictions file
NOT_SCORED = "not scored"  # an LLM is needed, and it is missing or gave no usable reply


Group = tuple[str, str]  # (name, key): ("task", "geometry problem solving")


class LLM(Protocol):
    """The LLM that extracts and judges if the official code asks an LLM. Temperature 0."""

    model: str

    def ask(self, prompts: Sequence[str], version: str, max_tokens: int) -> Sequence[str | None]:
        """Return a reply to each prompt, in order; None for a refusal or an error.

        Args:
            prompts: a user message each.
            version: name of the prompt's wording, for the cache key and the protocol.
            max_tokens: limit of each reply.
        """
        ...


@dataclass(frozen=True)
class Item:
    """A row of a benchmark. ``problem.id`` is the benchmark's id (pid, id, sample_index) as text."""

    problem: Problem  # images: absolute paths
    raw: Mapping[str, Any]  # the official row, without decoded images
    prompt: str  # the student's prompt


@dataclass(frozen=True)
class Extraction:
    """The answer in a response. ``text`` None: not extracted (``decided_by`` is NOT_SCORED); "" is an answer."""

    text: str | None
    decided_by: str = RULE  # RULE, GIVEN, NOT_SCORED, or "llm:<prompt version>"


@dataclass(frozen=True)
class Scored:
    """A verdict. ``correct`` None: not scored. ``note``: a remark for readers, such as a time-out."""

    id: str
    response: str
    extraction: str | None
    prediction: str | None  # the extraction in the benchmark's normal form
    answer: str  # the reference in the benchmark's form
    correct: bool | None
    decided_by: str  # "EXTRACTION" or "EXTRACTION+JUDGE", such as "rule+llm:mathverse-judge/1"
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Benchmark(Protocol):
    """A benchmark with its options. ``prompts``, ``splits``: the allowed names, the default first."""

    prompt: str  # the chosen prompt

    @property
    def name(self) -> str:
        """The name in benchmark=NAME."""
        ...

    @property
    def title(self) -> str:
        """The name in tables and pages."""
        ...

    @property
    def prompts(self) -> tuple[str, ...]: ...

    @property
    def splits(self) -> tuple[str, ...]: ...

    @property
    def hub(self) -> str | None:
        """The data set's id on the hub; None: it is not there."""
        ...

    @property
    def needs_llm(self) -> str:
        """A sentence about the rows that need an LLM; "": none do."""
        ...

    def check(self) -> None:
        """Raise ConfigError, with the command that fixes it, if the official scorer cannot work on this machine."""
        ...

    def load(
        self, problems: Path | None, images: Path | None = None, split: str | None = None, need_images: bool = True
    ) -> list[Item]:
        """Read the rows.

        Args:
            problems: a JSON or JSONL file in the official format or in MathSE's, ``.gz`` too. None: the hub.
            images: the folder where the rows' image paths start. None: the folder of the file.
            split: None: the default split.
            need_images: False, for rows that are only scored, ignores missing images.

        Raises DataError with file, line and remedy.
        """
        ...

    def extract(self, items: Sequence[Item], responses: Sequence[str], llm: LLM | None) -> list[Extraction]:
        """Find the answer in each response."""
        ...

    def score(
        self, items: Sequence[Item], responses: Sequence[str], extractions: Sequence[Extraction], llm: LLM | None
    ) -> list[Scored]:
        """Return the official verdict on each extraction. All rows come at once, so that no text is parsed twice."""
        ...

    def mapped(self, response: str) -> str:
        """Replace the student's answer marker by the official form. A response without marker is returned unchanged."""
        ...

    def second_opinions(self, items: Sequence[Item], responses: Sequence[str]) -> list[bool | None]:
        """Return math-verify's verdict on each response, within a time limit; None: no verdict."""
        ...

    def buckets(self, items: Sequence[Item], scored: Sequence[Scored]) -> dict[str, Any]:
        """Return the official aggregates under their official names. Rows that were not scored do not count."""
        ...

    def protocol(self) -> dict[str, Any]:
        """Return rule, parser, prompts and versions for metrics.json, as JSON values."""
        ...


def check_choice(option: str, value: object, allowed: Sequence[object]) -> None:
    """Raise ConfigError if ``value`` is not in ``allowed``."""
    if value not in allowed:
        raise ConfigError(f"{option} = {value!r}, allowed: {', '.join(map(str, allowed))}; choose one")


def group_accuracy(pairs: Iterable[tuple[Item, Scored]], groups: Callable[[Item], Iterable[Group]]) -> dict[str, Any]:
    """Return group name -> key -> {"accuracy", "correct", "total"} over scored rows, in order of first appearance."""
    marks: dict[str, dict[str, list[bool]]] = {}
    for item, row in pairs:
        if row.correct is not None:
            for group, key in groups(item):
                marks.setdefault(group, {}).setdefault(key, []).append(row.correct)
    accuracies: dict[str, dict[str, Any]] = {}
    for group, keys in marks.items():
        accuracies[group] = {key: share(sum(correct), len(correct)) for key, correct in keys.items()}
    return accuracies


def share(correct: int, total: int) -> dict[str, float | int]:
    """Return an accuracy as a fraction. Without rows it is 0, as in the official scripts."""
    return {"accuracy": correct / total if total else 0.0, "correct": correct, "total": total}


def paired(items: Sequence[Item], *others: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """Zip items with other values. Raises DataError if the lengths differ."""
    if any(len(other) != len(items) for other in others):
        raise DataError(f"{len(items)} items, but {[len(other) for other in others]} values; pass one for each item")
    return zip(items, *others, strict=True)
