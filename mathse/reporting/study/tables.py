"""A study's tables, each a list of rows with the head first.

Shares in percent, differences in points, each with its 95 % interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from mathse.reporting.progress.wording import NOT_RECORDED, scaled
from mathse.reporting.report.svg import shown_difference
from mathse.reporting.study.collect import SECONDS, Collected, value
from mathse.reporting.study.differences import PairedDifference, difference
from mathse.runs.layout import title
from mathse.runs.ledger import FLOPS, TOKENS
from mathse.runs.reader import Run
from mathse.scoring.metrics import mean_share

CHANGES = ("correct_correct", "wrong_wrong", "correct_wrong", "wrong_correct")
SHARES = ("accuracy", "precision", "auroc", "recall")  # parts of the names of measures that are shares, others counts
COSTS = (*TOKENS, FLOPS, *SECONDS)
NONE = "\N{EN DASH}"

Cells = list[list[str]]


def main_table(collected: Collected) -> Cells:
    """What the study asks: a row a variant, compared with the one that the design names; or a row a stage of the only
    variant, compared with the stage before."""
    design = collected.design
    rows: Cells = []
    if design.rows == "stages":
        runs = collected.runs[design.variants[0]]
        keys = {name: measure.partition(".")[2] for name, measure in design.measures.items()}
        names = _stages(runs)
        head = ["stage", *keys, "against the stage before"]
        before = ""
        for stage in names:
            cells = [mean_text([value(run, f"{stage}.{key}") for run in runs], key) for key in keys.values()]
            gain = difference(runs, runs, f"{stage}.accuracy", f"{before}.accuracy") if before else None
            rows.append([title(stage), *cells, difference_text(gain, "accuracy")])
            before = stage
    else:
        first = next(iter(design.measures.values()))
        names = list(design.variants)
        head = ["variant", *design.measures, f"against {design.called(design.against)}"]
        for variant in names:
            cells = [mean_text(collected.values(variant, measure), measure) for measure in design.measures.values()]
            gain = difference(collected.runs[design.against], collected.runs[variant], first)
            rows.append(
                [design.called(variant), *cells, NONE if variant == design.against else difference_text(gain, first)]
            )
    if design.paper:
        head.append(f"paper ({design.paper_says})" if design.paper_says else "paper")
        for row, name in zip(rows, names, strict=True):
            row.append(f"{design.paper[name]:.2f}" if name in design.paper else NONE)
    return [head, *rows]


def transition_table(collected: Collected) -> Cells:
    """Figure 2: what became of right and wrong answers from stage to stage, in percent of the problems."""
    runs = collected.runs[collected.design.variants[0]]
    rows = []
    for stage in _stages(runs):
        entries = [next(e for e in run.summary["stages"] if e["stage"] == stage) for run in runs]
        if all(entry.get("transitions") for entry in entries):
            shares = [[e["transitions"][c] / sum(e["transitions"].values()) for e in entries] for c in CHANGES]
            rows.append([title(stage), *(mean_text(share, "accuracy") for share in shares)])
    return [["to", "stays right", "stays wrong", "right to wrong", "wrong to right"], *rows]


def seed_table(collected: Collected) -> Cells:
    """The first measure, seed by seed."""
    design = collected.design
    name, measure = next(iter(design.measures.items()))
    head = [f"{name}, by seed", *map(str, collected.seeds)]
    if design.rows == "stages":
        runs, key = collected.runs[design.variants[0]], measure.partition(".")[2]
        rows = [[title(s), *(number(value(run, f"{s}.{key}"), key) for run in runs)] for s in _stages(runs)]
    else:
        rows = [
            [design.called(v), *(number(x, measure) for x in collected.values(v, measure))] for v in design.variants
        ]
    return [head, *rows]


def settings_table(collected: Collected) -> Cells:
    """In which settings the variants differ."""
    differing = collected.differing
    keys = sorted({key for settings in differing.values() for key in settings})
    rows = []
    for variant in collected.design.variants:
        values = (differing[variant].get(key) for key in keys)
        called = collected.design.called(variant)
        label = variant if called == variant else f"{called} (`{variant}`)"
        rows.append([label, *("`null`" if x is None else f"`{x}`" for x in values)])
    return [["variant", *(f"`{key}`" for key in keys)], *(rows if keys else [])]


def mean_text(values: Sequence[float | None], measure: str) -> str:
    """Mean over seeds and its interval; as ``number`` has it where a seed has no such figure."""
    known = [v for v in values if v is not None]
    if not known or len(known) < len(values):
        return number(None, measure)
    mean, interval = mean_share(known) if _is_share(measure) else (fmean(known), None)
    if interval is None:
        return number(mean, measure)
    return f"{100 * mean:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def difference_text(gain: PairedDifference | None, measure: str) -> str:
    if gain is None:
        return NONE
    scale, digits = (100, 1) if _is_share(measure) else (1, 0)
    form = f"+,.{digits}f"
    text = f"{shown_difference(scale * gain.before, scale * gain.after, digits):{form}}"
    if gain.interval is not None:
        text += f" [{scale * gain.interval[0]:{form}}, {scale * gain.interval[1]:{form}}]"
    return text


def number(x: float | None, measure: str) -> str:
    """A share in percent, a count as it is; a dash for nothing, words for a cost that an earlier version did not
    record."""
    key = measure.rpartition(".")[2]
    if x is None:
        return NOT_RECORDED if key in COSTS else NONE
    if _is_share(measure):
        return f"{100 * x:.1f}"
    return scaled(x) if key == FLOPS else f"{x:,.0f}"


def _is_share(measure: str) -> bool:
    return any(part in measure.rpartition(".")[2] for part in SHARES)


def _stages(runs: Sequence[Run]) -> list[str]:
    return [entry["stage"] for entry in runs[0].summary["stages"]]
