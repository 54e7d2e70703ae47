"""The page of a run: ``templates/run.html.j2`` has its sections and sentences, this file their rows and charts.

An unfinished run can be shown too: the page leaves out its unfinished stages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from statistics import fmean, median
from typing import Any
from urllib.parse import urlencode

from mathse.config.secrets import remove_secrets
from mathse.reporting import charts
from mathse.reporting.charts import ORM_FIGURES, Bar, BarPart, loss_points, student
from mathse.reporting.pages import NONE, render
from mathse.reporting.progress.costs import CURRENCY_NAMES, TIME_COLUMN, amount, cost_cells, device_time
from mathse.reporting.progress.wording import count, duration, gain, percent, points, span, speed
from mathse.reporting.report.gallery import Choice, ProblemOf, read_paths, read_test_answers
from mathse.reporting.report.listing import Listing, Write, listing_inside, script_json
from mathse.runs.layout import CONTROLS, title
from mathse.runs.ledger import FLOPS, LEDGER, read_spent, sum_seconds, sum_seconds_until
from mathse.runs.reader import FinishedStage, Run
from mathse.runs.settings import flatten
from mathse.runs.teacher_calls import CALLS
from mathse.scoring.metrics import wilson

EQUAL, BEST = "equal_compute", "best_length"  # keys of controls.json
CONTROL_TITLES = {EQUAL: "distilled rows, equal compute", BEST: "distilled rows, best length on dev"}
MIN_RISE = 1.1  # a validation loss of this many times its lowest value has risen
MIN_GAP = 10  # a validation loss of this many times the training loss gets a sentence

Row = dict[str, object]  # a row of a table: column -> cell
Log = Sequence[Mapping[str, Any]]  # the rows of a train_log.jsonl


def run_page(
    run: Run, problem_of: ProblemOf, image_png: Callable[[str], bytes], write: Write, parts_folder: str
) -> str:
    """Return the page of a run.

    Args:
        run: the run.
        problem_of: returns the problem with an id; None for a problem that has been removed.
        image_png: returns the PNG of an image reference; may raise MathSEError.
        write: writes a part beside the page. The parts have all paths, the page has a sample.
        parts_folder: name of the folder with the parts.
    """
    # 1. The paths: all in the listing, a sample in the page.
    stamp = hashlib.sha256(repr([(stage.name, stage.sha256) for stage in run.stages]).encode()).hexdigest()[:16]
    choice, listing = Choice(), Listing(stamp, write, image_png)
    for item in read_paths(run, problem_of):
        choice.add(item)
        listing.add(item)
    for item in read_test_answers(run, problem_of):
        listing.add(item)
    write("index", script_json(listing.index()))
    groups = choice.groups()
    chosen = list(chain.from_iterable(groups.values()))

    # 2. The tables and charts.
    scored = [e for e in run.entries if e.get("accuracy") is not None]
    logs = {title(stage.name): rows for stage in run.stages if (rows := stage.curve())}
    manifest = run.stages[-1].manifest if run.stages else {}
    versions = [*sorted((manifest.get("versions") or {}).items()), ("git commit", manifest.get("git") or "not known")]
    settings = sorted(flatten(remove_secrets(run.config)).items())
    values: dict[str, object] = {
        "run": run,
        "stages": ", ".join(title(stage.name) for stage in run.stages),
        "scored": scored,
        # The page compares the last student with the distilled student: the difference is the gain of the evolution.
        "first": next((e for e in scored if e["stage"] == "distill"), scored[0] if scored else None),
        "last": scored[-1] if scored else None,
        "figures": list(_figures(run, scored)),
        "staircase": partial(charts.staircase, [charts.stairs(run.name, run.entries)]),
        "accuracy": [
            {
                "stage": title(e["stage"]),
                "accuracy": percent(e["accuracy"]),
                "95% interval": span(e["ci95"]) if e.get("ci95") else "",
                "problems": count(e.get("n")),
                "teacher calls": count(e.get("teacher_calls")),
                "FLOPs": amount(FLOPS, e.get(FLOPS)),
                "rows in D_SFT": count(e.get("train_rows")),
                "no fit because": e.get("skipped_fit") or "",
            }
            for e in scored
        ],
        "controls": None if (controls := run.json(CONTROLS)) is None else control_rows(controls),
        "flow": partial(charts.flow, run.entries, problems_of=_transition_link),
        "transitions": [
            {
                "to": title(e["stage"]),
                "right, stays right": count(e["transitions"]["correct_correct"]),
                "right to wrong": count(e["transitions"]["correct_wrong"]),
                "wrong to right": count(e["transitions"]["wrong_correct"]),
                "wrong, stays wrong": count(e["transitions"]["wrong_wrong"]),
            }
            for e in run.entries
            if e.get("transitions")
        ],
        "rows_by_origin": _rows_by_origin(run),
        "fits": [fit_row(name, rows) for name, rows in logs.items()],
        "losses": partial(charts.losses, logs),
        "overfitting": overfitting(logs),
        "listing": listing_inside(groups, image_png, stamp) if groups else None,
        "parts_folder": parts_folder,
        "is_synthetic": any(item.problem and item.problem.source == "synthetic" for item in chosen),
        "settings": [{"setting": key, "value": "null" if value is None else value} for key, value in settings],
        "versions": [{"made with": name, "version": version} for name, version in versions] if run.stages else [],
    }
    values |= _acceptance(run) | _orm(run) | _costs(run, scored) | _time(run)
    return render("reporting/templates/run.html.j2", f"{run.name}, seed {run.seed}", **values)


def _figures(run: Run, scored: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Yield (name, value, remark) of the figures at the top of the page."""
    if scored:
        last = scored[-1]
        yield f"accuracy, {title(last['stage'])}", percent(last["accuracy"]), span(last["ci95"])
    if run.orm and run.orm.get("overall_accuracy") is not None:
        yield "ORM judges rightly", percent(run.orm["overall_accuracy"]), f"{run.orm.get('n', 0):,} held-out paths"
        yield "ORM names the wrong step", percent(run.orm.get("error_step_accuracy")), "of all wrong paths"
    rounds = [e for e in run.entries if e["stage"].startswith("round") and e.get("acceptance_precision") is not None]
    if rounds:
        precisions = " / ".join(percent(e["acceptance_precision"]) for e in rounds)
        yield "accepted paths that are right", precisions, " / ".join(title(e["stage"]) for e in rounds)
    if seconds := sum(sum(own_seconds(stage, run.stages).values()) for stage in run.stages):
        yield "wall time", duration(seconds), f"{len(run.stages)} stages"


def control_rows(controls: Mapping[str, Any]) -> list[Row]:
    """Compare a run's last student with the controls of ``mathse control``, the content of controls.json."""
    rows: list[Row] = []
    for key, name in CONTROL_TITLES.items():
        control = controls[key]
        low, high = control["ci95"]
        difference = gain(control["accuracy"], control["run_accuracy"])
        rows.append(
            {
                "control": name,
                "its accuracy": percent(control["accuracy"]),
                "the run's": percent(control["run_accuracy"]),
                "difference, points": f"{difference} [{points(low)}, {points(high)}]",
                "p": f"{control['p']:.2g}",
                "problems": count(control["n"]),
                "compute, of the run's": f"{control['flops'] / control['run_flops']:.2f}",
                "steps": count(control["steps"]),
            }
        )
    return rows


def _transition_link(before: str, after: str, kind: str) -> str:
    """Return the link to the test problems of a transition."""
    return "#gallery?" + urlencode({"from": before, "to": after, "change": kind})


def _acceptance(run: Run) -> dict[str, object]:
    """Return the judge's decisions by stage, and the precision of acceptance."""
    judged_bars: list[Bar] = []
    rows: list[Row] = []
    for e in run.entries:
        if e.get("accepted") is None:
            continue
        accepted, precision = e["accepted"], e.get("acceptance_precision")
        rejected, unparsed = e.get("rejected") or 0, e.get("unparsed") or 0
        right = accepted if precision is None else round(accepted * precision)
        # The rows of the final student were judged in the reflection before it.
        stage = title("reflection" if e["stage"] == "final" else e["stage"])

        def part(name: str, amount: int, look: str, stage: str = stage, **view: str) -> BarPart:
            return BarPart(name, amount, f"{amount:,}", look, "#gallery?" + urlencode({"stage": stage, **view}))

        if precision is None:
            parts = [part("accepted", accepted, "accent", verdict="accepted")]
        else:
            parts = [
                part("accepted, right", right, "accent", verdict="accepted", right="right"),
                part("accepted, wrong", accepted - right, "signal", verdict="accepted", right="wrong"),
            ]
        parts.append(part("rejected", rejected, "quiet", verdict="rejected"))
        parts.append(part("unparsed", unparsed, "faint", verdict="unparsed"))
        judged_bars.append(Bar(title(e["stage"]), parts, percent(precision)))
        share = f"{percent(precision)} {span(wilson(right, accepted))}" if precision is not None and accepted else NONE
        rows.append(
            {
                "stage": title(e["stage"]),
                "accepted": count(e.get("accepted")),
                "rejected": count(e.get("rejected")),
                "unparsed": count(e.get("unparsed")),
                "precision (95% interval)": share,
                "all steps right too": percent(e.get("step_precision")),
            }
        )
    return {"acceptance": rows, "judged_bars": partial(charts.bars, judged_bars, "Paths judged", "precision")}


def _orm(run: Run) -> dict[str, object]:
    """Return the ORM's figures on held-out paths: of its own students, then of each newer student."""
    series = ([("orm", run.orm)] if run.orm else []) + run.orm_by_student
    rows: list[Row] = []
    for stage, figures in series:
        intervals, auroc = figures.get("ci95") or {}, figures.get("auroc")
        row: Row = {"paths by the student": student(stage), "paths": count(figures.get("n"))}
        for key, name in ORM_FIGURES.items():
            row[name] = percent(figures.get(key)) + (f" {span(intervals[key])}" if intervals.get(key) else "")
        row["AUROC"] = NONE if auroc is None else f"{auroc:.3f}"
        row["unparsed"] = count(figures.get("unparsed"))
        rows.append(row)

    change = None
    if len(series) > 1:
        first, last = series[0][1].get("overall_accuracy"), series[-1][1].get("overall_accuracy")
        change = None if first is None or last is None else gain(first, last)
    bins = [("Share of paths that are right, own held-out", (run.orm or {}).get("reliability"))]
    for stage, figures in run.orm_by_student[-1:]:
        bins.append((f"The same, paths by the student of {title(stage)}", figures.get("reliability")))
    return {
        "orm_figures": rows,
        "orm_change": change,
        "orm_panels": partial(charts.orm_panels, series),
        "calibration": [(caption, charts.reliability(counted)) for caption, counted in bins if counted],
    }


def _rows_by_origin(run: Run) -> Callable[..., str] | None:
    """Return the chart of the authors of D_SFT's rows; None if no stage recorded them."""
    looks = {
        "teacher": ("teacher's paths", "quiet"),
        "student": ("student's own paths", "accent"),
        "reflection": ("reflections", "accent-2"),
    }
    rows = []
    for e in run.entries:
        origins = e.get("origins") or {}
        if any(origins.values()):
            amounts = [(name, origins.get(origin, 0), look) for origin, (name, look) in looks.items()]
            parts = [BarPart(name, written, f"{written:,}", look) for name, written, look in amounts]
            rows.append(Bar(title(e["stage"]), parts, f"{sum(origins.values()):,} rows"))
    return partial(charts.bars, rows, "Rows of D_SFT by origin") if rows else None


def _costs(run: Run, scored: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """Return the cost of the method until each student, in every currency, and the cost of each stage."""
    until: list[Row] = []
    for e in scored:
        row: Row = {"stage": title(e["stage"]), "accuracy": percent(e["accuracy"])}
        row |= zip(CURRENCY_NAMES.values(), cost_cells(e), strict=True)
        until.append(row | {TIME_COLUMN: device_time(sum_seconds_until(e["stage"], run.stages))})
    by_stage: list[Row] = []
    for stage in run.stages:
        method, measuring = read_spent(stage), read_spent(stage, "measuring")
        stage_costs = {**method.to_json(), CALLS: stage.manifest.get(LEDGER, {}).get("method", {}).get(CALLS)}
        row = {"stage": title(stage.name)}
        row |= zip(CURRENCY_NAMES.values(), cost_cells(stage_costs), strict=True)
        row["of these in fits"] = amount(FLOPS, method.training_flops)
        row["FLOPs to measure"] = amount(FLOPS, measuring.flops)
        by_stage.append(row | {TIME_COLUMN: device_time(sum_seconds(stage))})
    return {"costs": until, "costs_by_stage": by_stage}


def _time(run: Run) -> dict[str, object]:
    """Return the wall time by kind of work, and the share of the loop itself."""
    kinds = {
        "fit": ("fitting", "accent"),
        "sample": ("sampling", "accent-2"),
        "judge": ("judging", "quiet"),
        "other": ("all else: the loop itself", "signal"),
    }
    rows, total, other = [], 0.0, 0.0
    for stage in run.stages:
        if seconds := own_seconds(stage, run.stages):
            parts = []
            for kind, (name, look) in kinds.items():
                parts.append(BarPart(name, seconds[kind], duration(seconds[kind]), look))
            rows.append(Bar(title(stage.name), parts, duration(sum(seconds.values()))))
            total += sum(seconds.values())
            other += seconds["other"]
    share = other / total if total else None
    return {"seconds": total, "own_share": share, "time_bars": partial(charts.bars, rows, "Wall time")}


def own_seconds(stage: FinishedStage, stages: Sequence[FinishedStage]) -> dict[str, float]:
    """Return a stage's seconds by kind of work, without the time of stages that ran inside it (``orm/solver``)."""
    recorded = stage.manifest.get("time_s") or {}
    seconds = {kind: float(recorded.get(kind) or 0) for kind in ("fit", "sample", "judge", "other")}
    for inner in stages:
        if not inner.name.startswith(f"{stage.name}/"):
            continue
        # The inner stage began and ended within this stage. Times are UTC in ISO form, so they sort as text.
        events = (stage, "started"), (inner, "started"), (inner, "finished"), (stage, "finished")
        times = [str(owner.manifest.get(event) or "") for owner, event in events]
        if all(times) and times == sorted(times):
            seconds["other"] = max(0.0, seconds["other"] - float(inner.manifest.get("wall_s") or 0))
    return seconds if sum(seconds.values()) else {}


def fit_row(name: str, rows: Log) -> Row:
    """Summarise the log of a training. Logs of earlier versions have only losses."""
    train, val = loss_points(rows, "loss"), loss_points(rows, "val_loss")
    keys = ("grad_norm", "tokens_per_second", "mfu", "peak_memory_gib", "padding", "data_wait")
    measured = {key: [float(row[key]) for row in rows if row.get(key) is not None] for key in keys}
    # The first step includes compilation and warm-up, so rates leave it out.
    steady = {key: values[1:] or values for key, values in measured.items()}
    lowest = min(val, key=lambda point: point[1], default=None)
    norms, peaks = measured["grad_norm"], [peak for peak in measured["peak_memory_gib"] if peak]
    return {
        "fit": name,
        "steps": f"{max((int(row['step']) for row in rows), default=0):,}",
        "training loss": f"{train[-1][1]:.3g}" if train else NONE,
        "validation loss": f"{val[-1][1]:.3g}" if val else NONE,
        "lowest (step)": f"{lowest[1]:.3g} ({lowest[0]:,})" if lowest else NONE,
        "gradient norm: median, largest": f"{median(norms):.3g}, {max(norms):.3g}" if norms else NONE,
        "tokens/s": speed(median(steady["tokens_per_second"])) if measured["tokens_per_second"] else NONE,
        "MFU": percent(median(steady["mfu"])) if measured["mfu"] else NONE,
        "peak memory": f"{max(peaks):.2f} GiB" if peaks else NONE,
        "padding": percent(fmean(steady["padding"])) if measured["padding"] else NONE,
        "waiting for data": percent(fmean(steady["data_wait"])) if measured["data_wait"] else NONE,
    }


def overfitting(fits: Mapping[str, Log]) -> str:
    """Write a sentence about each training with rising validation loss and falling training loss.

    Without such a training, write a sentence about the widest gap between the two losses if it is wide.
    """
    rising, gaps = [], []
    for name, rows in fits.items():
        train, val = loss_points(rows, "loss"), loss_points(rows, "val_loss")
        if not train or not val:
            continue
        (best_step, best), (_, last) = min(val, key=lambda point: point[1]), val[-1]
        before = [loss for step, loss in train if step <= best_step]
        if last >= MIN_RISE * best and before and train[-1][1] < before[-1]:
            rising.append(
                f"{name}: validation loss rose from {best:.3g} at step {best_step:,} to {last:.3g} at the end while "
                f"training loss fell to {train[-1][1]:.3g}: it overfits."
            )
        gaps.append((last / train[-1][1], f"{name} ends at {train[-1][1]:.3g} training and {last:.3g} validation loss"))
    if rising:
        return " ".join(rising)
    ratio, text = max(gaps, default=(0.0, ""))
    return f"Widest gap: {text}." if ratio >= MIN_GAP else ""
