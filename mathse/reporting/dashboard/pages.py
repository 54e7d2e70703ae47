"""The workspace and the report of a project or a study, as objects of the ``wandb-workspaces`` package.

They are made from code, so every project shows the same panels. The metrics of the panels are the names in
``loggers/figures.py`` and ``loggers/wandb``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

# Columns of the table of runs.
COLUMNS = ["summary:last/stage", "summary:last/accuracy", "summary:orm/overall_accuracy"]
# Stages with a panel of their own; the curve over rounds has all rounds.
ACCURACY_STAGES = ("base", "distill", "round_01", "round_02", "final", "last")
SAMPLE_STAGES = ("distill", "round_01", "round_02", "reflection", "final")
ORM_SHARES = {
    "overall_accuracy": "verdicts that are right",
    "positive_accuracy": "right paths accepted",
    "negative_accuracy": "wrong paths rejected",
    "error_step_accuracy": "first wrong step named",
}

Panels = list[Any]


@dataclass(frozen=True)
class Subject:
    """The runs to show: a study (a W&B group), or all runs of a project. ``entity``: empty before a login."""

    project: str
    entity: str = ""
    study: str | None = None

    @property
    def title(self) -> str:
        return f"MathSE: {self.study or 'all studies'}"

    @property
    def by(self) -> str:
        """The setting that groups the runs of a panel."""
        return "variant" if self.study else "study"

    @property
    def means(self) -> str:
        """A sentence about the mean in a line or a bar."""
        if self.study:
            return "A line or bar is the mean over a variant's seeds, with the least and the greatest value."
        return (
            "A line or bar is the mean over all variants and seeds of a study, with the least and the greatest value; "
            "--study NAME shows each variant."
        )

    @property
    def view(self) -> str:
        """The workspace's id in its URL. It depends on the study only, so a second start finds the workspace."""
        return hashlib.sha256(f"mathse/{self.study or ''}".encode()).hexdigest()[:11]

    @property
    def filters(self) -> list[Any]:
        import wandb_workspaces.workspaces as ws

        return [ws.Metric("Group") == self.study] if self.study else []


def workspace(subject: Subject) -> Any:
    """Return a ``Workspace`` that has not been saved."""
    import wandb_workspaces.workspaces as ws

    grouping = [ws.Config("variant")] if subject.study else [ws.Config("study"), ws.Config("variant")]
    page_sections = []
    for title, (_, panels) in sections(subject.by).items():
        page_sections.append(ws.Section(title, panels=panels, is_open=title != "Trainings"))
    page = ws.Workspace(
        entity=subject.entity,
        project=subject.project,
        name=subject.title,
        sections=page_sections,
        settings=ws.WorkspaceSettings(max_runs=100),
        runset_settings=ws.RunsetSettings(filters=subject.filters, groupby=grouping, pinned_columns=list(COLUMNS)),
    )
    page._internal_name = f"nw-{subject.view}-v"  # the package has no public way to name a workspace
    return page


def report(subject: Subject) -> Any:
    """Return a ``Report`` that has not been saved."""
    import wandb_workspaces.reports.v2 as wr

    runs = {"name": subject.study or "all runs", "filters": subject.filters, "groupby": [f"config.{subject.by}"]}
    blocks: list[Any] = [
        wr.P(
            f"Made by `python -m mathse dashboard`, which renews it. {subject.means} "
            "Intervals and paired differences are in experiments/."
        ),
        wr.TableOfContents(),
    ]
    for title, (sentence, panels) in sections(subject.by).items():
        blocks += [wr.H2(title), wr.P(sentence), wr.PanelGrid(runsets=[wr.Runset(**runs)], panels=panels)]
    return wr.Report(
        project=subject.project,
        entity=subject.entity,
        title=subject.title,
        description=f"Results of MathSE's runs by {subject.by}; the seeds share a line.",
        blocks=blocks,
        width="fluid",
    )


def page_spec(page: Any) -> Any:
    """Return the spec that saving a workspace or a report sends, as JSON values."""
    return page._to_model().spec.model_dump(mode="json", by_alias=True, exclude_none=True)


def sections(by: str) -> dict[str, tuple[str, Panels]]:
    """Return title -> (sentence, panels), made anew for each page, since a panel has its place on a single page.

    Args:
        by: the setting that groups the runs, ``variant`` or ``study``. A group is a line or a bar: its mean, with its
            least and greatest value.
    """
    import wandb_workspaces.reports.v2 as wr

    def group_options() -> dict[str, Any]:
        means = {"groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}
        return {"groupby": wr.Config(by), **means, "max_runs_to_show": 100}

    def round_curve(title: str, metric: str) -> Any:
        return wr.LinePlot(title=title, x="round", y=[metric], title_x="round", **group_options())

    def bars(title: str, metric: str) -> Any:
        return wr.BarPlot(title=title, metrics=[metric], max_bars_to_show=50, **group_options())

    def loss_curve(title: str, regex: str) -> Any:
        return wr.LinePlot(title=title, x="fit/step", metric_regex=regex, title_x="optimiser steps of the run")

    return {
        "Accuracy": (
            "Test accuracy of each stage's student. Rounds: base -1, distill 0, then round_01 and on; the final "
            "student, after reflection, comes behind the last round.",
            [
                round_curve("Test accuracy by round", "round/accuracy"),
                *(bars(f"Test accuracy: {stage}", f"{stage}/accuracy") for stage in ACCURACY_STAGES),
            ],
        ),
        "Acceptance": (
            "The share of a round's paths that the judge accepts into D_SFT, and the share of these that is right: by "
            "the answer, and step by step if the data can check steps.",
            [
                round_curve("Share of paths accepted", "round/acceptance"),
                round_curve("Right among the accepted, by answer", "round/acceptance_precision"),
                round_curve("Right among the accepted, step by step", "round/step_precision"),
                round_curve("Rows of D_SFT", "round/train_rows"),
            ],
        ),
        "ORM": (
            "The Outcome Reward Model on held-out paths: of each round's student, and of the weak students that it was "
            "trained on.",
            [
                *(round_curve(f"Student's paths: {name}", f"round/orm/{share}") for share, name in ORM_SHARES.items()),
                *(bars(f"Weak students' paths: {name}", f"orm/{share}") for share, name in ORM_SHARES.items()),
            ],
        ),
        "Trainings": (
            "Loss and validation loss of every training over the run's optimiser steps.",
            [loss_curve("Loss", r"fit/.*/loss"), loss_curve("Validation loss", r"fit/.*/val_loss")],
        ),
        "Samples": (
            "Paths with picture, verdict and critique; a run that is made again shows the same paths.",
            [
                wr.WeavePanelSummaryTable(table_name=f"samples/{stage}", layout=wr.Layout(w=24, h=12))
                for stage in SAMPLE_STAGES
            ],
        ),
        "Runs compared": (
            "Settings and figures in which the runs differ.",
            [wr.RunComparer(diff_only="split", layout=wr.Layout(w=24, h=16))],
        ),
    }
