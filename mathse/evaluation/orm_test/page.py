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
# Keys of metrics.json -> their names on the page.
SHARES = {
    "positive_accuracy": "right accepted",
    "negative_accuracy": "wrong rejected",
    "overall_accuracy": "overall",
    "balanced_accuracy": "balanced",
    "error_step_exact": "first wrong step named",
    "error_step_within_one": "or one beside it",
}
SCORES = {"auroc": "AUROC", "average_precision": "average precision", "brier": "Brier", "ece": "ECE"}
ACCEPTANCE = {"precision": "precision", "recall": "recall", "f1": "F1"}

Row = dict[str, object]  # a row of a table: column -> cell


def render_orm_test(
    figures: Mapping[str, Any],
    rows: Sequence[JudgedPath],
    wrong: Sequence[JudgedPath],
    image_png: Callable[[str], bytes],
) -> str:
    """Return the page.

    Args:
        figures: the content of metrics.json.
        rows: all judged paths.
        wrong: the paths judged wrongly, the most confident first.
        image_png: returns the PNG of an image reference; may raise MathSEError.
    """
    # 1. The figures, and the paper's Table 5 with this ORM beside it.
    intervals = figures["ci95"]
    shares = []
    for key, name in SHARES.items():
        interval = span(intervals[key]) if intervals[key] else NONE
        shares.append({"figure": name, "value": percent(figures[key]), "95% interval": interval})
    for key, name in SCORES.items():
        shares.append({"figure": name, "value": _decimals(figures[key]), "95% interval": _interval(intervals[key])})
    measured_shares = [percent(figures[f"{name}_accuracy"], 2) for name in ("positive", "negative", "overall")]
    paper = [["this ORM, here", *measured_shares]]
    for name, printed in figures["paper"].items():
        paper.append([name, *(f"{share:.2f}%" for share in printed.values())])

    # 2. Ranking and calibration of P(correct).
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

    # 3. Acceptance by threshold, as table and curves.
    thresholds = figures["thresholds"] or ()
    acceptance: list[Row] = []
    for row in thresholds:
        cells = {name: _share(row, key) for key, name in ACCEPTANCE.items()}
        acceptance.append({"threshold": f"{row['threshold']:g}", "accepted": f"{row['accepted']:,}", **cells})
    lines = []
    for key, name in ACCEPTANCE.items():
        points = [(row["threshold"], row[key], row["ci95"][key]) for row in thresholds if row[key] is not None]
        lines.append(Curve(name, points))

    # 4. The paths with the most confident wrong verdicts.
    groups: dict[str, list[GalleryItem]] = {}
    for judged_path in wrong[:MAX_DISAGREEMENTS]:
        group = "wrongly accepted" if judged_path.accepted else "wrongly rejected"
        labelled, verdict = judged_path.labelled, judged_path.verdict
        decision = decide(verdict, figures["threshold"])
        item = GalleryItem(
            group, labelled.path, labelled.problem, verdict, decision, judged_path.is_right, labelled.label
        )
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
        thresholds=acceptance,
        threshold_curves=partial(
            curves,
            lines,
            "threshold on P(correct)",
            "Acceptance by threshold",
            marks=QUARTERS,
            at=figures["threshold"],
        ),
        agreement=_agreement_rows(figures),
        groups=_group_rows(figures),
        shown=min(MAX_DISAGREEMENTS, len(wrong)),
        wrong=len(wrong),
        listing=listing_inside(groups, image_png) if groups else None,
        protocol=protocol,
    )


def _agreement_rows(figures: Mapping[str, Any]) -> list[Row]:
    """Return the agreement of the ORM's decisions, and of the labels, with answer matching."""
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
                "95% interval": _interval(part["ci95"]["kappa"]),
                "yes, match": f"{part['both']:,}",
                "yes, no match": f"{part['accepted_alone']:,}",
                "no, match": f"{part['matched_alone']:,}",
                "no, no match": f"{part['neither']:,}",
            }
        )
    return rows


def _group_rows(figures: Mapping[str, Any]) -> list[Row]:
    """Return the figures of each subject and of each quartile of lengths."""
    parts = [(f"subject {name}", part) for name, part in figures["by_subject"].items()]
    parts += [(f"{part['from']:,} to {part['to']:,} characters", part) for part in figures["by_length"]]
    rows: list[Row] = []
    for name, part in parts:
        row: Row = {"paths": name, "how many": f"{part['paths']:,}"}
        for key in ("positive_accuracy", "negative_accuracy", "overall_accuracy", "error_step_exact"):
            row[SHARES[key]] = _share(part, key)
        rows.append(row | {"AUROC": _decimals(part["auroc"])})
    return rows


# --- cells ------------------------------------------------------------------------------------------------------------


def _share(row: Mapping[str, Any], key: str) -> str:
    interval = row["ci95"][key]
    return percent(row[key]) + (f" {span(interval)}" if interval else "")


def _interval(interval: Sequence[float] | None) -> str:
    return f"[{interval[0]:.3f}, {interval[1]:.3f}]" if interval else NONE


def _decimals(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"
