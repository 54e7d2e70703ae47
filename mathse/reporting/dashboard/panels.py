"""The panels that a workspace and a report share, section by section. Names: loggers/figures.py, loggers/wandb.py.

A panel has a place of its own, so each section is made anew for each page.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

STAGES = ("base", "distill", "round_01", "round_02", "final")  # more rounds are in the curve over rounds
TABLES = ("distill", "round_01", "round_02", "reflection", "final")  # stages whose samples are shown
ORM_SHARES = {
    "overall_accuracy": "verdicts that are right",
    "positive_accuracy": "right paths accepted",
    "negative_accuracy": "wrong paths rejected",
    "error_step_accuracy": "first wrong step named",
}

Panels = list[Any]


def sections(by: str) -> dict[str, tuple[str, Panels]]:
    """Title -> (what it shows, its panels). ``by``: the setting whose values are told apart, ``variant`` or ``study``;
    runs alike in it are one line or bar, the mean with its least and greatest value."""
    makers: dict[str, Callable[[str], Panels]] = {
        "Accuracy": _accuracy,
        "Acceptance": _acceptance,
        "ORM": _orm,
        "Fits": _fits,
        "Samples": _samples,
        "Runs compared": _compared,
    }
    return {title: (SHOWS[title], make(by)) for title, make in makers.items()}


SHOWS = {
    "Accuracy": "Test accuracy of each stage's student. Rounds: base -1, distill 0, then round_01 and on; the final "
    "student, after reflection, stands behind the last round.",
    "Acceptance": "How many of a round's paths the judge let join D_SFT, and how many of those are right: by their "
    "answer, and step by step where the data can check steps.",
    "ORM": "The Outcome Reward Model on held-out paths: of each round's student, and of the weak students that it was "
    "trained on.",
    "Fits": "Loss and validation of every fit over the run's optimiser steps.",
    "Samples": "Paths with picture, verdict and critique; the same ones whenever a run is made again.",
    "Runs compared": "Settings and figures in which the runs differ.",
}


def _accuracy(by: str) -> Panels:
    bars = [_bars(f"Test accuracy: {stage}", f"{stage}/accuracy", by) for stage in (*STAGES, "last")]
    return [_curve("Test accuracy by round", ["round/accuracy"], by), *bars]


def _acceptance(by: str) -> Panels:
    return [
        _curve("Share of paths accepted", ["round/acceptance"], by),
        _curve("Right among the accepted, by answer", ["round/acceptance_precision"], by),
        _curve("Right among the accepted, step by step", ["round/step_precision"], by),
        _curve("Rows of D_SFT", ["round/train_rows"], by),
    ]


def _orm(by: str) -> Panels:
    curves = [_curve(f"Student's paths: {what}", [f"round/orm/{share}"], by) for share, what in ORM_SHARES.items()]
    bars = [_bars(f"Weak students' paths: {what}", f"orm/{share}", by) for share, what in ORM_SHARES.items()]
    return curves + bars


def _fits(by: str) -> Panels:
    import wandb_workspaces.reports.v2 as wr

    return [
        wr.LinePlot(title=title, x="fit/step", metric_regex=regex, title_x="optimiser steps of the run")
        for title, regex in (("Loss", r"fit/.*/loss"), ("Validation loss", r"fit/.*/val_loss"))
    ]


def _samples(by: str) -> Panels:
    import wandb_workspaces.reports.v2 as wr

    return [wr.WeavePanelSummaryTable(table_name=f"samples/{stage}", layout=wr.Layout(w=24, h=12)) for stage in TABLES]


def _compared(by: str) -> Panels:
    import wandb_workspaces.reports.v2 as wr

    return [wr.RunComparer(diff_only="split", layout=wr.Layout(w=24, h=16))]


def _curve(title: str, metrics: list[str], by: str) -> Any:
    import wandb_workspaces.reports.v2 as wr

    return wr.LinePlot(
        title=title,
        x="round",
        y=metrics,
        title_x="round",
        groupby=wr.Config(by),
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
        max_runs_to_show=100,
    )


def _bars(title: str, metric: str, by: str) -> Any:
    import wandb_workspaces.reports.v2 as wr

    return wr.BarPlot(
        title=title,
        metrics=[metric],
        groupby=wr.Config(by),
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
        max_runs_to_show=100,
        max_bars_to_show=50,
    )
