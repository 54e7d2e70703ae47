"""Saving the pages in W&B: an existing workspace or report of the same study is written anew, not added to."""

from __future__ import annotations

from typing import Any

from mathse.errors import RunError
from mathse.reporting.dashboard.pages import Subject, report, workspace


def save(subject: Subject) -> list[str]:
    """Make or renew both pages; their URLs. Raises RunError without a login, and where W&B refuses."""
    import wandb

    try:
        api = wandb.Api()
        subject = Subject(subject.project, subject.entity or api.default_entity, subject.study)
        # Runs come before their dashboard; W&B would make an empty project for a report, and fail for a workspace.
        projects = [project.name for project in api.projects(subject.entity)]
        if subject.project not in projects:
            known = ", ".join(sorted(projects)[:10]) or "none"
            raise RunError(
                f"--project {subject.project}: {subject.entity} has no such project, there are: {known}; start a run "
                f"with logger=wandb logger.project={subject.project}, or `wandb sync` an offline one"
            )
        return [_save_workspace(subject, api.settings["base_url"]), _save_report(subject, api)]
    except _refusals() as e:
        reason = " ".join(str(e).split())
        remedy = "run `wandb login` first, name a project of yours, or see the spec with --dry-run"
        raise RunError(f"W&B did not take the dashboard of {subject.project}: {reason}; {remedy}") from e


def _refusals() -> tuple[type[Exception], ...]:
    """What W&B's client raises where it or its server refuses; the second kind has no public name."""
    import wandb

    try:
        from wandb.sdk.lib.service.service_connection import WandbApiFailedError
    except ImportError:  # another version has it elsewhere
        return (wandb.Error,)
    return wandb.Error, WandbApiFailedError


def _save_workspace(subject: Subject, base_url: str) -> str:
    import wandb_workspaces.workspaces as ws

    page = workspace(subject)
    try:
        old = ws.Workspace.from_url(f"{base_url}/{subject.entity}/{subject.project}?nw={subject.view}")
    except ValueError:  # not there yet
        old = None
    if old is not None:
        old.name, old.sections = page.name, page.sections
        old.settings, old.runset_settings = page.settings, page.runset_settings
        page = old
    return str(page.save().url)


def _save_report(subject: Subject, api: Any) -> str:
    page = report(subject)
    for old in api.reports(f"{subject.entity}/{subject.project}"):
        if old.display_name == page.title:
            page.id = old.id
            break
    return str(page.save().url)
