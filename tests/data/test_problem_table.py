"""Many problems with little memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mathse.data import problem_table
from mathse.data.problem_table import ProblemsById, ProblemTable, without
from mathse.types import Problem


def problem(k: int) -> Problem:
    found = {"k": [k, None, 0.5]}
    return Problem(f"p/{k}", "求 x。" * (k + 1), (f"/a/{k}.png",), str(k), ("1", "2"), None, "own", found)


def filled(count: int = 50) -> ProblemTable:
    table = ProblemTable()
    for k in range(count):
        table.add(problem(k), "a.jsonl" if k < 30 else "b.jsonl", k + 1)
    return table


@pytest.mark.parametrize("in_memory", [1 << 20, 200, 0])
def test_problems_come_back_as_they_were_from_memory_and_from_a_file(
    monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr(problem_table, "MAX_BUFFER", in_memory)
    table = filled()
    assert [table.at(k) for k in range(50)] == [problem(k) for k in range(50)]
    assert table.get("p/7") == problem(7) and table.get("p/99") is None
    assert table.location("p/29") == ("a.jsonl", 30) and table.location("p/30") == ("b.jsonl", 31)


def test_a_problem_that_is_there_already_is_refused() -> None:
    with pytest.raises(KeyError):
        filled().add(problem(3), "c.jsonl", 1)


def test_a_selection_is_a_sequence_in_its_own_order() -> None:
    chosen = filled().select(["p/9", "p/2", "p/5"])
    assert [p.id for p in chosen] == ["p/9", "p/2", "p/5"]
    assert chosen[1] == problem(2) and [p.id for p in chosen[1:]] == ["p/2", "p/5"] and len(chosen[:2]) == 2
    assert [p.id for p in without(chosen, {"p/2", "unknown"})] == ["p/9", "p/5"]
    assert without(chosen, set()) is chosen


def test_text_with_half_a_surrogate_survives() -> None:
    table = ProblemTable()
    table.add(Problem("a", "x", metadata={"raw": "\ud800"}), "f", 1)
    assert table.at(0).metadata["raw"] == "\ud800"


def test_by_id_is_a_mapping_that_takes_more(tmp_path: Path) -> None:
    known = ProblemsById(filled())
    known["other"] = problem(99)
    assert known["p/4"] == problem(4) and known["other"] == problem(99) and len(known) == 51
    assert "p/4" in known and "p/50" not in known and known.get("p/50") is None
    with pytest.raises(KeyError):
        known["p/50"]


def test_forked_processes_read_a_file_without_disturbing_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problem_table, "MAX_BUFFER", 0)
    table = filled()
    child = os.fork()
    if child == 0:
        os._exit(0 if all(table.at(k) == problem(k) for k in range(50)) else 1)
    assert all(table.at(k) == problem(k) for k in reversed(range(50)))
    assert os.waitpid(child, 0)[1] == 0
