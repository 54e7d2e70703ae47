"""The panels that a workspace and a report share, section by section.

Their metrics are the names that ``loggers/figures.py`` and ``loggers/wandb`` give. A panel has a place of its own on
its page, so each section is made anew for each page.
"""

from __future__ import annotations

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
    import wandb_workspaces.reports.v2 as wr

    def grouped() -> dict[str, Any]:
        means = {"groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}
        return {"groupby": wr.Config(by), **means, "max_runs_to_show": 100}

    def curve(title: str, metric: str) -> Any:
        return wr.LinePlot(title=title, x="round", y=[metric], title_x="round", **grouped())

    def bars(title: str, metric: str) -> Any:
        return wr.BarPlot(title=title, metrics=[metric], max_bars_to_show=50, **grouped())

    def fit(title: str, regex: str) -> Any:
        return wr.LinePlot(title=title, x="fit/step", metric_regex=regex, title_x="optimiser steps of the run")

    return {
        "Accuracy": (
            "Test accuracy of each stage's student. Rounds: base -1, distill 0, then round_01 and on; the final "
            "student, after reflection, stands behind the last round.",
            [
                curve("Test accuracy by round", "round/accuracy"),
                *(bars(f"Test accuracy: {stage}", f"{stage}/accuracy") for stage in (*STAGES, "last")),
            ],
        ),
        "Acceptance": (
            "How many of a round's paths the judge let join D_SFT, and how many of those are right: by their "
            "answer, and step by step where the data can check steps.",
            [
                curve("Share of paths accepted", "round/acceptance"),
                curve("Right among the accepted, by answer", "round/acceptance_precision"),
                curve("Right among the accepted, step by step", "round/step_precision"),
                curve("Rows of D_SFT", "round/train_rows"),
            ],
        ),
        "ORM": (
            "The Outcome Reward Model on held-out paths: of each round's student, and of the weak students that it was "
            "trained on.",
            [
                *(curve(f"Student's paths: {name}", f"round/orm/{share}") for share, name in ORM_SHARES.items()),
                *(bars(f"Weak students' paths: {name}", f"orm/{share}") for share, name in ORM_SHARES.items()),
            ],
        ),
        "Fits": (
            "Loss and validation of every fit over the run's optimiser steps.",
            [fit("Loss", r"fit/.*/loss"), fit("Validation loss", r"fit/.*/val_loss")],
        ),
        "Samples": (
            "Paths with picture, verdict and critique; the same ones whenever a run is made again.",
            [
                wr.WeavePanelSummaryTable(table_name=f"samples/{stage}", layout=wr.Layout(w=24, h=12))
                for stage in TABLES
            ],
        ),
        "Runs compared": (
            "Settings and figures in which the runs differ.",
            [wr.RunComparer(diff_only="split", layout=wr.Layout(w=24, h=16))],
        ),
    }
