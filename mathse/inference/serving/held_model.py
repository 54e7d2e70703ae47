"""A lock on a server that holds one model at a time.

Requests for the held model run together. Another model is loaded when no request is under way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass


class HeldModelLock:
    """The held model and the number of requests for it that are under way; for threads of one process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: str | None = None  # the name of the model whose requests may be sent
        self._n_under_way = 0  # requests
        self._is_loading = False

    def try_acquire(self, name: str) -> bool:
        """Return whether a request for the model ``name`` may be sent now; ``release`` ends it. Never waits."""
        with self._changed:
            if self._is_loading or self._held != name:
                return False
            self._n_under_way += 1
            return True

    def acquire(self, name: str, load: Callable[[], None], reload: bool = False) -> None:
        """Wait for the end of requests for another model, ``load`` this one, and count one request for it.

        Args:
            name: of the model.
            load: loads it.
            reload: load the model although it is held.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._is_loading and (self._held == name or not self._n_under_way))
            if self._held == name and not reload:
                self._n_under_way += 1
                return
            self._is_loading = True
        is_loaded = False
        try:
            load()
            is_loaded = True
        finally:
            with self._changed:
                self._is_loading = False
                self._held = name if is_loaded else None
                self._n_under_way += is_loaded
                self._changed.notify_all()

    def release(self) -> None:
        """End a request."""
        with self._changed:
            self._n_under_way -= 1
            self._changed.notify_all()

    def expire(self) -> None:
        """Have the next request load its model. Requests under way continue; a load under way is awaited."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_loading)
            self._held = None

    def drain(self) -> None:
        """Wait for the end of all requests, and have the next request load its model."""
        with self._changed:
            self._changed.wait_for(lambda: not self._n_under_way)
            self._held = None


@dataclass(frozen=True)
class ClientLock:
    """The lock as the client of one model uses it (see ``mathse.inference.llm.connection.ModelLock``)."""

    lock: HeldModelLock
    name: str
    load: Callable[[], None]

    def try_acquire(self) -> bool:
        return self.lock.try_acquire(self.name)

    def acquire(self) -> None:
        self.lock.acquire(self.name, self.load)

    def release(self) -> None:
        self.lock.release()

    def reload(self) -> None:
        """Load the model although it is held: the server may have other weights by now, or have died."""
        self.lock.acquire(self.name, self.load, reload=True)
        self.lock.release()
