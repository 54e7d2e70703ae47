"""data_check.html: the results of a check as one page. ``page.html.j2`` has its sections and sentences."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mathse.config.parse import flatten
from mathse.config.schema import TrainConfig
from mathse.data.images import png_bytes
from mathse.errors import MathSEError
from mathse.reporting.charts import Bar, BarPart, bars
from mathse.reporting.pages import MAX_TABLE_ROWS, render
from mathse.reporting.report.listing import png_size
from mathse.types import Problem

GROUPS = {
    "by_source": "source",
    "by_language": "language",
    "by_answer": "kind of answer",
    "by_pictures": "pictures a row",
}
SPREADS = {"question_length": "characters of the question", "picture_side": "long side of a picture, pixels"}
MAX_PICTURE_BYTES = 1_500_000  # of all pictures on a page; further pictures are named, not shown


def render_page(
    config: TrainConfig,
    figures: Mapping[str, Any],
    bad: Sequence[Mapping[str, object]],
    warnings: Sequence[Mapping[str, Any]],
    samples: Sequence[Problem],
) -> str:
    """Return the page as HTML: counts, listed rows, rows to look at, samples, settings."""
    parts = [
        BarPart("used", figures["used"], f"{figures['used']:,}", "accent"),
        BarPart("listed", figures["listed"], f"{figures['listed']:,}", "signal"),
    ]
    counts = []
    for key, name in GROUPS.items():
        counts += [{"what": name, "which": value, "rows": f"{count:,}"} for value, count in figures[key].items()]
    counts += [{"what": "split", "which": name, "rows": f"{count:,}"} for name, count in figures["splits"].items()]

    spreads, spread_bars = [], []
    for key, name in SPREADS.items():
        spread = figures[key]
        if spread["least"] is not None:
            ends = {end: f"{spread[end]:,}" for end in ("least", "median", "greatest")}
            spreads.append({"what": name, **ends})
        shown = [Bar(f"≤ {end}", [BarPart(name, n, f"{n:,}", "accent-2")]) for end, n in spread["up_to"].items()]
        spread_bars.append(partial(bars, shown, name))

    listed = []
    for row in bad[:MAX_TABLE_ROWS]:
        listed.append({"where": f"{row['file']}:{row['line']}", "id": row["id"] or "", "reason": row["reason"]})
    looked_at = []
    for warning in warnings[:MAX_TABLE_ROWS]:
        location, kinds = f"{warning['file']}:{warning['line']}", ", ".join(warning["by"])
        looked_at.append({"where": location, "id": warning["id"], "what": kinds, "with": _describe_warning(warning)})
    settings = flatten({"data": config.data, "decontaminate": config.decontaminate})
    return render(
        "commands/data_check/page.html.j2",
        "data check",
        name=config.name,
        figures=figures,
        used=partial(bars, [Bar("rows", parts)], "Rows used and listed"),
        counts=counts,
        spreads=spreads,
        spread_bars=spread_bars,
        listed=listed,
        all_listed=len(bad),
        warnings=looked_at,
        all_warnings=len(warnings),
        MAX_TABLE_ROWS=MAX_TABLE_ROWS,
        samples=samples,
        pictures=PagePictures(png_bytes),
        settings=[{"setting": key, "value": "null" if value is None else value} for key, value in settings.items()],
    )


def _describe_warning(row: Mapping[str, Any]) -> str:
    if "said" in row:
        return str(row["said"])
    weak = "" if row["counts"] or row["by"] == ["duplicate"] else " (the question does not identify the problem)"
    return f"{row['against_id']} in {row['against']}, {row['similarity']:.2f}{weak}"


@dataclass(frozen=True)
class PagePicture:
    """A picture of the page as an SVG symbol, to which cards refer.

    Without a symbol, ``missing`` and ``reason`` have the cause.
    """

    symbol: str = ""
    width: int = 0  # px
    height: int = 0
    data: str = ""  # the PNG in base64
    missing: str = ""
    reason: str = ""


@dataclass
class PagePictures:
    """Stores each picture of the page once. ``budget``: bytes left for pictures."""

    image_png: Callable[[str], bytes]
    budget: int = MAX_PICTURE_BYTES
    known: dict[str, PagePicture] = field(default_factory=dict)  # by reference

    @property
    def stored(self) -> list[PagePicture]:
        return [picture for picture in self.known.values() if picture.symbol]

    def show(self, reference: str) -> PagePicture:
        """Return a picture. The first call for a reference stores it."""
        if reference not in self.known:
            self.known[reference] = self._read(reference)
        return self.known[reference]

    def _read(self, reference: str) -> PagePicture:
        try:
            png = self.image_png(reference)
            width, height = png_size(png)
        except (MathSEError, OSError, ValueError) as e:
            return PagePicture(missing="picture not available", reason=str(e))
        if len(png) > self.budget:
            return PagePicture(missing="picture left out, to keep this page small", reason=reference)
        self.budget -= len(png)
        return PagePicture(f"pic{len(self.stored)}", width, height, base64.b64encode(png).decode("ascii"))
