"""One run's page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

from mathse.reporting.progress.wording import duration
from mathse.reporting.report import judging, sections
from mathse.reporting.report.cards import Pictures, cards
from mathse.reporting.report.gallery import ProblemOf, gallery
from mathse.reporting.report.svg import percent, points, safe, span
from mathse.runs.layout import title
from mathse.runs.reader import Run

NAMES = {
    "accuracy": "Accuracy",
    "runs": "Runs",
    "transitions": "Transitions",
    "selectors": "Samples",
    "buckets": "Groups",
    "compared": "Compared",
    "tables": "The paper's tables",
    "contamination": "Training data",
    "mistakes": "Mistakes",
    "disagreements": "math-verify",
    "wrong": "Wrong answers",
    "protocol": "Protocol",
    "acceptance": "Judge",
    "orm": "ORM",
    "data": "Data",
    "fits": "Fits",
    "time": "Time",
    "gallery": "Paths",
    "notes": "Notes",
    "settings": "Settings",
}


def run_page(run: Run, problem_of: ProblemOf, image_png: Callable[[str], bytes]) -> str:
    """The report of one run as HTML; image_png may raise MathSEError where a picture is gone."""
    groups = gallery(run, problem_of)
    finding = (
        "A choice of paths from every stage, spread evenly over right and wrong decisions, so mistakes are far more "
        "frequent here than in the run. The step that the judge names is marked. Whether the judge was right goes by "
        "the reference answer; of the ORM's held-out paths, by the label of their steps."
    )
    parts = [
        sections.accuracy(run),
        sections.changes(run),
        judging.acceptance(run),
        judging.orm(run),
        sections.data(run),
        sections.fits(run),
        sections.time(run),
        sections.section("gallery", "Paths, verdicts, reflections", finding, cards(groups, Pictures(image_png))),
        sections.notes(run),
        sections.settings(run),
    ]
    return html(f"{run.name}, seed {run.seed}", _header(run), parts)


def html(heading: str, header: str, parts: Sequence[str], names: Mapping[str, str] = NAMES) -> str:
    """A whole page: it loads nothing, and its policy forbids loading anything or running any script but its own.

    ``names``: what a section is called in the bar at its side, by its anchor.
    """
    script = _file("app.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    drawn = [part for part in parts if part]
    links = "".join(
        f'<a href="#{name}">{words}</a>'
        for name, words in names.items()
        if any(part.startswith(f'<section id="{name}"') for part in drawn)
    )
    return Template(_file("template.html")).substitute(
        title=safe(heading),
        style=_file("style.css") + _file("chart.css"),
        script=script,
        digest=digest,
        header=header,
        links=links,
        sections="\n".join(drawn),
    )


def _file(name: str) -> str:
    return files("mathse.reporting.report").joinpath(name).read_text(encoding="utf-8")


def _header(run: Run) -> str:
    status = (
        ""
        if run.finished
        else (
            '<p class="banner">This run has not finished. What follows is what its finished stages say so far: '
            + (safe(", ".join(title(stage.name) for stage in run.stages)) or "none yet")
            + ".</p>"
        )
    )
    figures = "".join(
        f"<div><dt>{safe(name)}</dt><dd>{safe(value)}<small>{safe(more)}</small></dd></div>"
        for name, value, more in _figures(run)
    )
    return (
        f'<p class="eyebrow">MathSE · {safe(run.task)} · seed {run.seed}</p><h1>{safe(run.name)}</h1>'
        f'<p class="result">{result(run)}</p>{status}<dl class="figures">{figures}</dl>'
    )


def result(run: Run) -> str:
    """The outcome in a sentence or two, with its numbers (markup)."""
    scored = [e for e in run.entries if e.get("accuracy") is not None]
    if not scored:
        return _result_without_scores(run)
    last = scored[-1]
    first = next((e for e in scored if e["stage"] == "distill"), scored[0])
    words = (
        f"On {last['n']:,} unseen test problems the student of stage “{safe(title(last['stage']))}” answers "
        f"<b>{percent(last['accuracy'])}</b> right"
    )
    if first is last:
        return f"{words} (95% interval {span(last['ci95'])})."
    apart = "the 95% intervals are apart" if _apart(first, last) else "the 95% intervals overlap"
    since = "after distillation" if first["stage"] == "distill" else f"at stage “{safe(title(first['stage']))}”"
    gain = points(last["accuracy"] - first["accuracy"])
    return f"{words}, against {percent(first['accuracy'])} {since}: <b>{gain} points</b>, {apart}."


def _result_without_scores(run: Run) -> str:
    if run.orm:
        return (
            f"The ORM judges <b>{percent(run.orm.get('overall_accuracy'))}</b> of {run.orm.get('n', 0):,} held-out "
            f"paths rightly and names the first wrong step of {percent(run.orm.get('error_step_accuracy'))} of the "
            "wrong ones."
        )
    done = ", ".join(title(stage.name) for stage in run.stages)
    return f"No student was scored on test problems. Stages made: {safe(done) or 'none'}."


def _apart(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return bool(a["ci95"][1] < b["ci95"][0] or b["ci95"][1] < a["ci95"][0])


def _figures(run: Run) -> list[tuple[str, str, str]]:
    shown = []
    scored = [e for e in run.entries if e.get("accuracy") is not None]
    if scored:
        shown.append(
            (f"accuracy, {title(scored[-1]['stage'])}", percent(scored[-1]["accuracy"]), span(scored[-1]["ci95"]))
        )
    if run.orm and run.orm.get("overall_accuracy") is not None:
        shown.append(
            ("ORM judges rightly", percent(run.orm["overall_accuracy"]), f"{run.orm.get('n', 0):,} held-out paths")
        )
        shown.append(("ORM names the wrong step", percent(run.orm.get("error_step_accuracy")), "of all wrong paths"))
    rounds = [
        e for e in run.entries if str(e["stage"]).startswith("round") and e.get("acceptance_precision") is not None
    ]
    if rounds:
        precisions = " / ".join(percent(e["acceptance_precision"]) for e in rounds)
        shown.append(("accepted paths that are right", precisions, " / ".join(title(e["stage"]) for e in rounds)))
    seconds = sum(sum(sections.own_seconds(stage, run.stages).values()) for stage in run.stages)
    if seconds:
        shown.append(("wall time", duration(seconds), f"{len(run.stages)} stages"))
    return shown
