"""What MathSE's own machinery costs: its fit against a plain loop, its sampling against ``generate`` called by hand.

    python experiments/speed/speed.py                           # makes a 4.7 M parameter Qwen2-VL and its rows
    python experiments/speed/speed.py --model DIR --rows FILE   # a checkpoint, and rows in TRL's form

Both sides get the same weights, rows, order and optimiser. CPU seconds of this process count (``time.process_time``),
on one thread, a step or a batch of either side in turns. The README beside this file says what is counted.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

import pytorch_lightning as pl
import torch
import transformers
from PIL import Image
from tiny_qwen2vl import build, read_rows
from torch import Tensor

from mathse.config.fits import Fit, Optimizer
from mathse.config.schema import Trainer
from mathse.models.base import IGNORED
from mathse.models.qwen2vl import Qwen2VLBackbone
from mathse.models.row import Row
from mathse.training.batches import EpochStream
from mathse.training.fit import FitJob, fit

BATCH, LR, CLIP = 16, 1e-3, 1.0
WARM_UP = 2  # steps left out on both sides: allocation, lazy initialisation, the first optimiser state
PARITY = 1e-3  # largest difference between the two sides' losses over the first ten steps
HEADER = "<|im_start|>assistant\n"  # of Qwen2-VL's chat template; no loss up to and with it


# --- fits, step by step in turns ------------------------------------------------------------------------------------


@dataclass
class Steps:
    """Loss and CPU seconds of each step of one side."""

    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, loss: float, since: float) -> None:
        self.seconds.append(time.process_time() - since)
        self.losses.append(loss)

    @property
    def cpu_ms(self) -> float:
        """Mean of the steps after the warm-up."""
        return 1000 * mean(self.seconds[WARM_UP:])


class InTurns(pl.Callback):
    """After each step of our fit, with all that Lightning does for it, one of the plain loop; each timed alone."""

    def __init__(self, plain: Iterator[float]) -> None:
        self.plain_steps, self.ours, self.plain = plain, Steps(), Steps()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.start = time.process_time()

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self.ours.add(float(outputs["loss"]), since=self.start)
        start = time.process_time()
        self.plain.add(next(self.plain_steps), since=start)
        self.start = time.process_time()


def fit_both(load: Callable[[], Any], processor: Any, rows: Sequence[Row], steps: int) -> tuple[Steps, Steps]:
    """``mathse.training.fit`` as the stages call it, at a constant rate, and the plain loop on the same batches."""
    stream = EpochStream(rows, BATCH, seed=0)  # the one that a fit makes of its rows
    batches = [[row for _, row in stream.keyed_rows(step)] for step in range(steps)]
    turns = InTurns(plain_loop(load(), copy.deepcopy(processor), batches))
    optimizer = Optimizer(lr=LR, weight_decay=0, beta1=0.9, beta2=0.999, warmup_ratio=0, min_lr_ratio=1, clip=CLIP)
    settings = Fit(max_steps=steps, batch_size=BATCH, micro_batch_size=BATCH, optimizer=optimizer)
    with tempfile.TemporaryDirectory() as folder:
        job = FitJob(Path(folder), rows, seed=0, settings=settings, trainer=Trainer(precision="32-true"))
        fit(Qwen2VLBackbone(load(), processor), job, [turns])
    return turns.ours, turns.plain


def plain_loop(model: Any, processor: Any, batches: Sequence[Sequence[Row]]) -> Iterator[float]:
    """The loop one would write by hand, yielding each step's loss: processor, all logits, AdamW, clipped gradients."""
    processor.tokenizer.padding_side = "right"
    header = processor.tokenizer(HEADER)["input_ids"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0, fused=True)
    model.train()
    for batch in batches:
        inputs = encode_plain(processor, batch)
        labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, IGNORED)
        for ids, label in zip(inputs["input_ids"], labels, strict=True):
            label[: int((ids == header[0]).nonzero()[-1]) + len(header)] = IGNORED
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        yield loss.item()


def encode_plain(processor: Any, rows: Sequence[Row], training: bool = True) -> dict[str, Tensor]:
    """One call of the processor for a batch; in training with the response and its end token."""
    texts, end = [], processor.tokenizer.eos_token
    for row in rows:
        content = [*({"type": "image"} for _ in row["images"]), {"type": "text", "text": row["question"]}]
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True,
                                               tokenize=False)  # fmt: skip
        texts.append(prompt + row["response"] + end if training else prompt)
    images = [[Image.open(str(image)) for image in row["images"]] for row in rows]
    return dict(processor(text=texts, images=images, padding=True, return_tensors="pt"))


# --- sampling, batch by batch in turns ------------------------------------------------------------------------------


def sample_ours(model: Any, processor: Any, rows: Sequence[Row], new_tokens: int, n: int) -> int:
    """``Backbone.complete`` as the stages call it, no image cached yet; returns the tokens sampled."""
    backbone = Qwen2VLBackbone(model, processor)
    backbone.never_sampled = [*backbone.never_sampled, backbone.end_id]  # every path gets its full length
    done = backbone.complete(rows, n=n, max_new_tokens=new_tokens, temperature=1.0 if n > 1 else 0.0)
    return sum(len(completion.ids) for row in done for completion in row)


@torch.inference_mode()
def sample_plain(model: Any, processor: Any, rows: Sequence[Row], new_tokens: int, n: int) -> int:
    """transformers' ``generate`` by hand, its tokens left undecoded; returns the tokens sampled."""
    processor.tokenizer.padding_side = "left"
    sampling = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0} if n > 1 else {"do_sample": False}
    inputs = encode_plain(processor, rows, training=False)
    out = model.generate(**inputs, **sampling, num_return_sequences=n, max_new_tokens=new_tokens,
                         min_new_tokens=new_tokens)  # fmt: skip
    return out[:, inputs["input_ids"].shape[1] :].numel()


def sample_both(model: Any, processor: Any, rows: Sequence[Row], new_tokens: int, n: int) -> tuple[float, float]:
    """Tokens per CPU second, ours and plain, over all rows; the side that goes first changes with each batch."""
    sides = [sample_ours, sample_plain]
    seconds = dict.fromkeys(sides, 0.0)
    for k in range(0, len(rows), BATCH):
        batch = rows[k : k + BATCH]
        for side in sides:
            start = time.process_time()
            tokens = side(model, processor, batch, new_tokens, n)
            seconds[side] += time.process_time() - start
            if tokens != (due := len(batch) * n * new_tokens):
                raise SystemExit(f"{side.__name__} made {tokens} tokens, not {due}: the two sides do different work")
        sides.reverse()
    total = len(rows) * n * new_tokens
    return total / seconds[sample_ours], total / seconds[sample_plain]


# --- the comparison -------------------------------------------------------------------------------------------------


def compare_fits(load: Callable[[], Any], processor: Any, rows: Sequence[Row], steps: int, repeats: int) -> None:
    runs = [fit_both(load, processor, rows, steps) for _ in range(repeats)]
    print("loss of the first ten steps")
    for name, side in zip(("ours", "plain"), runs[0], strict=True):
        print(f"  {name:6}" + " ".join(f"{loss:.4f}" for loss in side.losses[:10]))
    apart = max(abs(a - b) for ours, plain in runs for a, b in zip(ours.losses[:10], plain.losses[:10], strict=True))
    if apart > PARITY:
        raise SystemExit(f"the losses are up to {apart:.2g} apart (allowed: {PARITY}): the two sides do different work")
    print(f"  largest difference {apart:.1g} (allowed: {PARITY})")
    show("fit, CPU ms a step", [(ours.cpu_ms, plain.cpu_ms) for ours, plain in runs], min, "at most 1.05")


def compare_sampling(model: Any, processor: Any, rows: Sequence[Row], new_tokens: int, n: int, repeats: int) -> None:
    model.eval()
    sample_both(model, processor, rows[:BATCH], 4, n)  # warm-up
    runs = [sample_both(model, processor, rows, new_tokens, n) for _ in range(repeats)]
    how = f"{n} samples a prompt at temperature 1" if n > 1 else "greedy"
    show(f"sampling ({how}), tokens per CPU second", runs, max, "at least 0.97")


def show(title: str, runs: list[tuple[float, float]], best: Callable[[list[float]], float], goal: str) -> None:
    """Median and best of each side's figures, and their ratios; ``runs`` holds (ours, plain) of each repeat."""
    ours, plain = map(list, zip(*runs, strict=True))
    print(title)
    for name, values in (("ours", ours), ("plain", plain)):
        each = "".join(f"{value:9.1f}" for value in values)
        print(f"  {name:6}median {median(values):8.1f}   best {best(values):8.1f}   each{each}")
    each = "".join(f"{a / b:9.3f}" for a, b in runs)
    print(f"  ratio median {median(ours) / median(plain):8.3f}   best {best(ours) / best(plain):8.3f}   each{each}")
    print(f"  goal: {goal}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="MathSE's fit and sampling against plain transformers, in CPU time")
    parser.add_argument("--model", type=Path, help="folder of a Qwen2-VL checkpoint with its processor")
    parser.add_argument("--rows", type=Path, help="JSONL of rows for it, each with one or more images")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12, help=f"of each fit; {WARM_UP} of them are not timed")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=64)
    args = parser.parse_args()
    if (args.model is None) != (args.rows is None):
        parser.error("--model and --rows go together; without both, a model and its rows are made")
    if args.repeats < 1 or args.steps < 10 or args.prompts < 1 or args.new_tokens < 1:
        parser.error("--steps is at least 10 (their losses are compared), the other numbers at least 1")
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    needed = max(args.steps * BATCH, args.prompts)
    with tempfile.TemporaryDirectory() as scratch:
        folder, rows = build(Path(scratch), needed) if args.model is None else (args.model, read_rows(args.rows))
        if len(rows) < needed:
            parser.error(f"{args.rows} has {len(rows)} rows, {needed} are needed; or lower --steps and --prompts")
        compare(folder, rows, args)


def compare(folder: Path, rows: Sequence[Row], args: argparse.Namespace) -> None:
    processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)

    def load() -> Any:
        return transformers.Qwen2VLForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True)  # fmt: skip

    print(f"{load().num_parameters():,} parameters, batch {BATCH}, fp32, one thread, torch {torch.__version__}, "
          f"transformers {transformers.__version__}")  # fmt: skip
    compare_fits(load, processor, rows, args.steps, args.repeats)
    prompts: list[Row] = [{"question": row["question"], "images": row["images"]} for row in rows[: args.prompts]]
    for n in (1, 4):
        compare_sampling(load(), processor, prompts, args.new_tokens, n, args.repeats)


if __name__ == "__main__":
    main()
