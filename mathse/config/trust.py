"""Which classes may be imported and called because a file names them.

A run, started by its user, imports whatever its settings name. Whoever only looks (a reader of run folders, a plan,
--help) may be looking at somebody else's settings, so it imports our own classes, Lightning's loggers, and those that
the environment variable MATHSE_TRUST lists.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

TRUST = "MATHSE_TRUST"  # dotted paths, comma-separated
OURS = ("mathse.", "pytorch_lightning.loggers.")

_only_looking: ContextVar[bool] = ContextVar("only_looking", default=False)


def is_trusted(target: str) -> bool:
    """Whether the user has listed the class at this dotted path."""
    return target in {name.strip() for name in os.environ.get(TRUST, "").split(",")}


@contextmanager
def only_looking() -> Iterator[None]:
    """Within it nothing is imported that is neither ours nor trusted."""
    token = _only_looking.set(True)
    try:
        yield
    finally:
        _only_looking.reset(token)


def why_not_imported(target: str) -> str | None:
    """Why the class at a dotted path is not imported now; None where it may be."""
    if not _only_looking.get() or target.startswith(OURS) or is_trusted(target):
        return None
    return f"is no class of MathSE's, and who only looks runs no other code; if you trust it, set {TRUST}={target}"
