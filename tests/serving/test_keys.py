"""No key of a teacher's, a student's or an ORM's server is in any file of a run, in its answers, or in what it says."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from api_server import ApiServer, Body
from e2e.runs import ROOT, SIZES, WORLD
from engine import Engine

from serving.conftest import taught

KEYS = {
    "TAUGHT_BY": "sk-teacher-5f0e1d2c3b4a59687766",
    "STUDENT_KEY": "student/secret+77665544332211",
    "ORM_KEY": "orm=secret.00112233445566778899",
}

Start = Callable[..., subprocess.CompletedProcess[str]]


def found_in(text: bytes) -> list[str]:
    """The names of the keys that are there, as they are or in base64."""
    spelled = {name: (key.encode(), base64.b64encode(key.encode()).rstrip(b"=")) for name, key in KEYS.items()}
    return [name for name, forms in spelled.items() if any(form in text for form in forms)]


def nowhere(folder: Path, said: str) -> bool:
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files and [(str(file), found_in(file.read_bytes())) for file in files if found_in(file.read_bytes())] == []
    assert found_in(said.encode()) == []
    return True


@pytest.fixture
def start(orm_of: Callable[[str], Path], tmp_path: Path) -> Start:
    """``start(teacher, student, orm)``: train.py against these servers, in a process of its own."""

    def train(teacher: str, student: str, orm: str, *more: str) -> subprocess.CompletedProcess[str]:
        cache = tmp_path / "answers"
        settings = (
            *("teacher=openai", f"teacher.base_url={teacher}", "teacher.api_key_env=TAUGHT_BY"),
            *("generator=server", f"generator.base_url={student}", "generator.api_key_env=STUDENT_KEY"),
            *(f"judge.server={orm}", "judge.api_key_env=ORM_KEY", f"judge.checkpoint={orm_of('binary')}"),
            *(f"{who}.cache_dir={cache}" for who in ("teacher", "generator", "judge")),
            *(f"{who}.max_retries=1" for who in ("teacher", "generator", "judge")),
            *("judge=orm", "distill.judge=orm", "generator.max_new_tokens=8", "logger=wandb", "logger.mode=offline"),
        )
        program = [sys.executable, str(ROOT / "train.py"), f"hydra.run.dir={tmp_path / 'run'}"]
        environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
        command = [*program, *SIZES, *WORLD, *settings, *more]
        return subprocess.run(command, cwd=tmp_path, env=environment | KEYS, capture_output=True, text=True)

    return train


def test_a_whole_run_writes_no_key_anywhere(start: Start, tmp_path: Path) -> None:
    with (
        ApiServer(taught, key=KEYS["TAUGHT_BY"]) as teacher,
        Engine(key=KEYS["STUDENT_KEY"]) as student,
        Engine(key=KEYS["ORM_KEY"]) as orm,
    ):
        done = start(teacher.url, student.url, orm.url)
        assert done.returncode == 0, done.stderr
        assert teacher.asked and student.asked and orm.asked
    assert nowhere(tmp_path, done.stdout + done.stderr)
    names = {file.name for file in tmp_path.rglob("*") if file.is_file()}
    assert {"run.json", "summary.json", "report.html", "student_usage.jsonl", "judge_usage.jsonl"} <= names
    assert any(name.endswith(".wandb") for name in names) and any((tmp_path / "answers").rglob("*.json"))


@pytest.mark.parametrize("status", [401, pytest.param(500, marks=pytest.mark.slow)])
def test_a_key_that_a_server_repeats_in_its_refusal_is_not_passed_on(status: int, start: Start, tmp_path: Path) -> None:
    with ApiServer(taught, key=None) as teacher, Engine(echoes=status) as student:
        done = start(teacher.url, student.url, student.url, "distill.judge=answer")
    assert done.returncode == 1 and f"{status}: no good: Bearer [key]" in done.stderr, done.stderr
    assert nowhere(tmp_path, done.stdout + done.stderr)


def test_the_search_finds_a_key_where_one_is(tmp_path: Path) -> None:
    body: Body = {"Authorization": f"Bearer {KEYS['STUDENT_KEY']}"}
    (tmp_path / "log").write_bytes(b"\0\1" + str(body).encode() + b"\0")
    with pytest.raises(AssertionError, match="STUDENT_KEY"):
        nowhere(tmp_path, "")
    with pytest.raises(AssertionError):
        nowhere(tmp_path / "log", "")
