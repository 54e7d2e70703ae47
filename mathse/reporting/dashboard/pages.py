"""The workspace and the report of a project or of one study, as the objects of the ``wandb-workspaces`` package.

They are made from code so that every project shows the same panels, under the names that the loggers send.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from mathse.reporting.dashboard.panels import sections

COLUMNS = ["summary:last/stage", "summary:last/accuracy", "summary:orm/overall_accuracy"]  # of the table of runs


@dataclass(frozen=True)
class Subject:
    """What is shown: the runs of a W&B group (a study), else all of a project. ``entity``: empty before a login."""

    project: str
    entity: str = ""
    study: str | None = None

    @property
    def title(self) -> str:
        return f"MathSE: {self.study or 'all studies'}"

    @property
    def by(self) -> str:
        """The setting whose values the panels tell apart."""
        return "variant" if self.study else "study"

    @property
    def means(self) -> str:
        """What a line or a bar is the mean of."""
        if self.study:
            return "A line or bar is the mean over a variant's seeds, with the least and the greatest value."
        return (
            "A line or bar is the mean over all variants and seeds of a study, with the least and the greatest value; "
            "--study NAME tells the variants apart."
        )

    @property
    def view(self) -> str:
        """The workspace's place in its URL: the same for the same study, so that a second start finds it again."""
        return hashlib.sha256(f"mathse/{self.study or ''}".encode()).hexdigest()[:11]

    @property
    def filters(self) -> list[Any]:
        import wandb_workspaces.workspaces as ws

        return [ws.Metric("Group") == self.study] if self.study else []


def workspace(subject: Subject) -> Any:
    """A ``Workspace`` that has not been saved."""
    import wandb_workspaces.workspaces as ws

    grouping = [ws.Config("variant")] if subject.study else [ws.Config("study"), ws.Config("variant")]
    page = ws.Workspace(
        entity=subject.entity,
        project=subject.project,
        name=subject.title,
        sections=[
            ws.Section(title, panels=panels, is_open=title != "Fits")
            for title, (_, panels) in sections(subject.by).items()
        ],
        settings=ws.WorkspaceSettings(max_runs=100),
        runset_settings=ws.RunsetSettings(filters=subject.filters, groupby=grouping, pinned_columns=list(COLUMNS)),
    )
    page._internal_name = f"nw-{subject.view}-v"  # its only way to be given a name; without one W&B draws one
    return page


def report(subject: Subject) -> Any:
    """A ``Report`` that has not been saved."""
    import wandb_workspaces.reports.v2 as wr

    runs = {"name": subject.study or "all runs", "filters": subject.filters, "groupby": [f"config.{subject.by}"]}
    blocks: list[Any] = [
        wr.P(
            f"Made by `python -m mathse dashboard`, which writes it anew. {subject.means} "
            "Intervals and paired differences are in experiments/."
        ),
        wr.TableOfContents(),
    ]
    for title, (shows, panels) in sections(subject.by).items():
        blocks += [wr.H2(title), wr.P(shows), wr.PanelGrid(runsets=[wr.Runset(**runs)], panels=panels)]
    return wr.Report(
        project=subject.project,
        entity=subject.entity,
        title=subject.title,
        description=f"What the runs of MathSE say, by {subject.by}; seeds are drawn together.",
        blocks=blocks,
        width="fluid",
    )


def spec(page: Any) -> Any:
    """What saving a workspace or a report sends, as plain JSON values."""
    return page._to_model().spec.model_dump(mode="json", by_alias=True, exclude_none=True)
