"""Of the held-out paths that an ORM calls wrong: how many are wrong, how often its own comparison tells right from
wrong, and how long its answers are.

    python experiments/order/afterwards.py outputs/studies/order.*

In the embedded world a comparison that finds a difference holds the mark "no" (mathse/data/synthetic/critique.py).
"""

from __future__ import annotations

import sys
from pathlib import Path

from mathse.runs.layout import ORM_HELD
from mathse.runs.reader import read_stage


def main(runs: list[str]) -> int:
    print(
        "| run | called wrong | are wrong | comparison tells right from wrong | characters |",
        "|---|---|---|---|---|",
        sep="\n",
    )
    for run in map(Path, runs):
        rows = [r for r in read_stage(run / "orm").rows(ORM_HELD) if r["verdict"]["status"] == "wrong"]
        wrong = [row["label"]["status"] == "wrong" for row in rows]
        found = [" no" in (row["verdict"]["error_analysis"] or "") for row in rows]
        told = sum(f == w for f, w in zip(found, wrong, strict=True))
        if rows:
            length = sum(len(row["verdict"]["raw"]) for row in rows) / len(rows)
            shares = f"{100 * sum(wrong) / len(rows):.1f} | {100 * told / len(rows):.1f}"
            print(f"| {run.name} | {len(rows):,} | {shares} | {length:.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
