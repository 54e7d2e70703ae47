"""How busy ranks are kept by batches of unequal length: all in step, against a queue from which each takes its next.

    python experiments/ranks/simulate.py --answers FILE...     # JSONL (.gz) with a "response" in each line

A sequence takes a unit of time a token, and a batch as long as its longest answer: its other slots are idle until then.
Nothing is run. The queue is that of ``mathse/training/work_queue.py``: its bound, and a rank 0 that draws tasks only
between batches of its own.
"""

from __future__ import annotations

import argparse
import gzip
import heapq
import json
import random
from collections.abc import Sequence
from pathlib import Path

from mathse.training.work_queue import AHEAD

LONGEST = 2048  # tokens; generator.max_new_tokens of the paper's runs
CHARACTERS = 4  # a token, about


def drawn_lengths(files: Sequence[Path], n: int) -> list[int]:
    """Lengths in tokens of n answers, drawn from these."""
    lengths = []
    for file in files:
        with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as lines:
            texts = (json.loads(line)["response"] or "" for line in lines)
            lengths += [min(LONGEST, len(text) // CHARACTERS) for text in texts if len(text) > 40]
    return random.Random(0).choices(lengths, k=n)


def in_step(batches: Sequence[int], ranks: int) -> int:
    """The time of all batches where as many as there are ranks are handed out, and the slowest is waited for."""
    return sum(max(batches[k : k + ranks]) for k in range(0, len(batches), ranks))


def by_queue(batches: Sequence[int], ranks: int, ahead: int) -> int:
    """The same where a rank that is free takes the next, ``ahead * ranks`` from the oldest missing one at most."""
    time = handed_out = drawn = due = 0
    answered: set[int] = set()
    free = list(range(ranks))  # rank 0 first: the others open the model
    at_work: list[tuple[int, int, int]] = []  # (when it ends, rank, batch)
    while due < len(batches):
        if 0 in free:
            while due in answered:
                due += 1
            drawn = min(len(batches), due + ahead * ranks)
        while free and handed_out < drawn:
            heapq.heappush(at_work, (time + batches[handed_out], free.pop(0), handed_out))
            handed_out += 1
        if at_work:
            time, rank, batch = heapq.heappop(at_work)
            answered.add(batch)
            free.append(rank)
    return time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=Path, nargs="+", required=True)
    parser.add_argument("--n", type=int, default=50_000, help="answers (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16)
    chosen = parser.parse_args()
    lengths = drawn_lengths(chosen.answers, chosen.n)
    batches = [max(lengths[k : k + chosen.batch_size]) for k in range(0, len(lengths), chosen.batch_size)]
    print("| ranks | | ranks busy | slots busy | time |\n|---|---|---|---|---|")
    for ranks in (2, 4, 8, 16):
        times = {"in step": in_step(batches, ranks)}
        times |= {f"queue, {ahead} a rank ahead": by_queue(batches, ranks, ahead) for ahead in (1, 2, 4, AHEAD)}
        for name, time in times.items():
            busy, slots = sum(batches) / (ranks * time), sum(lengths) / (ranks * chosen.batch_size * time)
            print(f"| {ranks} | {name} | {busy:.1%} | {slots:.1%} | {time / times['in step']:.2f} |")


if __name__ == "__main__":
    main()
