"""Several runs on one page: side by side, with seeds of equal settings drawn together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

from mathse.reporting.charts import ORM_FIGURES, mean_stairs, staircase
from mathse.reporting.pages import NONE, render
from mathse.reporting.progress.costs import CURRENCY_NAMES, TIME_COLUMN, cost_cells, device_time
from mathse.reporting.progress.wording import accuracy_text, count, percent
from mathse.runs.layout import stage_order, title
from mathse.runs.ledger import sum_seconds_until
from mathse.runs.reader import Run
from mathse.runs.settings import LATER

# Settings and groups that name or display a run and do not affect its results.
NAMING = ("name", "note", "resume", "resume_from", "progress", "seed", "logger")

Row = dict[str, object]  # a row of a table: column -> cell


@dataclass(frozen=True)
class Variant:
    """Runs with equal settings except the seed."""

    label: str
    runs: Sequence[Run]
    settings: Mapping[str, Any]


def compare_page(runs: Sequence[Run]) -> str:
    """Return the page of ``python -m mathse report RUN RUN ...``: ``templates/runs.html.j2``."""
    compared = group_runs(runs)
    flights = [mean_stairs(variant.label, [run.entries for run in variant.runs]) for variant in compared]
    scored, judged = _stages_with(runs, "accuracy"), _stages_with(runs, "acceptance_precision")

    means: list[Row] = []  # a row for each variant
    outcomes = []
    for variant, flight in zip(compared, flights, strict=True):
        seeds = f"{len(variant.runs)} seeds" if len(variant.runs) > 1 else ""
        row: Row = {"variant": f"{variant.label}, {seeds}" if seeds else variant.label}
        row |= {title(s): accuracy_text(flight.accuracy.get(s), flight.interval.get(s)) for s in scored}
        means.append(row)
        if flight.accuracy:
            last, accuracy = list(flight.accuracy.items())[-1]
            outcomes.append((variant.label, accuracy, seeds, flight.interval.get(last)))

    every: list[Row] = []  # here and below: a row for each run
    precisions: list[Row] = []
    costs: list[Row] = []
    orms: list[Row] = []
    for run in runs:
        named: Row = {"run": f"{run.name}, seed {run.seed} ({run.folder.name})"}
        entries = {e["stage"]: e for e in run.entries}
        row = named | {title(s): percent(entries.get(s, {}).get("accuracy")) for s in scored}
        every.append(row | {"status": "finished" if run.finished else "not finished"})
        row = dict(named)
        for stage in judged:
            entry = entries.get(stage, {})
            precision = entry.get("acceptance_precision")
            row[title(stage)] = NONE if precision is None else f"{percent(precision)} of {entry['accepted']:,}"
        if judged:
            precisions.append(row)
        if run.entries:
            last_entry = run.entries[-1]
            row = named | {"accuracy": percent(last_entry.get("accuracy"))}
            row |= zip(CURRENCY_NAMES.values(), cost_cells(last_entry), strict=True)
            costs.append(row | {TIME_COLUMN: device_time(sum_seconds_until(last_entry["stage"], run.stages))})
        if run.orm:
            row = named | {"paths": count(run.orm.get("n", 0))}
            orms.append(row | {name: percent(run.orm.get(key)) for key, name in ORM_FIGURES.items()})

    settings = []
    for key in sorted(set(chain.from_iterable(variant.settings for variant in compared))):
        values = [variant.settings.get(key, NONE) for variant in compared]
        if any(value != values[0] for value in values):
            settings.append([key, *("null" if value is None else value for value in values)])
    names = ", ".join(dict.fromkeys(run.name for run in runs))
    return render(
        "reporting/templates/runs.html.j2",
        f"{len(runs)} runs: {names}",
        runs=runs,
        names=names,
        outcomes=outcomes,
        has_means=any(len(variant.runs) > 1 for variant in compared),
        staircase=partial(staircase, flights),
        means=means,
        every=every,
        precisions=precisions,
        costs=costs,
        orms=orms,
        settings=settings,
        labels=[variant.label for variant in compared],
    )


def _stages_with(runs: Sequence[Run], key: str) -> list[str]:
    """Return the stages in which some run has the figure, in the order of a run."""
    entries = chain.from_iterable(run.entries for run in runs)
    return sorted({e["stage"] for e in entries if e.get(key) is not None}, key=stage_order)


def group_runs(runs: Sequence[Run]) -> list[Variant]:
    """Group runs by settings, in the order of ``runs``. A variant's label has its differences from the first."""
    # Settings as text -> (settings, runs)
    groups: dict[str, tuple[dict[str, Any], list[Run]]] = {}
    for run in runs:
        settings = comparable_settings(run)
        groups.setdefault(repr(sorted(settings.items(), key=lambda kv: kv[0])), (settings, []))[1].append(run)

    first = next(iter(groups.values()))[0] if groups else {}
    labels = []
    for settings, members in groups.values():
        keys = sorted(settings.keys() | first.keys())
        changed = [key for key in keys if settings.get(key, NONE) != first.get(key, NONE)]
        # A label has one or two changed settings; with more, the run's name is shorter.
        if len(groups) > 1 and len(changed) in (1, 2):
            labels.append(", ".join(f"{key}={settings.get(key, NONE)}" for key in changed))
        else:
            labels.append(members[0].name)

    compared = []
    for label, (settings, members) in zip(labels, groups.values(), strict=True):
        unique = label if labels.count(label) == 1 else f"{label} ({members[0].folder.name})"
        compared.append(Variant(unique, members, settings))
    return compared


def comparable_settings(run: Run) -> dict[str, Any]:
    """Return the settings that affect a run's results, without its seed.

    Names, nulls, and settings at the value that keeps earlier behaviour (``LATER``) are left out. A seed inside a path
    (``.../study.variant.seed_1/orm/checkpoint``) becomes ``seed_*``.
    """
    seed = re.compile(rf"\bseed_{run.seed}\b")
    settings = {}
    for key, value in run.settings.items():
        is_seed = key.endswith(".seed") and value == run.seed
        if key.partition(".")[0] in NAMING or value in (None, LATER.get(key)) or is_seed:
            continue
        settings[key] = seed.sub("seed_*", value) if isinstance(value, str) else value
    return settings
