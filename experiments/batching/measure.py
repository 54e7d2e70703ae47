"""Padding, balance over ranks, and speed of micro-batches by tokens, on the lengths of real answers.

    python experiments/batching/measure.py lengths --answers FILE...   # JSONL (.gz) with a "response" in each line
    python experiments/batching/measure.py loss --answers FILE...
    python experiments/batching/measure.py speed                       # makes its model and rows; some minutes

The README beside this file says what is counted, and has what came out.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import isnan, nan
from pathlib import Path
from statistics import mean, median, pstdev
from typing import Any

from mathse.training.packing import Group, pack_rows, work, work_in_step

BATCH, RANKS, SHORTEST = 128, 8, 40  # rows of a step, devices, characters of an answer that has steps in it
PROMPT = 60  # tokens of a question and the template around it
WINDOW = 8  # global batches; until 2026-11 rows were sorted inside so many, and dealt out like cards
PICTURES = {"no picture": (0, 0), "256 tokens": (256, 256), "100 to 1,000 tokens": (100, 1000)}
BOUNDS: list[tuple[int, int | None]] = [(1, None), (4, None), (8, None), (8, 4096), (32, 8192)]

Shares = list[list[Group]]  # by rank, its micro-batches: rows as positions in the global batch


# --- lengths --------------------------------------------------------------------------------------------------------


def read_answers(files: Sequence[Path]) -> list[str]:
    """The answers of more than SHORTEST characters; shorter ones are a letter or a number."""
    answers = []
    for file in files:
        with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as lines:
            answers += [json.loads(line)["response"] or "" for line in lines]
    return [answer for answer in answers if len(answer) > SHORTEST]


def tokens(text: str) -> int:
    """About what a vocabulary of 150,000 makes of English and LaTeX: a token a digit, a sign, six letters of a word."""
    return sum(-(-len(piece) // 6) if piece.isalpha() else 1 for piece in re.findall(r"\d|[^\W\d_]+|[^\w\s]|\n", text))


def as_drawn(lengths: Sequence[int], most_rows: int) -> Shares:
    """No sorting at all: each rank takes its rows in the order in which they were drawn."""
    drawn = [list(range(len(lengths)))[rank::RANKS] for rank in range(RANKS)]
    return [[rows[k : k + most_rows] for k in range(0, len(rows), most_rows)] for rows in drawn]


def like_cards(lengths: Sequence[int], characters: Sequence[int], most_rows: int) -> Shares:
    """Rows sorted by characters dealt out one by one; each rank's sorted by tokens and cut by number."""
    order = sorted(range(len(lengths)), key=lambda i: characters[i])
    dealt = [sorted(order[rank::RANKS], key=lambda i: lengths[i]) for rank in range(RANKS)]
    return [[rows[k : k + most_rows] for k in range(0, len(rows), most_rows)] for rows in dealt]


def padding(shares: Shares, lengths: Sequence[int]) -> float:
    return 1 - sum(lengths) / sum(work(group, lengths) for share in shares for group in share)


def show_lengths(files: Sequence[Path]) -> None:
    answers = read_answers(files)
    responses, characters = [tokens(answer) for answer in answers], [len(answer) for answer in answers]
    print(f"{len(responses):,} answers, {mean(responses):.0f} tokens on average, the longest {max(responses):,}")
    draw = random.Random(0)
    order = draw.sample(range(len(responses)), len(responses))
    batches = [order[k : k + BATCH] for k in range(0, len(order) - BATCH + 1, BATCH)]

    # The same rows, sorted by characters inside each WINDOW batches.
    windows = [[i for batch in batches[k : k + WINDOW] for i in batch] for k in range(0, len(batches), WINDOW)]
    by_characters = [sorted(rows, key=lambda i: characters[i]) for rows in windows]
    grouped = [rows[k : k + BATCH] for rows in by_characters for k in range(0, len(rows), BATCH)]

    # Eq. 1's weights: how long the answers are that a step's tokens are averaged with.
    for name, chosen in (("as drawn", batches), (f"sorted in windows of {WINDOW} batches", grouped)):
        means = [mean(responses[i] for i in batch) for batch in chosen]
        spread = f"{min(means):.0f} to {max(means):.0f} tokens, deviation {pstdev(means):.0f}"
        print(f"mean answer of a batch, {name}: {spread}")

    print(f"\n{BATCH} rows over {RANKS} ranks; slowest rank / mean (if all wait in every pass); padding; passes a step")
    print("| picture | at most | as drawn | until 2026-11 | by tokens | by tokens, ddp |\n|---|---|---|---|---|---|")
    for name, (low, high) in PICTURES.items():
        lengths = [PROMPT + draw.randint(low, high) + response for response in responses]
        for most_rows, most_tokens in BOUNDS:
            ways: list[tuple[list[list[int]], Callable[[list[int], list[int]], Shares]]] = [
                (batches, lambda row_lengths, _, n=most_rows: as_drawn(row_lengths, n)),
                (grouped, partial(like_cards, most_rows=most_rows)),
                (batches, lambda row_lengths, _, n=most_rows, t=most_tokens: pack_rows(row_lengths, n, t, RANKS)),
                (
                    batches,
                    lambda row_lengths, _, n=most_rows, t=most_tokens: pack_rows(row_lengths, n, t, RANKS, False),
                ),
            ]
            cells = []
            for chosen, way in ways:
                figures = []
                for batch in chosen:
                    row_lengths = [lengths[i] for i in batch]
                    shares = way(row_lengths, [characters[i] for i in batch])
                    sums = [sum(work(group, row_lengths) for group in share) for share in shares]
                    apart = len({len(share) for share in shares}) > 1
                    in_step = nan if apart else work_in_step(shares, row_lengths) / mean(sums)
                    figures.append(
                        (max(sums) / mean(sums), in_step, padding(shares, row_lengths), mean(map(len, shares)))
                    )
                slowest, in_step, empty, passes = (mean(column) for column in zip(*figures, strict=True))
                waiting = "" if isnan(in_step) else f" ({in_step:.2f})"
                cells.append(f"{slowest:.2f}{waiting}, {empty:.1%}, {passes:.1f}")
            bound = f"{most_rows} rows" + (f", {most_tokens:,} tokens" if most_tokens else "")
            print(f"| {name} | {bound} | {' | '.join(cells)} |")


# --- loss -----------------------------------------------------------------------------------------------------------


def show_loss(files: Sequence[Path], rows: int = 32) -> None:
    """Loss and gradients of one step over real answers, packed in several ways; tokens are bytes."""
    import torch
    from PIL import Image

    from mathse.models.row import Row
    from mathse.models.tiny import tiny_qwen2vl
    from mathse.training.batches import EpochStream
    from mathse.training.loader import StepData

    torch.set_num_threads(1)
    backbone = tiny_qwen2vl(seed=0)
    draw = random.Random(0)
    short = [answer for answer in read_answers(files) if len(answer.encode()) < 1500]
    training = [
        Row(
            question="What is x?",
            images=(Image.effect_noise((28 * draw.randint(1, 10), 28 * draw.randint(1, 10)), 50).convert("RGB"),),
            response=answer,
        )
        for answer in draw.sample(short, rows)
    ]
    stream = EpochStream(training, rows, 0)
    first: dict[str, Any] = {}
    for most_rows, most_tokens, ranks in ((rows, None, 1), (1, None, 1), (8, None, 1), (8, 4096, 1), (8, 4096, 4)):
        backbone.model.zero_grad()
        parts = [StepData(stream, backbone, most_rows, 1, rank, ranks, most_tokens)[0] for rank in range(ranks)]
        targets, total = sum(part.counts.targets for part in parts), 0.0
        for part in parts:
            for micro in part:
                logits, labels = backbone.answer_logits(micro)
                loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum") / targets
                loss.backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
        gradient = torch.cat([p.grad.flatten() for p in backbone.model.parameters() if p.grad is not None])
        first = first or {"loss": total, "gradient": gradient}
        apart = float((gradient - first["gradient"]).abs().max())
        filled = 1 - sum(part.counts.tokens for part in parts) / sum(part.counts.padded for part in parts)
        print(
            f"at most {most_rows} rows, {most_tokens} tokens, {ranks} ranks: {sum(map(len, parts))} micro-batches, "
            f"padding {filled:.1%}, loss {total:.7f}, apart {abs(total - first['loss']):.1e}, gradients {apart:.1e} "
            f"(largest {float(gradient.abs().max()):.2f})"
        )


# --- speed ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    batch: int
    most_rows: int
    most_tokens: int | None


SIDES = {
    "16 rows as drawn, in one": Side(16, 16, None),
    "16 rows, by tokens": Side(16, 16, 1024),
    "64 rows, by tokens": Side(64, 16, 2048),
}
STEPS_OF_16, WARM_UP = 8, 2


def fit_side(side: Side) -> float:
    """Real tokens a CPU second of ``mathse.training.fit`` on rows with pictures of 4 to 100 tokens."""
    import pytorch_lightning as pl
    import torch
    from PIL import Image

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "speed"))
    import tiny_qwen2vl

    from mathse.config.fits import Fit, Optimizer
    from mathse.config.schema import Trainer
    from mathse.models.qwen2vl import Qwen2VLBackbone
    from mathse.training.fit import FitJob, fit

    class Clock(pl.Callback):
        def __init__(self) -> None:
            self.tokens, self.seconds, self.start = list[int](), list[float](), 0.0

        def on_train_start(self, *_: Any) -> None:
            self.start = time.process_time()

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
            self.seconds.append(time.process_time() - self.start)
            self.tokens.append(batch["micro"].counts.tokens)
            self.start = time.process_time()

    torch.set_num_threads(1)
    draw = random.Random(0)
    steps = max(WARM_UP + 2, WARM_UP + STEPS_OF_16 * 16 // side.batch)
    with tempfile.TemporaryDirectory() as folder:
        rows = tiny_qwen2vl.make_rows(Path(folder), steps * side.batch)
        for k, row in enumerate(rows):  # as many answers in a row as a text of steps may be long
            width, height = 28 * draw.randint(2, 10), 28 * draw.randint(2, 10)
            Image.effect_noise((width, height), 50).convert("RGB").save(path := f"{folder}/mixed{k}.png")
            row["images"] = (path,)
            row["response"] = " ".join([row["response"]] * min(8, 1 + int(draw.expovariate(0.6))))
        processor = tiny_qwen2vl.make_processor(rows)
        processor.image_processor.size = {"shortest_edge": 56 * 56, "longest_edge": 280 * 280}
        optimizer = Optimizer(lr=1e-3, beta2=0.999, warmup_ratio=0, min_lr_ratio=1)
        settings = Fit(
            max_steps=steps,
            batch_size=side.batch,
            micro_batch_size=side.most_rows,
            tokens_per_micro_batch=side.most_tokens,
            optimizer=optimizer,
            val_rows=0,
        )
        backbone = Qwen2VLBackbone(tiny_qwen2vl.make_model(processor.tokenizer), processor)
        clock = Clock()
        job = FitJob(Path(folder) / "fit", rows, seed=0, settings=settings, trainer=Trainer(precision="32-true"))
        fit(backbone, job, [clock])
    return sum(clock.tokens[WARM_UP:]) / sum(clock.seconds[WARM_UP:])


def show_speed(repeats: int) -> None:
    """Each side in a process of its own, in turns."""
    rates: dict[str, list[float]] = {name: [] for name in SIDES}
    for _ in range(repeats):
        for name, side in SIDES.items():
            command = [sys.executable, __file__, "side", json.dumps(asdict(side))]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rates[name].append(float(done.stdout.split()[-1]))
    base = median(next(iter(rates.values())))
    for name, each in rates.items():
        rate = f"{median(each):.0f} real tokens a CPU second, {median(each) / base:.2f} times"
        print(f"{name}: {rate}; each {[round(r) for r in each]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("lengths", "loss", "speed", "side"))
    parser.add_argument("side", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--answers", nargs="+", type=Path, default=[])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.what == "lengths":
        show_lengths(arguments.answers)
    elif arguments.what == "loss":
        show_loss(arguments.answers)
    elif arguments.what == "speed":
        show_speed(arguments.repeats)
    else:
        print(fit_side(Side(**json.loads(arguments.side))))


if __name__ == "__main__":
    main()
