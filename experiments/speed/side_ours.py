"""MathSE's own fit, sampling and judging, called as the stages of a run call them. Started by peers.py."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import pytorch_lightning as pl
import torch
import transformers
from turns import Turns

from mathse.config.fits import AdapterConfig, FitConfig, OptimizerConfig
from mathse.config.schema import TrainerConfig
from mathse.inference.rows import judge_row
from mathse.judges.orm import ORMJudge
from mathse.models.qwen2vl import Qwen2VLBackbone
from mathse.models.row import Row
from mathse.training.allocator import keep_freed_memory
from mathse.training.batches import EpochStream
from mathse.training.fit import FitJob, fit
from mathse.types import Lineage, Problem, ReasoningPath

STEPS = 10_000  # more than anybody waits for: the learning rate is constant


class InOrder(EpochStream):
    """The rows as they are listed, so that all sides take the same ones in a step."""

    def _drawn(self, position: int) -> int:
        return position % len(self.rows)


class InTurns(pl.Callback):
    """A step is all between the ends of two optimiser steps, with what Lightning and our callbacks do around them."""

    def __init__(self) -> None:
        self.turns = Turns()

    def on_train_start(self, *_: Any) -> None:
        self.turns.begin()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self.turns.done(loss=float(outputs["loss"]), tokens=batch["micro"].counts.tokens)


def fit_in_turns(task: dict[str, Any], backbone: Qwen2VLBackbone, rows: Sequence[Row]) -> None:
    optimizer = OptimizerConfig(lr=task["lr"], weight_decay=0, beta1=0.9, beta2=0.999, warmup_ratio=0, min_lr_ratio=1)
    settings = FitConfig(
        method="lora" if task["lora"] else "full",
        lora=AdapterConfig(rank=8, alpha=16, dropout=0),
        freeze=["tower", "connector"] if task["frozen_tower"] else [],
        max_steps=STEPS,
        batch_size=task["batch"],
        micro_batch_size=task["micro"],
        optimizer=optimizer,
    )
    hardware = TrainerConfig(precision="bf16-mixed" if task["bf16"] else "32-true", checkpoint_every=STEPS)
    stream = None
    if task["batch"] == task["micro"]:
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
        stream = InOrder([rows[i] for i in order], task["batch"], seed=0)
    with tempfile.TemporaryDirectory() as folder:
        job = FitJob(Path(folder), rows, seed=0, settings=settings, trainer=hardware, stream=stream)
        fit(backbone, job, [InTurns()])


def write(task: dict[str, Any], backbone: Qwen2VLBackbone, rows: Sequence[Row], n: int) -> list[list[str]]:
    """``n`` paths a row, all of full length."""
    prompts = [Row(question=row["question"], images=row["images"]) for row in rows]
    completions = backbone.complete(prompts, n=n, max_new_tokens=task["new_tokens"], temperature=1.0)
    if {len(c.ids) for paths in completions for c in paths} != {task["new_tokens"]}:
        raise SystemExit("a path has not its full length")
    return [[c.text for c in paths] for paths in completions]


def sample_in_turns(task: dict[str, Any], backbone: Qwen2VLBackbone, rows: Sequence[Row]) -> None:
    turns = Turns()
    turns.begin()
    for start in range(0, len(rows), task["batch"]):
        batch = rows[start : start + task["batch"]]
        write(task, backbone, batch, task["n"])
        turns.done(tokens=len(batch) * task["n"] * task["new_tokens"])


def judge_in_turns(task: dict[str, Any], backbone: Qwen2VLBackbone, rows: Sequence[Row]) -> None:
    """A step writes a batch of paths, then judges them in each order, and where the status comes first without what
    follows it; CPU milliseconds of each beside the step's, and the tokens of a prompt.

    The responses judged are the rows' own, of about the written paths' length: random tokens make texts whose tokens
    are more than were written.
    """
    judges = {
        order: ORMJudge(backbone, order=order, max_new_tokens=task["new_tokens"])
        for order in ("verdict_first", "analysis_first")
    }
    judges["status_alone"] = judges["verdict_first"].explaining(False)
    turns = Turns()
    turns.begin()
    for start in range(0, len(rows), task["batch"]):
        batch = rows[start : start + task["batch"]]
        problems = [
            Problem(str(start + k), row["question"], tuple(map(str, row["images"])), answer="1")
            for k, row in enumerate(batch)
        ]
        responses = [row["response"] for row in batch]
        paths = [
            ReasoningPath(f"{p.id}/0", p.id, row["response"], Lineage("student", "round_01", "model"))
            for p, row in zip(problems, batch, strict=True)
        ]
        cpu = {}
        since = time.process_time()
        write(task, backbone, batch, 1)
        cpu["write"] = time.process_time() - since
        for order, judge in judges.items():
            since = time.process_time()
            verdicts = judge.judge(problems, paths)
            cpu[order] = time.process_time() - since
            if order == "verdict_first":
                wrong = sum(verdict.status == "wrong" for verdict in verdicts) / len(verdicts)
        # as a round has them: several paths of a problem, whose prompts have all but the path in common
        few = 4 * problems[:4]
        since = time.process_time()
        write(task, backbone, batch[:4], 4)
        cpu["write_4"] = time.process_time() - since
        since = time.process_time()
        judges["status_alone"].judge(few, paths[: len(few)])
        cpu["status_of_4"] = time.process_time() - since
        style = backbone.prompt_style
        asked = [judge_row(style, *each, False, True) for each in zip(problems, responses, strict=True)]
        lengths = {
            "prompt": mean(backbone.prompt_lengths([Row(question=r["question"], images=r["images"]) for r in batch])),
            "judged_prompt": mean(backbone.prompt_lengths(asked)),
            "wrong": wrong,
        }
        turns.done(tokens=len(batch) * task["new_tokens"], **lengths, **{name: 1000 * s for name, s in cpu.items()})


def main() -> None:
    task = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    keep_freed_memory()  # as the commands do
    folder = Path(task["folder"])
    rows: list[Row] = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    processor = transformers.AutoProcessor.from_pretrained(folder / "model", local_files_only=True)
    model = transformers.Qwen2VLForConditionalGeneration.from_pretrained(
        folder / "model", dtype=torch.float32, attn_implementation="sdpa", local_files_only=True
    )
    backbone = Qwen2VLBackbone(model, processor)
    if task["kind"] == "fit":
        fit_in_turns(task, backbone, rows)
        return
    model.eval()
    backbone.never_sampled = [*backbone.never_sampled, backbone.end_id]  # every path gets its full length
    {"sample": sample_in_turns, "judge": judge_in_turns}[task["kind"]](task, backbone, rows)


if __name__ == "__main__":
    main()
