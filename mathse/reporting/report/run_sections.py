"""The sections of a run's page: each a heading, what it shows in a sentence, a chart, and the numbers as a table.

They go in the order of a reader's questions: how good is the student, what did the judge let through, how good is the
ORM, what was trained on, how did the fits go, where did the time go, what was set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from mathse.config.secrets import without_secrets
from mathse.reporting.progress.costs import NAMES, SECONDS, amount, spent, time_computed
from mathse.reporting.progress.wording import duration
from mathse.reporting.report import svg
from mathse.reporting.report.bars import Bar, Part, bars
from mathse.reporting.report.fit_table import HEAD, fit_row, overfitting
from mathse.reporting.report.flow import KINDS, flow
from mathse.reporting.report.losses import losses
from mathse.reporting.report.orm_charts import FIGURES, orm_panels, reliability, student
from mathse.reporting.report.page import count, figure, section, table
from mathse.reporting.report.staircase import staircase, stairs
from mathse.runs.layout import CONTROLS, title
from mathse.runs.ledger import FLOPS, LEDGER, seconds_of, seconds_until, spent_in
from mathse.runs.reader import FinishedStage, Run
from mathse.runs.settings import flatten
from mathse.runs.teacher_calls import CALLS
from mathse.scoring.metrics import wilson

NONE = "\N{EN DASH}"
EQUAL, BEST = "equal_compute", "best_length"  # in controls.json
CONTROL_TITLES = {EQUAL: "distilled rows, equal compute", BEST: "distilled rows, best length on dev"}
ORIGINS = (("teacher", "teacher's paths"), ("student", "student's own paths"), ("reflection", "reflections"))
WORK = (("fit", "fitting"), ("sample", "sampling"), ("judge", "judging"), ("other", "all else: the loop itself"))


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
            count(e.get("teacher_calls")),
            amount(FLOPS, e.get(FLOPS)),
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
    paired = [f"{title(e['stage'])}: {e['pairs']:,} pairs to prefer by." for e in entries if e.get("pairs")]
    head = (
        "stage",
        "accuracy",
        "95% interval",
        "problems",
        "teacher calls",
        "FLOPs",
        "rows in D_SFT",
        "no fit because",
    )
    return section(
        "accuracy",
        "Test accuracy by stage",
        svg.safe(" ".join([finding, *skipped, *paired])),
        figure(lambda width: staircase([stairs(run.name, entries)], width)) + table(head, rows),
    )


def controls(run: Run) -> str:
    """The last student beside the controls of ``mathse control``, or a sentence that there are none."""
    if run.task != "evolve" or not run.finished:
        return ""
    made = run.json(CONTROLS)
    if made is None:
        without = (
            "No control has been made. A gain over the distilled student may be the gain of training longer: mathse "
            "control RUN trains the distilled rows alone with as many operations as the whole run."
        )
        return section("controls", "Against its controls", "A claim without its control.", f"<p>{without}</p>")
    rows = []
    for key, name in CONTROL_TITLES.items():
        control = made[key]
        low, high = control["ci95"]
        rows.append(
            (
                name,
                svg.percent(control["accuracy"]),
                svg.percent(control["run_accuracy"]),
                f"{svg.gain(control['accuracy'], control['run_accuracy'])} [{svg.points(low)}, {svg.points(high)}]",
                f"{control['p']:.2g}",
                count(control["n"]),
                f"{control['flops'] / control['run_flops']:.2f}",
                count(control["steps"]),
            )
        )
    head = (
        "control",
        "its accuracy",
        "the run's",
        "difference, points",
        "p",
        "problems",
        "compute, of the run's",
        "steps",
    )
    finding = (
        "The same base, teacher calls and test problems, without rounds. Differences are paired; 95% intervals by the "
        "bootstrap, p by McNemar's exact test."
    )
    return section("controls", "Against its controls", finding, table(head, rows))


def transitions(run: Run) -> str:
    """Transitions, as in Figure 2 of the paper."""
    rows = [
        (title(e["stage"]), *(f"{e['transitions'][kind]:,}" for kind in KINDS))
        for e in run.entries
        if e.get("transitions")
    ]
    finding = (
        "Every test problem, from student to student. Right answers are below, wrong ones above; a plus counts "
        "problems newly solved, a minus those unlearned. Each band leads to its problems."
    )
    head = ("to", "right, stays right", "right to wrong", "wrong to right", "wrong, stays wrong")
    return section(
        "transitions",
        "What each student learned and unlearned",
        finding,
        figure(lambda width: flow(run.entries, width, _changed)) + table(head, rows) if rows else "",
    )


def _changed(before: str, after: str, kind: str) -> str:
    """The address of the test problems of a transition."""
    return "#gallery?" + urlencode({"from": before, "to": after, "change": kind})


def acceptance(run: Run) -> str:
    """What the judge accepted, stage by stage, and how much of it was right."""
    rows: list[Bar] = []
    numbers: list[tuple[str, ...]] = []
    for e in run.entries:
        if e.get("accepted") is None:
            continue
        accepted, precision = e["accepted"], e.get("acceptance_precision")
        rejected, unparsed = e.get("rejected") or 0, e.get("unparsed") or 0
        right = accepted if precision is None else round(accepted * precision)
        name = "accepted" if precision is None else "accepted, right"
        # What the final student was fitted on was judged in the reflection before it.
        stage = "reflection" if e["stage"] == "final" else str(e["stage"])
        known = {} if precision is None else {"right": "right"}
        parts = [
            Part(name, right, f"{right:,}", "accent", _judged(stage, "accepted", **known)),
            Part(
                "accepted, wrong",
                accepted - right,
                f"{accepted - right:,}",
                "signal",
                _judged(stage, "accepted", right="wrong"),
            ),
            Part("rejected", rejected, f"{rejected:,}", "quiet", _judged(stage, "rejected")),
            Part("unparsed", unparsed, f"{unparsed:,}", "faint", _judged(stage, "unparsed")),
        ]
        rows.append(Bar(title(e["stage"]), parts, svg.percent(precision)))
        share = NONE
        if precision is not None and accepted:
            share = f"{svg.percent(precision)} {svg.span(wilson(right, accepted))}"
        counts = (count(e.get(key)) for key in ("accepted", "rejected", "unparsed"))
        numbers.append((title(e["stage"]), *counts, share, svg.percent(e.get("step_precision"))))
    head = ("stage", "accepted", "rejected", "unparsed", "precision (95% interval)", "all steps right too")
    finding = "Precision is the share of accepted paths that end in the reference answer."
    judge = run.config.get("judge", {})
    if judge.get("name") == "orm" and judge.get("checkpoint") is None:  # another run's ORM has that run's form
        orm = run.config.get("orm", {})
        finding += f" The judge {'sees' if orm.get('see_answer') else 'does not see'} that answer."
        if orm.get("own_answer"):
            finding += " It answers each problem itself, and compares with that."
    return section(
        "acceptance",
        "What the judge let through",
        finding,
        figure(lambda width: bars(rows, "Paths judged", "precision", width)) + table(head, numbers) if rows else "",
    )


def _judged(stage: str, verdict: str, **known: str) -> str:
    """The address of the paths of a stage that the judge decided so."""
    return "#gallery?" + urlencode({"stage": title(stage), "verdict": verdict, **known})


def orm(run: Run) -> str:
    """The ORM on held-out paths: its own students', then each newer student's."""
    series = ([("orm", run.orm)] if run.orm else []) + run.orm_by_student
    if not series:
        return ""
    finding = (
        "Held-out paths on unseen problems. The ORM learned from weak students. Filled: paths by students like those; "
        "rings: paths by the students that it went on to judge."
    )
    first, last = series[0][1].get("overall_accuracy"), series[-1][1].get("overall_accuracy")
    if len(series) > 1 and first is not None and last is not None:
        finding += f" From the first to the last, overall accuracy changes by {svg.gain(first, last)} points."

    rows = []
    for stage, figures in series:
        intervals, auroc = figures.get("ci95") or {}, figures.get("auroc")
        shares = (
            svg.percent(figures.get(name)) + (f" {svg.span(intervals[name])}" if intervals.get(name) else "")
            for name in FIGURES
        )
        ranks = NONE if auroc is None else f"{auroc:.3f}"
        rows.append((student(stage), count(figures.get("n")), *shares, ranks, count(figures.get("unparsed"))))
    head = ("paths by the student", "paths", *FIGURES.values(), "AUROC", "unparsed")

    calibration = [("Share of paths that are right, own held-out", (run.orm or {}).get("reliability"))]
    for stage, figures in run.orm_by_student[-1:]:
        calibration.append((f"The same, paths by the student of {title(stage)}", figures.get("reliability")))
    diagrams = "".join(
        f'<figure class="half"><figcaption>{svg.safe(caption)}</figcaption>{reliability(bins)}</figure>'
        for caption, bins in calibration
        if bins
    )
    return section(
        "orm",
        "How good the ORM is, and how it holds up",
        svg.safe(finding),
        figure(lambda width: orm_panels(series, width))
        + table(head, rows)
        + (f'<div class="pair">{diagrams}</div>' if diagrams else ""),
    )


def data(run: Run) -> str:
    """Who wrote the rows of D_SFT."""
    known = [e for e in run.entries if any((e.get("origins") or {}).values())]
    rows = [
        Bar(
            title(e["stage"]),
            [
                Part(name, e["origins"].get(kind, 0), f"{e['origins'].get(kind, 0):,}", look)
                for (kind, name), look in zip(ORIGINS, ("quiet", "accent", "accent-2"), strict=True)
            ],
            f"{sum(e['origins'].values()):,} rows",
        )
        for e in known
    ]
    return section(
        "data",
        "Where the training rows come from",
        "D_SFT of each fit, by who wrote the path.",
        figure(lambda width: bars(rows, "Rows of D_SFT by origin", width=width)) if known else "",
    )


def fits(run: Run) -> str:
    """Loss curves, and what else the fits' logs say."""
    curves = {title(stage.name): stage.curve() for stage in run.stages}
    logs = {name: rows for name, rows in curves.items() if rows}
    finding = "Training loss a token (line) and validation loss (rings), one logarithmic scale."
    return section(
        "fits",
        "Loss curves",
        svg.safe(f"{finding} {overfitting(logs)}"),
        figure(lambda width: losses(logs, width)) + table(HEAD, [fit_row(name, rows) for name, rows in logs.items()])
        if logs
        else "",
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
            [Part(name, s[kind], duration(s[kind]), look) for (kind, name), look in zip(WORK, looks, strict=True)],
            duration(sum(s.values())),
        )
        for stage, s in spent
    ]
    share = sum(s["other"] for _, s in spent) / total
    finding = (
        f"{duration(total)} of wall time in all. {svg.percent(share)} of it is neither fitting, sampling nor judging: "
        "the loop's own overhead."
    )
    return section("time", "Where the time went", finding, figure(lambda width: bars(rows, "Wall time", width=width)))


def own_seconds(stage: FinishedStage, stages: Sequence[FinishedStage]) -> dict[str, float]:
    """Seconds of a stage by kind of work, without those of stages inside it that ran meanwhile (``orm/solver``)."""
    seconds = {kind: float((stage.manifest.get("time_s") or {}).get(kind) or 0) for kind, _ in WORK}
    for inner in stages:
        if inner.name.startswith(f"{stage.name}/") and _within(inner.manifest, stage.manifest):
            seconds["other"] = max(0.0, seconds["other"] - float(inner.manifest.get("wall_s") or 0))
    return seconds if sum(seconds.values()) else {}


def _within(inner: Mapping[str, Any], outer: Mapping[str, Any]) -> bool:
    ends = ((outer, "started"), (inner, "started"), (inner, "finished"), (outer, "finished"))
    times = [str(manifest.get(end) or "") for manifest, end in ends]
    return all(times) and times == sorted(times)  # UTC in ISO form sorts as text


def costs(run: Run) -> str:
    """The cost of the method until each student, in every currency; and stage by stage, with measuring."""
    scored = [e for e in run.entries if e.get("accuracy") is not None]
    if not scored:
        return ""
    until = [
        (
            title(e["stage"]),
            svg.percent(e["accuracy"]),
            *spent(e),
            time_computed(seconds_until(e["stage"], run.stages)),
        )
        for e in scored
    ]
    by_stage = []
    for stage in run.stages:
        method, measuring = spent_in(stage), spent_in(stage, "measuring")
        own = {**method.to_json(), CALLS: stage.manifest.get(LEDGER, {}).get("method", {}).get(CALLS)}
        figures = (method.training_flops, measuring.flops)
        seconds = time_computed(seconds_of(stage))
        by_stage.append((title(stage.name), *spent(own), *(amount(FLOPS, flops) for flops in figures), seconds))
    finding = (
        "What each student took, all stages that it was made from together: solutions and verdicts asked of the "
        "teacher, tokens that the run's own models read, wrote and were trained on, and the floating-point operations "
        "of these. What measuring the students and the judge took is not among them, but for the time."
    )
    head = ("stage", "accuracy", *NAMES.values(), SECONDS)
    names = ("stage", *NAMES.values(), "of these in fits", "FLOPs to measure", SECONDS)
    return section(
        "costs",
        "What the students cost",
        finding,
        table(head, until, "") + table(names, by_stage, "stage by stage"),
    )


def settings(run: Run) -> str:
    """Every setting that holds no secret, and the versions of what it was run with."""
    shown = flatten(without_secrets(run.config))
    rows = [(key, "null" if value is None else value) for key, value in sorted(shown.items())]
    body = table(("setting", "value"), rows, f"all {len(rows)} settings")
    if run.stages:
        manifest = run.stages[-1].manifest
        versions = sorted((manifest.get("versions") or {}).items())
        rows = [*versions, ("git commit", manifest.get("git") or "not known")]
        body += table(("made with", "version"), rows, "versions")
    return section("settings", "Settings", "", body)


def notes(run: Run) -> str:
    """What summary.json remarks on the run."""
    items = "".join(f"<li>{svg.safe(note)}</li>" for note in run.summary.get("notes") or [])
    return section("notes", "Notes", "", f"<ul>{items}</ul>" if items else "")
