"""The block of a study's README that the command writes: how the runs are made again, the tables, how to read them.

The rest of the file is its author's: the block has two marks around it, and a README without them is left alone. A
table is a list of rows, the head first: shares in percent, differences in points, each with its 95 % interval.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

from mathse.config.compose import compose_unchecked
from mathse.errors import DataError
from mathse.reporting.pages import NONE, write_page
from mathse.reporting.progress.wording import NOT_RECORDED, scaled, shown_difference
from mathse.reporting.report.compare import comparable
from mathse.reporting.study.collect import BOOKKEEPING, SECONDS, Collected, PairedDifference, difference, value
from mathse.reporting.study.design import programs
from mathse.runs.layout import title
from mathse.runs.ledger import FLOPS, TOKENS
from mathse.runs.reader import Run
from mathse.scoring.metrics import mean_share

BEGIN, END = "<!-- results: written by python -m mathse study -->", "<!-- end of results -->"
NEW = """# {name}

**Question.** (What is asked, and why.)

**Hardware.** (On what it ran.)

## Results

{begin}
{end}

## What it means, and what it does not

(Whatever came out.)
"""
PLAIN = re.compile(r"[\w./-]+")  # text that Hydra reads as it is
CHANGES = ("correct_correct", "wrong_wrong", "correct_wrong", "wrong_correct")
SHARES = ("accuracy", "precision", "auroc", "recall")  # parts of the names of measures that are shares, others counts
COSTS = (*TOKENS, FLOPS, *SECONDS)

Cells = list[list[str]]


class Readme:
    """A study's README with its place for results; one that is not there is begun.

    Raises DataError, before anything is written, for a file without the two marks, and for one that is no text.
    """

    def __init__(self, file: Path, name: str) -> None:
        self.file = file
        try:
            page = file.read_text(encoding="utf-8") if file.is_file() else NEW.format(name=name, begin=BEGIN, end=END)
        except UnicodeDecodeError as e:
            raise DataError(f"{file}: is no UTF-8 text ({e.reason} at byte {e.start}); save it as UTF-8") from None
        self._before, begin, rest = page.partition(BEGIN)
        _, end, self._after = rest.partition(END)
        if not begin or not end:
            raise DataError(f"{file}: has no place for the results; put two lines where they belong: {BEGIN} {END}")

    def put(self, text: str) -> None:
        """Write the results between the marks."""
        write_page(f"{self._before}{BEGIN}\n{text}\n{END}{self._after}", self.file)


def results(collected: Collected) -> str:
    """The block, in Markdown: what was run, the tables, how to read them."""
    last_table = transition_table if collected.design.rows == "stages" else settings_table
    tables = [main_table(collected), seed_table(collected), last_table(collected)]
    parts = [_command(collected)]
    for table in tables:
        if len(table) > 1:  # more than a head
            lines = [table[0], ["---"] * len(table[0]), *table[1:]]
            escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
            parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in escaped))
    return "\n\n".join([*parts, _legend(collected)])


def _command(collected: Collected) -> str:
    """The two commands that make the runs again and collect them, with the overrides that all runs had besides their
    variant's file."""
    name, seeds = collected.design.name, ",".join(map(str, collected.seeds))
    besides: list[dict[str, Any]] = []  # of the first run of each variant
    for variant, runs in collected.runs.items():
        composed = compose_unchecked([f"+experiment/{name}={variant}", f"seed={runs[0].seed}"])
        settings, keys = runs[0].settings, comparable(runs[0]).keys() - set(BOOKKEEPING)
        besides.append({k: settings[k] for k in keys if k not in composed or settings[k] != composed[k]})
    shared = {k: v for k, v in besides[0].items() if all(k in other and other[k] == v for other in besides)}

    overrides = []
    for key, setting in sorted(shared.items()):
        # Text that Hydra would read in another way gets double quotes, as in JSON.
        plain = isinstance(setting, str) and PLAIN.fullmatch(setting)
        overrides.append(shlex.quote(f"{key}={setting if plain else json.dumps(setting, ensure_ascii=False)}"))
    train, study = programs()
    run_all = " ".join([train, f"'+experiment/{name}=glob(*)'", f"seed={seeds}", *overrides])
    return f"```\n{run_all}\n{study} {name}\n```"


def _legend(collected: Collected) -> str:
    """How to read the figures, and what they cost."""
    design, seeds = collected.design, len(collected.seeds)
    first = next(iter(design.measures.values()))
    others = [] if design.rows == "stages" else [v for v in design.variants if v != design.against]
    gains = [difference(collected.runs[design.against], collected.runs[v], first) for v in others]
    bootstrap = {gain.bootstrap for gain in gains if gain is not None} or {design.rows == "stages"}
    intervals = {
        (True,): "a bootstrap over seeds and what was answered in each (rather too narrow for few seeds)",
        (False,): "Student's t over the paired seeds",
        (False, True): "a bootstrap over seeds and answers where all answers are here, else Student's t over the seeds",
    }[tuple(sorted(bootstrap))]
    return (
        f"Means over {seeds} seed{'s' if seeds > 1 else ''} with 95 % intervals (Student's t, wide with few seeds, cut "
        f"at 0 and 100); differences in points, paired by seed, with {intervals}. "
        f"{collected.minutes:.0f} minutes of stages in all, those that variants share counted once."
    )


# --- the tables -------------------------------------------------------------------------------------------------------


def main_table(collected: Collected) -> Cells:
    """The study's main table: a row a variant, compared with the variant that the design names; or a row a stage of the
    only variant, compared with the stage before."""
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
    keys = sorted(set(chain.from_iterable(differing.values())))
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
