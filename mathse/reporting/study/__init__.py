"""``python -m mathse study NAME``: a study's finished runs as the table and the picture of its README.

A study is a folder of variants, ``conf/experiment/NAME/<variant>.yaml``; ``experiments/NAME/`` says why and what came
out. ``study.yaml`` there (optional) says what is shown: mathse/reporting/study/design.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mathse.config.options import FLAG, look_in
from mathse.config.program import program
from mathse.errors import DataError
from mathse.reporting.report import write_page
from mathse.reporting.study.collect import collect
from mathse.reporting.study.design import DESCRIBED, EXPERIMENTS, FILE, Design, programs, read_design
from mathse.reporting.study.picture import picture
from mathse.reporting.study.readme import Readme, results
from mathse.reporting.study.tables import main_table
from mathse.runs.store import make_folder, read_json, write_json

RESULTS, DRAWING = "results.json", "result.svg"
RUNS = Path("outputs/studies")  # where conf/experiment/studies.yaml puts them


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code. Raises RunError where a cell of the table has no finished run."""
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
    design = read_design(arguments.name, out if (out / FILE).is_file() else DESCRIBED / arguments.name)
    if arguments.redraw:
        return redraw(design, out)
    # All that can be refused is read before anything is written.
    readme = Readme(out / "README.md", design.name)
    collected = collect(design, arguments.runs, seeds)
    found = {**collected.as_json(), "table": main_table(collected)}
    text, drawing, file = results(collected), picture(design, found), out / DRAWING

    make_folder(out)
    write_json(out / RESULTS, found)
    if drawing:
        write_page(drawing, file)
    else:
        file.unlink(missing_ok=True)
    readme.put(f"{text}\n\n![{design.name}]({file.name})" if drawing else text)
    print(text)
    return 0


def redraw(design: Design, out: Path) -> int:
    """Draw a study's picture again from its results. Raises DataError where there are none."""
    if not (out / RESULTS).is_file():
        raise DataError(f"{out / RESULTS}: is not there; make it from the runs: {programs()[1]} {design.name}")
    if drawing := picture(design, read_json(out / RESULTS)):
        write_page(drawing, out / DRAWING)
    return 0
