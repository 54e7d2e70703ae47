"""Published training sets as problems: one file a set, with its source, its licence and one row in its header.

A reader turns a published record into a row of our own form ({"id", "question", "images", "answer", ...});
row_validation.py checks that row as it checks own data. ``base`` says what a reader is, ``source`` makes problems of
it, ``llava`` reads the conversations that several sets are written in. Of Geometry3K we hold ten records; the other
readers are tested against records written by us in the published shape, and say so.
"""

from __future__ import annotations

from importlib import import_module

from mathse.config.data import READABLE
from mathse.data.readers.base import PublishedSet
from mathse.errors import ConfigError


def reader(name: str) -> PublishedSet:
    """The reader of a set. Raises ConfigError for a name that is none."""
    if name not in READABLE:
        raise ConfigError(f"data.name = {name!r}, allowed: {', '.join(READABLE)}; choose one")
    published: PublishedSet = import_module(f"mathse.data.readers.{name}").READER
    return published
