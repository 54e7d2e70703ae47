"""Turns at a server that holds one model at a time: requests for one model go out together, and another is swapped in
when none is under way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass


class Turns:
    """Whose turn it is, and how many of its requests are under way; for threads of one process."""

    def __init__(self) -> None:
        self._changes = threading.Condition()
        self._holds: str | None = None  # the name of the model whose requests may go out
        self._under_way = 0  # requests
        self._changing = False

    def joined(self, name: str) -> bool:
        """Whether a request for the model ``name`` may go out now; ``give_back`` ends it."""
        with self._changes:
            if self._changing or self._holds != name:
                return False
            self._under_way += 1
            return True

    def take(self, name: str, bring: Callable[[], None], anew: bool = False) -> None:
        """The same, after requests for another model have ended and ``bring()`` has brought this one. ``anew``: bring
        it though it was the last."""
        with self._changes:
            self._changes.wait_for(lambda: not self._changing and (self._holds == name or not self._under_way))
            if self._holds == name and not anew:
                self._under_way += 1
                return
            self._changing = True
        brought = False
        try:
            bring()
            brought = True
        finally:
            with self._changes:
                self._changing = False
                self._holds = name if brought else None
                self._under_way += brought
                self._changes.notify_all()

    def give_back(self) -> None:
        with self._changes:
            self._under_way -= 1
            self._changes.notify_all()

    def expire(self) -> None:
        """Nobody's from now on; requests under way go on to their ends. A change that is under way comes first."""
        with self._changes:
            self._changes.wait_for(lambda: not self._changing)
            self._holds = None

    def end(self) -> None:
        """Nobody's, once no request is under way; the next model is brought whichever it is."""
        with self._changes:
            self._changes.wait_for(lambda: not self._under_way)
            self._holds = None


@dataclass(frozen=True)
class ModelTurns:
    """The turns of one model's client (see ``mathse.inference.llm.connection.Turns``)."""

    turns: Turns
    name: str
    bring: Callable[[], None]

    def joined(self) -> bool:
        return self.turns.joined(self.name)

    def take(self) -> None:
        self.turns.take(self.name, self.bring)

    def give_back(self) -> None:
        self.turns.give_back()

    def renew(self) -> None:
        """Have the model brought though it was the last: the server may have other weights by now, or have died."""
        self.turns.take(self.name, self.bring, anew=True)
        self.turns.give_back()
