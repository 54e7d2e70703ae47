"""Several runs on one page: side by side, with seeds of equal settings drawn together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mathse.reporting.progress.wording import accuracy_text
from mathse.reporting.report.orm_charts import FIGURES
from mathse.reporting.report.page import html
from mathse.reporting.report.sections import figure, section, table
from mathse.reporting.report.staircase import Stairs, staircase, stairs
from mathse.reporting.report.svg import percent, safe, span
from mathse.runs.layout import stage_order, title
from mathse.runs.reader import Run
from mathse.runs.settings import LATER
from mathse.scoring.metrics import mean_interval

# Settings, and groups of them, that name or voice a run and have no part in what it computes.
NAMING = ("name", "resume", "resume_from", "progress", "seed", "logger")
MISSING = "\N{EN DASH}"


@dataclass(frozen=True)
class Variant:
    """Runs whose settings are equal but for the seed."""

    label: str
    runs: Sequence[Run]
    settings: Mapping[str, Any]


def compare_page(runs: Sequence[Run]) -> str:
    """The page for ``python -m mathse report RUN RUN ...``."""
    found = variants(runs)
    seeds = any(len(v.runs) > 1 for v in found)
    flights = [mean_flight(v) for v in found]
    parts = [
        section(
            "accuracy",
            "Test accuracy by stage",
            _staircase_finding(seeds),
            figure(staircase(flights)) + table(("variant", *map(title, _stages(runs))), _mean_rows(found), ""),
        ),
        section("runs", "Every run", "", table(("run", *map(title, _stages(runs)), "status"), _run_rows(runs), "")),
        section(
            "acceptance",
            "Precision of what the judge let through",
            "Share of accepted paths that end in the reference answer.",
            table(("run", *map(title, _judged(runs))), _precision_rows(runs), "") if _judged(runs) else "",
        ),
        section(
            "orm",
            "ORM on held-out paths",
            "",
            table(("run", "paths", *FIGURES.values()), _orm_rows(runs), "") if any(r.orm for r in runs) else "",
        ),
        section("settings", "Where their settings differ", "", _differences(found)),
    ]
    names = ", ".join(dict.fromkeys(run.name for run in runs))
    header = (
        f'<p class="eyebrow">MathSE · {len(runs)} runs side by side</p><h1>{safe(names)}</h1>'
        f'<p class="result">{_result(found, flights)}</p>'
    )
    return html(f"{len(runs)} runs: {names}", header, parts)


def variants(runs: Sequence[Run]) -> list[Variant]:
    """Group runs by settings, in the order given; a variant is named by what sets it apart from the first."""
    groups: dict[str, tuple[dict[str, Any], list[Run]]] = {}
    for run in runs:
        settings = comparable(run)
        groups.setdefault(repr(sorted(settings.items(), key=lambda kv: kv[0])), (settings, []))[1].append(run)
    found = list(groups.values())
    labels = [_label(settings, members[0], found[0][0], len(found)) for settings, members in found]
    return [Variant(_unique(labels, k, members), members, settings) for k, (settings, members) in enumerate(found)]


def comparable(run: Run) -> dict[str, Any]:
    """A run's settings without its names, without what says nothing (null, and settings that came later at the value
    that changes nothing), and without its seed, also inside a path (``.../study.variant.seed_1/orm/checkpoint``)."""
    return {
        key: _without_seed(value, run.seed)
        for key, value in run.settings.items()
        if key.partition(".")[0] not in NAMING
        and value not in (None, LATER.get(key))
        and not (key.endswith(".seed") and value == run.seed)
    }


def _without_seed(value: Any, seed: int) -> Any:
    return re.sub(rf"\bseed_{seed}\b", "seed_*", value) if isinstance(value, str) else value


def mean_flight(variant: Variant) -> Stairs:
    """The mean over seeds with Student's interval, or the single run with its own (Wilson's)."""
    flights = [stairs(variant.label, run.entries) for run in variant.runs]
    if len(flights) == 1:
        return flights[0]
    shared = sorted(set.intersection(*(set(f.accuracy) for f in flights)), key=stage_order)
    means = {stage: mean_interval([f.accuracy[stage] for f in flights]) for stage in shared}
    return Stairs(
        variant.label,
        {s: mean for s, (mean, _) in means.items()},
        {s: interval for s, (_, interval) in means.items() if interval},
        {},
    )


def _staircase_finding(seeds: bool) -> str:
    if seeds:
        return (
            "Means over seeds with 95% intervals (Student's t); a variant with one run has that run's Wilson "
            "interval. Shaded: the first variant's."
        )
    return "Each line is a run. Shaded: 95% interval (Wilson) of the first."


def _label(settings: Mapping[str, Any], run: Run, first: Mapping[str, Any], count: int) -> str:
    changed = [k for k in sorted(settings.keys() | first.keys()) if settings.get(k, MISSING) != first.get(k, MISSING)]
    if count == 1 or not changed or len(changed) > 2:
        return run.name
    return ", ".join(f"{key}={settings.get(key, MISSING)}" for key in changed)


def _unique(labels: Sequence[str], k: int, members: Sequence[Run]) -> str:
    return labels[k] if labels.count(labels[k]) == 1 else f"{labels[k]} ({members[0].folder.name})"


def _stages(runs: Sequence[Run]) -> list[str]:
    return sorted({e["stage"] for run in runs for e in run.entries if e.get("accuracy") is not None}, key=stage_order)


def _judged(runs: Sequence[Run]) -> list[str]:
    return sorted(
        {e["stage"] for run in runs for e in run.entries if e.get("acceptance_precision") is not None}, key=stage_order
    )


def _mean_rows(found: Sequence[Variant]) -> list[list[str]]:
    stages = _stages([run for v in found for run in v.runs])
    rows = []
    for variant in found:
        flight = mean_flight(variant)
        cells = [accuracy_text(flight.accuracy.get(s), flight.interval.get(s)) for s in stages]
        rows.append([f"{variant.label}, {len(variant.runs)} seeds" if len(variant.runs) > 1 else variant.label, *cells])
    return rows


def _run_rows(runs: Sequence[Run]) -> list[list[str]]:
    rows = []
    for run in runs:
        known = {e["stage"]: e.get("accuracy") for e in run.entries}
        rows.append(
            [
                _name(run),
                *(percent(known.get(s)) for s in _stages(runs)),
                "finished" if run.finished else "not finished",
            ]
        )
    return rows


def _precision_rows(runs: Sequence[Run]) -> list[list[str]]:
    rows = []
    for run in runs:
        known = {e["stage"]: e for e in run.entries if e.get("acceptance_precision") is not None}
        rows.append(
            [
                _name(run),
                *(
                    f"{percent(known[s]['acceptance_precision'])} of {known[s]['accepted']:,}"
                    if s in known
                    else MISSING
                    for s in _judged(runs)
                ),
            ]
        )
    return rows


def _orm_rows(runs: Sequence[Run]) -> list[list[str]]:
    return [
        [_name(run), f"{run.orm.get('n', 0):,}", *(percent(run.orm.get(name)) for name in FIGURES)]
        for run in runs
        if run.orm
    ]


def _name(run: Run) -> str:
    return f"{run.name}, seed {run.seed} ({run.folder.name})"


def _differences(found: Sequence[Variant]) -> str:
    keys = sorted(
        {
            k
            for v in found
            for k in v.settings
            if any(other.settings.get(k, MISSING) != v.settings.get(k, MISSING) for other in found)
        }
    )
    if not keys:
        return "<p>Nowhere: these runs differ in their seeds only.</p>"
    rows = [
        [key, *("null" if v.settings.get(key, MISSING) is None else str(v.settings.get(key, MISSING)) for v in found)]
        for key in keys
    ]
    return table(("setting", *(v.label for v in found)), rows, "")


def _result(found: Sequence[Variant], flights: Sequence[Stairs]) -> str:
    said = []
    for variant, flight in zip(found, flights, strict=True):
        if flight.accuracy:
            last = list(flight.accuracy)[-1]
            over = f" over {len(variant.runs)} seeds" if len(variant.runs) > 1 else ""
            interval = f" ({span(flight.interval[last])})" if last in flight.interval else ""
            said.append(f"{safe(variant.label)}: <b>{percent(flight.accuracy[last])}</b>{over}{interval}")
    return "; ".join(said) + "." if said else "None of these runs has scored a student yet."
