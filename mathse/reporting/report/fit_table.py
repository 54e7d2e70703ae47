"""What a fit's log says of it in numbers, and in a sentence where its validation loss tells of overfitting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

from mathse.reporting.progress.wording import speed
from mathse.reporting.report import svg
from mathse.reporting.report.losses import points

HEAD = (
    "fit",
    "steps",
    "training loss",
    "validation loss",
    "lowest (step)",
    "gradient norm: median, largest",
    "tokens/s",
    "MFU",
    "peak memory",
    "padding",
    "waiting for data",
)
NONE = "\N{EN DASH}"
RISE = 1.1  # a validation loss so many times its lowest has risen
GAP = 10  # a validation loss so many times the training loss is worth a sentence

Rows = Sequence[Mapping[str, Any]]  # of a train_log.jsonl


def fit_row(name: str, rows: Rows) -> tuple[str, ...]:
    """The cells of HEAD; logs of earlier versions have losses alone."""
    train, val = points(rows, "loss"), points(rows, "val_loss")
    measured = {
        key: [float(row[key]) for row in rows if row.get(key) is not None]
        for key in ("grad_norm", "tokens_per_second", "mfu", "peak_memory_gib", "padding", "data_wait")
    }
    # the first step also pays for what is made once
    steady = {key: values[1:] or values for key, values in measured.items()}
    lowest = min(val, key=lambda point: point[1], default=None)
    norms, peaks = measured["grad_norm"], [peak for peak in measured["peak_memory_gib"] if peak]
    return (
        name,
        f"{max((int(row['step']) for row in rows), default=0):,}",
        f"{train[-1][1]:.3g}" if train else NONE,
        f"{val[-1][1]:.3g}" if val else NONE,
        f"{lowest[1]:.3g} ({lowest[0]:,})" if lowest else NONE,
        f"{median(norms):.3g}, {max(norms):.3g}" if norms else NONE,
        speed(median(steady["tokens_per_second"])) if measured["tokens_per_second"] else NONE,
        svg.percent(median(steady["mfu"])) if measured["mfu"] else NONE,
        f"{max(peaks):.2f} GiB" if peaks else NONE,
        svg.percent(fmean(steady["padding"])) if measured["padding"] else NONE,
        svg.percent(fmean(steady["data_wait"])) if measured["data_wait"] else NONE,
    )


def overfitting(fits: Mapping[str, Rows]) -> str:
    """Of each fit whose validation loss rose while its training loss fell, a sentence; else one on the widest gap
    between the two, where it is wide."""
    rising, gaps = [], []
    for name, rows in fits.items():
        train, val = points(rows, "loss"), points(rows, "val_loss")
        if not train or not val:
            continue
        (best_step, best), (_, last) = min(val, key=lambda point: point[1]), val[-1]
        before = [loss for step, loss in train if step <= best_step]
        if last >= RISE * best and before and train[-1][1] < before[-1]:
            rising.append(
                f"{name}: validation loss rose from {best:.3g} at step {best_step:,} to {last:.3g} at the end while "
                f"training loss fell to {train[-1][1]:.3g}: it overfits."
            )
        gaps.append((last / train[-1][1], f"{name} ends at {train[-1][1]:.3g} training and {last:.3g} validation loss"))
    if rising:
        return " ".join(rising)
    ratio, text = max(gaps, default=(0.0, ""))
    return f"Widest gap: {text}." if ratio >= GAP else ""
