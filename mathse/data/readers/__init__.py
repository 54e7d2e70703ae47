"""Readers of published training sets, grouped by the shape of their records: geometry.py, school.py, conversations.py.

A reader turns a published record into a row of our own form ({"id", "question", "images", "answer", ...});
row_validation.py checks that row as it checks own data. The docstring of each reader gives the set's source, licence,
files and a sample record. base.py defines a published set, source.py makes problems of it, and llava.py reads the
conversations that several sets are written in. Readers of sets without a sample here are tested against records that
we wrote in the published shape, and their docstrings say so.
"""

from __future__ import annotations

from mathse.config.data import READABLE
from mathse.data.readers import conversations, geometry, school
from mathse.data.readers.base import PublishedSet
from mathse.errors import ConfigError

ALL_SETS = {published.name: published for published in (*geometry.SETS, *school.SETS, *conversations.SETS)}


def find_set(name: str) -> PublishedSet:
    """Find a published set by its name. Raises ConfigError for an unknown name."""
    if name not in ALL_SETS:
        raise ConfigError(f"data.name = {name!r}, allowed: {', '.join(READABLE)}; choose one")
    return ALL_SETS[name]
