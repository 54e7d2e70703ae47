"""A benchmark in ten lines: required members and defaults."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from mathse.errors import ConfigError
from mathse.evaluation.simple_benchmark import SimpleBenchmark, as_benchmark, refuse_unfinished
from mathse.scoring.answers import same_answer
from mathse.types import Problem


class Sums(SimpleBenchmark):
    def problems(self, file, images, split):
        return [Problem(f"{a}", f"{a} + 1?", answer=str(a + 1), metadata={"odd": a % 2}) for a in range(4)]

    def score(self, problem, answer):
        return same_answer(answer, problem.answer)

    def group(self, problem):
        return "odd" if problem.metadata["odd"] else "even"


class Unfinished(SimpleBenchmark):
    pass


def test_two_methods_make_a_benchmark() -> None:
    bench = as_benchmark(Sums(), "sums")
    items = bench.load(Path("any"))
    responses = ["The answer is 1.", "2", "I do not know.", "The answer is 5."]
    scored = bench.score(items, responses, bench.extract(items, responses, None), None)
    assert [row.correct for row in scored] == [True, True, False, False]
    assert (bench.name, bench.title, bench.splits) == ("Sums", "Sums", ("test",))
    assert bench.buckets(items, scored) == {
        "even": {"accuracy": 0.5, "correct": 1, "total": 2},
        "odd": {"accuracy": 0.5, "correct": 1, "total": 2},
    }
    assert bench.protocol()["prompt"] == "plain"


def test_what_is_missing_is_named_at_once() -> None:
    with pytest.raises(ConfigError, match="Unfinished lacks problems, score; derive it"):
        refuse_unfinished(Unfinished, "mine")
    halfway = SimpleNamespace(name="x", prompt="plain", prompts=("plain",), check=lambda: None)
    with pytest.raises(ConfigError) as error:
        as_benchmark(halfway, "mine")
    for member in ("title", "splits", "hub", "needs_llm", "load", "extract", "score", "mapped", "buckets", "protocol"):
        assert member in str(error.value)
    assert "prompt," not in str(error.value).partition("lacks")[2]


def test_a_prompt_or_split_that_there_is_not_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"benchmark\.Sums\.prompt = 'cot', allowed: plain"):
        as_benchmark(Sums(prompt="cot"), "sums")
    with pytest.raises(ConfigError, match=r"benchmark\.Sums\.split = 'train', allowed: test"):
        as_benchmark(Sums(), "sums").load(None, split="train")
