"""What goes wrong for users, through the real command line: one clear sentence, exit code 1, nothing lost."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from e2e.conftest import Command, Outcome
from e2e.runs import ROOT, SIZES, TINY, contents
from mathse.runs.folder_lock import FolderLock
from mathse.runs.store import read_json

REAL = (*SIZES, "data=jsonl", "teacher=replay", "judge=answer")


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    """Ten own problems with a picture each, for tests to damage."""
    rows = []
    for k in range(10):
        Image.new("RGB", (28, 28), (20 * k, 0, 0)).save(tmp_path / f"{k}.png")
        rows.append(
            {"id": f"own/{k}", "question": f"How much is {k} + 1?", "images": [f"{k}.png"], "answer": str(k + 1)}
        )
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def one_sentence(done: Outcome, *says: str) -> None:
    assert done.code == 1, done.out
    lines = done.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.err
    assert all(part in lines[0] for part in says), lines[0]


def refused_file(done: Outcome, *says: str) -> None:
    """As ``one_sentence``, under the line that counts the file's bad rows."""
    assert done.code == 1, done.out
    assert "Traceback" not in done.err and all(line.startswith("error: ") for line in done.err.splitlines())
    assert all(part in done.err for part in says), done.err


# --- data -------------------------------------------------------------------------------------------------------------


def test_a_broken_json_line_is_named(command: Command, problems: Path) -> None:
    with problems.open("a") as file:
        file.write('{"id": "own/x", "question": "half a\n')
    done = command("train.py", *REAL, f"data.path={problems}", "hydra.run.dir=run")
    refused_file(done, "1 of 11 rows cannot be used", f"{problems}:11: ", "data.on_bad_row=skip")


def test_a_missing_image_is_named(command: Command, problems: Path) -> None:
    problems.with_name("3.png").unlink()
    done = command("train.py", *REAL, f"data.path={problems}", "hydra.run.dir=run")
    refused_file(done, f"{problems}:4: ", "3.png")


def test_bad_rows_are_left_out_where_that_is_asked_for(command: Command, problems: Path) -> None:
    problems.with_name("3.png").unlink()
    settings = ("data.on_bad_row=skip", "data.max_left_out=0.1", "evolution.rounds=0", "evolution.reflect.when=never")
    done = command("train.py", *REAL, f"data.path={problems}", "hydra.run.dir=run", *settings)
    assert done.code == 0, done.err
    assert f"left out: {problems}:4: " in done.out
    assert read_json(Path("run/summary.json"))["status"] == "finished"


def test_a_missing_file_of_problems_leaves_no_folder(command: Command, tmp_path: Path) -> None:
    one_sentence(command("train.py", *REAL, "data.path=missing.jsonl"), "data.path = 'missing.jsonl': no such file")
    assert list(tmp_path.iterdir()) == []


def test_training_rows_of_other_problems_are_refused(command: Command, problems: Path, tiny: Path) -> None:
    given = tiny / "distill" / "train.jsonl"
    done = command("train.py", *REAL, f"data.path={problems}", "task=sft", f"sft.train={given}", "hydra.run.dir=run")
    one_sentence(done, f"{given}:1: ", "no problem 'digits/")


def test_a_broken_line_in_training_rows_is_named(command: Command, tiny: Path, tmp_path: Path) -> None:
    given = tmp_path / "rows.jsonl"
    given.write_text((tiny / "distill" / "train.jsonl").read_text() + '{"id": "x"}\n')
    number = len(given.read_text().splitlines())
    done = command("train.py", *TINY, "task=sft", f"sft.train={given}", "hydra.run.dir=run")
    one_sentence(done, f"{given}:{number}: a ReasoningPath needs more fields")


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_a_checkpoint_whose_weights_are_cut_short_is_named(command: Command, tiny: Path, tmp_path: Path) -> None:
    broken = tmp_path / "checkpoint"
    broken.mkdir()
    for file in (tiny / "final" / "checkpoint").iterdir():
        data = file.read_bytes()
        (broken / file.name).write_bytes(data[: len(data) // 2] if file.suffix == ".safetensors" else data)
    done = command("evaluate.py", f"checkpoint={broken}", "data=synthetic_small", "hydra.run.dir=out")
    one_sentence(done, str(broken))


def test_a_student_s_checkpoint_is_no_judge(command: Command, tiny: Path) -> None:
    student = tiny / "final" / "checkpoint"
    settings = ("judge=orm", f"judge.checkpoint={student}", "hydra.run.dir=run", "distill.judge=orm")
    one_sentence(command("train.py", *TINY, *settings), f"judge.checkpoint = '{student}'", "trained ORM")


def test_an_evaluation_of_another_checkpoint_does_not_go_on_in_the_same_folder(command: Command, tiny: Path) -> None:
    world = [f"data.{k}={v}" for k, v in read_json(tiny / "run.json")["config"]["data"].items() if k != "_target_"]
    settings = ("hydra.run.dir=out", "evaluation.max_new_tokens=8", *world)
    assert command("evaluate.py", f"checkpoint={tiny / 'base' / 'checkpoint'}", *settings).code == 0
    before = contents(Path("out"))
    done = command("evaluate.py", f"checkpoint={tiny / 'final' / 'checkpoint'}", *settings)
    one_sentence(done, "out holds an evaluation with other settings", "checkpoint")
    assert contents(Path("out")) == before


# --- the place of a run -----------------------------------------------------------------------------------------------


def test_a_folder_that_another_process_works_in_is_refused(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    script = f"from pathlib import Path; from {FolderLock.__module__} import FolderLock\n"
    script += f"lock = FolderLock(Path({str(folder)!r})); print('held', flush=True); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == "held\n"
        done = command("train.py", *TINY, f"hydra.run.dir={folder}")
        owner.kill()
    one_sentence(done, f"run folder {folder} is in use by process {owner.pid}", "choose another hydra.run.dir")
    assert [file.name for file in folder.iterdir()] == [".lock"]


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A memory disk at ``folder``; the test is skipped where this process may not mount one."""
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"needs the right to mount a small disk: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


# full at the first weights, and in a later stage
@pytest.mark.parametrize("size", ["100k", pytest.param("1m", marks=pytest.mark.slow)])
def test_after_a_full_disk_the_same_command_goes_on(command: Command, tmp_path: Path, tiny: Path, size: str) -> None:
    with mounted(tmp_path / "disk", f"size={size}") as disk:
        settings = ("train.py", *TINY, f"hydra.run.dir={disk / 'run'}")
        one_sentence(command(*settings), "no space left on the device", "run the same command")
        remount(disk, "size=100m")
        done = command(*settings)
        assert done.code == 0, done.err
        assert contents(disk / "run") == contents(tiny)


@pytest.mark.parametrize("size", [200, 20_000])  # run.json, the first weights
def test_a_limit_on_the_size_of_files_is_told(command: Command, tmp_path: Path, size: int) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        done = command("train.py", *TINY, f"hydra.run.dir={tmp_path / 'run'}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    one_sentence(done, "larger than this process may write (ulimit -f", "run the same command")


def test_a_read_only_place_is_told(command: Command, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=1m") as disk:
        remount(disk, "ro")
        begun = time.process_time()
        done = command("train.py", *TINY, f"hydra.run.dir={disk / 'run'}")
        one_sentence(done, "read-only file system", "hydra.run.dir=DIR")
        assert time.process_time() - begun < 5


def test_a_finished_run_in_a_read_only_place_loses_nothing(command: Command, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=30m") as disk:
        settings = (
            "train.py",
            *TINY,
            f"hydra.run.dir={disk / 'run'}",
            "evolution.rounds=0",
            "evolution.reflect.when=never",
        )
        assert command(*settings).code == 0
        before = contents(disk / "run")
        remount(disk, "ro")
        one_sentence(command(*settings), "read-only file system")
        assert contents(disk / "run") == before
