"""A published set as a source of problems: ``data=chartqa data.root=DIR``, or a hub id as root.

This file finds the set's files and validates its rows as own data; the set's reader knows its records.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mathse.config.data import PublicDataConfig
from mathse.config.rules.files import HUB_ID
from mathse.data.hub_table import HubTable, is_saved, lasting, records
from mathse.data.json_records import BadRow, JsonRecord, read_records
from mathse.data.problems import FileData
from mathse.data.readers import find_set
from mathse.data.readers.base import PublishedSet, RecordOrigin
from mathse.data.row_validation import ValidatedRow, validate
from mathse.errors import ConfigError, DataError

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz")


class PublicData(FileData):
    """The records of a published set, split by a hash of (seed, id) as own data.

    ``root``: the unpacked folder of the set, a file of it, the folder of a table, or a hub id. ``split``: the set's own
    split that our splits are shares of, and optionally its own test split. Raises DataError for a set that cannot be
    used, ConfigError for settings that exclude each other.
    """

    def __init__(self, settings: PublicDataConfig) -> None:
        root, split, test_split = settings.root, settings.train_split, settings.test_split
        if root is None:
            raise ConfigError(f"data.root is not set; give the folder of {settings.name}: data.root=DIR")
        super().__init__(root, replace(settings, test_share=0.0) if test_split else settings)
        self.lists_repeats = True
        self.set = find_set(settings.name)
        self.notes = (f"{self.set.title}: {self.set.home}; licence: {self.set.licence}.",)
        files = Path(root).exists() and not is_table(Path(root))
        if not Path(root).exists() and (
            Path(root).is_absolute() or not HUB_ID.fullmatch(root) or Path(root).parent.exists()
        ):
            raise DataError(
                f"{root}: no such folder (looked for {Path(root).absolute()}); data.root is the folder that "
                f"{self.set.title} was unpacked to, or its id on the hub (org/name): {self.set.home}"
            )
        if files:
            # An archive with the name of an annotation file was not unpacked.
            patterns = {p.replace("{split}", name) for p in self.set.patterns for name in self.set.splits_of(split)}
            matches = {file for pattern in patterns for file in Path(root).glob(pattern)}
            archives = sorted(file for file in matches if file.name.endswith(ARCHIVE_SUFFIXES))
            self.notes += tuple(f"{file} is not read: unpack it where it lies." for file in archives)
        for wanted, test in ((split, False), (test_split, True)):
            if wanted is None:
                continue
            if files:
                rows = self._read_files(Path(root), wanted)
            else:
                rows = self._read_hub_table(root, wanted, settings.revision)
            self._take(rows, f"{root} ({wanted})", test)
        self._refuse_bad_rows()

    def _read_files(self, root: Path, split: str) -> Iterator[ValidatedRow]:
        below = root if root.is_dir() else root.parent
        for set_split, file in files_of(self.set, root, split):
            origin = RecordOrigin(below, file, set_split)
            for record in read_records(file):
                yield from self._validate_record(record, origin, str(file))

    def _read_hub_table(self, root: str, split: str, revision: str | None) -> Iterator[ValidatedRow]:
        for set_split in self.set.splits_of(split):
            # The hub calls the split "validation" that the archives call "val".
            table = HubTable(lasting(root), None, {"val": "validation"}.get(set_split, set_split), revision)
            origin = RecordOrigin(Path(table.root), Path(table.root) / set_split, set_split)
            for record in records(table):
                yield from self._validate_record(record, origin, table.name)

    def _validate_record(self, record: JsonRecord, origin: RecordOrigin, file: str) -> Iterator[ValidatedRow]:
        """Yield the problems of a record, or the reason why it makes none."""
        try:
            if record.values is None:
                raise BadRow(record.reason)
            for values in self.set.rows(record.values, origin):
                yield validate(record._replace(values=values), file, origin.root, self.images, self.set.name)
        except BadRow as error:
            record_id = (record.values or {}).get("id")
            yield ValidatedRow(
                file, record.line, None if record_id is None else str(record_id), None, str(error), record.number
            )


def is_table(root: Path) -> bool:
    """Whether a folder holds a table of the ``datasets`` library, saved or as parquet files."""
    return is_saved(root) or next(root.glob("**/*.parquet"), None) is not None


def files_of(published: PublishedSet, root: Path, split: str) -> list[tuple[str, Path]]:
    """List (split, file) of a set's annotation files below ``root``, in a fixed order.

    Raises DataError for a folder without such a file, and for a file that is not read, such as a pickle.
    """
    refused = published.refused or {}

    def refuse(file: Path) -> None:
        if (reason := refused.get(file.suffix)) is not None:
            raise DataError(f"{file}: is not read: {reason}")

    if root.is_file():
        refuse(root)
        return [(split, root)]

    inside = root.resolve()
    for pattern in published.patterns:
        files = []
        for name in published.splits_of(split) if "{split}" in pattern else (split,):
            for file in sorted(root.glob(pattern.replace("{split}", name)), key=natural_order):
                # A link must not lead out of the root.
                readable = file.is_file() and file.resolve().is_relative_to(inside)
                if readable and not file.name.endswith(ARCHIVE_SUFFIXES):
                    files.append((name, file))
        if files:
            return files

    # No file matched: either every file is in a form that is not read, or this is the folder of another set.
    for file in sorted(root.rglob("*")):
        refuse(file)
    patterns = " or ".join(pattern.replace("{split}", split) for pattern in published.patterns[:2])
    raise DataError(
        f"{root}: no file of {published.title} (looked for {patterns}); data.root is the folder that the set was "
        f"unpacked to: {published.home}"
    )


def natural_order(file: Path) -> list[tuple[bool, int, str]]:
    """Sort key that puts 2.json before 10.json, and numbers before other names."""
    parts = (*file.parent.parts, file.stem)
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]
