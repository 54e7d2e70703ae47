"""``python -m mathse report --all``: one page over all runs and studies, with links to each run's own report.

The user's own runs stand first; the studies that a checkout brings along, and what was run of them, after.

A run that cannot be read is named on the page; it must not hide the others.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mathse.errors import DataError, MathSEError, RunError
from mathse.reporting.report.page import Markup, figure, html, section, table
from mathse.reporting.report.svg import percent, safe, tag
from mathse.runs.layout import stage_order
from mathse.runs.reader import Run, read_run, runs_below
from mathse.runs.store import read_json

QUESTION = re.compile(r"\*\*Question\.\*\*\s+(.+?)(?:\n\s*\n|\Z)", re.DOTALL)  # of a study's README
NO_STAGE = "\N{EN DASH}"


def site_page(roots: Sequence[Path], experiments: Path, out: Path, report_of: Callable[[Path], Path]) -> str:
    """The page that will stand at ``out``. ``report_of`` gives a run folder's report, and writes it where there is
    none. Raises RunError where there is neither a run below ``roots`` nor a study's result in ``experiments``."""
    studies: dict[str, dict[str, Any]] = {}  # name -> its results.json
    for file in sorted(experiments.glob("*/results.json")):
        results: Any = read_json(file)
        if not isinstance(results, dict) or not all(isinstance(results.get(key), list) for key in ("table", "seeds")):
            raise DataError(f"{file}: is no study's results; make it again: python -m mathse study {file.parent.name}")
        studies[file.parent.name] = results

    runs: list[Run] = []
    links: dict[Path, str] = {}  # run folder -> its report, from the page
    damaged: list[str] = []  # what is wrong with a run folder
    unreported: list[str] = []  # what is wrong with a file that only the run's own page reads
    for folder in runs_below(roots):
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
    damaged += unreported
    if not runs and not studies and not damaged:
        listed = ", ".join(map(str, roots))
        raise RunError(f"report --all: no run in {listed} and no results.json in {experiments}/*; run something first")

    head = ("run", "task", "seed", "status", "last stage", "test accuracy", "ORM on held-out paths")
    of_user = [_run_row(run, links[run.folder]) for run in runs if run.config.get("study") not in studies]
    of_studies = [_run_row(run, links[run.folder]) for run in runs if run.config.get("study") in studies]
    parts = [section("runs", "Your runs", "", table(head, of_user, "") if of_user else "")]
    parts += [_study(experiments / name, results, runs, links) for name, results in studies.items()]
    parts.append(section("study-runs", "Runs of the studies", "", table(head, of_studies, "") if of_studies else ""))
    reasons = "".join(f"<li>{safe(reason)}</li>" for reason in damaged)
    parts.append(section("damaged", "Runs that cannot be read", "", f"<ul>{reasons}</ul>" if reasons else ""))
    of_study = {_anchor(name): name.replace("_", " ") for name in studies}
    names = {"runs": "Your runs", **of_study, "study-runs": "Runs of studies", "damaged": "Damaged"}
    counts = f"{len(runs)} runs, {len(studies)} studies"
    header = f'<p class="eyebrow">MathSE · {counts}</p><h1>Runs and studies</h1>'
    return html("runs and studies", header, parts, names)


def _study(folder: Path, results: Mapping[str, Any], runs: Sequence[Run], links: Mapping[Path, str]) -> str:
    """A study's question, picture and table, and the reports of its runs that are here."""
    name, readme, drawing = folder.name, folder / "README.md", folder / "result.svg"
    body = ""
    if drawing.is_file():
        # As an image, so that its style stays its own.
        source = "data:image/svg+xml;base64," + base64.b64encode(drawing.read_bytes()).decode("ascii")
        body += figure(tag("img", src=source, alt=f"the result of {name}; the table has the numbers", class_="study"))
    head, *rows = results["table"]
    body += table(head, rows, "")
    reports = ", ".join(
        _link(f"{run.config.get('variant')}, seed {run.seed}", links[run.folder])
        for run in runs
        if run.config.get("study") == name
    )
    body += f"<p>Reports: {reports}</p>" if reports else "<p>None of its runs is in this place.</p>"

    finding = f"Seeds {', '.join(map(str, results['seeds']))}."
    if readme.is_file() and (match := QUESTION.search(readme.read_text(encoding="utf-8", errors="replace"))):
        question = safe(re.sub(r"\s+", " ", match[1]))
        finding = re.sub(r"`([^`]+)`", r"<code>\1</code>", question) + " " + finding
    return section(_anchor(name), name.replace("_", " "), finding, body)


def _run_row(run: Run, link: str) -> list[object]:
    name = run.name if run.config.get("study") else f"{run.name} ({run.folder.name})"
    scored = sorted((e for e in run.entries if e.get("accuracy") is not None), key=lambda e: stage_order(e["stage"]))
    last = scored[-1] if scored else {}
    orm = (run.orm or {}).get("overall_accuracy")
    status = "finished" if run.finished else "not finished"
    figures = (last.get("stage", NO_STAGE), percent(last.get("accuracy")), percent(orm))
    return [Markup(_link(name, link)), run.task, run.seed, status, *figures]


def _anchor(study: str) -> str:
    return "study-" + re.sub(r"[^\w.-]", "-", study)


def _link(text: str, target: str) -> str:
    return tag("a", safe(text), href=quote(Path(target).as_posix()))
