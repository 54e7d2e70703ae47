"""Counts, rates, times and the closing table as text: for bars, logs, pages and the tables that commands print."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

COLUMNS = ("stage", "accuracy", "teacher calls", "FLOPs", "train rows", "accepted", "rejected", "unparsed", "precision")
NOT_RECORDED = "not recorded"  # what a stage of an earlier version spent: it is not 0
PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")
WORTH_A_LOOK = 0.01  # of padding, and of time that a fit waits for its data
COUNTS = ("train_rows", "accepted", "rejected", "unparsed")


def stage_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The closing table's cells, one row an entry of summary["stages"], in the order of COLUMNS."""
    return [
        (
            str(entry["stage"]),
            accuracy_text(entry.get("accuracy"), entry.get("ci95")),
            _count(entry.get("teacher_calls")),
            NOT_RECORDED if (flops := entry.get("flops")) is None else scaled(flops),
            *(_count(entry.get(key)) for key in COUNTS),
            "-" if (precision := entry.get("acceptance_precision")) is None else f"{precision:.3f}",
        )
        for entry in summary.get("stages", [])
    ]


def orm_line(orm: Mapping[str, Any]) -> str:
    """One sentence about the ORM on held-out paths."""
    figures = (
        ("overall", "overall_accuracy"),
        ("right paths accepted", "positive_accuracy"),
        ("wrong paths rejected", "negative_accuracy"),
        ("first wrong step named", "error_step_accuracy"),
    )
    shares = ", ".join(f"{name} {_percent(orm.get(key))}" for name, key in figures)
    return f"ORM on {orm.get('n', 0):,} held-out paths: {shares}"


def accuracy_text(value: float | None, ci95: Sequence[float] | None) -> str:
    """ "64.2% [61.8, 66.6]"; near 0 and 1 such an interval lies to one side, so it has no half width."""
    if value is None:
        return "-"
    return _percent(value) + (f" [{ci95[0] * 100:.1f}, {ci95[1] * 100:.1f}]" if ci95 else "")


def clean(text: str) -> str:
    """The text on one line, without control characters: model text must not steer a terminal or a log reader."""
    return "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs") else c for c in text)


def duration(seconds: float) -> str:
    """ "8 s", "2 min 05 s", "3 h 20 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def speed(rate: float) -> str:
    """Three figures or so: 0.52, 8.31, 85.2, 1,204."""
    if rate >= 100:
        return f"{rate:,.0f}"
    return f"{rate:.1f}" if rate >= 10 else f"{rate:.2f}"


def figures(info: Mapping[str, float | str]) -> list[str]:
    """A text for each: "loss 1.204", "accuracy 0.53"."""
    return [
        f"{name.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in info.items()
    ]


def fit_info(lines: Iterable[Mapping[str, Any]]) -> dict[str, float | str]:
    """What a progress line says of a fit, from lines of its train_log.jsonl: the figures of the last ones, short. Of
    padding and waiting for data only what is worth a look."""
    figures: dict[str, Any] = {}
    for line in lines:
        figures |= line
    info: dict[str, float | str] = {}
    for key in ("loss", "val_loss", "grad_norm"):
        if key in figures:
            info[key] = float(figures[key])
    if "tokens_per_second" in figures:
        info["speed"] = f"{speed(figures['tokens_per_second'])} tokens/s"
    if "mfu" in figures:
        info["MFU"] = f"{figures['mfu'] * 100:.0f}%"
    if figures.get("peak_memory_gib"):
        info["peak"] = f"{figures['peak_memory_gib']:.1f} GiB"
    for key, name in (("padding", "padding"), ("data_wait", "waiting for data")):
        if figures.get(key, 0) >= WORTH_A_LOOK:
            info[name] = f"{figures[key] * 100:.0f}%"
    return info


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: first column left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def scaled(value: float) -> str:
    """Large numbers, of operations say, with a prefix: "522 M", "1.3 P"."""
    power = 0
    while abs(value) >= 999.5 and power < len(PREFIXES) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.3g} {PREFIXES[power]}".rstrip()


def percent(share: float | None, digits: int = 1) -> str:
    """Write 0.642 as "64.2%", and no share as an en dash."""
    return "\N{EN DASH}" if share is None else f"{share * 100:.{digits}f}%"


def points(difference: float, digits: int = 1) -> str:
    """Write a difference of shares in percentage points, signed: "+5.8", "\N{MINUS SIGN}0.4"."""
    rounded = round(difference * 100, digits)
    return f"{rounded:+.{digits}f}".replace("-", "\N{MINUS SIGN}") if rounded else f"±{0:.{digits}f}"


def gain(before: float, after: float, digits: int = 1) -> str:
    """Write how far ``after`` lies above ``before``, in points, as a reader subtracts the figures of ``percent``.

    0.51625 and 0.7675 are shown as 51.6% and 76.8%, so their difference is shown as +25.2, not as +25.1. Every
    difference of two shown figures goes by this rule; the ends of an interval are shown by ``points``.
    """
    return points(shown_difference(before * 100, after * 100, digits) / 100, digits)


def shown_difference(before: float, after: float, digits: int) -> float:
    """Subtract two numbers as they are shown with so many digits behind the point."""
    return round(round(after, digits) - round(before, digits), digits) + 0.0


def span(interval: Sequence[float]) -> str:
    """Write an interval of shares in percent: "[61.7, 66.6]"."""
    low, high = interval
    return f"[{low * 100:.1f}, {high * 100:.1f}]"


def count(value: int | None) -> str:
    """Write 1234 as "1,234", and no number as an en dash."""
    return "\N{EN DASH}" if value is None else f"{value:,}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.1f}%"
