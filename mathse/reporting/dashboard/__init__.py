"""``python -m mathse dashboard --project X``: a W&B project's workspace and report, made from code.

    python -m mathse dashboard --project mathse
    python -m mathse dashboard --project mathse --entity my-team --study table3_reflection
    python -m mathse dashboard --project mathse --study rounds --dry-run > dashboard.json

With ``--study`` both show the runs of that study (the W&B group that ``logger=wandb`` puts them into) by variant, else
all runs by study. A second start renews what the first one made. ``--dry-run`` writes the spec of both as JSON to
stdout and needs neither login nor network. Needs ``pip install '.[dashboards]'``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mathse.config.extras import explain_missing
from mathse.config.program import format_command
from mathse.errors import RunError
from mathse.reporting.dashboard.pages import Subject, report, spec, workspace
from mathse.runs.store import to_json


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code; raises RunError without the package or a login, and where W&B refuses."""
    parser = argparse.ArgumentParser(
        prog=format_command("dashboard"), description="The W&B workspace and report of a project, or of one study"
    )
    parser.add_argument("--project", required=True, help="the W&B project, as in logger.project")
    parser.add_argument("--entity", default="", help="a user or a team; default: the login's own")
    parser.add_argument("--study", help="only the runs of this study, by variant")
    parser.add_argument("--dry-run", action="store_true", help="print the spec as JSON; no login, no network")
    arguments = parser.parse_args(argv)
    if sentence := explain_missing("dashboards"):
        raise RunError(f"mathse dashboard: {sentence}")
    subject = Subject(arguments.project, arguments.entity, arguments.study)
    if arguments.dry_run:
        print(to_json({"workspace": spec(workspace(subject)), "report": spec(report(subject))}, indent=2))
        return 0
    from mathse.reporting.dashboard.online import save

    for url in save(subject):
        print(url)
    return 0
