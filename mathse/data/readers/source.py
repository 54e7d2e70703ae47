"""A published set as a source of problems: ``data=chartqa data.root=DIR``, or a hub id as root.

What differs between sets stands in the set's reader; here its files are found, and its rows validated as own data is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mathse.config.data import PublicData as Settings
from mathse.config.rules.files import HUB_ID
from mathse.data.hub_table import HubTable, is_saved, lasting, records
from mathse.data.json_records import BadRow, JsonRecord, read_records
from mathse.data.problems import FileData
from mathse.data.readers import reader
from mathse.data.readers.base import PublishedSet, RecordOrigin
from mathse.data.row_validation import ValidatedRow, validate
from mathse.errors import ConfigError, DataError

ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz")


class PublicData(FileData):
    """The records of a published set, split by a hash of (seed, id) as own data is.

    ``root``: the folder that the set was unpacked to, one of its files, a table's folder, or a hub id. ``split``: which
    of the set's own splits our splits are shares of, and which of them is the test split. Raises DataError for a set
    that cannot be used, ConfigError for settings that do not go together.
    """

    def __init__(self, settings: Settings) -> None:
        root, split, test_split = settings.root, settings.train_split, settings.test_split
        if root is None:
            raise ConfigError(f"data.root is not set; give the folder of {settings.name}: data.root=DIR")
        super().__init__(root, replace(settings, test_share=0.0) if test_split else settings)
        self.lists_repeats = True
        self.set = reader(settings.name)
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
            skipped = archives_of(self.set, Path(root), split)
            self.notes += tuple(f"{file} is not read: unpack it where it lies." for file in skipped)
        for wanted, test in ((split, False), (test_split, True)):
            if wanted is not None:
                rows = self._of_files(Path(root), wanted) if files else self._of_hub(root, wanted, settings.revision)
                self._take(rows, f"{root} ({wanted})", test)
        self._opened()

    def _of_files(self, root: Path, split: str) -> Iterator[ValidatedRow]:
        below = root if root.is_dir() else root.parent
        for set_split, file in files_of(self.set, root, split):
            origin = RecordOrigin(below, file, set_split)
            for record in read_records(file):
                yield from self._rows(record, origin, str(file))

    def _of_hub(self, root: str, split: str, revision: str | None) -> Iterator[ValidatedRow]:
        for set_split in self.set.splits_of(split):
            table = HubTable(lasting(root), None, {"val": "validation"}.get(set_split, set_split), revision)
            origin = RecordOrigin(Path(table.root), Path(table.root) / set_split, set_split)
            for record in records(table):
                yield from self._rows(record, origin, table.name)

    def _rows(self, record: JsonRecord, origin: RecordOrigin, file: str) -> Iterator[ValidatedRow]:
        """A record may make several problems, or be the reason why it makes none."""
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
    """Whether a folder holds a table of the datasets library: saved, or as the hub's parquet files."""
    return is_saved(root) or next(root.glob("**/*.parquet"), None) is not None


def files_of(published: PublishedSet, root: Path, split: str) -> list[tuple[str, Path]]:
    """(split, file) of a set's annotation files below ``root``, in an order that does not change.

    Raises DataError where there is none, and for a file that is not read, such as a pickle.
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
        splits = published.splits_of(split) if "{split}" in pattern else (split,)
        files = [
            (name, file)
            for name in splits
            for file in sorted(root.glob(pattern.replace("{split}", name)), key=natural_order)
            if file.is_file()
            and file.resolve().is_relative_to(inside)  # no link that leads out
            and not file.name.endswith(ARCHIVES)
        ]
        if files:
            return files

    # No file matched: because all of them are in a form that is not read, or because it is another folder.
    for file in sorted(root.rglob("*")):
        refuse(file)
    patterns = " or ".join(pattern.replace("{split}", split) for pattern in published.patterns[:2])
    raise DataError(
        f"{root}: no file of {published.title} (looked for {patterns}); data.root is the folder that the set was "
        f"unpacked to: {published.home}"
    )


def archives_of(published: PublishedSet, root: Path, split: str) -> list[Path]:
    """Archives below ``root`` that have the name of a file of annotations: nobody unpacked them."""
    splits = published.splits_of(split)
    patterns = {pattern.replace("{split}", name) for pattern in published.patterns for name in splits}
    return sorted({file for p in patterns for file in root.glob(p) if file.name.endswith(ARCHIVES)})


def natural_order(file: Path) -> list[tuple[bool, int, str]]:
    """2.json before 10.json: names that are numbers by number, before all others."""
    parts = (*file.parent.parts, file.stem)
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]
