"""Several runs on one page: side by side, with seeds of equal settings drawn together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mathse.reporting.progress.costs import NAMES, SECONDS, spent, time_computed
from mathse.reporting.progress.wording import accuracy_text
from mathse.reporting.report.orm_charts import FIGURES
from mathse.reporting.report.page import figure, html, section, table
from mathse.reporting.report.staircase import Stairs, staircase, stairs
from mathse.reporting.report.svg import percent, safe, span
from mathse.runs.layout import stage_order, title
from mathse.runs.ledger import seconds_until
from mathse.runs.reader import Run
from mathse.runs.settings import LATER
from mathse.scoring.metrics import mean_share

# Settings, and groups of them, that name or display a run and have no part in what it computes.
NAMING = ("name", "note", "resume", "resume_from", "progress", "seed", "logger")
MISSING = "\N{EN DASH}"


@dataclass(frozen=True)
class Variant:
    """Runs whose settings are equal but for the seed."""

    label: str
    runs: Sequence[Run]
    settings: Mapping[str, Any]


def compare_page(runs: Sequence[Run]) -> str:
    """The page for ``python -m mathse report RUN RUN ...``."""
    compared = variants(runs)
    flights = [mean_flight(variant) for variant in compared]
    scored, judged = _stages_with(runs, "accuracy"), _stages_with(runs, "acceptance_precision")

    mean_rows, outcomes = [], []  # a variant
    for variant, flight in zip(compared, flights, strict=True):
        seeds = f"{len(variant.runs)} seeds" if len(variant.runs) > 1 else ""
        accuracies = (accuracy_text(flight.accuracy.get(s), flight.interval.get(s)) for s in scored)
        mean_rows.append([f"{variant.label}, {seeds}" if seeds else variant.label, *accuracies])
        if flight.accuracy:
            last = list(flight.accuracy)[-1]
            outcome = f"{safe(variant.label)}: <b>{percent(flight.accuracy[last])}</b>"
            outcome += f" over {seeds}" if seeds else ""
            outcome += f" {span(flight.interval[last])}" if last in flight.interval else ""
            outcomes.append(outcome)
    result = "; ".join(outcomes) + "." if outcomes else "None of these runs has scored a student yet."

    run_rows, precision_rows, cost_rows, orm_rows = [], [], [], []  # a run
    for run in runs:
        name = f"{run.name}, seed {run.seed} ({run.folder.name})"
        entries = {e["stage"]: e for e in run.entries}
        run_rows.append(
            [
                name,
                *(percent(entries.get(s, {}).get("accuracy")) for s in scored),
                "finished" if run.finished else "not finished",
            ]
        )
        precisions = []
        for stage in judged:
            entry = entries.get(stage, {})
            precision = entry.get("acceptance_precision")
            precisions.append(MISSING if precision is None else f"{percent(precision)} of {entry['accepted']:,}")
        precision_rows.append([name, *precisions])
        if run.entries:
            of_last = run.entries[-1]
            seconds = time_computed(seconds_until(of_last["stage"], run.stages))
            cost_rows.append([name, percent(of_last.get("accuracy")), *spent(of_last), seconds])
        if run.orm:
            orm_rows.append([name, f"{run.orm.get('n', 0):,}", *(percent(run.orm.get(key)) for key in FIGURES)])

    intervals = "Each line is a run. Shaded: 95% interval (Wilson) of the first."
    if any(len(variant.runs) > 1 for variant in compared):
        intervals = (
            "Means over seeds with 95% intervals (Student's t); a variant with one run has that run's Wilson "
            "interval. Shaded: the first variant's."
        )
    parts = [
        section(
            "accuracy",
            "Test accuracy by stage",
            intervals,
            figure(lambda width: staircase(flights, width)) + table(("variant", *map(title, scored)), mean_rows, ""),
        ),
        section("runs", "Every run", "", table(("run", *map(title, scored), "status"), run_rows, "")),
        section(
            "acceptance",
            "Precision of what the judge let through",
            "Share of accepted paths that end in the reference answer.",
            table(("run", *map(title, judged)), precision_rows, "") if judged else "",
        ),
        section(
            "orm",
            "ORM on held-out paths",
            "",
            table(("run", "paths", *FIGURES.values()), orm_rows, "") if orm_rows else "",
        ),
        section(
            "costs",
            "What their last students cost",
            "All stages that a student was made from; tokens and FLOPs without those of measuring.",
            table(("run", "accuracy", *NAMES.values(), SECONDS), cost_rows, "") if cost_rows else "",
        ),
        section("settings", "Where their settings differ", "", _differing_settings(compared)),
    ]
    names = ", ".join(dict.fromkeys(run.name for run in runs))
    header = (
        f'<p class="eyebrow">MathSE · {len(runs)} runs side by side</p><h1>{safe(names)}</h1>'
        f'<p class="result">{result}</p>'
    )
    return html(f"{len(runs)} runs: {names}", header, parts)


def variants(runs: Sequence[Run]) -> list[Variant]:
    """Group runs by settings, in the order of ``runs``; a variant is named by what sets it apart from the first."""
    groups: dict[str, tuple[dict[str, Any], list[Run]]] = {}
    for run in runs:
        settings = comparable(run)
        groups.setdefault(repr(sorted(settings.items(), key=lambda kv: kv[0])), (settings, []))[1].append(run)

    first = next(iter(groups.values()))[0] if groups else {}
    labels = []
    for settings, members in groups.values():
        keys = sorted(settings.keys() | first.keys())
        changed = [key for key in keys if settings.get(key, MISSING) != first.get(key, MISSING)]
        # More than two changed settings make no label.
        by_settings = ", ".join(f"{key}={settings.get(key, MISSING)}" for key in changed)
        labels.append(by_settings if len(groups) > 1 and len(changed) in (1, 2) else members[0].name)
    unique = (
        label if labels.count(label) == 1 else f"{label} ({members[0].folder.name})"
        for label, (_, members) in zip(labels, groups.values(), strict=True)
    )
    return [Variant(label, members, s) for label, (s, members) in zip(unique, groups.values(), strict=True)]


def comparable(run: Run) -> dict[str, Any]:
    """A run's settings without its names, without what changes nothing (null, and settings that came later at the value
    that changes nothing), and without its seed, also inside a path (``.../study.variant.seed_1/orm/checkpoint``)."""
    seed = re.compile(rf"\bseed_{run.seed}\b")
    return {
        key: seed.sub("seed_*", value) if isinstance(value, str) else value
        for key, value in run.settings.items()
        if key.partition(".")[0] not in NAMING
        and value not in (None, LATER.get(key))
        and not (key.endswith(".seed") and value == run.seed)
    }


def mean_flight(variant: Variant) -> Stairs:
    """The costs of the variant's runs."""
    return mean_stairs(variant.label, [run.entries for run in variant.runs])


def mean_stairs(label: str, runs: Sequence[Sequence[Mapping[str, Any]]]) -> Stairs:
    """The mean over seeds with Student's interval, or the single run with its own (Wilson's). ``runs``: by seed, the
    rows of summary.json["stages"]."""
    flights = [stairs(label, entries) for entries in runs]
    if len(flights) == 1:
        return flights[0]
    shared = sorted(set.intersection(*(set(f.accuracy) for f in flights)), key=stage_order)
    means = {stage: mean_share([f.accuracy[stage] for f in flights]) for stage in shared}
    return Stairs(
        label,
        {s: mean for s, (mean, _) in means.items()},
        {s: interval for s, (_, interval) in means.items() if interval},
        {},
    )


def _stages_with(runs: Sequence[Run], key: str) -> list[str]:
    """The stages in which a run has the figure, in the order of a run."""
    return sorted({e["stage"] for run in runs for e in run.entries if e.get(key) is not None}, key=stage_order)


def _differing_settings(compared: Sequence[Variant]) -> str:
    rows = []
    for key in sorted({key for variant in compared for key in variant.settings}):
        values = [variant.settings.get(key, MISSING) for variant in compared]
        if any(value != values[0] for value in values):
            rows.append([key, *("null" if value is None else str(value) for value in values)])
    if not rows:
        return "<p>Nowhere: these runs differ in their seeds only.</p>"
    return table(("setting", *(variant.label for variant in compared)), rows, "")
