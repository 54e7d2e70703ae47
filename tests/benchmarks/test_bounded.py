"""A process for model text: hostile questions end in time, and nothing else suffers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from mathse.errors import RunError
from mathse.evaluation.benchmarks import bounded
from mathse.evaluation.benchmarks.bounded import Overrun, Worker, Workers

HOSTILE = "\\binom{100000000}{50000000}"


@pytest.fixture
def worker():
    made = Worker("latex", limit=0.3)
    yield made
    made.close()


@pytest.fixture
def workers():
    made = Workers("latex", limit=0.3, size=2)
    yield made
    made.close()


def test_a_question_is_answered_once(workers):
    assert workers.ask("\\frac{1}{2}") == 0.5
    workers.close()  # the answer is remembered, so no process is started anew
    assert workers.ask("\\frac{1}{2}") == 0.5
    assert all(worker._process is None for worker in workers._idle.queue)


@pytest.mark.slow
def test_a_verdict_does_not_depend_on_the_answers_before_it(workers):
    hostile = [f"\\binom{{100000000}}{{{50_000_000 + k}}}" for k in range(8)]
    honest = [f"\\frac{{{k}}}{{4}}" for k in range(8)]
    workers.ask_all([*hostile, *honest])
    for text in hostile:
        with pytest.raises(Overrun, match=r"more than 0\.3 s"):  # each its own limit, and none of it is another's
            workers.ask(text)
    assert [workers.ask(text) for text in honest] == [k / 4 for k in range(8)]


def test_answers_keep_their_type(worker):
    assert [repr(worker.ask(text)) for text in ("5!", "\\sqrt{4}", "10^{-3}", "b")] == ["120", "2.0", "0.0", "None"]


def test_an_overrun_ends_alone_and_is_not_asked_again(worker):
    with pytest.raises(Overrun, match=r"more than 0\.3 s"):
        worker.ask(HOSTILE)
    process = worker._process
    assert worker.ask("1+1") == 2  # by a fresh copy of the same, warmed-up process
    assert worker._process is process


def test_an_overrun_is_not_asked_again(workers):
    for _ in range(2):
        with pytest.raises(Overrun, match=r"more than 0\.3 s"):
            workers.ask(HOSTILE)
        workers.close()
    assert all(worker._process is None for worker in workers._idle.queue)


def test_a_process_that_was_killed_is_started_again(worker):
    assert worker.ask("1+1") == 2
    assert worker._process is not None
    worker._process.kill()
    worker._process.wait()
    worker.ask("1+2")  # its copy may still be there to answer
    worker.close()
    assert worker.ask("1+3") == 4


def test_model_text_is_not_run(worker, tmp_path):
    trap = tmp_path / "trap"
    assert worker.ask(f"\\mathit{{open('{trap}', 'w')}}") is None
    assert worker.ask("__import__('os').getcwd()") is None
    assert not trap.exists()


def test_what_the_parser_prints_does_not_reach_us(worker, capfd):
    worker.ask("\\frac{1}{3}")  # antlr prints a line about its version with every parse
    assert capfd.readouterr() == ("", "")


def test_the_process_ends_with_its_input():
    command = [sys.executable, "-m", "mathse.evaluation.benchmarks.worker", "latex"]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=120, cwd=Path(bounded.__file__).parents[2])
    assert (done.returncode, done.stdout) == (0, b'{"ready": true}\n')


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_answers_belong_to_their_questions_after_a_copy_was_killed_from_outside(worker):
    assert worker.ask("1+1") == 2
    children = Path(f"/proc/{worker._process.pid}/task/{worker._process.pid}/children")
    if not children.is_file():
        pytest.skip("needs /proc")
    os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
    with suppress(Overrun):  # asked before the fresh copy was there
        assert worker.ask("1+2") == 3
    assert [worker.ask(f"1+{k}") for k in range(3, 9)] == [4, 5, 6, 7, 8, 9]


def test_a_late_answer_to_an_earlier_question_is_not_taken_for_this_ones(worker):
    assert worker.ask("1+1") == 2
    worker._replies.put({"id": 1, "answer": 99})
    assert worker.ask("1+2") == 3


def test_a_process_that_cannot_start_is_an_error_with_the_command_to_run():
    with pytest.raises(RunError, match="-m mathse.evaluation.benchmarks.worker nothing"):
        Worker("nothing").ask("1")
