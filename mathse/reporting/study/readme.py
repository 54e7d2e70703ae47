"""The block of results in a study's README: the command that repeats the runs, the tables, and how to read them.

Two marks enclose the block. The author writes the rest of the file; a README without the marks stays unchanged. A table
is a list of rows with the head first: shares in percent, differences in points, each with its 95 % interval.
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

from mathse.config.compose import unchecked_settings
from mathse.errors import DataError
from mathse.reporting.pages import NONE, write_page
from mathse.reporting.progress.wording import NOT_RECORDED, shorten_number, shown_difference
from mathse.reporting.report.compare import comparable_settings
from mathse.reporting.study.collect import BOOKKEEPING, SECONDS, Collected, PairedDifference, compare_runs, read_measure
from mathse.reporting.study.design import study_commands
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

## Conclusions and limits

(Whatever came out.)
"""
PLAIN = re.compile(r"[\w./-]+")  # text that Hydra needs no quotes for
# In the order of the table's columns.
TRANSITIONS = ("correct_correct", "wrong_wrong", "correct_wrong", "wrong_correct")
SHARES = ("accuracy", "precision", "auroc", "recall")  # a measure with such a word in its name is a share, else a count
COSTS = (*TOKENS, FLOPS, *SECONDS)

Cells = list[list[str]]


class Readme:
    """A study's README with its place for results. A missing file is started from a template.

    Raises DataError, before anything is written, for a file without the two marks, and for a file that is no text.
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
        """Write ``text`` between the marks."""
        write_page(f"{self._before}{BEGIN}\n{text}\n{END}{self._after}", self.file)


def render_results(collected: Collected) -> str:
    """Return the block in Markdown: the commands, the tables, how to read them."""
    last_table = transition_table if collected.design.rows == "stages" else settings_table
    tables = [main_table(collected), seed_table(collected), last_table(collected)]
    parts = [_command(collected)]
    for table in tables:
        if len(table) == 1:  # only a head
            continue
        lines = []
        for cells in (table[0], ["---"] * len(table[0]), *table[1:]):
            escaped = [cell.replace("|", "\\|") for cell in cells]
            lines.append(f"| {' | '.join(escaped)} |")
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, _legend(collected)])


def _command(collected: Collected) -> str:
    """Write the two commands that make the runs and collect them, with the overrides that all runs share."""
    name, seeds = collected.design.name, ",".join(map(str, collected.seeds))
    # Overrides of the first run of each variant: its settings that differ from the variant's file.
    overrides_by_variant: list[dict[str, Any]] = []
    for variant, runs in collected.runs.items():
        composed = unchecked_settings([f"+experiment/{name}={variant}", f"seed={runs[0].seed}"])
        settings, keys = runs[0].settings, comparable_settings(runs[0]).keys() - set(BOOKKEEPING)
        overrides_by_variant.append({k: settings[k] for k in keys if k not in composed or settings[k] != composed[k]})
    shared = {}
    for key, setting in overrides_by_variant[0].items():
        if all(key in other and other[key] == setting for other in overrides_by_variant):
            shared[key] = setting

    overrides = []
    for key, setting in sorted(shared.items()):
        # Text that Hydra would parse gets double quotes, as in JSON.
        plain = isinstance(setting, str) and PLAIN.fullmatch(setting)
        overrides.append(shlex.quote(f"{key}={setting if plain else json.dumps(setting, ensure_ascii=False)}"))
    train, study = study_commands()
    run_all = " ".join([train, f"'+experiment/{name}=glob(*)'", f"seed={seeds}", *overrides])
    return f"```\n{run_all}\n{study} {name}\n```"


def _legend(collected: Collected) -> str:
    """Write how to read the figures, and the time of all stages."""
    design, seeds = collected.design, len(collected.seeds)
    first = next(iter(design.measures.values()))
    gains = []
    if design.rows == "variants":
        for variant in design.variants:
            if variant != design.against:
                gains.append(compare_runs(collected.runs[design.against], collected.runs[variant], first))
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
    """Return the study's main table.

    A row is a variant, compared with the design's ``against``; or a stage of the only variant, compared with the stage
    before.
    """
    design = collected.design
    rows: Cells = []
    if design.rows == "stages":
        runs = collected.runs[design.variants[0]]
        keys = {name: measure.partition(".")[2] for name, measure in design.measures.items()}
        names = _stages(runs)
        head = ["stage", *keys, "against the stage before"]
        before = ""
        for stage in names:
            cells = [mean_text([read_measure(run, f"{stage}.{key}") for run in runs], key) for key in keys.values()]
            gain = compare_runs(runs, runs, f"{stage}.accuracy", f"{before}.accuracy") if before else None
            rows.append([title(stage), *cells, difference_text(gain, "accuracy")])
            before = stage
    else:
        first = next(iter(design.measures.values()))
        names = list(design.variants)
        head = ["variant", *design.measures, f"against {design.label_of(design.against)}"]
        for variant in names:
            cells = [mean_text(collected.values(variant, measure), measure) for measure in design.measures.values()]
            compared = NONE
            if variant != design.against:
                gain = compare_runs(collected.runs[design.against], collected.runs[variant], first)
                compared = difference_text(gain, first)
            rows.append([design.label_of(variant), *cells, compared])
    if design.paper:
        head.append(f"paper ({design.paper_says})" if design.paper_says else "paper")
        for row, name in zip(rows, names, strict=True):
            row.append(f"{design.paper[name]:.2f}" if name in design.paper else NONE)
    return [head, *rows]


def transition_table(collected: Collected) -> Cells:
    """Return Figure 2 of the paper as a table: transitions of answers between stages, in percent of the problems."""
    runs = collected.runs[collected.design.variants[0]]
    rows = []
    for stage in _stages(runs):
        entries = [next(e for e in run.summary["stages"] if e["stage"] == stage) for run in runs]
        if not all(entry.get("transitions") for entry in entries):
            continue
        row = [title(stage)]
        for transition in TRANSITIONS:
            shares = [entry["transitions"][transition] / sum(entry["transitions"].values()) for entry in entries]
            row.append(mean_text(shares, "accuracy"))
        rows.append(row)
    return [["to", "stays right", "stays wrong", "right to wrong", "wrong to right"], *rows]


def seed_table(collected: Collected) -> Cells:
    """Return a table of the first measure for each seed."""
    design = collected.design
    name, measure = next(iter(design.measures.items()))
    rows: Cells = [[f"{name}, by seed", *map(str, collected.seeds)]]
    if design.rows == "stages":
        runs, key = collected.runs[design.variants[0]], measure.partition(".")[2]
        for stage in _stages(runs):
            rows.append([title(stage), *(number(read_measure(run, f"{stage}.{key}"), key) for run in runs)])
    else:
        for variant in design.variants:
            cells = [number(x, measure) for x in collected.values(variant, measure)]
            rows.append([design.label_of(variant), *cells])
    return rows


def settings_table(collected: Collected) -> Cells:
    """Return a table of the settings in which the variants differ."""
    differing = collected.differing
    keys = sorted(set(chain.from_iterable(differing.values())))
    head = ["variant", *(f"`{key}`" for key in keys)]
    if not keys:
        return [head]
    rows = [head]
    for variant in collected.design.variants:
        label = collected.design.label_of(variant)
        row = [variant if label == variant else f"{label} (`{variant}`)"]
        for key in keys:
            setting = differing[variant].get(key)
            row.append("`null`" if setting is None else f"`{setting}`")
        rows.append(row)
    return rows


def mean_text(values: Sequence[float | None], measure: str) -> str:
    """Write the mean over seeds and its interval. If a seed lacks the figure, write ``number(None, ...)``."""
    known = [v for v in values if v is not None]
    if not known or len(known) < len(values):
        return number(None, measure)
    mean, interval = mean_share(known) if _is_share(measure) else (fmean(known), None)
    if interval is None:
        return number(mean, measure)
    return f"{100 * mean:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def difference_text(gain: PairedDifference | None, measure: str) -> str:
    """Write a difference with its interval: shares in points, counts as whole numbers."""
    if gain is None:
        return NONE
    scale, digits = (100, 1) if _is_share(measure) else (1, 0)
    form = f"+,.{digits}f"
    text = f"{shown_difference(scale * gain.before, scale * gain.after, digits):{form}}"
    if gain.interval is not None:
        text += f" [{scale * gain.interval[0]:{form}}, {scale * gain.interval[1]:{form}}]"
    return text


def number(x: float | None, measure: str) -> str:
    """Write a share in percent or a count. No value is a dash, or words for a cost that was not recorded."""
    key = measure.rpartition(".")[2]
    if x is None:
        return NOT_RECORDED if key in COSTS else NONE
    if _is_share(measure):
        return f"{100 * x:.1f}"
    return shorten_number(x) if key == FLOPS else f"{x:,.0f}"


def _is_share(measure: str) -> bool:
    return any(part in measure.rpartition(".")[2] for part in SHARES)


def _stages(runs: Sequence[Run]) -> list[str]:
    return [entry["stage"] for entry in runs[0].summary["stages"]]
