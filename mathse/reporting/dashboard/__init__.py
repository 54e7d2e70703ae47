"""``python -m mathse dashboard --project X``: the workspace and the report of a W&B project, made from code.

    python -m mathse dashboard --project mathse
    python -m mathse dashboard --project mathse --entity my-team --study table3_reflection
    python -m mathse dashboard --project mathse --study rounds --dry-run > dashboard.json

With ``--study`` both pages show the runs of that study (its W&B group, set by ``logger=wandb``) by variant; without it
all runs by study. A second start renews both pages. ``--dry-run`` writes their spec as JSON to stdout and needs neither
login nor network. Needs ``pip install '.[dashboards]'``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from mathse.config.extras import missing
from mathse.config.program import program
from mathse.errors import RunError
from mathse.reporting.dashboard.pages import Subject, page_spec, report, workspace
from mathse.runs.store import to_json


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand and return its exit code.

    Raises RunError without the package or a login, and if W&B refuses.
    """
    parser = argparse.ArgumentParser(
        prog=program("dashboard"), description="The W&B workspace and report of a project, or of one study"
    )
    parser.add_argument("--project", required=True, help="the W&B project, as in logger.project")
    parser.add_argument("--entity", default="", help="a user or a team; default: the login's own")
    parser.add_argument("--study", help="only the runs of this study, by variant")
    parser.add_argument("--dry-run", action="store_true", help="print the spec as JSON; no login, no network")
    arguments = parser.parse_args(argv)
    if sentence := missing("dashboards"):
        raise RunError(f"mathse dashboard: {sentence}")
    subject = Subject(arguments.project, arguments.entity, arguments.study)
    if arguments.dry_run:
        specs = {"workspace": page_spec(workspace(subject)), "report": page_spec(report(subject))}
        print(to_json(specs, indent=2))
        return 0
    for url in save(subject):
        print(url)
    return 0


def save(subject: Subject) -> list[str]:
    """Make or renew both pages and return their URLs. An existing page of the same study is rewritten.

    Raises RunError without a login, and if W&B refuses.
    """
    import wandb

    refusals: tuple[type[Exception], ...] = (wandb.Error,)
    try:
        # This error of W&B's server has no public name, and other versions have it elsewhere.
        from wandb.sdk.lib.service.service_connection import WandbApiFailedError

        refusals = (wandb.Error, WandbApiFailedError)
    except ImportError:
        pass

    try:
        api = wandb.Api()
        subject = Subject(subject.project, subject.entity or api.default_entity, subject.study)
        # In a missing project W&B would make an empty project for the report, and fail for the workspace.
        projects = [project.name for project in api.projects(subject.entity)]
        if subject.project not in projects:
            known = ", ".join(sorted(projects)[:10]) or "none"
            raise RunError(
                f"--project {subject.project}: {subject.entity} has no such project, there are: {known}; start a run "
                f"with logger=wandb logger.project={subject.project}, or `wandb sync` an offline one"
            )
        return [_save_workspace(subject, api.settings["base_url"]), _save_report(subject, api)]
    except refusals as e:
        reason = " ".join(str(e).split())
        remedy = "run `wandb login` first, name a project of yours, or see the spec with --dry-run"
        raise RunError(f"W&B did not take the dashboard of {subject.project}: {reason}; {remedy}") from e


def _save_workspace(subject: Subject, base_url: str) -> str:
    import wandb_workspaces.workspaces as ws

    page = workspace(subject)
    try:
        old = ws.Workspace.from_url(f"{base_url}/{subject.entity}/{subject.project}?nw={subject.view}")
    except ValueError:  # the project has no such workspace
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
