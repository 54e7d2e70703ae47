"""Runs to export: one over own problems of every kind, one of synthetic problems."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_builder import build_run

from exports.own_run import OwnRun, own_run


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> OwnRun:
    return own_run(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of synthetic problems, whose pictures are no files."""
    return build_run(tmp_path_factory.mktemp("digits") / "run", size=12)
