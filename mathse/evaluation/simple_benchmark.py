"""A benchmark in ten lines: two methods are abstract, all others have defaults.

    class WordProblems(SimpleBenchmark):
        def problems(self, file, images, split):
            for line in open(file, encoding="utf-8"):
                row = json.loads(line)
                yield Problem(row["id"], row["question"], answer=row["answer"])

        def score(self, problem, answer):
            return same_answer(answer, problem.answer, problem.choices)

``SimpleBenchmarkAdapter`` gives such a class all methods of ``mathse.evaluation.benchmark.Benchmark``. A benchmark with
an official extraction, an LLM or official aggregates implements these methods itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mathse.data.domains import final_answer
from mathse.errors import ConfigError
from mathse.evaluation.benchmark import (
    LLM,
    RULE,
    Benchmark,
    Extraction,
    Group,
    Item,
    Scored,
    check_choice,
    group_accuracy,
    paired,
)
from mathse.inference.prompts import question_text
from mathse.types import Problem


class SimpleBenchmark(ABC):
    """A benchmark of two methods. ``prompts``, ``splits``: the allowed names, the default first."""

    name: ClassVar[str] = ""  # "": the class's name
    title: str = ""  # the name in tables and pages; "": the class's name
    prompts: ClassVar[tuple[str, ...]] = ("plain",)
    splits: ClassVar[tuple[str, ...]] = ("test",)
    hub: ClassVar[str | None] = None  # the data set's id on the hub
    needs_llm: ClassVar[str] = ""

    def __init__(self, prompt: str | None = None) -> None:
        self.prompt = prompt or self.prompts[0]

    @abstractmethod
    def problems(self, file: Path | None, images: Path | None, split: str) -> Iterable[Problem]:
        """Read the problems of a file, with absolute paths of images.

        ``images``: the folder where relative paths start; None: the file's folder.
        """

    @abstractmethod
    def score(self, problem: Problem, answer: str | None) -> bool | None:
        """Whether ``answer`` is right; None: not known. ``answer`` None: the response has no answer."""

    def question(self, problem: Problem) -> str:
        """Return the student's prompt, under ``self.prompt``."""
        return question_text(problem)

    def extract(self, problem: Problem, response: str) -> str | None:
        """Find the answer in a response, by the rules of the problem's domain."""
        return final_answer(problem, response)

    def group(self, problem: Problem) -> str | None:
        """Return the problem's group, for an accuracy of each group; None: no group."""
        return None

    def protocol(self) -> dict[str, Any]:
        """Return the rules of scoring, recorded beside the accuracy, as JSON values."""
        return {"benchmark": self.title or type(self).__name__, "prompt": self.prompt, "scoring": "rule"}


class SimpleBenchmarkAdapter:
    """Gives a simple benchmark the interface ``benchmark.Benchmark``."""

    def __init__(self, simple: SimpleBenchmark) -> None:
        self.simple = simple
        check_choice(f"benchmark.{simple.name or type(simple).__name__}.prompt", simple.prompt, simple.prompts)
        self.name, self.title = (text or type(simple).__name__ for text in (simple.name, simple.title))
        self.prompt, self.prompts, self.splits = simple.prompt, simple.prompts, simple.splits
        self.hub, self.needs_llm = simple.hub, simple.needs_llm

    def check(self) -> None:
        """Do nothing: a simple benchmark needs no further software."""

    def load(
        self, problems: Path | None, images: Path | None = None, split: str | None = None, need_images: bool = True
    ) -> list[Item]:
        """Return an item for each of the benchmark's ``problems``."""
        check_choice(f"benchmark.{self.name}.split", split or self.splits[0], self.splits)
        rows = self.simple.problems(problems, images, split or self.splits[0])
        return [Item(problem, problem.to_json(), self.simple.question(problem)) for problem in rows]

    def extract(self, items: Sequence[Item], responses: Sequence[str], llm: LLM | None) -> list[Extraction]:
        """Return the answer that the benchmark finds in each response."""
        pairs = paired(items, responses)
        return [Extraction(self.simple.extract(item.problem, response), RULE) for item, response in pairs]

    def score(
        self, items: Sequence[Item], responses: Sequence[str], extractions: Sequence[Extraction], llm: LLM | None
    ) -> list[Scored]:
        """Return the benchmark's verdicts."""
        scored = []
        for item, response, extraction in paired(items, responses, extractions):
            problem, answer = item.problem, extraction.text
            correct = self.simple.score(problem, answer)
            scored.append(Scored(problem.id, response, answer, answer, problem.answer, correct, extraction.decided_by))
        return scored

    def mapped(self, response: str) -> str:
        """Return the response unchanged: MathSE's rules read its marker."""
        return response

    def second_opinions(self, items: Sequence[Item], responses: Sequence[str]) -> list[bool | None]:
        """Return None for each response: math-verify is not asked."""
        return [None] * len(responses)

    def buckets(self, items: Sequence[Item], scored: Sequence[Scored]) -> dict[str, Any]:
        """Return the accuracy of each group, in the order of their names."""

        def groups(item: Item) -> list[Group]:
            group = self.simple.group(item.problem)
            return [] if group is None else [("group", group)]

        shares = group_accuracy(paired(items, scored), groups)
        return dict(sorted(shares.get("group", {}).items()))

    def protocol(self) -> dict[str, Any]:
        """Return the benchmark's protocol with the prompt of the evaluation."""
        return {**self.simple.protocol(), "prompt": self.prompt}


def as_benchmark(bench: Any, name: str) -> Benchmark:
    """Return ``bench`` with the whole interface. Raises ConfigError with all members that it lacks."""
    if isinstance(bench, SimpleBenchmark):
        return SimpleBenchmarkAdapter(bench)
    members = [member for member in (*Benchmark.__annotations__, *vars(Benchmark)) if not member.startswith("_")]
    if missing := [member for member in members if not hasattr(bench, member)]:
        raise ConfigError(_lacks(name, type(bench), missing))
    checked: Benchmark = bench
    return checked


def refuse_unfinished(kind: Any, name: str) -> None:
    """Raise ConfigError for a simple benchmark with an abstract method."""
    if isinstance(kind, type) and issubclass(kind, SimpleBenchmark) and kind.__abstractmethods__:
        raise ConfigError(_lacks(name, kind, sorted(kind.__abstractmethods__)))


def _lacks(name: str, kind: type, members: Sequence[str]) -> str:
    return (
        f"benchmark.{name}: {kind.__module__}.{kind.__name__} lacks {', '.join(members)}; derive it from "
        "mathse.evaluation.simple_benchmark.SimpleBenchmark and write problems and score, which is enough"
    )
