"""Of the held-out paths that an ORM calls wrong: how many are wrong, and how often its own comparison says so.

    python experiments/order/afterwards.py outputs/studies/order.verdict_first.seed_*

In the embedded world a comparison that finds a difference holds the mark "no" (mathse/world/critique.py).
"""

from __future__ import annotations

import sys
from pathlib import Path

from mathse.store import read_jsonl


def main(runs: list[str]) -> int:
    print("| run | called wrong | are wrong | comparison tells right from wrong |", "|---|---|---|---|", sep="\n")
    for run in map(Path, runs):
        rows = [r for r in read_jsonl(run / "orm" / "orm_held.jsonl") if r["verdict"]["status"] == "wrong"]
        wrong = [row["label"]["status"] == "wrong" for row in rows]
        found = [" no" in (row["verdict"]["error_analysis"] or "") for row in rows]
        told = sum(f == w for f, w in zip(found, wrong, strict=True))
        shares = " | ".join(f"{100 * n / len(rows):.1f}" for n in (sum(wrong), told)) if rows else "– | –"
        print(f"| {run.name} | {len(rows):,} | {shares} |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
