"""``report.html``: what a run did, for people; ``python -m mathse report RUN...`` lays several runs side by side, and
``--all`` makes one page over all studies and runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from mathse.errors import DataError, MathSEError
from mathse.reporting.report.compare import compare_page
from mathse.reporting.report.page import run_page
from mathse.reporting.report.site import site_page
from mathse.reporting.report.staircase import staircase_svg
from mathse.runs.layout import REPORT
from mathse.runs.reader import last_change, read_head, read_run
from mathse.runs.store import make_folder
from mathse.types import Problem

__all__ = ["main", "staircase_svg", "write_page", "write_report"]

OUTPUTS = Path("outputs")


def write_report(
    runs: Sequence[Path],
    out: Path,
    problem_of: Callable[[Path, str], Problem | None],
    image_png: Callable[[str], bytes],
    summary: Mapping[str, Any] | None = None,
) -> Path:
    """Write one HTML file that opens offline: of one run in full, of several side by side. Returns ``out``.

    ``problem_of(run, problem id)`` gives None, and ``image_png(reference)`` raises MathSEError, for what is not here
    any more; the page says so in its place. ``summary``: of a single run whose summary.json is still to come. Raises
    RunError for a folder that is no run, DataError for a damaged file.
    """
    if not runs:
        raise DataError("a report needs at least one run folder; pass outputs/<name>/<time>")
    read = [read_run(folder) for folder in runs]
    if summary is not None:
        read = [replace(run, summary=summary) for run in read]
    page = run_page(read[0], lambda i: problem_of(runs[0], i), image_png) if len(read) == 1 else compare_page(read)
    return write_page(page, out)


def write_page(page: str, out: Path) -> Path:
    """A page in its place: a reader never meets half of one. Returns ``out``."""
    make_folder(out.parent)
    aside = out.with_name(f".{out.name}.partial")
    aside.write_text(page, encoding="utf-8")
    aside.replace(out)
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m mathse report``: returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m mathse report",
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
    asked = parser.parse_args(argv)
    if not asked.runs and not asked.all:
        parser.error("name a run folder, or pass --all")
    if asked.all:
        return _all(asked.runs or [OUTPUTS], asked.experiments, asked.out or OUTPUTS / "index.html")
    out = asked.out or (asked.runs[0] / REPORT if len(asked.runs) == 1 else Path(REPORT))
    from mathse.data.images import png_bytes  # here: it loads an image library, which --help does not need

    try:
        print(write_report(asked.runs, out, _problem_of, png_bytes))
    except MathSEError as e:
        print(e, file=sys.stderr)
        return 1
    return 0


def _all(roots: Sequence[Path], experiments: Path, out: Path) -> int:
    from mathse.data.images import png_bytes

    def report_of(run: Path) -> Path:
        own = run / REPORT
        if own.is_file() and own.stat().st_mtime >= last_change(run):  # a run writes its report, then its summary
            return own
        return write_report([run], own, _problem_of, png_bytes)

    print(write_page(site_page(roots, experiments, out, report_of), out))
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
