"""``python -m mathse report --all``: one page over all studies and runs, with links to each run's own report."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mathse.errors import DataError, MathSEError, RunError
from mathse.reporting.report.page import html
from mathse.reporting.report.sections import section, table
from mathse.reporting.report.svg import percent, safe, tag
from mathse.runs.layout import stage_order
from mathse.runs.reader import Run, read_run, runs_below
from mathse.runs.store import read_json

QUESTION = re.compile(r"\*\*Question\.\*\*\s+(.+?)(?:\n\s*\n|\Z)", re.DOTALL)
NO_RUN = "\N{EN DASH}"


def site_page(roots: Sequence[Path], experiments: Path, out: Path, report_of: Callable[[Path], Path]) -> str:
    """The page that will stand at ``out``. ``report_of`` gives a run folder's report, and writes it where there is
    none. Raises RunError where there is neither a run below ``roots`` nor a study's result in ``experiments``."""
    runs, damaged = _runs(roots)
    studies = {file.parent.name: _read_results(file) for file in sorted(experiments.glob("*/results.json"))}
    if not runs and not studies and not damaged:
        listed = ", ".join(map(str, roots))
        raise RunError(f"report --all: no run in {listed} and no results.json in {experiments}/*; run something first")
    links: dict[Path, str] = {}
    for run in runs:
        try:
            links[run.folder] = os.path.relpath(report_of(run.folder), out.parent)
        except MathSEError as e:  # a file that only the run's own page reads
            damaged.append(str(e))
    runs = [run for run in runs if run.folder in links]
    parts = [_study(experiments / name, found, runs, links) for name, found in studies.items()]
    parts.append(section("runs", "Every run", "", _run_table(runs, links)))
    listed = "".join(f"<li>{safe(said)}</li>" for said in damaged)
    parts.append(section("damaged", "Runs that cannot be read", "", f"<ul>{listed}</ul>" if listed else ""))
    names = {_anchor(name): name.replace("_", " ") for name in studies} | {"runs": "Runs", "damaged": "Damaged"}
    counted = f"{len(studies)} studies, {len(runs)} runs"
    header = f'<p class="eyebrow">MathSE · {counted}</p><h1>Studies and runs</h1>'
    return html("studies and runs", header, parts, names)


def _runs(roots: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """The runs below ``roots``, and what is wrong with those that cannot be read."""
    runs, damaged = [], []
    for folder in runs_below(roots):
        try:
            runs.append(read_run(folder))
        except MathSEError as e:
            damaged.append(str(e))
    return runs, damaged


def _read_results(file: Path) -> dict[str, Any]:
    found: Any = read_json(file)
    if not isinstance(found, dict) or not all(isinstance(found.get(key), list) for key in ("table", "seeds")):
        raise DataError(f"{file}: is no study's results; make it again: python -m mathse study {file.parent.name}")
    return found


def _anchor(study: str) -> str:
    return "study-" + re.sub(r"[^\w.-]", "-", study)


def _study(folder: Path, found: Mapping[str, Any], runs: Sequence[Run], links: Mapping[Path, str]) -> str:
    """A study's question, picture and table, and the reports of its runs that are here."""
    name, readme = folder.name, folder / "README.md"
    asked = QUESTION.search(readme.read_text(encoding="utf-8", errors="replace")) if readme.is_file() else None
    drawing = folder / "result.svg"
    body = _picture(drawing, name) if drawing.is_file() else ""
    head, *rows = found["table"]
    body += table(head, rows, "")
    own = [run for run in runs if run.config.get("study") == name]
    listed = ", ".join(_link(f"{run.config.get('variant')}, seed {run.seed}", links[run.folder]) for run in own)
    body += f"<p>Reports: {listed}</p>" if listed else "<p>None of its runs is in this place.</p>"
    seeds = ", ".join(map(str, found["seeds"]))
    question = safe(re.sub(r"\s+", " ", asked[1])) if asked else ""
    finding = re.sub(r"`([^`]+)`", r"<code>\1</code>", question)
    return section(_anchor(name), name.replace("_", " "), f"{finding} Seeds {seeds}.".strip(), body)


def _picture(file: Path, name: str) -> str:
    """As an image, so that its style stays its own."""
    source = "data:image/svg+xml;base64," + base64.b64encode(file.read_bytes()).decode("ascii")
    return f"<figure>{tag('img', src=source, alt=name, style='max-width:100%')}</figure>"


def _run_table(runs: Sequence[Run], links: Mapping[Path, str]) -> str:
    if not runs:
        return ""
    head = ("run", "task", "seed", "status", "last stage", "test accuracy", "ORM on held-out paths")
    rows = "".join(_row(run, links[run.folder]) for run in runs)
    names = "".join(f"<th>{safe(name)}</th>" for name in head)
    return f'<div class="scroll"><table><thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table></div>'


def _row(run: Run, link: str) -> str:
    cells = "".join(f"<td>{safe(cell)}</td>" for cell in _cells(run))
    return f"<tr><th>{_link(_name(run), link)}</th>{cells}</tr>"


def _cells(run: Run) -> tuple[str, ...]:
    scored = sorted((e for e in run.entries if e.get("accuracy") is not None), key=lambda e: stage_order(e["stage"]))
    last = scored[-1] if scored else {}
    orm = (run.orm or {}).get("overall_accuracy")
    status = "finished" if run.finished else "not finished"
    return run.task, str(run.seed), status, last.get("stage", NO_RUN), percent(last.get("accuracy")), percent(orm)


def _name(run: Run) -> str:
    return run.name if run.config.get("study") else f"{run.name} ({run.folder.name})"


def _link(words: str, target: str) -> str:
    return tag("a", safe(words), href=quote(Path(target).as_posix()))
