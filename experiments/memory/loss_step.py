"""A whole optimiser step with the loss in chunks beside one with the plain loss: CPU seconds, and memory at its peak.

    python experiments/memory/loss_step.py [--turns 5] [--width 512] [--layers 8] [--frozen]

A Qwen2-VL decoder of random weights with a vocabulary of 152,064 answers 2,048 tokens, in two micro-batches, in float32
on one thread: forward and backward pass, clipping, AdamW. Each side is a process of its own; they take turns step by
step. ``--frozen``: head and embedding do not train, as under adapters. Smaller models than 7B have a larger share of
their work in the head (here two thirds, there 7 %), so what the loss costs shows more than it would there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "speed"))

VOCABULARY, ANSWER, PROMPT, MICRO = 152_064, 2048, 16, 2
SIDES = ("plain", "chunks")
GIB = 2**30


def peak() -> int:
    status = Path("/proc/self/status").read_text()
    return next(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def work(side: str, width: int, layers: int, frozen: bool) -> None:
    """A side: steps when it is told to."""
    import torch
    import torch.nn.functional as F
    from torch import Tensor
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
    from turns import Turns

    from mathse.training.allocator import keep_freed_memory
    from mathse.training.loss import accumulate_cross_entropy

    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}
    heads = width // 64
    text = {"vocab_size": VOCABULARY, "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": heads, "rope_parameters": rope}  # fmt: skip
    vision = {"depth": 1, "embed_dim": 32, "num_heads": 2, "hidden_size": width}
    model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision))
    model.train()
    model.model.visual.requires_grad_(False)
    if frozen:
        model.lm_head.requires_grad_(False)
        model.get_input_embeddings().requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-5, fused=True)

    def plain(head: Any, states: Tensor, targets: Tensor, normaliser: int) -> Tensor:
        return F.cross_entropy(head(states).float(), targets, reduction="sum") / normaliser

    measure = plain if side == "plain" else accumulate_cross_entropy
    draw = torch.Generator().manual_seed(1)
    turns = Turns()

    def step() -> float:
        """The step's loss."""
        total = 0.0
        for _ in range(MICRO):
            ids = torch.randint(VOCABULARY, (1, PROMPT + ANSWER // MICRO), generator=draw)
            states = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, PROMPT - 1 : -1].flatten(0, 1)
            loss = measure(model.lm_head, states, ids[:, PROMPT:].flatten(), ANSWER)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        return total

    turns.begin()
    while True:
        turns.done(loss=step(), peak=peak())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--width", type=int, default=512, help="of the decoder, a multiple of 64")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--frozen", action="store_true", help="head and embedding do not train")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side is not None:
        work(arguments.side, arguments.width, arguments.layers, arguments.frozen)
        return
    from turns import PIPE

    sides: dict[str, tuple[subprocess.Popen[str], Any]] = {}
    for side in SIDES:
        reading, writing = os.pipe()
        command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, text=True, pass_fds=(writing,), env={**os.environ, PIPE: str(writing)}
        )
        os.close(writing)
        sides[side] = process, os.fdopen(reading)
    for _, answers in sides.values():
        json.loads(answers.readline())  # loaded
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(arguments.turns + 1):  # the first makes AdamW's moments, and is left out
        for side, (process, answers) in sides.items():
            assert process.stdin is not None
            process.stdin.write("step\n")
            process.stdin.flush()
            found[side].append(json.loads(answers.readline()))
            print(side, {name: round(value, 4) for name, value in found[side][-1].items()}, file=sys.stderr, flush=True)
    for process, _ in sides.values():
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
    medians = {side: median(step["cpu_ms"] / 1000 for step in steps[1:]) for side, steps in found.items()}
    peaks = {side: steps[-1]["peak"] / GIB for side, steps in found.items()}
    apart = max(abs(a["loss"] / b["loss"] - 1) for a, b in zip(*found.values(), strict=True))
    head = "frozen" if arguments.frozen else "trains"
    print(f"| head | plain, CPU s a step | in chunks | ratio | peak, plain | in chunks | losses apart |\n{'|---' * 7}|")
    print(
        f"| {head} | {medians['plain']:.2f} | {medians['chunks']:.2f} | {medians['chunks'] / medians['plain']:.2f} | "
        f"{peaks['plain']:.2f} GiB | {peaks['chunks']:.2f} GiB | {apart:.0e} |"
    )


if __name__ == "__main__":
    main()
