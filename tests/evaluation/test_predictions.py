"""A file of answers: accepted rows, and errors with file, line and remedy."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from evaluation.cases import metrics, rows, run, write_rows
from mathse.errors import DataError
from mathse.evaluation.predictions import Answer, read_predictions

KNOWN = ("1", "2", "3")


def read(file: Path, benchmark: str = "mathvista", n: int = 1) -> dict[tuple[str, int], Answer]:
    return read_predictions(file, benchmark, KNOWN, n)


def test_an_answer_keeps_its_extraction_even_an_empty_one(tmp_path: Path) -> None:
    file = write_rows(
        tmp_path / "a.jsonl",
        [
            {"id": "1", "response": "so 4", "extraction": ""},
            {"id": 2, "response": None, "extraction": None},
            {"pid": "3", "response": "x", "extraction": 12.5, "model": "other keys are free"},
        ],
    )
    assert list(read(file).values()) == [
        Answer("1", "so 4", 0, ""),
        Answer("2", "", 0, None),
        Answer("3", "x", 0, "12.5"),
    ]


def test_half_a_character_is_replaced(tmp_path: Path) -> None:
    row = {"id": "1", "response": "so \ud83d", "extraction": "\ude00\ud83d", "metadata": {"\ud83d": ["\ud83d\ude00"]}}
    file = write_rows(tmp_path / "a.jsonl", [row])
    assert list(read(file).values()) == [Answer("1", "so \ufffd", 0, "\ufffd\ufffd", {"\ufffd": ["\U0001f600"]})]


def test_a_zipped_file_is_read_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(gzip.compress(b'\xef\xbb\xbf{"id": "1", "response": "r"}\n\n{"id": "2", "response": "s"}\n'))
    assert [a.response for a in read(file).values()] == ["r", "s"]


def test_several_answers_a_problem_are_told_apart_by_their_sample(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", [{"id": "1", "sample": k, "response": str(k)} for k in (1, 0)])
    assert {key: a.response for key, a in read(file, n=2).items()} == {("1", 0): "0", ("1", 1): "1"}
    with pytest.raises(DataError, match=r"a\.jsonl:1: sample 1 of '1', and n_samples = 1; raise it"):
        read(file)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no rows; write one answer a line"),
        ("\n\n", "holds no rows"),
        ('{"id": "1", "response": "r"}\n{"id": "2", "respo', ":2: broken JSON: "),
        ('["1", "r"]\n', ":1: a row is a JSON object, got a list"),
        ('{"response": "r"}\n', ':1: "id" is missing; a row has "id" and "response"'),
        ('{"id": "1"}\n', ':1: "response" is missing'),
        ('{"id": ["1"], "response": "r"}\n', ":1: \"id\" is text or a whole number, got ['1']"),
        ('{"id": "1", "response": 12}\n', ':1: "response" is text, got 12; put it in quotes'),
        ('{"id": "1", "response": "r", "extraction": ["a"]}\n', ':1: "extraction" is text, got '),
        ('{"id": "1", "sample": -1, "response": "r"}\n', ':1: "sample" counts the answers to a problem from 0'),
        ('{"id": "9", "response": "r"}\n', ":1: id '9' is none of mathvista's 3 problems"),
        ('{"id": "1", "response": "r"}\n' * 2, ":2: id '1' is already in line 1; keep one of the two"),
        ('{"sample_index": "1", "response": "r"}\n', ':1: "sample_index" is the id of a problem in mathverse; pass '),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_a_remedy(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text(text)
    with pytest.raises(DataError) as caught:
        read(file)
    assert str(caught.value).startswith(str(file)) and said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("data", "said"), [(b"\xff\xfe", ":1: not UTF-8"), (b"[" * 100_000, "beyond all bounds")])
def test_bytes_that_are_no_json_are_refused(tmp_path: Path, data: bytes, said: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(data)
    with pytest.raises(DataError, match=said):
        read(file)


def test_half_a_gzip_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"id": "1", "response": "r"}\n')[:-9])
    with pytest.raises(DataError, match="not a whole gzip file"):
        read(file)


def test_the_groups_go_by_the_metadata_that_a_row_brings(tmp_path: Path, files: Path) -> None:
    given: list[dict[str, object]] = [{"id": str(k), "response": str(k)} for k in range(1, 7)]
    given[0]["metadata"] = {"skills": ["geometry reasoning"]}
    file = write_rows(tmp_path / "a.jsonl", given)
    asked = ("benchmark=mathvista", f"benchmark.mathvista.problems={files}/mathvista.jsonl", f"predictions={file}")
    assert run(tmp_path / "run", *asked) == 1
    found = metrics(tmp_path / "run", "mathvista")
    assert {key: share["total"] for key, share in found["buckets"]["skills"].items()} == {
        "geometry reasoning": 1, "arithmetic reasoning": 5
    }  # fmt: skip
    assert found["buckets"]["task"]["geometry problem solving"]["total"] == 6  # values without a replacement stay
    assert found["protocol"]["rows_with_own_metadata"] == 1


# --- through the task -------------------------------------------------------------------------------------------------


def predictions(file: Path, wrong: int = 0, count: int = 6) -> Path:
    """Right answers, but for the first ``wrong``."""
    return write_rows(file, [{"id": str(k), "response": str(-k if k <= wrong else k)} for k in range(1, count + 1)])


def test_a_file_that_lacks_problems_is_scored_only_if_asked_for(tmp_path: Path, files: Path) -> None:
    file = predictions(tmp_path / "a.jsonl", wrong=1, count=4)
    asked = ("benchmark=mathvista", f"benchmark.mathvista.problems={files}/mathvista.jsonl", f"predictions={file}")
    with pytest.raises(DataError, match=r"lacks 2 of mathvista's 6 answers, for example '5'; .*partial=true"):
        run(tmp_path / "run", *asked)
    assert not (tmp_path / "run").exists()
    assert run(tmp_path / "run", *asked, "partial=true") == 0.75
    assert metrics(tmp_path / "run", "mathvista")["total"] == 4


def test_limit_takes_the_first_problems_and_leaves_the_other_answers_alone(tmp_path: Path, files: Path) -> None:
    file = predictions(tmp_path / "a.jsonl", wrong=1)
    asked = ("benchmark=mathvision", f"benchmark.mathvision.problems={files}/mathvision.jsonl", f"predictions={file}")
    assert run(tmp_path / "run", *asked, "limit=2") == 0.5
    assert [row["id"] for row in rows(tmp_path / "run" / "mathvision" / "scored.jsonl")] == ["1", "2"]


def test_another_benchmark_s_problems_are_named(tmp_path: Path, files: Path) -> None:
    file = predictions(tmp_path / "a.jsonl")
    asked = ("benchmark=mathvision", f"benchmark.mathvision.problems={files}/mathvista.jsonl", f"predictions={file}")
    with pytest.raises(DataError, match=r"mathvista\.jsonl:1: no row of mathvision .*benchmark=mathvista"):
        run(tmp_path / "run", *asked)


def test_a_mistake_in_the_file_leaves_what_was_written_before(tmp_path: Path, files: Path) -> None:
    file = predictions(tmp_path / "a.jsonl")
    asked = ("benchmark=mathvista", f"benchmark.mathvista.problems={files}/mathvista.jsonl", f"predictions={file}")
    assert run(tmp_path / "run", *asked) == 1
    before = {f: f.read_bytes() for f in (tmp_path / "run").rglob("*") if f.is_file()}
    file.write_text(file.read_text() + json.dumps({"id": "99", "response": "r"}) + "\n")
    with pytest.raises(DataError, match=f"{file}:7: id '99'"):
        run(tmp_path / "run", *asked)
    assert {f: f.read_bytes() for f in (tmp_path / "run").rglob("*") if f.is_file()} == before
