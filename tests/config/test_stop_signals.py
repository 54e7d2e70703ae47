"""Ctrl-C and SIGTERM: the first stops the run, a second one tears nothing apart, the third ends the process."""

from __future__ import annotations

import os
import signal

import pytest

from mathse.commands.stop_signals import handle_stop_signals
from mathse.training import leaving


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_third_signal_ends_the_process_at_once(number: int, code: int) -> None:
    child = os.fork()
    if child == 0:
        with handle_stop_signals():
            try:
                send(number)
            except KeyboardInterrupt:
                send(number)  # passes
                send(number)
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code


def test_a_worker_that_has_inherited_the_handlers_does_as_any_process() -> None:
    with handle_stop_signals() as signals:
        child = os.fork()
        if child == 0:
            send(signal.SIGTERM)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    assert signals.received == []


def test_without_a_signal_the_handlers_are_those_of_before(signal_handlers: None) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with handle_stop_signals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_worker_that_has_inherited_them_takes_no_notice_of_sigusr1() -> None:
    with handle_stop_signals():
        child = os.fork()
        if child == 0:
            send(signal.SIGUSR1)
            os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


def test_during_a_fit_a_scheduler_only_asks_and_ctrl_c_ends_it_at_once(monkeypatch, capfd) -> None:
    monkeypatch.setattr(leaving, "_asked", False)
    child = os.fork()
    if child == 0:
        with handle_stop_signals(), leaving.stop_between_steps(decides=True):
            send(signal.SIGUSR1)
            send(signal.SIGUSR1)  # of the job's step, too
            send(signal.SIGTERM)
            if not leaving.is_asked():
                os._exit(1)
            try:
                send(signal.SIGINT)
            except KeyboardInterrupt:
                os._exit(5)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
    first, second = capfd.readouterr().err.splitlines()
    assert first == "SIGUSR1: stopping after this step's resume point" and second.startswith("stopping already")


def test_sigterm_says_that_it_stopped_and_how_to_go_on(command) -> None:
    def task(config: object, folder: object) -> None:
        send(signal.SIGTERM)

    assert command(task, "hydra.run.dir=out") == (143, "stopped by SIGTERM; the same command continues from here\n")


def test_ctrl_c_again_and_again_while_a_run_ends_is_no_traceback(command) -> None:
    closed = []

    def task(config: object, folder: object) -> None:
        try:
            send(signal.SIGINT)
        finally:
            send(signal.SIGINT)  # a second one where files are closed
            closed.append(True)

    assert command(task, "hydra.run.dir=out") == (130, "stopped; the same command continues from here\n")
    assert closed == [True]
