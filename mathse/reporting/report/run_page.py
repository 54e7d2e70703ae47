"""One run's page: its outcome in a sentence, then section by section what came out and how.

A run can be shown while it is under way: what its unfinished stages would say is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from mathse.reporting.progress.wording import duration
from mathse.reporting.report import run_sections
from mathse.reporting.report.explorer import explorer
from mathse.reporting.report.gallery import Choice, ProblemOf, answers_to_tests, paths
from mathse.reporting.report.listing import Listing, Write, listing_inside, script_json
from mathse.reporting.report.page import html, section
from mathse.reporting.report.svg import gain, percent, safe, span
from mathse.runs.layout import title
from mathse.runs.reader import Run

CRITIQUES = (
    "A critique of the built-in task works each step out anew and compares it figure by figure: <code>2: 7 * 7 = 49: "
    "77 ok 77 ok 44 ok 79 no</code> says of step 2 that 7, 7 and 4 were written as they should be, and 7 for 9."
)


def run_page(
    run: Run, problem_of: ProblemOf, image_png: Callable[[str], bytes], write: Write, parts_folder: str
) -> str:
    """The report of one run as HTML; image_png may raise MathSEError where a picture is gone. All paths go through
    ``write`` into the parts that will stand beside the page in ``parts_folder``; a choice of them is in the page."""
    stamp = hashlib.sha256(repr([(stage.name, stage.sha256) for stage in run.stages]).encode()).hexdigest()[:16]
    choice, listing = Choice(), Listing(stamp, write, image_png)
    for item in paths(run, problem_of):
        choice.add(item)
        listing.add(item)
    for item in answers_to_tests(run, problem_of):
        listing.add(item)
    write("index", script_json(listing.index()))

    groups = choice.groups()
    about = (
        "Every path of every stage, and every student's answers to the test problems. Mixed outcomes put rare "
        "decisions in front, so mistakes are more frequent there than in the run. The step that the judge names is "
        "marked. Whether the judge was right goes by the reference answer; of the ORM's held-out paths, by the label "
        "of their steps."
    )
    if any(item.problem and item.problem.source == "synthetic" for items in groups.values() for item in items):
        about += f" {CRITIQUES}"
    parts = [
        run_sections.accuracy(run),
        run_sections.controls(run),
        run_sections.transitions(run),
        run_sections.acceptance(run),
        run_sections.orm(run),
        run_sections.data(run),
        run_sections.fits(run),
        run_sections.costs(run),
        run_sections.time(run),
        section(
            "gallery",
            "Paths, verdicts, reflections",
            about,
            explorer(listing_inside(groups, image_png, stamp), parts_folder) if groups else "",
        ),
        run_sections.notes(run),
        run_sections.settings(run),
    ]
    banner = f'<p class="banner">{safe(run.config["note"])}</p>' if run.config.get("note") else ""
    if not run.finished:
        stages = safe(", ".join(title(stage.name) for stage in run.stages)) or "none yet"
        banner += (
            '<p class="banner">This run has not finished. What follows is what its finished stages say so far: '
            f"{stages}.</p>"
        )
    figures = "".join(
        f"<div><dt>{safe(name)}</dt><dd>{safe(value)}<small>{safe(remark)}</small></dd></div>"
        for name, value, remark in _figures(run)
    )
    header = (
        f'<p class="eyebrow">MathSE · {safe(run.task)} · seed {run.seed}</p><h1>{safe(run.name)}</h1>'
        f'<p class="result">{outcome(run)}</p>{banner}<dl class="figures">{figures}</dl>'
    )
    return html(f"{run.name}, seed {run.seed}", header, parts)


def outcome(run: Run) -> str:
    """The outcome in a sentence or two, with its numbers (markup)."""
    scored = [e for e in run.entries if e.get("accuracy") is not None]
    if not scored and run.orm:
        return (
            f"The ORM judges <b>{percent(run.orm.get('overall_accuracy'))}</b> of {run.orm.get('n', 0):,} held-out "
            f"paths rightly and names the first wrong step of {percent(run.orm.get('error_step_accuracy'))} of the "
            "wrong ones."
        )
    if not scored:
        stages = ", ".join(title(stage.name) for stage in run.stages)
        return f"No student was scored on test problems. Stages made: {safe(stages) or 'none'}."

    # The last student against the one that was only distilled: what evolving added.
    last = scored[-1]
    first = next((e for e in scored if e["stage"] == "distill"), scored[0])
    sentence = (
        f"On {last['n']:,} unseen test problems the student of stage “{safe(title(last['stage']))}” answers "
        f"<b>{percent(last['accuracy'])}</b> right"
    )
    if first is last:
        return f"{sentence} (95% interval {span(last['ci95'])})."
    (first_low, first_high), (last_low, last_high) = first["ci95"], last["ci95"]
    apart = last_high < first_low or first_high < last_low
    intervals = "the 95% intervals are apart" if apart else "the 95% intervals overlap"
    since = "after distillation" if first["stage"] == "distill" else f"at stage “{safe(title(first['stage']))}”"
    difference = gain(first["accuracy"], last["accuracy"])
    return f"{sentence}, against {percent(first['accuracy'])} {since}: <b>{difference} points</b>, {intervals}."


def _figures(run: Run) -> list[tuple[str, str, str]]:
    """(name, value, remark) of the figures at the top of the page."""
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
    seconds = sum(sum(run_sections.own_seconds(stage, run.stages).values()) for stage in run.stages)
    if seconds:
        shown.append(("wall time", duration(seconds), f"{len(run.stages)} stages"))
    return shown
