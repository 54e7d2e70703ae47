"""Time and memory of reading and of the gate's comparison for many rows, on one core.

    python experiments/decontamination/scale.py 10000 50000 500000

Each size runs in a process of its own. Rows are made up: a question of about 100 characters each, and a drawing of
96 x 96 pixels each, drawn on demand (no decoding of files is timed). The benchmark has 5,000 such problems, 50 of them
among the rows. ``read``: data=jsonl with as many rows whose pictures are 1,000 files.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageDraw

from mathse.config import build
from mathse.config.data import JsonlDataConfig
from mathse.data.decontamination import Index
from mathse.data.decontamination.search import Search
from mathse.data.images import SCHEMES
from mathse.types import Problem

PROBLEMS, SHARED, FILES = 5_000, 50, 1_000
WORDS = ["angle", "circle", "line", "point", "square", "triangle", "length", "area", "chord", "height", "base", "side"]


def question(k: int) -> str:
    draw = random.Random(k)
    words = " ".join(draw.choices(WORDS, k=12))
    return f"In the figure {words} is {draw.randint(1, 999)} and {words[:20]} {draw.randint(1, 999)}. What is x?"


def drawing(ref: str) -> Image.Image:
    draw = random.Random(ref)
    image = Image.new("RGB", (96, 96), "white")
    pen = ImageDraw.Draw(image)
    points = [(draw.randint(2, 94), draw.randint(2, 94)) for _ in range(6)]
    pen.line(points, fill="black", width=1)
    pen.ellipse([*(x - 12 for x in points[0]), *(x + 12 for x in points[0])], outline="black")
    return image


def problem(k: int) -> Problem:
    return Problem(f"p{k}", question(k), (f"made:{k}",), str(k))


class Nowhere:
    """A source that is asked for nothing."""

    table = None


def compare(rows: int) -> dict[str, float]:
    SCHEMES["made"] = drawing
    index = Index()
    began = time.process_time()
    for k in range(PROBLEMS):
        index.add("bench", problem(k if k < SHARED else 10**7 + k))
    indexed = time.process_time() - began
    search = Search(index, Nowhere(), drop=True)  # type: ignore[arg-type]
    began, drawn = time.process_time(), 0.0
    for k in range(rows):
        search.rows(problem(k))
    took = time.process_time() - began
    began = time.process_time()
    for k in range(min(rows, 5_000)):
        drawing(f"made:{k}")
        question(k)
    drawn = (time.process_time() - began) / min(rows, 5_000) * rows
    assert search.counts["dropped"] == SHARED, search.counts
    return {"index_s": indexed, "rows_s": took, "of_that_making_rows_s": drawn}


def read(rows: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for k in range(FILES):
            drawing(str(k)).save(folder / f"{k}.png")
        with open(folder / "rows.jsonl", "w") as file:
            for k in range(rows):
                row = {"id": f"p{k}", "question": question(k), "images": [f"{k % FILES}.png"], "answer": str(k)}
                file.write(json.dumps(row) + "\n")
        began = time.process_time()
        source = build(JsonlDataConfig(path=str(folder / "rows.jsonl")))
        opened = time.process_time() - began
        began = time.process_time()
        splits = source.splits()
        for split in splits.values():
            for found in split:
                assert found.answer
        return {"open_s": opened, "split_and_read_each_once_s": time.process_time() - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=int, default=[10_000, 50_000, 500_000])
    parser.add_argument("--only", choices=["compare", "read"])
    asked = parser.parse_args()
    if asked.only:
        (rows,) = asked.sizes
        figures = {"compare": compare, "read": read}[asked.only](rows)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"| {asked.only} | {rows:,} | {', '.join(f'{k} {v:.1f}' for k, v in figures.items())} | {peak:.2f} |")
        return
    print("| what | rows | CPU seconds | peak memory, GiB |\n|---|---|---|---|", flush=True)
    for what in ("read", "compare"):
        for size in asked.sizes:
            subprocess.run([sys.executable, __file__, str(size), "--only", what], check=True)


if __name__ == "__main__":
    main()
