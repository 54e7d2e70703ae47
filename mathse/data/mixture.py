"""A mixture of several data sources, by weights or counts: ``data=mixture``.

    python train.py data=mixture +data@data.sources.geo=geometry3k data.sources.geo.root=DIR \\
        +data@data.sources.own=jsonl data.sources.own.path=FILE 'data.weights={geo: 1, own: 3}'

``counts`` takes this number of rows of each source. ``weights`` takes rows in these proportions: ``size`` in total, or
as many as the sources allow. The choice of rows depends only on (seed, source, id), so a restarted run has the same
rows; other rows are in no split. A source's own shares, seed and on_bad_row are not used. The source of a problem is
the name in the mixture ("geo"). If two sources share an id, all ids begin with the name ("geo/7").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mathse.config import build, replace_values
from mathse.config.data import MixtureDataConfig
from mathse.config.rules.data import check_mixture
from mathse.config.trust import locate
from mathse.data.problems import FileData
from mathse.data.row_validation import ValidatedRow
from mathse.errors import ConfigError
from mathse.seeds import derive


class MixtureData(FileData):
    """A mixture of sources. Raises ConfigError for weights or counts that contradict the sources, and the DataErrors of
    the sources."""

    def __init__(self, settings: MixtureDataConfig) -> None:
        if mistake := next(check_mixture(settings), None):
            raise ConfigError(mistake)
        super().__init__("data.sources", settings)
        opened = {name: self._open(name, section) for name, section in settings.sources.items()}
        if any(source.test_ids for source in opened.values()):
            self.shares = replace(self.shares, test=0.0)
        sizes = {name: len(source.train_ids) for name, source in opened.items()}
        shares = dict(settings.counts or by_weight(sizes, settings.weights or {}, settings.size))
        # Ids have no prefix unless two sources share an id: the form of the ids in earlier runs.
        all_ids: list[str] = []
        for source in opened.values():
            all_ids += source.table.ids()
        prefixed = len(set(all_ids)) < len(all_ids)
        for name, source in opened.items():
            if shares[name] > sizes[name]:
                raise ConfigError(
                    f"data: source {name} has {sizes[name]:,} rows that can be used, and {shares[name]:,} are asked for"
                )
            self.bad_rows += source.bad_rows
            if shares[name]:
                drawn_ids = _draw_ids(source.train_ids, shares[name], self.seed, name)
                self._take(_read_rows(source, drawn_ids, name, prefixed), name)
            # A separate test file joins the mixture's test split as a whole.
            if source.test_ids:
                self._take(_read_rows(source, source.test_ids, name, prefixed), name, test=True)
        parts = ", ".join(f"{shares[name]:,} of {sizes[name]:,} rows of {name}" for name in opened)
        notes = [f"A mixture of {parts}."]
        for source in opened.values():
            notes += source.notes
        self.notes = tuple(notes)
        self._refuse_bad_rows()

    def _open(self, name: str, section: Any) -> FileData:
        kind = locate(section["_target_"] if isinstance(section, Mapping) else section._target_, "data")
        if not isinstance(kind, type) or not issubclass(kind, FileData) or issubclass(kind, MixtureData):
            raise ConfigError(f"data.sources.{name}: only sources that read files or tables can be mixed")
        # The mixture decides about the bad rows of all sources.
        source: FileData = build(replace_values(section, seed=self.seed, on_bad_row="skip"))
        self.images.decoded |= source.images.decoded
        return source


def by_weight(sizes: Mapping[str, int], weights: Mapping[str, float], size: int | None) -> dict[str, int]:
    """Compute the number of rows of each source by ``weights``: ``size`` in total, or as many as possible."""
    total = sum(weights.values())
    most = min(sizes[name] * total / weight for name, weight in weights.items())  # until a source is exhausted
    exact = {name: (most if size is None else size) * weight / total for name, weight in weights.items()}
    rows = {name: int(share + 1e-9) for name, share in exact.items()}
    # The rows that are missing after rounding down go to the sources that lost most by it.
    missing = (int(most + 1e-9) if size is None else size) - sum(rows.values())
    for name in sorted(exact, key=lambda name: rows[name] - exact[name])[:missing]:
        if rows[name] < sizes[name] or size is not None:
            rows[name] += 1
    return rows


def _draw_ids(ids: Sequence[str], rows: int, seed: int, name: str) -> list[str]:
    """Draw ``rows`` of a source's ids by their hashes, so that a longer draw includes a shorter draw."""
    chosen = set(sorted(ids, key=lambda i: derive(seed, "mixture", name, i))[:rows])
    return [i for i in ids if i in chosen]


def _read_rows(source: FileData, ids: Sequence[str], name: str, prefixed: bool) -> Iterator[ValidatedRow]:
    for problem in source.table.select(ids):
        file, line = source.table.location(problem.id)
        mixed = replace(problem, id=f"{name}/{problem.id}" if prefixed else problem.id, source=name)
        yield ValidatedRow(file, line, mixed.id, mixed)
