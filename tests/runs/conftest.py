from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

ARCHIVES = Path(__file__).parents[1] / "old_runs"

OldRun = Callable[[str], Path]


@pytest.fixture
def old_run(tmp_path: Path) -> OldRun:
    """A copy, to do with as one likes, of a finished run that an earlier version made: "random" or "orm", its judge."""

    def copy(name: str) -> Path:
        with tarfile.open(ARCHIVES / "46dcc38.tar.xz") as archive:
            members = [member for member in archive if Path(member.name).parts[:1] == (name,)]
            archive.extractall(tmp_path / "old", members, filter="data")
        return tmp_path / "old" / name

    return copy
