"""report.html of benchmark=orm_test; ``page.html.j2`` has its sections and sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from mathse.evaluation.orm_test import statistics
from mathse.evaluation.orm_test.metrics import JudgedPath, marks_of
from mathse.reporting.charts import QUARTERS, Curve, curves, reliability, roc
from mathse.reporting.pages import NONE, render
from mathse.reporting.progress.wording import percent, span
from mathse.reporting.report.gallery import GalleryItem
from mathse.reporting.report.listing import listing_inside
from mathse.scoring.metrics import decide

MAX_DISAGREEMENTS = 40  # paths on the page
SHARES = {
    "positive_accuracy": "right accepted",
    "negative_accuracy": "wrong rejected",
    "overall_accuracy": "overall",
    "balanced_accuracy": "balanced",
    "error_step_exact": "first wrong step named",
    "error_step_within_one": "or one beside it",
}
GROUPED = ("positive_accuracy", "negative_accuracy", "overall_accuracy", "error_step_exact")  # by subject and length
SCORES = {"auroc": "AUROC", "average_precision": "average precision", "brier": "Brier", "ece": "ECE"}
ACCEPTANCE = {"precision": "precision", "recall": "recall", "f1": "F1"}

Row = dict[str, object]  # of a table: a column's name -> the cell


def page(
    figures: Mapping[str, Any],
    rows: Sequence[JudgedPath],
    wrong: Sequence[JudgedPath],
    image_png: Callable[[str], bytes],
) -> str:
    """``figures``: metrics.json; ``wrong``: the rows judged wrongly, the most confident first."""
    intervals = figures["ci95"]
    shares = []
    for key, name in SHARES.items():
        interval = span(intervals[key]) if intervals[key] else NONE
        shares.append({"figure": name, "value": percent(figures[key]), "95% interval": interval})
    for key, name in SCORES.items():
        shares.append({"figure": name, "value": _decimals(figures[key]), "95% interval": _range(intervals[key])})

    # Ours beside Table 5.
    ours = [percent(figures[f"{name}_accuracy"], 2) for name in ("positive", "negative", "overall")]
    paper = [["this ORM, here", *ours]]
    paper += [[name, *(f"{row[key]:.2f}%" for key in row)] for name, row in figures["paper"].items()]

    diagrams = []
    if figures["auroc"] is not None:
        curve = roc(statistics.roc(marks_of(rows)), figures["auroc"])
        diagrams.append(("Right paths above each score, against wrong ones", curve))
    if figures["calibration"]:
        diagrams.append(("Share of paths that are right, by P(correct)", reliability(figures["calibration"])))
    calibration = [
        {
            "P(correct)": f"{b['low']:.1f} to {b['high']:.1f}",
            "paths": f"{b['n']:,}",
            "mean": f"{b['mean_score']:.3f}",
            "right": percent(b["correct"]),
            "95% interval": span(b["ci95"]),
        }
        for b in figures["calibration"] or ()
    ]

    measured = figures["thresholds"] or ()
    accepted: list[Row] = []
    for row in measured:
        cells = {name: _share(row, key) for key, name in ACCEPTANCE.items()}
        accepted.append({"threshold": f"{row['threshold']:g}", "accepted": f"{row['accepted']:,}", **cells})
    lines = []
    for key, name in ACCEPTANCE.items():
        known = [row for row in measured if row[key] is not None]
        lines.append(Curve(name, [(row["threshold"], row[key], row["ci95"][key]) for row in known]))

    groups: dict[str, list[GalleryItem]] = {}
    for judged in wrong[:MAX_DISAGREEMENTS]:
        group = "wrongly accepted" if judged.accepted else "wrongly rejected"
        path, problem, label = judged.labelled.path, judged.labelled.problem, judged.labelled.label
        decision = decide(judged.verdict, figures["threshold"])
        item = GalleryItem(group, path, problem, judged.verdict, decision, judged.is_right, label)
        groups.setdefault(group, []).append(item)
    protocol = [{"what": key, "value": NONE if value is None else value} for key, value in figures["protocol"].items()]
    return render(
        "evaluation/orm_test/page.html.j2",
        "ORM test",
        figures=figures,
        shares=shares,
        paper=paper,
        diagrams=diagrams,
        calibration=calibration,
        thresholds=accepted,
        threshold_curves=partial(
            curves,
            lines,
            "threshold on P(correct)",
            "Acceptance by threshold",
            marks=QUARTERS,
            at=figures["threshold"],
        ),
        agreement=_agreement(figures),
        groups=_groups(figures),
        shown=min(MAX_DISAGREEMENTS, len(wrong)),
        wrong=len(wrong),
        listing=listing_inside(groups, image_png) if groups else None,
        protocol=protocol,
    )


def _agreement(figures: Mapping[str, Any]) -> list[Row]:
    """How the ORM's decisions, and the labels, agree with answer matching."""
    if figures["agreement"] is None:
        return []
    rows: list[Row] = []
    for name, key in (("the ORM's decisions", "decisions"), ("the labels", "labels")):
        part = figures["agreement"][key]
        rows.append(
            {
                "": name,
                "agreement": _share(part, "agreement"),
                "kappa": _decimals(part["kappa"]),
                "95% interval": _range(part["ci95"]["kappa"]),
                "yes, match": f"{part['both']:,}",
                "yes, no match": f"{part['accepted_alone']:,}",
                "no, match": f"{part['matched_alone']:,}",
                "no, no match": f"{part['neither']:,}",
            }
        )
    return rows


def _groups(figures: Mapping[str, Any]) -> list[Row]:
    parts = [(f"subject {name}", part) for name, part in figures["by_subject"].items()]
    parts += [(f"{part['from']:,} to {part['to']:,} characters", part) for part in figures["by_length"]]
    rows: list[Row] = []
    for name, part in parts:
        cells = {SHARES[key]: _share(part, key) for key in GROUPED}
        rows.append({"paths": name, "how many": f"{part['paths']:,}", **cells, "AUROC": _decimals(part["auroc"])})
    return rows


# --- cells ------------------------------------------------------------------------------------------------------------


def _share(row: Mapping[str, Any], key: str) -> str:
    interval = row["ci95"][key]
    return percent(row[key]) + (f" {span(interval)}" if interval else "")


def _range(interval: Sequence[float] | None) -> str:
    return f"[{interval[0]:.3f}, {interval[1]:.3f}]" if interval else NONE


def _decimals(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"
