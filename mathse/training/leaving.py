"""Told to leave, a fit finishes its step and writes a resume point first.

Schedulers say beforehand that a job will be stopped: by SIGUSR1 some time before the end of its time (sbatch
--signal), by SIGTERM where it has to make room or is cancelled. The handler of these signals calls ``tell``; the fit
asks ``told`` after each step. Of several ranks, which all get the signals, the first one decides, and the others must
not end before the point is written. Loads no torch: signals are handled before it is loaded.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

_listeners: list[Callable[[], None]] = []  # called when this process is told to leave
_told = False
_on_sigterm: Any = signal.SIG_DFL  # in the fit that is under way


@contextmanager
def listening(listener: Callable[[], None]) -> Iterator[None]:
    """What is under way stops by itself once ``listener`` was called."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def tell() -> bool:
    """Ask what is under way to stop by itself; False: there is nothing that would."""
    for listener in _listeners:
        listener()
    return bool(_listeners)


@contextmanager
def fit_under_way(decides: bool) -> Iterator[None]:
    """A fit is under way that asks ``told`` after each step. ``decides``: whether this rank's answer counts."""
    global _on_sigterm
    _on_sigterm = signal.getsignal(signal.SIGTERM) if decides else _remember
    with listening(_remember) if decides else nullcontext():
        yield


def _remember(*_: object) -> None:
    global _told
    _told = True


def told() -> bool:
    """Whether this process was asked to leave during a fit."""
    return _told


def heed() -> None:
    """Handle SIGTERM as it was handled before the fit. Lightning puts a handler in front of others, which ends a fit
    without a resume point and waits for the other ranks in the middle of a step; at the fit's end it restores them."""
    if _on_sigterm is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _on_sigterm)
