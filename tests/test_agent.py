"""How ranks are started, watched, started again and ended: plain Python in them, no torch."""

from __future__ import annotations

import ast
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from connected import STUCK
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from mathse.errors import DataError, RankLost
from mathse.training import agent, launch, leaving


def script(body: str) -> list[str]:
    """The command of a rank that does ``body``, as every rank begins."""
    begin = "import os, sys, time, signal\nfrom mathse.training import launch\nlaunch.end_with_agent()"
    return [sys.executable, "-c", f"{begin}\nrank = int(os.environ['RANK'])\n{body}"]


def test_the_launcher_uses_public_names_of_torch_alone() -> None:
    tree = ast.parse(Path(agent.__file__).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("torch"):
            public = importlib.import_module(str(node.module)).__all__
            assert {name.name for name in node.names} <= set(public), node.module
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_"), f"line {node.lineno}: {node.attr}"


def test_ranks_know_their_places_and_rank_0_reports() -> None:
    body = "launch.report([launch.read_own_rank().size, os.environ['LOCAL_RANK'], '${local_rank} $'])"
    assert agent.run(script(body), 3, 0) == [3, "0", "${local_rank} $"]
    assert agent.run(script("pass"), 2, 0) is None
    assert launch.RUN_ID not in os.environ and not launch.is_supervised()


def test_only_rank_0_speaks(capfd: pytest.CaptureFixture[str]) -> None:
    agent.run(script("print('out of', rank); print('err of', rank, file=sys.stderr)"), 3, 0)
    assert capfd.readouterr() == ("out of 0\n", "err of 0\n")


@pytest.mark.parametrize(
    ("deed", "end"),
    [
        ("print('no more'); sys.exit(3)", "ended with exit code 3"),
        ("print('no more', flush=True); os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL"),
    ],
)
def test_a_rank_that_fails_ends_the_others_and_its_words_are_shown(
    capfd: pytest.CaptureFixture[str], deed: str, end: str
) -> None:
    # rank 0 loses the connection; rank 2 notices nothing
    body = f"if rank == 1: {deed}\nif rank == 0: time.sleep(0.5); launch.end_after_others()\ntime.sleep(60)"
    begun = time.monotonic()
    with pytest.raises(launch.RanksFailed) as failed:
        agent.run(script(body), 3, 0)
    assert time.monotonic() - begun < STUCK / 2
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "rank 1: no more" and lines[1].startswith(f"error: rank 1 {end}; ") and len(lines) == 2
    assert failed.value.code == (3 if "code 3" in end else 1)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 of these tests does not notice that others are gone, and is not waited for."""
    monkeypatch.setattr(agent, "PATIENCE_SECONDS", 0.5)


@pytest.mark.usefixtures("hasty")
def test_ranks_are_started_again_until_they_end_well(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    body = f"""attempt = len([name for name in os.listdir(r'{tmp_path}') if name.startswith(f'rank_{{rank}}_')])
open(r'{tmp_path}' + f'/rank_{{rank}}_{{attempt}}', 'w').close()
if rank == attempt < 2:
    time.sleep(0.5)  # the other rank has counted too
    os.kill(os.getpid(), signal.SIGKILL)
if attempt < 2: time.sleep(60)"""
    assert agent.run(script(f"{body}\nlaunch.report(attempt)"), 2, 3) == 2
    assert capfd.readouterr().err.splitlines() == [
        f"rank {n} was ended by SIGKILL; all ranks start again and continue from the run folder (restart {n + 1} of 3)"
        for n in range(2)
    ]


@pytest.mark.usefixtures("hasty")
def test_restarts_come_to_an_end(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(launch.RanksFailed) as failed:
        agent.run(script("if rank: sys.exit(9)\ntime.sleep(60)"), 2, 1)
    first, last = capfd.readouterr().err.splitlines()
    assert first.endswith("(restart 1 of 1)") and failed.value.code == 9
    assert last == (
        "error: rank 1 ended with exit code 9; after 1 restarts (trainer.max_restarts); the same command in the same "
        "run folder continues from here"
    )


@pytest.mark.parametrize("teller", [0, 1])
def test_a_mistake_that_a_rank_has_told_is_told_once(capfd: pytest.CaptureFixture[str], teller: int) -> None:
    tells = (
        'print("error: no rows", file=sys.stderr); time.sleep(0.5); '
        'launch.record_mistake(ValueError("no rows")); sys.exit(1)'
    )
    with pytest.raises(launch.RanksFailed) as failed:
        agent.run(script(f"if rank == {teller}: {tells}\nprint('lost'); launch.end_after_others()"), 2, 3)
    said = capfd.readouterr().err
    assert failed.value.code == 1 and said == ("rank 1: " if teller else "") + "error: no rows\n"


@pytest.mark.parametrize(
    ("error", "recorded"), [(DataError("rows.jsonl: no rows"), True), (RankLost("rank 0 lost the others"), False)]
)
def test_a_mistake_is_in_torchs_error_file_and_a_lost_connection_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, recorded: bool
) -> None:
    monkeypatch.setenv(launch.ERROR_FILE, str(tmp_path / "error.json"))
    launch.record_mistake(error)
    assert (tmp_path / "error.json").exists() == recorded
    if recorded:
        failure = ProcessFailure(local_rank=0, pid=1, exitcode=1, error_file=str(tmp_path / "error.json"))
        assert failure.error_file_data["message"]["message"] == "DataError: rows.jsonl: no rows"


def test_a_rank_that_the_launcher_ends_already_does_not_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(launch.ERROR_FILE, str(tmp_path / "error.json"))
    monkeypatch.setattr(leaving, "_asked", True)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waits"))
    with pytest.raises(SystemExit) as ended:
        launch.end_after_others()
    assert ended.value.code == launch.LOST_OTHERS and (tmp_path / launch.LOST).exists()


@pytest.mark.usefixtures("hasty")
def test_of_ranks_that_wait_the_one_that_is_stuck_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    soon = "launch.PATIENCE_SECONDS = 0.5"
    with pytest.raises(launch.RanksFailed) as failed:
        agent.run(script(f"{soon}\nif rank != 1: launch.end_after_others()\ntime.sleep(60)"), 3, 0)
    assert failed.value.code == 1
    assert capfd.readouterr().err.startswith("error: rank 1 did not answer the others any more; ")


@pytest.mark.usefixtures("hasty")
def test_once_rank_0_has_ended_well_the_run_has(capfd: pytest.CaptureFixture[str]) -> None:
    assert agent.run(script("if rank: time.sleep(60)\nlaunch.report(7)"), 2, 3) == 7
    assert agent.run(script("if rank: time.sleep(0.5); sys.exit(9)\nlaunch.report(8)"), 2, 3) == 8
    assert capfd.readouterr().err == ""


def test_ctrl_c_comes_to_rank_0_and_ends_all(capfd: pytest.CaptureFixture[str]) -> None:
    body = """if rank == 0:
    try:
        os.kill(os.getppid(), signal.SIGINT); time.sleep(60)
    except KeyboardInterrupt:
        print("tidied up"); sys.exit(130)
time.sleep(60)"""
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        agent.run(script(body), 2, 3)
    assert time.monotonic() - begun < STUCK / 2
    assert capfd.readouterr() == ("tidied up\n", "")


def test_a_schedulers_warning_is_passed_on_to_rank_0_which_ends_in_its_own_time(
    capfd: pytest.CaptureFixture[str],
) -> None:
    body = """if rank == 0:
    signal.signal(signal.SIGUSR1, lambda *_: (print("resume point"), sys.exit(128 + signal.SIGUSR1)))
    os.kill(os.getppid(), signal.SIGUSR1)
time.sleep(60)"""
    before = signal.signal(signal.SIGUSR1, lambda *_: leaving.ask())
    try:
        with pytest.raises(KeyboardInterrupt):
            agent.run(script(body), 2, 3)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert capfd.readouterr() == ("resume point\n", "")


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_no_rank_outlives_its_agent(tmp_path: Path, sent: signal.Signals) -> None:
    """Each has a child like a loader's worker, which ends too; both sit where no Python code would be run."""
    stuck = "import ctypes; ctypes.PyDLL(None).sleep(60)"  # holds the interpreter's lock
    body = f"""if os.fork() == 0: launch.end_with_parent(os.getppid())
open(r'{tmp_path}/' + str(os.getpid()), 'w').close()
{stuck}"""
    program = f"""from contextlib import suppress
from mathse.commands.stop_signals import handle_stop_signals
from mathse.training import agent
with suppress(KeyboardInterrupt), handle_stop_signals(): agent.run({script(body)!r}, 2, 3)"""
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        pids = wait_for_four(tmp_path)
        process.send_signal(sent)
    finally:
        code = process.wait(STUCK)
    assert code == (-signal.SIGKILL if sent == signal.SIGKILL else 0)
    end = time.monotonic() + 5
    while any(map(is_alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(is_alive, pids))


def wait_for_four(folder: Path) -> list[int]:
    end = time.monotonic() + STUCK
    while len(names := [file.name for file in folder.iterdir()]) < 4:
        assert time.monotonic() < end
        time.sleep(0.05)
    return [int(name) for name in names]


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
