"""``python -m mathse study NAME``: a study's finished runs as the table and the picture of its README.

A study is a folder of variants, ``conf/experiment/NAME/<variant>.yaml``. ``experiments/NAME/`` has its question and its
results. The optional ``study.yaml`` there sets columns and picture: mathse/reporting/study/design.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mathse.config.options import FLAG, look_in
from mathse.config.program import program
from mathse.errors import DataError
from mathse.reporting.charts import Point, mean_stairs, means, means_by_cost, staircase, standalone
from mathse.reporting.pages import write_page
from mathse.reporting.study.collect import collect
from mathse.reporting.study.design import EXPERIMENTS, FILE, SHIPPED, Design, read_design, study_commands
from mathse.reporting.study.readme import Readme, main_table, render_results
from mathse.runs.store import make_folder, read_json, write_json

RESULTS, DRAWING = "results.json", "result.svg"
RUNS = Path("outputs/studies")  # where conf/experiment/studies.yaml puts them


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand and return its exit code.

    Raises RunError if a cell of the table has no finished run.
    """
    parser = argparse.ArgumentParser(
        prog=program("study"),
        description="Collect a study's finished runs into the table and the picture of its README. A cell without a "
        "finished run is an error: no cell is filled by hand.",
    )
    parser.add_argument("name", metavar="NAME", help="a folder of conf/experiment, such as table3_reflection")
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help=f"where the runs lie (default: {RUNS})")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: experiments/NAME)")
    parser.add_argument("--seeds", metavar="1,2,3", help="these seeds only (default: all that any variant has)")
    parser.add_argument(
        "--redraw", action="store_true", help="draw the picture again from results.json, without the runs"
    )
    parser.add_argument(FLAG, metavar="DIR", help="a folder of your own options, laid out as conf/ is")
    arguments = parser.parse_args(argv)
    seeds: list[int] | None = None
    if arguments.seeds is not None:
        try:
            seeds = sorted({int(seed) for seed in arguments.seeds.split(",")})
        except ValueError:
            parser.error(f"--seeds {arguments.seeds}: must be numbers with commas between them, such as 1,2,3")
    look_in(arguments.config_dir)
    out = arguments.out or EXPERIMENTS / arguments.name
    design = read_design(arguments.name, out if (out / FILE).is_file() else SHIPPED / arguments.name)
    if arguments.redraw:
        return redraw(design, out)
    # Everything that may raise an error is read before the first file is written.
    readme = Readme(out / "README.md", design.name)
    collected = collect(design, arguments.runs, seeds)
    study_results = {**collected.as_json(), "table": main_table(collected)}
    text, drawing, file = render_results(collected), draw_picture(design, study_results), out / DRAWING

    make_folder(out)
    write_json(out / RESULTS, study_results)
    if drawing:
        write_page(drawing, file)
    else:
        file.unlink(missing_ok=True)
    readme.put(f"{text}\n\n![{design.name}]({file.name})" if drawing else text)
    print(text)
    return 0


def redraw(design: Design, out: Path) -> int:
    """Draw a study's picture again from results.json. Raises DataError if the file is missing."""
    if not (out / RESULTS).is_file():
        raise DataError(f"{out / RESULTS}: is not there; make it from the runs: {study_commands()[1]} {design.name}")
    if drawing := draw_picture(design, read_json(out / RESULTS)):
        write_page(drawing, out / DRAWING)
    return 0


def draw_picture(design: Design, results: Mapping[str, Any]) -> str | None:
    """Draw the first measure as a standalone SVG file: a staircase over stages, the design's lines, or variants' means.

    Returns None if a seed lacks the measure (or the cost on the x axis), or if the measure is no share.

    Args:
        design: the study's design.
        results: the content of results.json, so a picture can be drawn again without the runs.
    """
    variants = results["variants"]
    if design.rows == "stages":
        runs = list(variants[design.variants[0]]["stages"].values())
        return standalone(staircase([mean_stairs(design.name, runs)]))
    measures = {v: variants[v]["measures"] for v in design.variants}
    name = next(iter(measures[design.against]))
    values = {v: [x for x in measures[v][name] if x is not None] for v in design.variants}
    seeds = len(results["seeds"])
    if any(len(xs) < seeds for xs in values.values()) or max(map(max, values.values())) > 1:
        return None
    if design.over is not None:
        spent = {v: [x for x in measures[v][design.over] if x] for v in design.variants}
        if any(len(xs) < seeds for xs in spent.values()):
            return None
        lines = {label: [Point(spent[v], values[v]) for v in joined] for label, joined in design.lines.items()}
        return standalone(means_by_cost(lines, name, design.over))
    return standalone(means({design.label_of(v): xs for v, xs in values.items()}, name, design.axis))
