from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from unpacked import unpack

OldRun = Callable[[str], Path]


@pytest.fixture
def old_run(tmp_path: Path) -> OldRun:
    """A copy, to do with as one likes, of a finished run that an earlier version made: "random" or "orm", its judge."""
    return lambda name: unpack(name, tmp_path)
