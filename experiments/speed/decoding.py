"""Sampling and judging by themselves: tokens a CPU second beside ``generate``, and what judging a path costs.

    python experiments/speed/decoding.py                    # n=4 and the judge, about 3 minutes
    python experiments/speed/decoding.py --repeats 5 --new-tokens 300 --question 250

Each side runs in a process of its own, by turns (in one process they share the allocator's state), on one thread. CPU
seconds count (``time.process_time``). Weights are random and end tokens are never drawn, so all write equally much.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from speed import BATCH, sample_ours, sample_plain
from tiny_qwen2vl import build

from mathse.models.qwen2vl import Qwen2VLBackbone
from mathse.models.row import Row

BEGUN, STATUSES = [20, 21, 22], [23, 24]  # stand-ins for an ORM's JSON up to its status, and for the two statuses
VERDICT = 48  # tokens of an explanation, beside paths of 64


def solve(model: Any, processor: Any, rows: Sequence[Row], args: argparse.Namespace) -> int:
    return sample_ours(model, processor, rows, args.new_tokens, args.n)


def generate(model: Any, processor: Any, rows: Sequence[Row], args: argparse.Namespace) -> int:
    return sample_plain(model, processor, rows, args.new_tokens, args.n)


def write_one(model: Any, processor: Any, rows: Sequence[Row], args: argparse.Namespace) -> int:
    """A path a problem."""
    return sample_ours(model, processor, rows, args.new_tokens, 1)


def judge(model: Any, processor: Any, rows: Sequence[Row], args: argparse.Namespace, explained: int, n: int = 1) -> int:
    """n paths a problem; of each eight, ``explained`` are called wrong and explained."""
    backbone = Qwen2VLBackbone(model, processor)
    backbone.never_sampled = [*backbone.never_sampled, backbone.end_id]
    words = ["squares", "circles", "number", "times", "plus", "equals", "picture", "Step", "1:", "so"]
    paths = [" ".join(words[(k + i) % len(words)] for i in range(args.new_tokens)) for k in range(n)]
    judged = [Row(question=f"{row['question']}\n{path}", images=row["images"]) for row in rows for path in paths]
    count = 0

    def go_on(odds: torch.Tensor) -> list[int] | None:
        nonlocal count
        count += 1
        return [23] if count % 8 < explained else None

    for k in range(0, len(judged), BATCH):
        backbone.complete(judged[k : k + BATCH], begun=BEGUN, watch=STATUSES, max_new_tokens=VERDICT, go_on=go_on)
    return len(judged)


SIDES: dict[str, Callable[..., int]] = {
    "n samples, ours": solve,
    "n samples, generate": generate,
    "one path, ours": write_one,
    "status of a path": lambda *a: judge(*a, explained=0),
    "status, half explained": lambda *a: judge(*a, explained=4),
    "status, n paths a problem": lambda *a: judge(*a, explained=0, n=a[-1].n),
}


def run_side(name: str, folder: Path, args: argparse.Namespace) -> None:
    """Prints {"done": tokens or paths, "seconds": CPU seconds} of one side."""
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)
    model = transformers.Qwen2VLForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True
    ).eval()
    rows = [Row(**row) for row in json.loads((folder / "prompts.json").read_text())]
    SIDES[name](model, processor, rows[:2], args)  # warm-up
    done, seconds = 0, 0.0
    for k in range(0, len(rows), BATCH):
        start = time.process_time()
        done += SIDES[name](model, processor, rows[k : k + BATCH], args)
        seconds += time.process_time() - start
    print(json.dumps({"done": done, "seconds": seconds}))


def main() -> None:
    parser = argparse.ArgumentParser(description="Sampling and judging, each side in a process of its own, CPU time")
    parser.add_argument("--n", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--question", type=int, default=0, help="words that are added to each question")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side is not None:
        run_side(args.side, args.folder, args)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder, rows = build(Path(scratch), args.prompts)
        longer = " word" * args.question
        prompts = [{"question": row["question"] + longer, "images": [str(i) for i in row["images"]]} for row in rows]
        (folder / "prompts.json").write_text(json.dumps(prompts))
        rates: dict[str, list[float]] = {name: [] for name in SIDES}
        for _ in range(args.repeats):
            for name in SIDES:
                command = [sys.executable, __file__, *sys.argv[1:], "--side", name, "--folder", str(folder)]
                result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                rates[name].append(result["seconds"] / result["done"])
    middle = {name: median(values) for name, values in rates.items()}
    for name in ("n samples, ours", "n samples, generate"):
        print(f"{name.replace('n', str(args.n), 1):28}{1 / middle[name]:10,.0f} tokens a CPU second")
    print(f"{'ratio':28}{middle['n samples, generate'] / middle['n samples, ours']:10.2f}   goal: at least 1.30")
    path = args.new_tokens * middle["one path, ours"]
    print(f"{'one path':28}{1000 * path:10.1f} CPU ms")
    for name in list(SIDES)[3:]:
        print(f"{name:28}{1000 * middle[name]:10.1f} CPU ms{middle[name] / path:10.2f} of writing it   goal: at most 1")


if __name__ == "__main__":
    main()
