"""A study's tables, each a list of rows with the head first, and the block of Markdown that they make.

Shares in percent, differences in points, each with its 95 % interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mathse.reporting.study.collect import Collected, value
from mathse.reporting.study.command import command
from mathse.reporting.study.differences import Difference, difference
from mathse.runs.layout import title
from mathse.scoring.metrics import mean_interval

CHANGES = ("correct_correct", "wrong_wrong", "correct_wrong", "wrong_correct")
NONE = "\N{EN DASH}"

Table = list[list[str]]


def results(collected: Collected) -> str:
    """The block that stands in the README: what was run, the tables, how to read them."""
    more = transition_table if collected.design.rows == "stages" else settings_table
    tables = [main_table(collected), seed_table(collected), more(collected)]
    drawn = [markdown(table) for table in tables if len(table) > 1]
    return "\n\n".join([command(collected), *drawn, _legend(collected)])


def main_table(collected: Collected) -> Table:
    """What the study asks: a row a variant, or a row a stage."""
    return stage_table(collected) if collected.design.rows == "stages" else variant_table(collected)


def variant_table(collected: Collected) -> Table:
    """A row a variant."""
    design = collected.design
    first = next(iter(design.measures.values()))
    head = ["variant", *design.measures, f"against {design.against}", *([_paper(collected)] if design.paper else [])]
    rows = []
    for variant in design.variants:
        gain = difference(collected.runs[design.against], collected.runs[variant], first)
        cells = [mean_text(collected.values(variant, place), place) for place in design.measures.values()]
        paper = [f"{design.paper[variant]:.2f}" if variant in design.paper else NONE] if design.paper else []
        rows.append([variant, *cells, NONE if variant == design.against else difference_text(gain, first), *paper])
    return [head, *rows]


def stage_table(collected: Collected) -> Table:
    """A row a stage of the only variant; each is compared with the stage before."""
    design = collected.design
    runs = collected.runs[design.variants[0]]
    keys = {name: place.partition(".")[2] for name, place in design.measures.items()}
    head = ["stage", *keys, "against the stage before", *([_paper(collected)] if design.paper else [])]
    rows, before = [], ""
    for stage in _stages(runs[0].summary):
        cells = [mean_text([value(run, f"{stage}.{key}") for run in runs], key) for key in keys.values()]
        gain = difference(runs, runs, f"{stage}.accuracy", f"{before}.accuracy") if before else None
        paper = [f"{design.paper[stage]:.2f}" if stage in design.paper else NONE] if design.paper else []
        rows.append([title(stage), *cells, difference_text(gain, "accuracy") if before else NONE, *paper])
        before = stage
    return [head, *rows]


def transition_table(collected: Collected) -> Table:
    """Figure 2: what became of right and wrong answers from stage to stage, in percent of the problems."""
    runs = collected.runs[collected.design.variants[0]]
    rows = []
    for stage in _stages(runs[0].summary):
        entries = [next(e for e in run.summary["stages"] if e["stage"] == stage) for run in runs]
        if all(entry.get("transitions") for entry in entries):
            shares = [[e["transitions"][c] / sum(e["transitions"].values()) for e in entries] for c in CHANGES]
            rows.append([title(stage), *(mean_text(share, "accuracy") for share in shares)])
    return [["to", "stays right", "stays wrong", "right to wrong", "wrong to right"], *rows]


def seed_table(collected: Collected) -> Table:
    """The first measure, seed by seed."""
    design = collected.design
    name, place = next(iter(design.measures.items()))
    head = [f"{name}, by seed", *map(str, collected.seeds)]
    if design.rows == "stages":
        runs, key = collected.runs[design.variants[0]], place.partition(".")[2]
        names = _stages(runs[0].summary)
        rows = [[title(s), *(number(value(run, f"{s}.{key}"), key) for run in runs)] for s in names]
    else:
        rows = [[v, *(number(x, place) for x in collected.values(v, place))] for v in design.variants]
    return [head, *rows]


def settings_table(collected: Collected) -> Table:
    """In which settings the variants differ."""
    differing = collected.differing
    keys = sorted({key for settings in differing.values() for key in settings})
    rows = [[v, *(f"`{_plain(differing[v].get(key))}`" for key in keys)] for v in collected.design.variants]
    return [["variant", *(f"`{key}`" for key in keys)], *(rows if keys else [])]


def mean_text(values: Sequence[float | None], place: str) -> str:
    """Mean over seeds and its interval; a dash where a seed has no such figure."""
    known = [v for v in values if v is not None]
    if not known or len(known) < len(values):
        return NONE
    mean, interval = mean_interval(known)
    if interval is None or not _is_share(place):
        return number(mean, place)
    return f"{100 * mean:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def difference_text(gain: Difference | None, place: str) -> str:
    if gain is None:
        return NONE
    scale, form = (100, "+.1f") if _is_share(place) else (1, "+,.0f")
    words = f"{scale * gain.mean:{form}}"
    if gain.interval is not None:
        words += f" [{scale * gain.interval[0]:{form}}, {scale * gain.interval[1]:{form}}]"
    return words


def number(x: float | None, place: str) -> str:
    """A share in percent, a count as it is."""
    if x is None:
        return NONE
    return f"{100 * x:.1f}" if _is_share(place) else f"{x:,.0f}"


def markdown(table: Table) -> str:
    lines = [table[0], ["---"] * len(table[0]), *table[1:]]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _is_share(place: str) -> bool:
    key = place.rpartition(".")[2]
    return any(word in key for word in ("accuracy", "precision", "auroc", "recall"))


def _stages(summary: Any) -> list[str]:
    return [entry["stage"] for entry in summary["stages"]]


def _plain(x: object) -> str:
    return "null" if x is None else str(x)


def _paper(collected: Collected) -> str:
    says = collected.design.paper_says
    return f"paper ({says})" if says else "paper"


def _legend(collected: Collected) -> str:
    """How to read the figures, and what they cost."""
    design, seeds = collected.design, len(collected.seeds)
    first = next(iter(design.measures.values()))
    others = [] if design.rows == "stages" else [v for v in design.variants if v != design.against]
    gains = [difference(collected.runs[design.against], collected.runs[v], first) for v in others]
    bootstrap = {gain.bootstrap for gain in gains if gain is not None} or {design.rows == "stages"}
    how = {
        (True,): "a bootstrap over seeds and what was answered in each (rather too narrow for few seeds)",
        (False,): "Student's t over the paired seeds",
        (False, True): "a bootstrap over seeds and answers where all answers are here, else Student's t over the seeds",
    }[tuple(sorted(bootstrap))]
    return (
        f"Means over {seeds} seed{'s' if seeds > 1 else ''} with 95 % intervals (Student's t; with few seeds they are "
        f"wide and may pass 100); differences in points, paired by seed, with {how}. "
        f"{collected.minutes:.0f} minutes of stages in all, those that variants share counted once."
    )
