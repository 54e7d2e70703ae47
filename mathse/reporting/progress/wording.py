"""Counts, rates, times and the closing table as text: for bars, logs, pages and the tables that commands print."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

COLUMNS = ("stage", "accuracy", "teacher calls", "FLOPs", "train rows", "accepted", "rejected", "unparsed", "precision")
NOT_RECORDED = "not recorded"  # the cost of a stage that an earlier version made; it is not 0
MIN_SHOWN_SHARE = 0.01  # least padding, and least time waiting for data, that a progress line shows


# --- the closing table ------------------------------------------------------------------------------------------------


def stage_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the cells of the closing table: a row for each entry of summary["stages"], in the order of COLUMNS."""
    rows = []
    for entry in summary.get("stages", []):
        counts = [_count(entry.get(key)) for key in ("train_rows", "accepted", "rejected", "unparsed")]
        flops, precision = entry.get("flops"), entry.get("acceptance_precision")
        rows.append(
            (
                str(entry["stage"]),
                accuracy_text(entry.get("accuracy"), entry.get("ci95")),
                _count(entry.get("teacher_calls")),
                NOT_RECORDED if flops is None else shorten_number(flops),
                *counts,
                "-" if precision is None else f"{precision:.3f}",
            )
        )
    return rows


def orm_line(orm: Mapping[str, Any]) -> str:
    """Write a sentence about the ORM on held-out paths."""
    figures = (
        ("overall", "overall_accuracy"),
        ("right paths accepted", "positive_accuracy"),
        ("wrong paths rejected", "negative_accuracy"),
        ("first wrong step named", "error_step_accuracy"),
    )
    shares = ", ".join(f"{name} {_percent(orm.get(key))}" for name, key in figures)
    return f"ORM on {orm.get('n', 0):,} held-out paths: {shares}"


def accuracy_text(value: float | None, ci95: Sequence[float] | None) -> str:
    """Write "64.2% [61.8, 66.6]". Near 0 and 1 the interval is not symmetric, so both of its ends are written."""
    if value is None:
        return "-"
    return _percent(value) + (f" [{ci95[0] * 100:.1f}, {ci95[1] * 100:.1f}]" if ci95 else "")


def align_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table: the first column aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return lines


# --- texts and times --------------------------------------------------------------------------------------------------


def clean(text: str) -> str:
    """Put the text on one line and replace control characters: a model's text must not steer a terminal."""
    return "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs") else c for c in text)


def duration(seconds: float) -> str:
    """Write "8 s", "2 min 05 s" or "3 h 20 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def speed(rate: float) -> str:
    """Write a rate with about three digits: 0.52, 8.31, 85.2, 1,204."""
    if rate >= 100:
        return f"{rate:,.0f}"
    return f"{rate:.1f}" if rate >= 10 else f"{rate:.2f}"


def figures(info: Mapping[str, float | str]) -> list[str]:
    """Write each figure with its name: "loss 1.204", "accuracy 0.53"."""
    texts = []
    for name, value in info.items():
        if isinstance(value, float):
            texts.append(f"{name.replace('_', ' ')} {value:.4g}")
        else:
            texts.append(f"{name} {value}")
    return texts


def fit_info(lines: Iterable[Mapping[str, Any]]) -> dict[str, float | str]:
    """Return the figures of a training for a progress line, from lines of its train_log.jsonl.

    The last value of each figure counts. Padding and waiting for data appear from MIN_SHOWN_SHARE on.
    """
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
        if figures.get(key, 0) >= MIN_SHOWN_SHARE:
            info[name] = f"{figures[key] * 100:.0f}%"
    return info


# --- numbers ----------------------------------------------------------------------------------------------------------


def shorten_number(value: float) -> str:
    """Write a large number, such as a count of operations, with a prefix: "522 M", "1.3 P"."""
    prefixes = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")
    power = 0
    while abs(value) >= 999.5 and power < len(prefixes) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.3g} {prefixes[power]}".rstrip()


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
    difference of two shown figures follows this rule; the ends of an interval are shown by ``points``.
    """
    return points(shown_difference(before * 100, after * 100, digits) / 100, digits)


def shown_difference(before: float, after: float, digits: int) -> float:
    """Subtract two numbers as a reader sees them, with ``digits`` digits behind the point."""
    return round(round(after, digits) - round(before, digits), digits) + 0.0


def span(interval: Sequence[float]) -> str:
    """Write an interval of shares in percent: "[61.7, 66.6]"."""
    low, high = interval
    return f"[{low * 100:.1f}, {high * 100:.1f}]"


def count(value: int | None) -> str:
    """Write 1234 as "1,234", and no number as an en dash."""
    return "\N{EN DASH}" if value is None else f"{value:,}"


# The closing table and log lines write "-" for no value: an output may know ASCII only.


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.1f}%"
