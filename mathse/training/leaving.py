"""Requests to stop: a training that is asked to stop finishes its step, writes a resume point and ends.

A scheduler warns a job before it stops it: with SIGUSR1 some time before the time limit (sbatch --signal), with SIGTERM
when the job is cancelled or has to make room. The handler of these signals calls ``ask``, and training checks
``is_asked`` after each step. All ranks get the signals. Rank 0 decides, and the other ranks must not end before the
resume point is written. This module does not import torch, because signals are handled before torch is loaded.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

_listeners: list[Callable[[], None]] = []  # called when this process is asked to stop
_asked = False
_sigterm_handler: Any = signal.SIG_DFL  # the handler to restore during training


@contextmanager
def listen(listener: Callable[[], None]) -> Iterator[None]:
    """Within the context the work stops by itself after a call of ``listener``."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def ask() -> bool:
    """Ask the work under way to stop by itself. Returns False if none is under way that would."""
    for listener in _listeners:
        listener()
    return bool(_listeners)


@contextmanager
def stop_between_steps(decides: bool) -> Iterator[None]:
    """Within the context a training checks ``is_asked`` after each step.

    Args:
        decides: whether this rank decides for all ranks.
    """
    global _sigterm_handler
    _sigterm_handler = signal.getsignal(signal.SIGTERM) if decides else _remember
    with listen(_remember) if decides else nullcontext():
        yield


def _remember(*_: object) -> None:
    global _asked
    _asked = True


def is_asked() -> bool:
    """Whether this process was asked to stop during a training."""
    return _asked


def restore_sigterm() -> None:
    """Restore the handler of SIGTERM after Lightning has replaced it; at the end Lightning restores it again.

    Lightning's handler ends a training without a resume point, and waits for the other ranks in the middle of a step.
    """
    if _sigterm_handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _sigterm_handler)
