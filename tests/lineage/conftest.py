from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lineage import made

Made = Callable[[str], Path]


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Made:
    """A finished run by its kind, made when it is first asked for; tests only read it."""
    place = tmp_path_factory.mktemp("runs")
    problems = made.own_problems(place / "data")

    def make(kind: str) -> Path:
        folder = place / kind
        if folder.exists():
            return folder
        if kind == "embedded":
            return made.embedded(folder)
        if kind == "killed":
            return made.killed_twice(folder, problems)
        if kind == "branched":
            return made.branched(folder, make("killed"), problems)
        if kind == "nothing_merged":
            return made.nothing_merged(folder)
        fixtures: Path = request.getfixturevalue("fixtures")  # here: the other kinds need none
        return made.mixed(folder, problems, fixtures / "datasets" / "geometry3k_samples")

    return make
