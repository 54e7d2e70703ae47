"""report.html of benchmark=orm_test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mathse.evaluation.orm_test import charts, figures
from mathse.evaluation.orm_test.measured import JudgedPath, marks_of
from mathse.reporting.report.cards import Pictures, cards
from mathse.reporting.report.gallery import Item, decide
from mathse.reporting.report.orm_charts import reliability
from mathse.reporting.report.page import html
from mathse.reporting.report.sections import figure, section, table
from mathse.reporting.report.svg import percent, safe, span

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
    found: Mapping[str, Any],
    rows: Sequence[JudgedPath],
    wrong: Sequence[JudgedPath],
    image_png: Callable[[str], bytes],
) -> str:
    """``found``: metrics.json; ``wrong``: the rows judged wrongly, the most confident first."""
    parts = [
        _figures(found),
        _paper(found),
        _scores(found, rows),
        _thresholds(found),
        _agreement(found),
        _groups(found),
        _disagreements(wrong, found["threshold"], image_png),
        _notes(found["notes"]),
        section(
            "protocol", "Protocol", "What was measured, and with what.", table(("what", "value"), _protocol(found))
        ),
    ]
    header = (
        '<p class="eyebrow">MathSE · evaluation</p><h1>The ORM on labelled paths</h1>'
        f'<p class="result">{_result(found)}</p>'
    )
    return html("ORM test", header, parts, NAMES)


def _result(found: Mapping[str, Any]) -> str:
    interval = found["ci95"]["overall_accuracy"]
    return (
        f"The ORM judges <b>{percent(found['overall_accuracy'])}</b> ({span(interval)}) of {found['paths']:,} labelled "
        f"paths rightly: it accepts {percent(found['positive_accuracy'])} of the right ones and rejects "
        f"{percent(found['negative_accuracy'])} of the wrong ones. {_unread(found['unparsed'])}"
    )


# --- sections ---------------------------------------------------------------------------------------------------------


def _figures(found: Mapping[str, Any]) -> str:
    rows = [[words, percent(found[key]), _span(found["ci95"][key])] for key, words in SHARES.items()]
    rows += [[words, _decimals(found[key]), _range(found["ci95"][key])] for key, words in SCORES.items()]
    finding = (
        f"A path counts as accepted if it is called correct with a P(correct) of at least {found['threshold']:g}; what "
        "cannot be read is rejected. Intervals of 95%: Wilson's for shares, else a bootstrap over problems (ECE is "
        "biased upward where there are few paths, and so is its interval)."
    )
    return section("accuracy", "Figures", safe(finding), table(("figure", "value", "95% interval"), rows, ""))


def _paper(found: Mapping[str, Any]) -> str:
    """Ours beside Table 5."""
    ours = [percent(found[f"{name}_accuracy"], 2) for name in ("positive", "negative", "overall")]
    theirs = [[name, *(f"{row[k]:.2f}%" for k in row)] for name, row in found["paper"].items()]
    finding = (
        "The paper's rows are of its own 1,000 right and 1,000 wrong paths, which are not public; ours are of the file "
        "named below, so a difference says nothing of the models alone."
    )
    head = ("judge", "positive", "negative", "overall")
    return section("tables", "Beside Table 5", finding, table(head, [["this ORM, here", *ours], *theirs], ""))


def _scores(found: Mapping[str, Any], rows: Sequence[JudgedPath]) -> str:
    """ROC and calibration."""
    drawn = []
    if found["auroc"] is not None:
        drawn.append(
            (
                "Right paths above each score, against wrong ones",
                charts.roc(figures.roc(marks_of(rows)), found["auroc"]),
            )
        )
    if found["calibration"]:
        drawn.append(("Share of paths that are right, by P(correct)", reliability(found["calibration"])))
    diagrams = "".join(
        f'<figure class="half"><figcaption>{safe(words)}</figcaption>{chart}</figure>' for words, chart in drawn
    )
    numbers = [
        (
            f"{b['low']:.1f} to {b['high']:.1f}",
            f"{b['n']:,}",
            f"{b['mean_score']:.3f}",
            percent(b["correct"]),
            span(b["ci95"]),
        )
        for b in found["calibration"] or ()
    ]
    head = ("P(correct)", "paths", "mean", "right", "95% interval")
    finding = "Whether P(correct) puts right paths above wrong ones, and whether it means what it says."
    body = f'<div class="pair">{diagrams}</div>' + table(head, numbers) if diagrams else ""
    return section("orm", "P(correct)", finding, body)


def _thresholds(found: Mapping[str, Any]) -> str:
    rows = found["thresholds"] or ()
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
    body = figure(charts.thresholds(rows, found["threshold"])) + table(head, numbers) if rows else ""
    return section("selectors", "Acceptance against the threshold", finding, body)


def _agreement(found: Mapping[str, Any]) -> str:
    agreement = found["agreement"]
    if agreement is None:
        return ""
    rows = [
        (
            words,
            percent(part["agreement"]) + _in_brackets(part["ci95"]["agreement"]),
            _decimals(part["kappa"]),
            _range(part["ci95"]["kappa"]),
            *(f"{part[key]:,}" for key in ("both", "accepted_alone", "matched_alone", "neither")),
        )
        for words, part in (("the ORM's decisions", agreement["decisions"]), ("the labels", agreement["labels"]))
    ]
    head = ("", "agreement", "kappa", "95% interval", "yes, match", "yes, no match", "no, match", "no, no match")
    finding = (
        f"Of {agreement['paths']:,} paths whose problem has a reference answer, {agreement['matches']:,} end in it. A "
        "wrong path may, and then an answer match is fooled."
    )
    return section("compared", "Agreement with answer matching", finding, table(head, rows, ""))


def _groups(found: Mapping[str, Any]) -> str:
    named = [(f"subject {name}", part) for name, part in found["by_subject"].items()]
    named += [(f"{part['from']:,} to {part['to']:,} characters", part) for part in found["by_length"]]
    rows = [
        (
            name,
            f"{part['paths']:,}",
            *(percent(part[key]) + _in_brackets(part["ci95"][key]) for key in GROUPED),
            _decimals(part["auroc"]),
        )
        for name, part in named
    ]
    head = ("paths", "how many", *(SHARES[key] for key in GROUPED), "AUROC")
    return section("buckets", "By subject and by length", "", table(head, rows, "") if rows else "")


def _disagreements(wrong: Sequence[JudgedPath], threshold: float, image_png: Callable[[str], bytes]) -> str:
    groups: dict[str, list[Item]] = {}
    for row in wrong[:SHOWN]:
        groups.setdefault("wrongly accepted" if row.accepted else "wrongly rejected", []).append(_item(row, threshold))
    finding = (
        f"The {min(SHOWN, len(wrong)):,} of {len(wrong):,} paths judged wrongly on which the ORM was surest; "
        "disagreements.jsonl has all of them. The step that the judge names is marked, and the true one."
    )
    return section("gallery", "The worst disagreements", finding, cards(groups, Pictures(image_png)))


def _item(row: JudgedPath, threshold: float) -> Item:
    group = "wrongly accepted" if row.accepted else "wrongly rejected"
    decision = decide(row.verdict, threshold)
    return Item(group, row.given.path, row.given.problem, row.verdict, decision, row.is_right, row.given.label)


def _notes(notes: Sequence[str]) -> str:
    said = "".join(f"<li>{safe(note)}</li>" for note in notes)
    return section("notes", "Notes", "", f"<ul>{said}</ul>" if said else "")


def _protocol(found: Mapping[str, Any]) -> list[tuple[str, object]]:
    return [(key, NONE if value is None else value) for key, value in found["protocol"].items()]


# --- words ------------------------------------------------------------------------------------------------------------


def _unread(count: int) -> str:
    return "One verdict could not be read." if count == 1 else f"{count:,} verdicts could not be read."


def _span(interval: Sequence[float] | None) -> str:
    return span(interval) if interval else NONE


def _range(interval: Sequence[float] | None) -> str:
    return f"{interval[0]:.3f}{NONE}{interval[1]:.3f}" if interval else NONE


def _in_brackets(interval: Sequence[float] | None) -> str:
    return f" ({span(interval)})" if interval else ""


def _decimals(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"
