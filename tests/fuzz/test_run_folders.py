"""A run folder that is damaged in any way is read, or refused in a sentence: by every verb that reads one."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from unpacked import unpack

from mathse.__main__ import main

FEW, MANY = 6, 300
READERS: tuple[Callable[[Path], list[str]], ...] = (
    lambda run: ["report", str(run)],
    lambda run: ["lineage", str(run), "--all"],
    lambda run: ["replay", str(run)],
    lambda run: ["compare", str(run), str(run)],
    lambda run: ["export", str(run), "--format", "llamafactory", "--out", str(run.parent / "out")],
)
JUNK = (b"", b"null", b"[]", b"{}", b"[null]", b'{"a": 1}\n' * 3, b"\0" * 64, b"\xff\xfe", b"9" * 5000, b"[" * 5000)


def damage(run: Path, draw: random.Random) -> str:
    """Does one thing to one file; what it was."""
    files = sorted(file for file in run.rglob("*") if file.is_file() and file.suffix in (".json", ".jsonl", ".csv"))
    file = draw.choice(files)
    data = file.read_bytes()
    kind = draw.choice(["cut", "flip", "junk", "remove", "swap", "double", "folder"])
    if kind == "cut":
        file.write_bytes(data[: draw.randrange(len(data) + 1)])
    elif kind == "flip" and data:
        at = draw.randrange(len(data))
        file.write_bytes(data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :])
    elif kind == "junk":
        file.write_bytes(draw.choice(JUNK))
    elif kind == "swap":
        file.write_bytes(draw.choice(files).read_bytes())
    elif kind == "double":
        file.write_bytes(data + data)
    else:
        file.unlink()
        if kind == "folder":
            file.mkdir()
    return f"{kind} {file.relative_to(run)}"


@pytest.mark.parametrize("times", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_a_damaged_run_folder_is_read_or_refused(
    times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MATHSE_TRACEBACK", "0")
    whole, draw = unpack("random", tmp_path), random.Random(17)
    for attempt in range(times):
        run = tmp_path / str(attempt) / "run"
        shutil.copytree(whole, run)
        done = [damage(run, draw) for _ in range(draw.choice([1, 1, 3]))]
        for reader in READERS if times == MANY else READERS[attempt % len(READERS) :][:1]:
            command = reader(run)
            try:
                code = main(command)
            except SystemExit as end:
                code = end.code
            except Exception as error:
                raise AssertionError(f"attempt {attempt}: {' '.join(command)} after {done}") from error
            said = capsys.readouterr()
            assert code == 0 or (code == 1 and said.err.strip() and "Traceback" not in said.err), (command, done, said)
        shutil.rmtree(run.parent)
