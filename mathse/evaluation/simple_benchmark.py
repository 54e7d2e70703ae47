"""A benchmark in ten lines: two methods to write, the rest has defaults.

    class WordProblems(SimpleBenchmark):
        def problems(self, file, images, split):
            for line in open(file, encoding="utf-8"):
                row = json.loads(line)
                yield Problem(row["id"], row["question"], answer=row["answer"])

        def score(self, problem, answer):
            return same_answer(answer, problem.answer, problem.choices)

``Adapted`` gives such a class all methods of ``mathse.evaluation.benchmark.Benchmark``. A benchmark with an official
extraction, an LLM or aggregates of its own has these methods itself.
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
    Item,
    Scored,
    check_choice,
    group_accuracy,
    paired,
)
from mathse.inference.prompts import question_text
from mathse.types import Problem


class SimpleBenchmark(ABC):
    """``prompts``, ``splits``: names to choose from, the default first. ``hub``: the data set's id there, if any."""

    name: ClassVar[str] = ""  # "": the class's name
    title: str = ""  # as in a table's head; "": the class's name
    prompts: ClassVar[tuple[str, ...]] = ("plain",)
    splits: ClassVar[tuple[str, ...]] = ("test",)
    hub: ClassVar[str | None] = None
    needs_llm: ClassVar[str] = ""

    def __init__(self, prompt: str | None = None) -> None:
        self.prompt = prompt or self.prompts[0]

    @abstractmethod
    def problems(self, file: Path | None, images: Path | None, split: str) -> Iterable[Problem]:
        """The problems of a file, with images as absolute paths. ``images``: where relative ones start from; None: the
        file's folder."""

    @abstractmethod
    def score(self, problem: Problem, answer: str | None) -> bool | None:
        """Whether ``answer``, found in a response, is right; None: cannot be said. An answer None was not found."""

    def question(self, problem: Problem) -> str:
        """What a student is asked, under ``self.prompt``."""
        return question_text(problem)

    def extract(self, problem: Problem, response: str) -> str | None:
        """The answer in a response: by the rules of the problem's domain."""
        return final_answer(problem, response)

    def group(self, problem: Problem) -> str | None:
        """The group in whose accuracy the problem counts too; None: in none."""
        return None

    def protocol(self) -> dict[str, Any]:
        """What decided, recorded beside the accuracy: JSON values."""
        return {"benchmark": self.title or type(self).__name__, "prompt": self.prompt, "scoring": "rule"}


class Adapted:
    """A simple benchmark as a ``benchmark.Benchmark``."""

    def __init__(self, simple: SimpleBenchmark) -> None:
        self.simple = simple
        check_choice(f"benchmark.{simple.name or type(simple).__name__}.prompt", simple.prompt, simple.prompts)
        self.name, self.title = (text or type(simple).__name__ for text in (simple.name, simple.title))
        self.prompts, self.splits, self.hub, self.needs_llm = (
            simple.prompts,
            simple.splits,
            simple.hub,
            simple.needs_llm,
        )
        self.prompt = simple.prompt

    def check(self) -> None:
        """Nothing is needed."""

    def load(
        self, problems: Path | None, images: Path | None = None, split: str | None = None, need_images: bool = True
    ) -> list[Item]:
        """What the benchmark's ``problems`` gives."""
        check_choice(f"benchmark.{self.name}.split", split or self.splits[0], self.splits)
        rows = self.simple.problems(problems, images, split or self.splits[0])
        return [Item(problem, problem.to_json(), self.simple.question(problem)) for problem in rows]

    def extract(self, items: Sequence[Item], responses: Sequence[str], llm: LLM | None) -> list[Extraction]:
        """The benchmark's own; "" where it finds none."""
        pairs = paired(items, responses)
        return [Extraction(self.simple.extract(item.problem, response), RULE) for item, response in pairs]

    def score(
        self, items: Sequence[Item], responses: Sequence[str], extractions: Sequence[Extraction], llm: LLM | None
    ) -> list[Scored]:
        """The benchmark's own verdicts."""
        scored = []
        for item, response, extraction in paired(items, responses, extractions):
            problem, answer = item.problem, extraction.text
            correct = self.simple.score(problem, answer)
            scored.append(Scored(problem.id, response, answer, answer, problem.answer, correct, extraction.decided_by))
        return scored

    def mapped(self, response: str) -> str:
        """The response itself: MathSE's rules read its marker."""
        return response

    def second_opinions(self, items: Sequence[Item], responses: Sequence[str]) -> list[bool | None]:
        """None: the rules are the same for every student."""
        return [None] * len(responses)

    def buckets(self, items: Sequence[Item], scored: Sequence[Scored]) -> dict[str, Any]:
        """The accuracy of each group, in the order of their names."""
        shares = group_accuracy(
            paired(items, scored),
            lambda item: [("group", group)] if (group := self.simple.group(item.problem)) is not None else [],
        )
        return dict(sorted(shares.get("group", {}).items()))

    def protocol(self) -> dict[str, Any]:
        """The benchmark's own, with the prompt that was asked."""
        return {**self.simple.protocol(), "prompt": self.prompt}


def whole(bench: Any, name: str) -> Benchmark:
    """``bench`` as a whole benchmark. Raises ConfigError that names all members that it lacks."""
    if isinstance(bench, SimpleBenchmark):
        return Adapted(bench)
    members = [member for member in (*Benchmark.__annotations__, *vars(Benchmark)) if not member.startswith("_")]
    if missing := [member for member in members if not hasattr(bench, member)]:
        raise ConfigError(_lacks(name, type(bench), missing))
    checked: Benchmark = bench
    return checked


def refuse_unfinished(kind: Any, name: str) -> None:
    """Raises ConfigError for a simple benchmark whose methods are not all written."""
    if isinstance(kind, type) and issubclass(kind, SimpleBenchmark) and kind.__abstractmethods__:
        raise ConfigError(_lacks(name, kind, sorted(kind.__abstractmethods__)))


def _lacks(name: str, kind: type, members: Sequence[str]) -> str:
    return (
        f"benchmark.{name}: {kind.__module__}.{kind.__name__} lacks {', '.join(members)}; derive it from "
        "mathse.evaluation.simple_benchmark.SimpleBenchmark and write problems and score, which is enough"
    )
