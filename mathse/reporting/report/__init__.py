"""``report.html``: a page about a run. ``python -m mathse report RUN...`` lays several runs side by side, and ``--all``
makes a page over all studies and runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from mathse.config.program import program
from mathse.errors import DataError, MathSEError
from mathse.reporting.pages import write_page
from mathse.reporting.report.compare import compare_page
from mathse.reporting.report.listing import parts_beside, parts_folder
from mathse.reporting.report.run import run_page
from mathse.reporting.report.site import site_page
from mathse.runs.layout import NOTE_OF_SWEEP, REPORT
from mathse.runs.reader import find_last_change, read_head, read_run
from mathse.types import Problem

OUTPUTS = Path("outputs")


def write_report(
    runs: Sequence[Path],
    out: Path,
    problem_of: Callable[[Path, str], Problem | None],
    image_png: Callable[[str], bytes],
    summary: Mapping[str, Any] | None = None,
) -> Path:
    """Write a page that opens offline, and return ``out``.

    A single run is shown in full, with all its paths in a folder beside the page; several runs are shown side by side.

    Args:
        runs: run folders.
        out: the page.
        problem_of: returns the problem with an id in a run; None for a problem that has been removed.
        image_png: returns the PNG of an image reference; raises MathSEError for a picture that has been removed.
        summary: the summary of a single run before its summary.json is written.

    Raises RunError for a folder that is no run, DataError for a damaged file.
    """
    if not runs:
        raise DataError("a report needs at least one run folder; pass outputs/<name>/<time>")
    opened = [read_run(folder) for folder in runs]
    if summary is not None:
        opened = [replace(run, summary=summary) for run in opened]
    if len(opened) > 1:
        return write_page(compare_page(opened), out)
    with parts_beside(out) as write:
        page = run_page(
            opened[0],
            lambda problem_id: problem_of(runs[0], problem_id),
            image_png,
            write,
            parts_folder(out).name,
        )
    return write_page(page, out)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand ``report`` and return its exit code."""
    parser = argparse.ArgumentParser(
        prog=program("report"),
        description="Write one HTML page about a run, about several side by side, or (--all) about all studies and "
        "runs. Works while a run is under way.",
    )
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="a run folder, such as outputs/demo/seed_0")
    parser.add_argument(
        "--all", action="store_true", help="all runs below the folders RUN (default: outputs), and all studies"
    )
    parser.add_argument(
        "--experiments", type=Path, default=Path("experiments"), metavar="DIR", help="where the studies' results are"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="where to write (default: RUN/report.html for one run, ./report.html for several, outputs/index.html "
        "for all)",
    )
    arguments = parser.parse_args(argv)
    arguments.runs = [run for run in arguments.runs if run.name != NOTE_OF_SWEEP]  # SWEEP/* contains this file
    if not arguments.runs and not arguments.all:
        parser.error("name a run folder, or pass --all")
    from mathse.data.images import png_bytes  # late: it loads an image library, which --help does not need

    def report_of(run: Path) -> Path:
        report = run / REPORT
        # A run writes its report before its summary, so a finished run's report may be a little older than the run.
        if report.is_file() and report.stat().st_mtime >= find_last_change(run):
            return report
        return write_report([run], report, _problem_of, png_bytes)

    if arguments.all:
        out = arguments.out or OUTPUTS / "index.html"
        page = site_page(arguments.runs or [OUTPUTS], arguments.experiments, out, report_of)
        print(write_page(page, out))
        return 0
    out = arguments.out or (arguments.runs[0] / REPORT if len(arguments.runs) == 1 else Path(REPORT))
    try:
        print(write_report(arguments.runs, out, _problem_of, png_bytes))
    except MathSEError as e:
        print(e, file=sys.stderr)
        return 1
    return 0


def _problem_of(run: Path, problem_id: str) -> Problem | None:
    try:
        return _lookup(run)(problem_id)
    except DataError:
        return None  # the data has moved or changed since: the page shows the path without its problem


@lru_cache(maxsize=8)
def _lookup(run: Path) -> Callable[[str], Problem | None]:
    from mathse.data.sources import problem_lookup

    try:
        return problem_lookup(read_head(run)["config"])
    except MathSEError as e:
        print(f"{run}: questions and pictures are left out: {e}", file=sys.stderr)
        return lambda problem_id: None
