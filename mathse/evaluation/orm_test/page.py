"""report.html of benchmark=orm_test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mathse.evaluation.orm_test import charts, statistics
from mathse.evaluation.orm_test.metrics import JudgedPath, marks_of
from mathse.reporting.report.explorer import explorer
from mathse.reporting.report.gallery import GalleryItem
from mathse.reporting.report.listing import listing_inside
from mathse.reporting.report.orm_charts import reliability
from mathse.reporting.report.page import figure, html, section, table
from mathse.reporting.report.svg import percent, safe, span
from mathse.scoring.metrics import decide

NONE = "\N{EN DASH}"
SHOWN = 40  # of the disagreements
SHARES = {
    "positive_accuracy": "right accepted",
    "negative_accuracy": "wrong rejected",
    "overall_accuracy": "overall",
    "balanced_accuracy": "balanced",
    "error_step_exact": "first wrong step named",
    "error_step_within_one": "or one beside it",
}
NAMES = {  # in the bar at the page's side
    "accuracy": "Figures",
    "tables": "Table 5",
    "orm": "P(correct)",
    "selectors": "Threshold",
    "compared": "Answer match",
    "buckets": "Groups",
    "gallery": "Disagreements",
    "notes": "Notes",
    "protocol": "Protocol",
}
GROUPED = ("positive_accuracy", "negative_accuracy", "overall_accuracy", "error_step_exact")  # by subject and length
SCORES = {"auroc": "AUROC", "average_precision": "average precision", "brier": "Brier", "ece": "ECE"}


def page(
    figures: Mapping[str, Any],
    rows: Sequence[JudgedPath],
    wrong: Sequence[JudgedPath],
    image_png: Callable[[str], bytes],
) -> str:
    """``figures``: metrics.json; ``wrong``: the rows judged wrongly, the most confident first."""
    notes = "".join(f"<li>{safe(note)}</li>" for note in figures["notes"])
    protocol = [(key, NONE if value is None else value) for key, value in figures["protocol"].items()]
    parts = [
        _figures(figures),
        _paper(figures),
        _scores(figures, rows),
        _thresholds(figures),
        _agreement(figures),
        _groups(figures),
        _disagreements(wrong, figures["threshold"], image_png),
        section("notes", "Notes", "", f"<ul>{notes}</ul>" if notes else ""),
        section("protocol", "Protocol", "What was measured, and with what.", table(("what", "value"), protocol)),
    ]
    unparsed = figures["unparsed"]
    result = (
        f"The ORM judges <b>{percent(figures['overall_accuracy'])}</b> {span(figures['ci95']['overall_accuracy'])} "
        f"of {figures['paths']:,} labelled paths rightly: it accepts {percent(figures['positive_accuracy'])} of the "
        f"right ones and rejects {percent(figures['negative_accuracy'])} of the wrong ones. "
        + ("One verdict could not be read." if unparsed == 1 else f"{unparsed:,} verdicts could not be read.")
    )
    header = (
        f'<p class="eyebrow">MathSE · evaluation</p><h1>The ORM on labelled paths</h1><p class="result">{result}</p>'
    )
    return html("ORM test", header, parts, NAMES)


# --- sections ---------------------------------------------------------------------------------------------------------


def _figures(figures: Mapping[str, Any]) -> str:
    intervals = figures["ci95"]
    rows = [
        [label, percent(figures[key]), span(intervals[key]) if intervals[key] else NONE]
        for key, label in SHARES.items()
    ]
    rows += [[label, _decimals(figures[key]), _range(intervals[key])] for key, label in SCORES.items()]
    finding = (
        f"A path counts as accepted if it is called correct with a P(correct) of at least {figures['threshold']:g}; "
        "what cannot be read is rejected. Intervals of 95%: Wilson's for shares, else a bootstrap over problems (ECE "
        "is biased upward where there are few paths, and so is its interval)."
    )
    return section("accuracy", "Figures", safe(finding), table(("figure", "value", "95% interval"), rows, ""))


def _paper(figures: Mapping[str, Any]) -> str:
    """Ours beside Table 5."""
    ours = [percent(figures[f"{name}_accuracy"], 2) for name in ("positive", "negative", "overall")]
    theirs = [[name, *(f"{row[k]:.2f}%" for k in row)] for name, row in figures["paper"].items()]
    finding = (
        "The paper's rows are of its own 1,000 right and 1,000 wrong paths, which are not public; ours are of the file "
        "named below, so a difference says nothing of the models alone."
    )
    head = ("judge", "positive", "negative", "overall")
    return section("tables", "Beside Table 5", finding, table(head, [["this ORM, here", *ours], *theirs], ""))


def _scores(figures: Mapping[str, Any], rows: Sequence[JudgedPath]) -> str:
    """ROC and calibration."""
    drawn = []
    if figures["auroc"] is not None:
        curve = charts.roc(statistics.roc(marks_of(rows)), figures["auroc"])
        drawn.append(("Right paths above each score, against wrong ones", curve))
    if figures["calibration"]:
        drawn.append(("Share of paths that are right, by P(correct)", reliability(figures["calibration"])))
    diagrams = "".join(
        f'<figure class="half"><figcaption>{safe(caption)}</figcaption>{chart}</figure>' for caption, chart in drawn
    )
    numbers = [
        (
            f"{b['low']:.1f} to {b['high']:.1f}",
            f"{b['n']:,}",
            f"{b['mean_score']:.3f}",
            percent(b["correct"]),
            span(b["ci95"]),
        )
        for b in figures["calibration"] or ()
    ]
    head = ("P(correct)", "paths", "mean", "right", "95% interval")
    finding = "Whether P(correct) puts right paths above wrong ones, and whether it means what it says."
    body = f'<div class="pair">{diagrams}</div>' + table(head, numbers) if diagrams else ""
    return section("orm", "P(correct)", finding, body)


def _thresholds(figures: Mapping[str, Any]) -> str:
    rows = figures["thresholds"] or ()
    numbers = [
        (
            f"{row['threshold']:g}",
            f"{row['accepted']:,}",
            *(percent(row[key]) + _in_brackets(row["ci95"][key]) for key in ("precision", "recall", "f1")),
        )
        for row in rows
    ]
    finding = (
        "Precision: the share of accepted paths that are right. Recall: the share of right paths that are accepted. A "
        "path called wrong is accepted at no threshold, so below one half little changes. Beside twentieths stand the "
        "deciles of P(correct) over the paths called correct."
    )
    head = ("threshold", "accepted", "precision", "recall", "F1")
    body = figure(charts.thresholds(rows, figures["threshold"])) + table(head, numbers) if rows else ""
    return section("selectors", "Acceptance against the threshold", finding, body)


def _agreement(figures: Mapping[str, Any]) -> str:
    agreement = figures["agreement"]
    if agreement is None:
        return ""
    rows = [
        (
            label,
            percent(part["agreement"]) + _in_brackets(part["ci95"]["agreement"]),
            _decimals(part["kappa"]),
            _range(part["ci95"]["kappa"]),
            *(f"{part[key]:,}" for key in ("both", "accepted_alone", "matched_alone", "neither")),
        )
        for label, part in (("the ORM's decisions", agreement["decisions"]), ("the labels", agreement["labels"]))
    ]
    head = ("", "agreement", "kappa", "95% interval", "yes, match", "yes, no match", "no, match", "no, no match")
    finding = (
        f"Of {agreement['paths']:,} paths whose problem has a reference answer, {agreement['matches']:,} end in it. A "
        "wrong path may, and then an answer match is fooled."
    )
    return section("compared", "Agreement with answer matching", finding, table(head, rows, ""))


def _groups(figures: Mapping[str, Any]) -> str:
    parts = [(f"subject {name}", part) for name, part in figures["by_subject"].items()]
    parts += [(f"{part['from']:,} to {part['to']:,} characters", part) for part in figures["by_length"]]
    rows = [
        (
            name,
            f"{part['paths']:,}",
            *(percent(part[key]) + _in_brackets(part["ci95"][key]) for key in GROUPED),
            _decimals(part["auroc"]),
        )
        for name, part in parts
    ]
    head = ("paths", "how many", *(SHARES[key] for key in GROUPED), "AUROC")
    return section("buckets", "By subject and by length", "", table(head, rows, "") if rows else "")


def _disagreements(wrong: Sequence[JudgedPath], threshold: float, image_png: Callable[[str], bytes]) -> str:
    groups: dict[str, list[GalleryItem]] = {}
    for row in wrong[:SHOWN]:
        group = "wrongly accepted" if row.accepted else "wrongly rejected"
        labelled, decision = row.labelled, decide(row.verdict, threshold)
        item = GalleryItem(group, labelled.path, labelled.problem, row.verdict, decision, row.is_right, labelled.label)
        groups.setdefault(group, []).append(item)
    finding = (
        f"The {min(SHOWN, len(wrong)):,} of {len(wrong):,} paths judged wrongly on which the ORM was surest; "
        "disagreements.jsonl has all of them. The step that the judge names is marked, and the true one."
    )
    listed = explorer(listing_inside(groups, image_png)) if groups else ""
    return section("gallery", "The worst disagreements", finding, listed)


# --- cells ------------------------------------------------------------------------------------------------------------


def _range(interval: Sequence[float] | None) -> str:
    return f"[{interval[0]:.3f}, {interval[1]:.3f}]" if interval else NONE


def _in_brackets(interval: Sequence[float] | None) -> str:
    return f" {span(interval)}" if interval else ""


def _decimals(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"
