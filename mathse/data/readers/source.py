"""A published set as a source of problems: ``data=chartqa data.root=DIR``, or a hub id as root."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mathse.config.data import PublicData as Settings
from mathse.data.hub_table import Table, lasting, records
from mathse.data.problems import FileData
from mathse.data.readers import reader
from mathse.data.readers.base import Place, PublicSet
from mathse.data.records import BadRow, Record, read_records
from mathse.data.rows import Row, checked
from mathse.errors import ConfigError, DataError


class PublicData(FileData):
    """The records of a published set, split by a hash of (seed, id) as own data is.

    ``root``: the folder that the set was unpacked to, one of its files, a table's folder, or a hub id. ``split``: which
    of the set's own splits is read. Raises DataError for a set that cannot be used, ConfigError for settings that do
    not go together.
    """

    def __init__(self, settings: Settings) -> None:
        root, split = settings.root, settings.split
        if root is None:
            raise ConfigError(f"data.root is not set; give the folder of {settings.name}: data.root=DIR")
        super().__init__(root, settings)
        self.set = reader(settings.name)
        self.notes = (f"{self.set.title}: {self.set.home}; licence: {self.set.licence}.",)
        files = Path(root).exists() and not is_table(Path(root))
        self._take(self._of_files(Path(root), split) if files else self._of_hub(root, split, settings.revision), root)
        self._opened()

    def _of_files(self, root: Path, split: str) -> Iterator[Row]:
        below = root if root.is_dir() else root.parent
        for own_split, file in files_of(self.set, root, split):
            place = Place(below, file, own_split)
            for record in read_records(file):
                yield from self._rows(record, place, str(file))

    def _of_hub(self, root: str, split: str, revision: str | None) -> Iterator[Row]:
        for own_split in self.set.splits_of(split):
            table = Table(lasting(root), None, {"val": "validation"}.get(own_split, own_split), revision)
            place = Place(Path(table.root), Path(table.root) / own_split, own_split)
            for record in records(table):
                yield from self._rows(record, place, table.name)

    def _rows(self, record: Record, place: Place, file: str) -> Iterator[Row]:
        """A record may make several problems, or be the reason why it makes none."""
        try:
            if record.values is None:
                raise BadRow(record.reason)
            for values in self.set.rows(record.values, place):
                yield checked(Record(record.line, values), file, place.root, self.images, self.set.name)
        except BadRow as error:
            found = (record.values or {}).get("id")
            yield Row(file, record.line, None if found is None else str(found), None, str(error))


def is_table(root: Path) -> bool:
    """Whether a folder holds a table of the datasets library: saved, or as the hub's parquet files."""
    saved = any((root / name).is_file() for name in ("state.json", "dataset_dict.json"))
    return saved or next(root.glob("**/*.parquet"), None) is not None


def files_of(found: PublicSet, root: Path, split: str) -> list[tuple[str, Path]]:
    """(split, file) of a set's annotation files below ``root``, in an order that does not change.

    Raises DataError where there is none.
    """
    if root.is_file():
        return [(split, _readable(found, root))]
    for pattern in found.patterns:
        asked = found.splits_of(split) if "{split}" in pattern else (split,)
        files = [(one, file) for one in asked for file in _glob(root, pattern.replace("{split}", one))]
        if files:
            return files
    for file in sorted(root.rglob("*")):
        _readable(found, file)
    looked = " or ".join(pattern.replace("{split}", split) for pattern in found.patterns[:2])
    raise DataError(
        f"{root}: no file of {found.title} (looked for {looked}); data.root is the folder that the set was unpacked "
        f"to: {found.home}"
    )


def _glob(root: Path, pattern: str) -> list[Path]:
    """Files below ``root`` by number where their names are numbers; links that lead out of it are left alone."""
    inside = root.resolve()
    files = [file for file in root.glob(pattern) if file.is_file() and file.resolve().is_relative_to(inside)]
    return sorted(files, key=lambda file: [(not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in _parts(file)])


def _parts(file: Path) -> tuple[str, ...]:
    return (*file.parent.parts, file.stem)


def _readable(found: PublicSet, file: Path) -> Path:
    if (reason := (found.refused or {}).get(file.suffix)) is not None:
        raise DataError(f"{file}: is not read: {reason}")
    return file
