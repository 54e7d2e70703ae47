"""Engines that are started by a command."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine import Engine
from small import problems

from mathse.config.generators import ServerGeneratorConfig
from mathse.errors import TeacherError
from mathse.inference.rows import solve_row
from mathse.inference.serving import supervisor
from mathse.inference.serving.address import Address
from mathse.inference.serving.engines import StartedEngine
from mathse.inference.serving.names import content_name
from mathse.models import load

ROOT = Path(__file__).resolve().parents[2]
# What a command starts here: a server that names its model, and does not answer. It says its process id first.
LIGHT = """
import json, os, subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
folder, name, port = sys.argv[1:]
print("engine", os.getpid(), "for", sorted(os.listdir(folder)), flush=True)
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"data": [{"id": name}]}).encode())
    def log_message(self, *words):
        pass
HTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
"""

Start = Callable[..., StartedEngine]


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def light(tmp_path: Path) -> str:
    """The command of a light engine."""
    (tmp_path / "light.py").write_text(LIGHT)
    return f"{shlex.quote(sys.executable)} {tmp_path / 'light.py'} {{checkpoint}} {{name}} {{port}}"


@pytest.fixture
def start(port: int, light: str, tmp_path: Path) -> Iterator[Start]:
    """``start(command, start_timeout=...)``: an engine in a run folder of its own; it is stopped in the end."""
    started = []

    def begin(command: str = light, start_timeout: float = 60.0, said: list[str] | None = None) -> StartedEngine:
        say = said.append if said is not None else print
        address = Address(f"http://127.0.0.1:{port}/v1")
        settings = ServerGeneratorConfig(command=command, start_timeout=start_timeout)
        started.append(StartedEngine(settings, address, tmp_path, say))
        return started[-1]

    yield begin
    for engine in started:
        engine.free()


def folder(place: Path, seed: int) -> Path:
    place.mkdir()
    (place / "model.safetensors").write_bytes(bytes([seed]))
    return place


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def pid_in(log: Path) -> int:
    return int(log.read_text().split()[1])


def wait_until(what: Callable[[], bool], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.05)
    return what()


def test_each_checkpoint_has_an_engine_of_its_own_and_none_is_left(start: Start, tmp_path: Path) -> None:
    said: list[str] = []
    engine, names = start(said=said), []
    for seed in (1, 2):
        checkpoint = folder(tmp_path / f"checkpoint_{seed}", seed)
        name = content_name(checkpoint)
        assert engine.serve(checkpoint, name) == name == engine.serve(checkpoint, name)
        assert engine.address.models() == [name]
        names.append(name)
    assert len(set(names)) == 2 and len(said) == 2 and "checkpoint_1" in said[0]
    first, second = (tmp_path / "served" / f"{name}.log" for name in names)
    assert "model.safetensors" in first.read_text() and gone(pid_in(first)) and not gone(pid_in(second))
    engine.free()
    assert gone(pid_in(second)) and not engine.address.is_taken()
    assert engine.serve(tmp_path / "checkpoint_1", names[0]) == names[0]  # after a fit, say


def test_an_engine_that_died_is_started_again(start: Start, tmp_path: Path) -> None:
    engine, checkpoint = start(), folder(tmp_path / "checkpoint", 1)
    name = content_name(checkpoint)
    engine.serve(checkpoint, name)
    os.kill(pid_in(tmp_path / "served" / f"{name}.log"), signal.SIGKILL)
    assert wait_until(lambda: not engine.address.is_taken())
    assert engine.process.child is not None and engine.process.child.process.wait(10) == 137
    engine.serve(checkpoint, name)
    assert engine.address.models() == [name]


def test_a_command_without_a_name_is_asked_for_the_folder(start: Start, light: str, tmp_path: Path) -> None:
    engine, checkpoint = start(light.replace("{name}", "{checkpoint}")), folder(tmp_path / "checkpoint", 1)
    called = engine.serve(checkpoint, content_name(checkpoint))
    assert Path(called).is_absolute() and (Path(called) / "model.safetensors").exists()
    assert engine.address.models() == [called]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (f"{sys.executable} -c 'print(\"no GPU here\"); raise SystemExit(3)' {{checkpoint}}",
         r"generator.command: the engine ended with code 3 before it answered; the end of .*\.log:\n  no GPU here"),
        ("no-such-engine {checkpoint}", "ended with code 127 .*\n  no-such-engine: No such file or directory"),
        (f"{sys.executable} -c 'import time; time.sleep(60)' {{checkpoint}}",
         "generator.command: no answer at http://127.0.0.1:.* within 0.5 seconds; raise generator.start_timeout"),
    ],
)  # fmt: skip
def test_an_engine_that_does_not_come_up_is_told_of_with_its_last_words(
    command: str, said: str, start: Start, tmp_path: Path
) -> None:
    checkpoint = folder(tmp_path / "checkpoint", 1)
    engine = start(command, start_timeout=60.0 if "ended" in said else 0.5)
    with pytest.raises(TeacherError, match=f"(?s){said}"):
        engine.serve(checkpoint, content_name(checkpoint))
    assert engine.process.child is None


def test_an_engine_under_another_name_is_not_taken_for_the_checkpoint(start: Start, light: str, tmp_path: Path) -> None:
    checkpoint = folder(tmp_path / "checkpoint", 1)
    engine = start(light.replace("{name}", "other-{name}"), start_timeout=3.0)
    with pytest.raises(TeacherError, match="it has other-mathse-.*, not mathse-.* within 3 seconds"):
        engine.serve(checkpoint, content_name(checkpoint))


def test_a_port_that_is_taken_is_told_of_before_anything_starts(start: Start, port: int, tmp_path: Path) -> None:
    checkpoint = folder(tmp_path / "checkpoint", 1)
    with Engine(port, {"someone": None}), pytest.raises(TeacherError) as refused:  # type: ignore[dict-item]
        start().serve(checkpoint, content_name(checkpoint))
    assert f"generator.base_url = http://127.0.0.1:{port}/v1: something answers there already (someone)" in str(
        refused.value
    )
    assert not list((tmp_path / "served").glob("*.log"))
    with Engine(port), pytest.raises(TeacherError, match="it names no model"):
        start().serve(checkpoint, content_name(checkpoint))


def test_an_engine_of_ours_that_is_going_is_waited_for(start: Start, port: int, tmp_path: Path) -> None:
    checkpoint = folder(tmp_path / "checkpoint", 1)
    name = content_name(checkpoint)
    before = start()
    before.serve(checkpoint, name)
    assert before.process.child is not None
    os.close(before.process.child.pipe)  # as the kernel does when a run is killed
    before.process.child = None
    assert start().serve(checkpoint, name) == name
    log = (tmp_path / "served" / f"{name}.log").read_text().split("engine ")[1:]
    assert len(log) == 2 and gone(int(log[0].split()[0]))


def test_an_engine_ends_with_the_run_that_is_killed(light: str, port: int, tmp_path: Path) -> None:
    checkpoint = folder(tmp_path / "checkpoint", 1)
    name = content_name(checkpoint)
    code = (
        "import sys, time; from pathlib import Path; from mathse.config.generators import ServerGeneratorConfig;"
        "from mathse.inference.serving.address import Address;"
        "from mathse.inference.serving.engines import StartedEngine;"
        "_, command, url, run, checkpoint, name = sys.argv;"
        "engine = StartedEngine(ServerGeneratorConfig(command=command), Address(url), Path(run), lambda text: None);"
        "engine.serve(Path(checkpoint), name);"
        "print('served', flush=True); time.sleep(60)"
    )
    words = [light, f"http://127.0.0.1:{port}/v1", str(tmp_path), str(checkpoint), name]
    command = [sys.executable, "-c", code, *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None and run.stdout.readline() == "served\n"
        pid = pid_in(tmp_path / "served" / f"{name}.log")
        assert not gone(pid)
        run.send_signal(signal.SIGKILL)
    assert wait_until(lambda: gone(pid), supervisor.PATIENCE + 5)


def test_a_real_engine_is_started_with_the_checkpoint_and_answers_as_it(
    port: int, checkpoint: Path, tmp_path: Path
) -> None:
    from serving.test_student import GREEDY, opened

    command = (
        f"{shlex.quote(sys.executable)} {ROOT / 'tests' / 'engine.py'} {{checkpoint}} --name {{name}} --port {{port}}"
    )
    student = opened(f"http://127.0.0.1:{port}/v1", checkpoint, tmp_path, command=command)
    assert student.model.served is not None
    try:
        local = load("tiny", checkpoint)
        rows = [solve_row(local.prompt_style, problem) for problem in problems(3)]
        assert student.generate(rows, **GREEDY) == local.generate(rows, **GREEDY)
    finally:
        student.model.engine.free()
