"""Hash lists stand for a benchmark that is not here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mathse.__main__ import main
from mathse.config.rules.data import STORED
from mathse.data.decontamination import ComparedRow, hash_lists
from mathse.data.decontamination.benchmark_files import index_of, problems_of
from mathse.errors import DataError
from mathse.types import Problem

TELLING = "A rectangle has sides of 12 cm and 35 cm. How long is its diagonal in centimetres?"
FROM = {"mathvision": "mathvision/test.jsonl.gz", "mathverse": "mathverse/testmini_text_only.jsonl.gz"}


def benchmark(folder: Path) -> Path:
    rows = [{"pid": "7", "question": TELLING}, {"pid": "8", "question": "Find x."}]
    (folder / "bench.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "bench.jsonl"


def found(question: str, *against: str) -> list[tuple[str, tuple[str, ...], bool]]:
    pairs = index_of(against).pairs(ComparedRow.of(Problem("row", question)))
    return [(pair.against_id, pair.by, pair.counts) for pair in pairs]


def test_a_list_knows_equal_questions_and_says_nothing_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "list.txt"
    assert main(["data", "hashes", str(benchmark(tmp_path)), str(written)]) == 0
    assert "1 questions" in capsys.readouterr().out
    assert "rectangle" not in written.read_text() and hash_lists.is_list(written)
    assert found(TELLING.upper().replace("12", "$12$"), str(written)) == [("7", ("question",), True)]
    assert found(TELLING.replace("12", "13"), str(written)) == [] == found("Find x.", str(written))


@pytest.mark.parametrize("name", STORED)
def test_the_lists_that_come_along_are_those_of_the_benchmarks(fixtures: Path, name: str) -> None:
    problems = list(problems_of(fixtures / "benchmarks" / FROM[name]))
    path = hash_lists.location(f"stored:{name}")
    kept = path.read_text(encoding="utf-8").splitlines()
    assert kept == list(hash_lists.lines(problems, kept[1].removeprefix("# "))), (
        "made again after a change to the normal form?"
    )
    told = [p for p in problems if ComparedRow.of(Problem("", p.question)).question.is_distinctive]
    index = index_of([f"stored:{name}"])
    assert len(index) == len(told)
    for problem in told[::50]:
        assert problem.id in {p.against_id for p in index.pairs(ComparedRow.of(Problem("", f"  {problem.question} ")))}


def test_names_of_lists_are_known_to_the_settings() -> None:
    lists = hash_lists.location("stored:mathvision").parent
    assert sorted(STORED) == sorted(path.stem for path in lists.iterdir())


def test_a_list_goes_with_files(tmp_path: Path) -> None:
    file = benchmark(tmp_path)
    assert found(TELLING, str(file), "stored:mathvision") == [("7", ("question",), True)]


def test_a_list_that_is_damaged_is_refused(tmp_path: Path) -> None:
    damaged = tmp_path / "list.txt"
    damaged.write_text(f"{hash_lists.HEAD}\n# about\n7 0123\n")
    with pytest.raises(DataError, match="list.txt:3: no line of a hash list"):
        index_of([str(damaged)])
    with pytest.raises(DataError, match="give it such a name"):
        from mathse.commands.data_check import _write_hashes

        _write_hashes(benchmark(tmp_path), tmp_path / "list.jsonl")
