"""Files are whole or absent, and batches survive kills."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from processes import end, first_line, start

from mathse.errors import DataError
from mathse.runs.store import (
    BatchLog,
    find_leftovers,
    publish_folder,
    read_json,
    read_jsonl,
    sha256_file,
    to_json,
    write_json,
    write_jsonl,
)
from mathse.types import Lineage, ReasoningPath, Verdict


def reasoning_path(number: int) -> ReasoningPath:
    lineage = Lineage(origin="student", stage="round_01", model="round_01/checkpoint", seed=number)
    return ReasoningPath(f"round_01/p{number}/0", f"p{number}", text="3 * 4 = 12 答案\n12", lineage=lineage)


@contextmanager
def disk_full_beyond(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes: the kernel takes what fits of a write, then refuses."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# --- JSON and JSONL -------------------------------------------------------------------------------------------------


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    paths = [reasoning_path(n) for n in range(3)]
    assert write_jsonl(tmp_path / "new" / "paths.jsonl", paths) == 3
    assert list(read_jsonl(tmp_path / "new" / "paths.jsonl", ReasoningPath)) == paths


def test_a_record_inside_a_row_is_written_as_its_object(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"path": reasoning_path(1), "score": 0.5}])
    (row,) = read_jsonl(tmp_path / "rows.jsonl")
    assert ReasoningPath.from_json(row["path"]) == reasoning_path(1)


@pytest.mark.parametrize("text", ["中文 \\frac{1}{2}", "line\u2028separator", "lone surrogate \ud83d", "\\ud83d"])
def test_any_text_comes_back_unchanged(tmp_path: Path, text: str) -> None:
    write_jsonl(tmp_path / "a.jsonl", [text, text])
    assert list(read_jsonl(tmp_path / "a.jsonl")) == [text, text]


def test_half_a_character_in_a_stored_path_or_verdict_is_read_as_the_sign_for_it(tmp_path: Path) -> None:
    path = reasoning_path(1).to_json() | {"text": "Step 1: \ud83d.", "lineage": reasoning_path(1).lineage.to_json()}
    verdict = {"path_id": "a", "status": "wrong", "error_step": "\ude00", "error_analysis": "\ud83d", "raw": "\ud83d!"}
    write_jsonl(tmp_path / "rows.jsonl", [path])
    write_jsonl(tmp_path / "verdicts.jsonl", [verdict])
    [read] = read_jsonl(tmp_path / "rows.jsonl", ReasoningPath)
    assert read == replace(reasoning_path(1), text="Step 1: \ufffd.")
    [word] = read_jsonl(tmp_path / "verdicts.jsonl", Verdict)
    assert (word.error_step, word.error_analysis, word.raw) == ("\ufffd", "\ufffd", "\ufffd!")


@pytest.mark.parametrize(
    "line", [b'{"a": 1', b"\xff\xfe", b"\0\0\0", b'{"a": NaN}', b'{"id": "x"}', b'{"nobody": 1}', b"[]"]
)
def test_a_broken_line_is_named_by_file_and_number_once_it_is_reached(tmp_path: Path, line: bytes) -> None:
    file = tmp_path / "paths.jsonl"
    write_jsonl(file, [reasoning_path(1), reasoning_path(2)])
    file.write_bytes(file.read_bytes() + line)
    rows = read_jsonl(file, ReasoningPath)
    assert [next(rows), next(rows)] == [reasoning_path(1), reasoning_path(2)]
    with pytest.raises(DataError, match=rf"{file}:3: .*fix or remove this line"):
        next(rows)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"text": 5}, '"text" of a ReasoningPath is text, got a number'),
        ({"problem_id": ["p"]}, '"problem_id" of a ReasoningPath is text, got a list'),
        ({"lineage": "student"}, '"lineage" of a ReasoningPath is an object, got text'),
        ({"lineage": {"origin": "student", "stage": "s", "model": None}}, '"model" of a Lineage is text, got null'),
        ({"lineage": {"origin": "student", "stage": "s", "model": "m", "parent": 1}}, "is text or null, got a number"),
    ],
)
def test_a_field_of_another_kind_is_named(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    write_jsonl(tmp_path / "paths.jsonl", [json.loads(to_json(reasoning_path(1))) | change])
    with pytest.raises(DataError, match=rf"paths.jsonl:1: .*{re.escape(reason)}"):
        list(read_jsonl(tmp_path / "paths.jsonl", ReasoningPath))


def test_blank_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("1\n\n2\n  \n{\n")
    rows = read_jsonl(tmp_path / "a.jsonl")
    assert [next(rows), next(rows)] == [1, 2]
    with pytest.raises(DataError, match=r"a\.jsonl:5"):
        next(rows)


def test_numbers_that_are_not_finite_are_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    write_json(tmp_path / "metrics.json", {"accuracy": 0.5})
    with pytest.raises(DataError, match="finite"):
        write_json(tmp_path / "metrics.json", {"accuracy": float("nan")})
    assert read_json(tmp_path / "metrics.json") == {"accuracy": 0.5}
    with pytest.raises(DataError, match="finite"):
        write_jsonl(tmp_path / "metrics.json", iter([1, float("inf")]))
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_a_full_disk_leaves_the_old_file_and_no_trace(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [1])
    with disk_full_beyond(1000), pytest.raises(OSError, match="too large"):
        write_jsonl(tmp_path / "a.jsonl", range(10_000))
    assert list(read_jsonl(tmp_path / "a.jsonl")) == [1]
    assert os.listdir(tmp_path) == ["a.jsonl"]


def test_a_broken_json_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(DataError, match=r"run\.json"):
        read_json(tmp_path / "run.json")


REWRITER = """
import sys; from pathlib import Path; from mathse.runs.store import write_jsonl
print("ready", flush=True)
for n in range(10**9):
    write_jsonl(Path(sys.argv[1]), [n] * 20_000)
"""


def test_a_kill_during_a_rewrite_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    write_jsonl(file, [0] * 20_000)
    draw = random.Random(1)
    for _ in range(5):
        process = start(REWRITER, file)
        first_line(process)
        time.sleep(draw.uniform(0.005, 0.05))
        end(process)
        rows = list(read_jsonl(file))
        assert len(rows) == 20_000
        assert len(set(rows)) == 1
        assert set(os.listdir(tmp_path)) <= {"a.jsonl", ".a.jsonl.partial"}  # kills do not pile up rubbish


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux's /proc which file was flushed")
def test_contents_reach_the_disk_before_the_name_and_the_name_before_the_writer_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: done.append("sync " + Path(os.readlink(f"/proc/self/fd/{fd}")).name))
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append("rename"), replace(old, new)))
    write_json(tmp_path / "a.json", 1)
    assert done == ["sync .a.json.partial", "rename", f"sync {tmp_path.name}"]
    log = BatchLog(tmp_path / "b.jsonl", [1])
    done.clear()
    log.append([1])
    assert done == ["sync b.jsonl"]


def test_publishing_replaces_an_older_folder_and_its_leftovers(tmp_path: Path) -> None:
    final, tmp = tmp_path / "checkpoint", tmp_path / "fit" / "export"
    write_json(final / "old.json", 1)
    write_json(tmp_path / ".checkpoint.partial" / "older.json", 0)
    write_json(tmp / "sub" / "new.json", 2)
    publish_folder(tmp, final)
    assert [p.name for p in final.rglob("*.json")] == ["new.json"]
    assert not tmp.exists()
    assert find_leftovers(tmp_path) == []


def test_a_published_folder_s_files_are_as_readable_as_the_folder(tmp_path: Path) -> None:
    for folder_mode, wanted in ((0o755, 0o644), (0o750, 0o640), (0o700, 0o600)):
        tmp = tmp_path / "export"
        write_json(tmp / "weights.json", 1)
        (tmp / "weights.json").chmod(0o600)
        tmp.chmod(folder_mode)
        publish_folder(tmp, tmp_path / "checkpoint")
        assert (tmp_path / "checkpoint" / "weights.json").stat().st_mode & 0o777 == wanted


def test_sha256_is_that_of_the_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# --- batches --------------------------------------------------------------------------------------------------------


def batch(number: int, size: int) -> list[dict[str, object]]:
    return [{"batch": number, "加": row} for row in range(size)]


def test_a_file_cut_at_any_byte_is_reopened_at_its_last_whole_batch(tmp_path: Path) -> None:
    sizes = [1, 2, 1]
    whole = BatchLog(tmp_path / "whole.jsonl", sizes)
    ends = [0]
    for number, size in enumerate(sizes):
        whole.append(batch(number, size))
        ends.append(whole.path.stat().st_size)
    data = whole.path.read_bytes()
    for length in range(len(data) + 1):
        cut = tmp_path / "cut.jsonl"
        cut.write_bytes(data[:length])
        log = BatchLog(cut, sizes)
        assert log.done == sum(end <= length for end in ends[1:])
        assert cut.read_bytes() == data[: ends[log.done]]
        for number in range(log.done, len(sizes)):
            log.append(batch(number, sizes[number]))
        assert cut.read_bytes() == data


def test_a_hole_of_zero_bytes_ends_the_whole_batches(tmp_path: Path) -> None:
    log = BatchLog(tmp_path / "a.jsonl", [2, 2, 2])
    for number in range(3):
        log.append(batch(number, 2))
    data = bytearray(log.path.read_bytes())
    hole = data.index(b'"batch": 1')
    data[hole : hole + 10] = bytes(10)
    log.path.write_bytes(data)
    log = BatchLog(log.path, [2, 2, 2])
    assert log.done == 1
    assert list(log.rows()) == batch(0, 2)


def test_a_batch_of_the_wrong_size_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    log = BatchLog(tmp_path / "a.jsonl", [2])
    with pytest.raises(ValueError, match="has 2 rows, got 1"):
        log.append([1])
    assert log.path.read_bytes() == b""
    log.append([1, 2])
    with pytest.raises(ValueError, match="all its 1 batches"):
        log.append([1, 2])
    with pytest.raises(ValueError, match="at least one row"):
        BatchLog(tmp_path / "b.jsonl", [2, 0])


def test_a_log_without_batches_is_an_empty_file(tmp_path: Path) -> None:
    log = BatchLog(tmp_path / "a.jsonl", [])
    assert log.done == 0
    assert list(log.rows()) == []
    assert log.path.exists()


def test_a_full_disk_leaves_whole_batches_and_the_batch_can_be_tried_again(tmp_path: Path) -> None:
    log = BatchLog(tmp_path / "a.jsonl", [50, 50])
    log.append(list(range(50)))
    size = log.path.stat().st_size
    with disk_full_beyond(size + 30), pytest.raises(OSError, match="too large"):
        log.append(list(range(50)))
    assert log.path.stat().st_size == size
    log.append(list(range(50)))
    assert list(log.rows()) == [*range(50), *range(50)]


def test_a_log_shared_by_hard_link_is_cut_and_continued_as_a_copy(tmp_path: Path) -> None:
    BatchLog(tmp_path / "a.jsonl", [2, 2]).append([1, 2])
    os.link(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    BatchLog(tmp_path / "b.jsonl", [2, 2]).append([3, 4])
    assert list(read_jsonl(tmp_path / "a.jsonl")) == [1, 2]
    assert list(read_jsonl(tmp_path / "b.jsonl")) == [1, 2, 3, 4]


APPENDER = """
import json, sys; from pathlib import Path; from mathse.runs.store import BatchLog
sizes = json.loads(sys.argv[2])
log = BatchLog(Path(sys.argv[1]), sizes)
print(log.done, flush=True)
for number in range(log.done, len(sizes)):
    log.append([{"batch": number, "row": row, "text": "x" * 20_000} for row in range(sizes[number])])
"""


def test_after_kills_at_random_moments_only_the_batch_in_flight_is_lost(tmp_path: Path) -> None:
    draw = random.Random(2)
    sizes = [draw.randrange(1, 40) for _ in range(60)]
    expected = [(number, row) for number, size in enumerate(sizes) for row in range(size)]
    log = tmp_path / "a.jsonl"
    for _ in range(15):
        process = start(APPENDER, log, json.dumps(sizes))
        done = int(first_line(process))
        time.sleep(draw.uniform(0, 0.02))
        end(process)
        again = BatchLog(log, sizes)
        assert again.done >= done  # what a process found whole is never lost
        assert [(r["batch"], r["row"]) for r in again.rows()] == expected[: sum(sizes[: again.done])]
        if again.done == len(sizes):
            log.unlink()
