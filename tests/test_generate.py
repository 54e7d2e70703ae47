"""Sampling and predicting, a durable batch at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import finalize

import pytest
from small import problems, tiny_backbone

from mathse.config import build
from mathse.config.generators import HFGeneratorConfig
from mathse.inference.generate import PathPrefix, batch_by_length, predict
from mathse.inference.rows import solve_row
from mathse.models.base import Completion
from mathse.models.row import Row
from mathse.models.tiny import TinyBackbone
from mathse.runs.rows import JsonlRows, Mapped
from mathse.runs.store import read_jsonl
from mathse.scoring.answers import MARKER
from mathse.types import Problem, ReasoningPath

GENERATOR = build(HFGeneratorConfig(batch_size=6, temperature=1.0, max_new_tokens=6))  # three problems of two samples


class CountingBackbone(TinyBackbone):
    """Notes the rows of each call of ``complete``."""

    def __init__(self) -> None:
        small = tiny_backbone()
        super(TinyBackbone, self).__init__(small.model, small.processor)
        self.calls: list[int] = []

    def complete(self, rows: Sequence[Row], **kwargs: Any) -> list[list[Completion]]:
        self.calls.append(len(rows))
        return super().complete(rows, **kwargs)


class TellingBackbone(CountingBackbone):
    """Answers each question from a table instead of sampling."""

    def __init__(self, table: dict[str, str]) -> None:
        super().__init__()
        self.table = table

    def complete(self, rows: Sequence[Row], **kwargs: Any) -> list[list[Completion]]:
        return [[Completion(self.table[row["question"]], [])] for row in rows]


def unequal(count: int) -> list[Problem]:
    """Problems of the world whose questions differ in length, some without an image."""
    return [replace(p, question=p.question + " really" * (i % 3), images=p.images if i % 4 else ())
            for i, p in enumerate(problems(count))]  # fmt: skip


def sample(backbone: TinyBackbone, asked: Sequence[Problem], file: Path, **changes: Any) -> Sequence[ReasoningPath]:
    options: dict[str, Any] = {"stage": "round_01", "model": "distill/checkpoint", "seed": 0, "n": 2, **changes}
    return GENERATOR.sample(backbone, asked, file, **options)


def cut(whole: Path, to: Path, lines: int, torn: bytes) -> None:
    """A copy as a kill leaves it: some whole lines, and the beginning of another."""
    to.write_bytes(b"".join(whole.read_bytes().splitlines(keepends=True)[:lines]) + torn)


# --- paths ----------------------------------------------------------------------------------------------------------


def test_every_problem_gets_n_paths_with_ids_and_lineage_of_their_own(tmp_path: Path) -> None:
    asked = unequal(7)
    paths = sample(tiny_backbone(), asked, tmp_path / "paths.jsonl")
    assert sorted(p.id for p in paths) == sorted(f"round_01/{p.id}/{i}" for p in asked for i in range(2))
    assert list(read_jsonl(tmp_path / "paths.jsonl", ReasoningPath)) == paths
    for path in paths:
        assert path.id.startswith(f"round_01/{path.problem_id}/")
        lineage = path.lineage
        assert (lineage.origin, lineage.stage, lineage.model) == ("student", "round_01", "distill/checkpoint")
        assert (lineage.parent, lineage.prompt) == (None, "generate/compact/1")


def test_samples_of_one_problem_differ_and_so_do_seeds_and_stages(tmp_path: Path) -> None:
    backbone, asked = tiny_backbone(), unequal(4)
    runs = [sample(backbone, asked, tmp_path / f"{i}.jsonl", **changes)
            for i, changes in enumerate([{}, {}, {"seed": 1}, {"stage": "round_02"}])]  # fmt: skip
    texts = [[p.text for p in run] for run in runs]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2] and texts[0] != texts[3]
    assert len(set(texts[0])) == len(texts[0])


def test_each_batch_has_its_own_seed_and_its_rows_say_which(tmp_path: Path) -> None:
    paths = sample(tiny_backbone(), unequal(7), tmp_path / "paths.jsonl")
    seeds = [p.lineage.seed for p in paths]
    assert [len(set(seeds[k : k + 6])) for k in (0, 6, 12)] == [1, 1, 1] and len(set(seeds)) == 3


@pytest.mark.parametrize("lines", [0, 1, 6, 11, 12, 13])
def test_sampling_that_was_killed_goes_on_to_the_same_rows(tmp_path: Path, lines: int) -> None:
    asked, backbone = unequal(7), CountingBackbone()
    expected = sample(tiny_backbone(), asked, tmp_path / "whole.jsonl")
    cut(tmp_path / "whole.jsonl", tmp_path / "torn.jsonl", lines, torn=b'{"id": "round_01/dig')
    told: list[int] = []
    assert sample(backbone, asked, tmp_path / "torn.jsonl", advance=told.append) == expected
    assert (tmp_path / "torn.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert backbone.calls == [3, 3, 1][lines // 6 :]
    assert sum(told) == 14 and told[0] == 6 * (lines // 6)


def test_a_batch_has_as_many_sequences_as_its_size_says(tmp_path: Path) -> None:
    for n, calls in ((1, [6, 1]), (2, [3, 3, 1]), (4, [1] * 7), (9, [1] * 7)):
        backbone = CountingBackbone()
        sample(backbone, unequal(7), tmp_path / f"{n}.jsonl", n=n)
        assert backbone.calls == calls


def test_a_file_begun_with_larger_batches_is_gone_on_with_at_a_batchs_end(tmp_path: Path) -> None:
    asked = unequal(7)
    of_problems = build(
        HFGeneratorConfig(batch_size=8, temperature=1.0, max_new_tokens=6)
    )  # four problems of two samples
    options: dict[str, Any] = {"stage": "round_01", "model": "distill/checkpoint", "seed": 0, "n": 2}
    of_problems.sample(tiny_backbone(), asked, tmp_path / "begun.jsonl", **options)
    cut(tmp_path / "begun.jsonl", tmp_path / "torn.jsonl", 8, torn=b"")
    paths = sample(tiny_backbone(), asked, tmp_path / "torn.jsonl")
    begun = list(read_jsonl(tmp_path / "begun.jsonl", ReasoningPath))
    assert list(paths[:6]) == begun[:6] and [p.id for p in paths] == [p.id for p in begun]


def test_finished_paths_are_read_and_nothing_is_sampled(tmp_path: Path) -> None:
    asked, backbone = unequal(4), CountingBackbone()
    expected = sample(backbone, asked, tmp_path / "paths.jsonl")
    backbone.calls.clear()
    assert sample(backbone, asked, tmp_path / "paths.jsonl") == expected
    assert backbone.calls == []


def test_problems_on_the_disk_are_read_a_batch_at_a_time_and_paths_stay_there(tmp_path: Path) -> None:
    asked, counts = unequal(7), Counter[str]()

    def read(problem: Problem) -> Problem:
        copy = replace(problem)
        counts["held"] += 1
        finalize(copy, counts.subtract, ["held"])
        counts["most"] = max(counts["most"], counts["held"])
        return copy

    found = sample(tiny_backbone(), Mapped(read, asked), tmp_path / "lazy.jsonl")
    assert isinstance(found, JsonlRows) and found == sample(tiny_backbone(), asked, tmp_path / "whole.jsonl")
    assert counts["most"] <= 2 * GENERATOR.problems_at_once(2)
    assert counts["held"] == 0


def test_the_order_in_which_problems_come_does_not_matter(tmp_path: Path) -> None:
    asked = unequal(7)
    one = sample(tiny_backbone(), asked, tmp_path / "one.jsonl")
    assert sample(tiny_backbone(), asked[::-1], tmp_path / "other.jsonl") == one


def test_at_temperature_zero_the_seed_does_not_matter(tmp_path: Path) -> None:
    one, other = (sample(tiny_backbone(), unequal(4), tmp_path / f"{seed}.jsonl", n=1, temperature=0.0, seed=seed)
                  for seed in (0, 1))  # fmt: skip
    assert [p.text for p in one] == [p.text for p in other]


def test_no_problem_is_no_path(tmp_path: Path) -> None:
    assert sample(tiny_backbone(), [], tmp_path / "paths.jsonl") == []


def test_questions_of_similar_length_share_a_batch() -> None:
    asked = unequal(20)
    batches = list(batch_by_length(asked, 6))
    assert [len(b) for b in batches] == [6, 6, 6, 2]
    assert sorted(p.id for b in batches for p in b) == sorted(p.id for p in asked)
    lengths = [len(p.question) for b in batches for p in b]
    assert lengths == sorted(lengths)


def test_the_row_that_asks_and_the_row_that_trains_differ_in_the_response_alone() -> None:
    backbone, [problem] = tiny_backbone(), problems(1)
    asks, trains = (
        solve_row(backbone.prompt_style, problem),
        solve_row(backbone.prompt_style, problem, problem.solution),
    )
    assert "response" not in asks and trains == {**asks, "response": problem.solution}
    assert backbone.encode([asks])[0].prompt == backbone.encode([trains])[0].prompt


# --- predictions ----------------------------------------------------------------------------------------------------


def test_a_prediction_says_what_was_written_what_was_read_and_whether_it_is_right(tmp_path: Path) -> None:
    said = {"right": f"Step 1: ...\n{MARKER} 12.", "wrong": f"{MARKER} 13.", "silent": "no idea"}
    said["choice"] = f"{MARKER} B."
    asked = [Problem(q, q, answer="12") for q in said if q != "choice"]
    asked.append(Problem("choice", "Which?", answer="B", choices=("11", "12")))
    table = {**said, "Which?\n(A) 11\n(B) 12": said["choice"]}
    rows = predict(TellingBackbone(table), asked, tmp_path / "p.jsonl", batch_size=3, max_new_tokens=9)
    found = {row["id"]: (row["response"], row["prediction"], row["answer"], row["correct"]) for row in rows}
    assert found == {
        "right": (said["right"], "12", "12", True),
        "wrong": (said["wrong"], "13", "12", False),
        "silent": (said["silent"], None, "12", False),
        "choice": (said["choice"], "B", "B", True),
    }
    assert list(read_jsonl(tmp_path / "p.jsonl")) == rows


def test_predictions_are_greedy_and_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    asked, backbone = unequal(9), tiny_backbone()
    alone, together = (
        predict(backbone, asked, tmp_path / f"{size}.jsonl", batch_size=size, max_new_tokens=8) for size in (1, 9)
    )
    assert alone == together
    assert len({row["response"] for row in alone}) > 1


@pytest.mark.parametrize("lines", [0, 2, 4, 5])
def test_predicting_that_was_killed_goes_on_to_the_same_rows(tmp_path: Path, lines: int) -> None:
    asked, backbone = unequal(7), CountingBackbone()
    options = {"batch_size": 2, "max_new_tokens": 6}
    expected = predict(tiny_backbone(), asked, tmp_path / "whole.jsonl", **options)  # type: ignore[arg-type]
    cut(tmp_path / "whole.jsonl", tmp_path / "torn.jsonl", lines, torn=b'{"id"')
    told: list[int] = []
    rows = predict(backbone, asked, tmp_path / "torn.jsonl", **options, advance=told.append)  # type: ignore[arg-type]
    assert rows == expected and sum(told) == 7
    assert backbone.calls == [2, 2, 2, 1][lines // 2 :]


def test_restarts_go_on_from_right_steps_and_leave_the_whole_samples_as_they_would_be(tmp_path: Path) -> None:
    asked = problems(4)
    plain = sample(tiny_backbone(), asked, tmp_path / "plain.jsonl", n=2)
    starts = {p.id: PathPrefix("Step 1: the digits are 3", f"draft/{p.id}") for p in asked[1:3]}
    paths = sample(tiny_backbone(), asked, tmp_path / "more.jsonl", n=2, restarts=3, prefixes=starts)
    assert list(paths[: len(plain)]) == list(plain)
    restarted = paths[len(plain) :]
    assert Counter(p.problem_id for p in restarted) == dict.fromkeys(starts, 3)
    for p in restarted:
        assert p.text.startswith("Step 1: the digits are 3") and p.lineage.parent == f"draft/{p.problem_id}"
    assert len({p.id for p in paths}) == len(paths)


@pytest.mark.parametrize("lines", [0, 5, 9, 13])
def test_restarts_that_were_killed_go_on_to_the_same_rows(tmp_path: Path, lines: int) -> None:
    asked = problems(4)
    starts = {p.id: PathPrefix("Step 1:", f"draft/{p.id}") for p in asked}
    options: Any = {"n": 2, "restarts": 2, "prefixes": starts}
    whole = sample(tiny_backbone(), asked, tmp_path / "whole.jsonl", **options)
    cut(tmp_path / "whole.jsonl", tmp_path / "cut.jsonl", lines, b'{"id": "torn')
    assert list(sample(tiny_backbone(), asked, tmp_path / "cut.jsonl", **options)) == list(whole)
