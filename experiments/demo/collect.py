"""Print the demo's tables from finished runs, as Markdown:

    python experiments/demo/collect.py outputs/demo/seed_* [--control outputs/demo/control_*] [--picture FILE.svg]

Over seeds: mean and 95 % interval (Student's t, cut at 0 and 100). A run that is not finished is an error: no cell is
filled by hand.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mathse.reporting.charts import staircase_svg
from mathse.runs.reader import read_run
from mathse.scoring.metrics import mean_share

ORM = ("overall_accuracy", "positive_accuracy", "negative_accuracy", "error_step_accuracy")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--control", nargs="*", type=Path, default=[])
    parser.add_argument("--picture", type=Path, help="write the staircase: means over the runs")
    asked = parser.parse_args(argv)
    summaries = [read(run) for run in asked.runs]
    print(stage_table(summaries))
    if all(summary["orm"] for summary in summaries):
        print(f"\n{orm_table(summaries)}")
    for control in asked.control:
        print(f"\n{control.name}\n\n{stage_table([read(control)])}")
    if asked.picture:
        asked.picture.write_text(staircase_svg(mean_stages(summaries)), encoding="utf-8")
    return 0


def mean_stages(summaries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a staircase shows of several runs: accuracy with its interval over seeds, and the mean number of rows."""
    if len(summaries) == 1:
        return list(summaries[0]["stages"])
    stages = []
    for entries in zip(*(s["stages"] for s in summaries), strict=True):
        mean, interval = mean_share([e["accuracy"] for e in entries])
        rows = round(sum(e["train_rows"] for e in entries) / len(entries))
        stages.append({"stage": entries[0]["stage"], "accuracy": mean, "ci95": interval, "train_rows": rows})
    return stages


def read(run: Path) -> dict[str, Any]:
    finished = read_run(run)
    if not finished.finished:
        sys.exit(f"{run} is no finished run")
    return {**finished.summary, "stages": finished.entries}  # with the teacher's calls, also of an earlier version


def stage_table(summaries: Sequence[dict[str, Any]]) -> str:
    lines = ["| stage | test accuracy | teacher calls | rows of D_SFT | accepted | rejected | precision |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for k, entry in enumerate(summaries[0]["stages"]):
        stages = [s["stages"][k] for s in summaries]
        precision = [s.get("acceptance_precision") for s in stages]
        counted = (counts(stages, key) for key in ("teacher_calls", "train_rows", "accepted", "rejected"))
        cells = [percent(s["accuracy"] for s in stages), *counted, percent(precision)]
        lines.append(f"| {entry['stage']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def orm_table(summaries: Sequence[dict[str, Any]]) -> str:
    lines = ["| held-out paths by | overall | right accepted | wrong rejected | first wrong step named | paths |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    rows = [("the ORM's own weak students", [s["orm"] for s in summaries])]
    rows += [(entry["stage"], [s["orm_by_student"][k] for s in summaries])
             for k, entry in enumerate(summaries[0]["orm_by_student"])]  # fmt: skip
    for name, figures in rows:
        cells = [percent(f[key] for f in figures) for key in ORM] + [counts(figures, "n")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def percent(values: Any) -> str:
    values = [v for v in values if v is not None]
    if not values:
        return ""
    mean, interval = mean_share(values)
    return f"{100 * mean:.1f}" + (f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else "")


def counts(rows: Sequence[dict[str, Any]], key: str) -> str:
    values = [row[key] for row in rows if row.get(key) is not None]
    return ", ".join(f"{v:,}" for v in values)


if __name__ == "__main__":
    sys.exit(main())
