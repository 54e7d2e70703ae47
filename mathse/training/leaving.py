"""A fit that is asked to leave finishes its step, writes a resume point and stops.

Schedulers warn a job before they stop it: by SIGUSR1 some time before the end of its time (sbatch --signal), by SIGTERM
where it has to make room or is cancelled. The handler of these signals calls ``ask``; the fit looks at ``is_asked``
after each step. All ranks get the signals; rank 0 decides, and the others must not end before the point is written.
Loads no torch: signals are handled before it is loaded.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

_listeners: list[Callable[[], None]] = []  # called when this process is asked to leave
_asked = False
_on_sigterm: Any = signal.SIG_DFL  # the handler during the fit under way


@contextmanager
def listening(listener: Callable[[], None]) -> Iterator[None]:
    """The work under way stops by itself after a call of ``listener``."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def ask() -> bool:
    """Ask the work under way to stop by itself; False where no work under way would."""
    for listener in _listeners:
        listener()
    return bool(_listeners)


@contextmanager
def fit_under_way(decides: bool) -> Iterator[None]:
    """A fit is under way that looks at ``is_asked`` after each step. ``decides``: whether this rank's answer counts."""
    global _on_sigterm
    _on_sigterm = signal.getsignal(signal.SIGTERM) if decides else _remember
    with listening(_remember) if decides else nullcontext():
        yield


def _remember(*_: object) -> None:
    global _asked
    _asked = True


def is_asked() -> bool:
    """Whether this process was asked to leave during a fit."""
    return _asked


def restore_sigterm() -> None:
    """Handle SIGTERM as it was handled before the fit. Lightning puts a handler in front of others, which ends a fit
    without a resume point and waits for the other ranks in the middle of a step; at the fit's end it restores them."""
    if _on_sigterm is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _on_sigterm)
