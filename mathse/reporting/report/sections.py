"""The sections of a run's page: each a heading, what it shows in a sentence, a chart, and the numbers as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mathse.config.secrets import without_secrets
from mathse.reporting.progress.wording import duration
from mathse.reporting.report import svg
from mathse.reporting.report.bars import Bar, Part, bars
from mathse.reporting.report.flow import KINDS, flow
from mathse.reporting.report.losses import losses
from mathse.reporting.report.staircase import staircase, stairs
from mathse.runs.layout import title
from mathse.runs.reader import FinishedStage, Run
from mathse.runs.settings import flatten

ORIGINS = (("teacher", "teacher's paths"), ("student", "student's own paths"), ("reflection", "reflections"))
WORK = (("fit", "fitting"), ("sample", "sampling"), ("judge", "judging"), ("other", "all else: the loop itself"))


def section(name: str, heading: str, finding: str, body: str) -> str:
    """A section with an anchor; nothing where there is nothing to show. ``finding`` and ``body`` are markup."""
    if not body:
        return ""
    return (
        f'<section id="{name}"><h2>{svg.safe(heading)}</h2>'
        + (f'<p class="finding">{finding}</p>' if finding else "")
        + f"{body}</section>"
    )


def figure(*drawings: str) -> str:
    drawn = "".join(f'<div class="scroll">{d}</div>' for d in drawings if d)
    return f"<figure>{drawn}</figure>" if drawn else ""


class Markup(str):
    """A cell that is markup already; any other cell is escaped."""


def table(head: Sequence[str], rows: Sequence[Sequence[object]], summary: str = "the numbers") -> str:
    """Numbers behind a chart, folded away; the first column names the row. With no summary the table stands open."""

    def written(cell: object, k: int) -> str:
        name = "td" if k else "th"
        return f"<{name}>{cell if isinstance(cell, Markup) else svg.safe(cell)}</{name}>"

    cells = "".join(f"<tr>{''.join(written(cell, k) for k, cell in enumerate(row))}</tr>" for row in rows)
    drawn = (
        f'<div class="scroll"><table><thead><tr>{"".join(f"<th>{svg.safe(h)}</th>" for h in head)}</tr></thead>'
        f"<tbody>{cells}</tbody></table></div>"
    )
    return f"<details><summary>{svg.safe(summary)}</summary>{drawn}</details>" if summary else drawn


def count(value: int | None) -> str:
    """1234 -> "1,234"; nothing -> an en dash."""
    return "\N{EN DASH}" if value is None else f"{value:,}"


def accuracy(run: Run) -> str:
    """The staircase."""
    entries = [e for e in run.entries if e.get("accuracy") is not None]
    if not entries:
        return ""
    rows = [
        (
            title(e["stage"]),
            svg.percent(e["accuracy"]),
            svg.span(e["ci95"]) if e.get("ci95") else "",
            count(e.get("n")),
            count(e.get("train_rows")),
            e.get("skipped_fit") or "",
        )
        for e in entries
    ]
    finding = (
        "Accuracy on unseen test problems, answered greedily. Shaded: 95% intervals (Wilson). "
        "Under each step: its gain in points."
    )
    skipped = [f"{title(e['stage'])}: no fit, {e['skipped_fit']}." for e in entries if e.get("skipped_fit")]
    head = ("stage", "accuracy", "95% interval", "problems", "rows in D_SFT", "no fit because")
    return section(
        "accuracy",
        "Test accuracy by stage",
        svg.safe(" ".join([finding, *skipped])),
        figure(staircase([stairs(run.name, entries)])) + table(head, rows),
    )


def changes(run: Run) -> str:
    """Transitions, as in Figure 2 of the paper."""
    rows = [
        (title(e["stage"]), *(f"{e['transitions'][kind]:,}" for kind in KINDS))
        for e in run.entries
        if e.get("transitions")
    ]
    finding = (
        "Every test problem, from student to student. Right answers are below, wrong ones above; a plus counts "
        "problems newly solved, a minus those unlearned."
    )
    head = ("to", "right, stays right", "right to wrong", "wrong to right", "wrong, stays wrong")
    return section(
        "transitions",
        "What each student learned and unlearned",
        finding,
        figure(flow(run.entries)) + table(head, rows) if rows else "",
    )


def fits(run: Run) -> str:
    """Loss curves."""
    logs = {title(stage.name): stage.curve() for stage in run.stages}
    return section(
        "fits",
        "Loss curves",
        "Training loss a token (line) and validation loss (rings), one logarithmic scale.",
        figure(losses({name: rows for name, rows in logs.items() if rows})),
    )


def data(run: Run) -> str:
    """Who wrote the rows of D_SFT."""
    known = [e for e in run.entries if any((e.get("origins") or {}).values())]
    rows = [
        Bar(
            title(e["stage"]),
            [
                Part(words, e["origins"].get(kind, 0), f"{e['origins'].get(kind, 0):,}", look)
                for (kind, words), look in zip(ORIGINS, ("quiet", "accent", "accent-2"), strict=True)
            ],
            f"{sum(e['origins'].values()):,} rows",
        )
        for e in known
    ]
    return section(
        "data",
        "Where the training rows come from",
        "D_SFT of each fit, by who wrote the path.",
        figure(bars(rows, "Rows of D_SFT by origin")) if known else "",
    )


def time(run: Run) -> str:
    """Where the wall time went, and the loop's own share of it."""
    spent = [(stage, seconds) for stage in run.stages if (seconds := own_seconds(stage, run.stages))]
    total = sum(sum(s.values()) for _, s in spent)
    if not total:
        return ""
    looks = ("accent", "accent-2", "quiet", "signal")
    rows = [
        Bar(
            title(stage.name),
            [Part(words, s[kind], duration(s[kind]), look) for (kind, words), look in zip(WORK, looks, strict=True)],
            duration(sum(s.values())),
        )
        for stage, s in spent
    ]
    share = sum(s["other"] for _, s in spent) / total
    finding = (
        f"{duration(total)} of wall time in all. {svg.percent(share)} of it is neither fitting, sampling nor judging: "
        "the loop's own overhead."
    )
    return section("time", "Where the time went", finding, figure(bars(rows, "Wall time")))


def own_seconds(stage: FinishedStage, stages: Sequence[FinishedStage]) -> dict[str, float]:
    """Seconds of a stage by kind of work, without those of stages inside it that ran meanwhile (``orm/solver``)."""
    seconds = {kind: float((stage.manifest.get("time_s") or {}).get(kind) or 0) for kind, _ in WORK}
    for inner in stages:
        if inner.name.startswith(f"{stage.name}/") and _within(inner.manifest, stage.manifest):
            seconds["other"] = max(0.0, seconds["other"] - float(inner.manifest.get("wall_s") or 0))
    return seconds if sum(seconds.values()) else {}


def _within(inner: Mapping[str, Any], outer: Mapping[str, Any]) -> bool:
    times = [
        str(m.get(k) or "")
        for m, k in ((outer, "started"), (inner, "started"), (inner, "finished"), (outer, "finished"))
    ]
    return all(times) and times == sorted(times)  # UTC in ISO form sorts as text


def settings(run: Run) -> str:
    """Every setting that holds no secret, and what it was run with."""
    told = flatten(without_secrets(run.config))
    rows = [(key, "null" if value is None else value) for key, value in sorted(told.items())]
    return section(
        "settings", "Settings", "", table(("setting", "value"), rows, f"all {len(rows)} settings") + _made_with(run)
    )


def _made_with(run: Run) -> str:
    if not run.stages:
        return ""
    manifest = run.stages[-1].manifest
    rows = [*sorted((manifest.get("versions") or {}).items()), ("git commit", manifest.get("git") or "not known")]
    return table(("made with", "version"), rows, "versions")


def notes(run: Run) -> str:
    """What the run had to say about itself."""
    said = "".join(f"<li>{svg.safe(note)}</li>" for note in run.summary.get("notes") or [])
    return section("notes", "Notes", "", f"<ul>{said}</ul>" if said else "")
