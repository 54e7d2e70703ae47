"""``python -m mathse report --all``: a page over all runs and studies, with a link to the report of each run.

The page names each run that cannot be read, and shows all others.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from mathse.errors import DataError, MathSEError, RunError
from mathse.reporting.charts import safe
from mathse.reporting.pages import NONE, render
from mathse.reporting.progress.wording import percent
from mathse.runs.layout import stage_order
from mathse.runs.reader import Run, find_runs, read_run
from mathse.runs.store import read_json

QUESTION = re.compile(r"\*\*Question\.\*\*\s+(.+?)(?:\n\s*\n|\Z)", re.DOTALL)  # of a study's README


def site_page(roots: Sequence[Path], experiments: Path, out: Path, report_of: Callable[[Path], Path]) -> str:
    """Return the page.

    Args:
        roots: folders with run folders below them.
        experiments: folder with the studies' folders.
        out: the page's file; links start there.
        report_of: returns the report of a run folder, and writes a missing report.

    Raises RunError if there is neither a run below ``roots`` nor a study's result in ``experiments``.
    """
    studies: dict[str, dict[str, Any]] = {}  # name -> results.json
    for file in sorted(experiments.glob("*/results.json")):
        results: Any = read_json(file)
        if not isinstance(results, dict) or not all(isinstance(results.get(key), list) for key in ("table", "seeds")):
            raise DataError(f"{file}: is no study's results; make it again: python -m mathse study {file.parent.name}")
        studies[file.parent.name] = results

    runs: list[Run] = []
    links: dict[Path, str] = {}  # run folder -> link to its report, relative to the page
    damaged: list[str] = []  # errors of run folders
    unreported: list[str] = []  # errors of files that only a run's own page reads
    for folder in find_runs(roots):
        try:
            run = read_run(folder)
        except MathSEError as e:
            damaged.append(str(e))
            continue
        try:
            links[folder] = os.path.relpath(report_of(folder), out.parent)
            runs.append(run)
        except MathSEError as e:
            unreported.append(str(e))
    if not (runs or studies or damaged or unreported):
        listed = ", ".join(map(str, roots))
        raise RunError(f"report --all: no run in {listed} and no results.json in {experiments}/*; run something first")

    return render(
        "reporting/templates/site.html.j2",
        "runs and studies",
        counts=f"{len(runs)} runs, {len(studies)} studies",
        # Runs outside the studies come first, runs of studies last.
        own_runs=[_run_row(run, links[run.folder]) for run in runs if run.config.get("study") not in studies],
        studies=[_study(experiments / name, results, runs, links) for name, results in studies.items()],
        study_runs=[_run_row(run, links[run.folder]) for run in runs if run.config.get("study") in studies],
        damaged=damaged + unreported,
    )


def _study(
    folder: Path, results: Mapping[str, Any], runs: Sequence[Run], links: Mapping[Path, str]
) -> dict[str, object]:
    """Return a study's question, picture and table, with the reports of its runs."""
    name, readme, picture = folder.name, folder / "README.md", folder / "result.svg"
    question = ""
    if readme.is_file() and (match := QUESTION.search(readme.read_text(encoding="utf-8", errors="replace"))):
        question = re.sub(r"\s+", " ", match[1])
    members = [run for run in runs if run.config.get("study") == name]
    return {
        "name": name,
        "anchor": "study-" + re.sub(r"[^\w.-]", "-", name),
        "title": name.replace("_", " "),
        "question": re.split(r"`([^`]+)`", question),  # text and code alternate
        "seeds": ", ".join(map(str, results["seeds"])),
        "picture": base64.b64encode(picture.read_bytes()).decode("ascii") if picture.is_file() else None,
        "table": results["table"],
        "reports": [(f"{run.config.get('variant')}, seed {run.seed}", _quote(links[run.folder])) for run in members],
    }


def _run_row(run: Run, link: str) -> dict[str, object]:
    name = run.name if run.config.get("study") else f"{run.name} ({run.folder.name})"
    scored = sorted((e for e in run.entries if e.get("accuracy") is not None), key=lambda e: stage_order(e["stage"]))
    last = scored[-1] if scored else {}
    return {
        "run": Markup(f'<a href="{safe(_quote(link))}">{safe(name)}</a>'),
        "task": run.task,
        "seed": run.seed,
        "status": "finished" if run.finished else "not finished",
        "last stage": last.get("stage", NONE),
        "test accuracy": percent(last.get("accuracy")),
        "ORM on held-out paths": percent((run.orm or {}).get("overall_accuracy")),
    }


def _quote(target: str) -> str:
    """Turn a path into the address of a link."""
    return quote(Path(target).as_posix())
