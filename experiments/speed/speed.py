"""What MathSE's own machinery costs: its fit against a plain loop, its sampling against ``generate`` called by hand.

    python experiments/speed/speed.py                              # builds a 4.7 M parameter Qwen2-VL and its rows
    python experiments/speed/speed.py --model DIR --rows FILE      # rows: {"prompt", "completion", "images"}, as for TRL

Both sides get the same weights, rows, order and optimiser. CPU seconds of this process count (``time.process_time``),
on one thread, in turns. See the README beside this file for the figures and what is counted.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pytorch_lightning as pl
import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    AutoProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from mathse.backbones.base import IGNORED, Row
from mathse.backbones.qwen2vl import Qwen2VLBackbone
from mathse.config.schema import Fit, Optimizer, Trainer
from mathse.data.batches import EpochStream
from mathse.fit import FitJob, fit

BATCH, LR, CLIP = 16, 1e-3, 1.0
WARM_UP = 2  # steps left out on both sides: allocation, lazy initialisation, the first optimiser state
PARITY = 1e-3  # largest difference between the two sides' losses over the first ten steps
HEADER = "<|im_start|>assistant\n"  # of Qwen2-VL's chat template; no loss up to and with it
SIDE = 56  # pixels; 2 x 2 merged patches, 4 visual tokens


# --- the model and the rows -----------------------------------------------------------------------------------------

QUESTION = ("The picture shows red squares and blue circles. What is the number of squares times the number of circles "
            "plus the number of squares?")  # fmt: skip
RESPONSE = ("Step 1: Count the red squares in the picture, there are {a} of them. Step 2: Count the blue circles in the "
            "picture, there are {b} of them. Step 3: Multiply the two numbers to get {a} * {b} = {p}. Step 4: Add the "
            "number of squares to get {p} + {a} = {t}. The answer is \\boxed{{{t}}}.")  # fmt: skip
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
           "<|video_pad|>")  # fmt: skip
CHAT_TEMPLATE = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_rows(folder: Path, count: int) -> list[Row]:
    """Questions over pictures of up to nine squares and circles, the pictures as PNG files in ``folder``."""
    draw = random.Random(0)
    rows: list[Row] = []
    for i in range(count):
        a, b = draw.randint(1, 9), draw.randint(1, 9)
        picture = Image.new("RGB", (SIDE, SIDE), "white")
        pen = ImageDraw.Draw(picture)
        for k in range(a):
            pen.rectangle([2 + 6 * k, 4, 6 + 6 * k, 8], fill="red")
        for k in range(b):
            pen.ellipse([2 + 6 * k, 30, 6 + 6 * k, 34], fill="blue")
        picture.save(folder / f"{i:05d}.png")
        response = RESPONSE.format(a=a, b=b, p=a * b, t=a * b + a)
        rows.append({"question": QUESTION, "images": [str(folder / f"{i:05d}.png")], "response": response})
    return rows


def make_processor(rows: Sequence[Row]) -> Qwen2VLProcessor:
    """Qwen2-VL's processor around a byte-level BPE trained on these rows."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    bytes_ = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        ["system user assistant You are a helpful assistant.", *(f"{r['question']} {r['response']}" for r in rows)],
        trainers.BpeTrainer(
            vocab_size=1000, special_tokens=list(SPECIAL), initial_alphabet=bytes_, show_progress=False
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=2048,
        additional_special_tokens=list(SPECIAL[1:]),
    )  # fmt: skip
    image_processor = Qwen2VLImageProcessor(min_pixels=SIDE**2, max_pixels=SIDE**2)
    return Qwen2VLProcessor(image_processor, tokenizer, Qwen2VLVideoProcessor(), chat_template=CHAT_TEMPLATE)


def make_model(tokenizer: Any) -> Qwen2VLForConditionalGeneration:
    """Hidden size 256, four layers in text and vision: about 4.7 million random parameters."""
    end, pad, image, video, start, stop = tokenizer.convert_tokens_to_ids([SPECIAL[i] for i in (2, 0, 5, 6, 3, 4)])
    config = Qwen2VLConfig(
        text_config={"vocab_size": len(tokenizer), "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4,
                     "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
                     "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]},
                     "eos_token_id": end, "pad_token_id": pad, "tie_word_embeddings": False},
        vision_config={"depth": 4, "embed_dim": 128, "hidden_size": 256, "num_heads": 4, "mlp_ratio": 4},
        image_token_id=image, video_token_id=video, vision_start_token_id=start, vision_end_token_id=stop,
        tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration(config)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = end, pad
    return model


def read_rows(path: Path) -> list[Row]:
    """Rows of TRL's prompt and completion form; image paths as they stand in the file."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{"question": r["prompt"][0]["content"], "images": r["images"], "response": r["completion"][0]["content"]}
            for r in lines]  # fmt: skip


# --- one fit on either side -----------------------------------------------------------------------------------------

Run = tuple[list[float], list[float]]  # the loss of each step, and the CPU seconds at its end


class Stopwatch(pl.Callback):
    """The last callback of a step: its loss, and the CPU seconds that all before it had used by then."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))
        self.ends.append(time.process_time())


def fit_ours(model: Any, processor: Any, rows: Sequence[Row], steps: int) -> Run:
    """``mathse.fit`` as the stages call it, Lightning and its loader included; the rate constant, as in the loop."""
    optimizer = Optimizer(lr=LR, weight_decay=0, beta1=0.9, beta2=0.999, warmup_ratio=0, min_lr_ratio=1, clip=CLIP)
    settings = Fit(max_steps=steps, batch_size=BATCH, micro_batch_size=BATCH, optimizer=optimizer)
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        job = FitJob(Path(folder), rows, seed=0, settings=settings, trainer=Trainer(precision="32-true"))
        fit(Qwen2VLBackbone(model, processor), job, [watch])
    return watch.losses, watch.ends


def fit_plain(model: Any, processor: Any, rows: Sequence[Row], steps: int) -> Run:
    """The loop one would write by hand: processor, loss over all logits, AdamW, clipped gradients."""
    stream = EpochStream(rows, BATCH, seed=0)  # for its order alone
    batches = [[row for _, row in stream.keyed_rows(step)] for step in range(steps)]
    processor.tokenizer.padding_side = "right"
    header = processor.tokenizer(HEADER)["input_ids"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0, fused=True)
    model.train()
    losses, ends = [], []
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
        losses.append(loss.item())
        ends.append(time.process_time())
    return losses, ends


def encode_plain(processor: Any, rows: Sequence[Row], training: bool = True) -> dict[str, Tensor]:
    """One call of the processor for a batch; in training with the response and its end token."""
    texts, end = [], processor.tokenizer.eos_token
    for row in rows:
        content = [*({"type": "image"} for _ in row["images"]), {"type": "text", "text": row["question"]}]
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        texts.append(prompt + row["response"] + end if training else prompt)
    images = [[Image.open(str(image)) for image in row["images"]] for row in rows]
    return dict(processor(text=texts, images=images, padding=True, return_tensors="pt"))


# --- one pass of sampling on either side ----------------------------------------------------------------------------


def sample_ours(model: Any, processor: Any, rows: Sequence[Row], new_tokens: int, n: int) -> int:
    """``Backbone.complete`` as the stages call it, images and prompts from scratch; returns the tokens sampled."""
    backbone = Qwen2VLBackbone(model, processor)
    backbone.never_sampled = [*backbone.never_sampled, backbone.end_id]  # every path gets its full length
    temperature = 1.0 if n > 1 else 0.0
    tokens = 0
    for k in range(0, len(rows), BATCH):
        done = backbone.complete(rows[k : k + BATCH], n=n, max_new_tokens=new_tokens, temperature=temperature)
        tokens += sum(len(completion.ids) for row in done for completion in row)
    return tokens


@torch.inference_mode()
def sample_plain(model: Any, processor: Any, rows: Sequence[Row], new_tokens: int, n: int) -> int:
    """transformers' ``generate`` and ``batch_decode`` by hand; returns the tokens sampled."""
    processor.tokenizer.padding_side = "left"
    sampling = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0} if n > 1 else {"do_sample": False}
    model.eval()
    tokens = 0
    for k in range(0, len(rows), BATCH):
        inputs = encode_plain(processor, rows[k : k + BATCH], training=False)
        out = model.generate(**inputs, **sampling, num_return_sequences=n, max_new_tokens=new_tokens,
                             min_new_tokens=new_tokens)  # fmt: skip
        sampled = out[:, inputs["input_ids"].shape[1] :]
        processor.batch_decode(sampled, skip_special_tokens=True)
        tokens += sampled.numel()
    return tokens


# --- the comparison -------------------------------------------------------------------------------------------------


def in_turns(ours: Callable[[], float], plain: Callable[[], float], repeats: int) -> tuple[list[float], list[float]]:
    """``repeats`` figures a side, the side that goes first changing each time."""
    figures: dict[Callable[[], float], list[float]] = {ours: [], plain: []}
    for repeat in range(repeats):
        for side in (ours, plain) if repeat % 2 == 0 else (plain, ours):
            figures[side].append(side())
    return figures[ours], figures[plain]


def compare_fits(load: Callable[[], Any], processor: Any, rows: Sequence[Row], steps: int, repeats: int) -> None:
    losses: dict[str, list[float]] = {}

    def cpu_ms(name: str, side: Callable[..., Run]) -> float:
        losses[name], ends = side(load(), processor, rows, steps)
        return 1000 * (ends[-1] - ends[WARM_UP - 1]) / (steps - WARM_UP)

    ours, plain = in_turns(lambda: cpu_ms("ours", fit_ours), lambda: cpu_ms("plain", fit_plain), repeats)
    apart = max(abs(a - b) for a, b in zip(losses["ours"][:10], losses["plain"][:10], strict=True))
    print("loss of the first ten steps:")
    for name, values in losses.items():
        print(f"  {name:6}" + " ".join(f"{value:.4f}" for value in values[:10]))
    if apart > PARITY:
        raise SystemExit(f"the losses are up to {apart:.2g} apart (allowed: {PARITY}): the two sides do different work")
    print(f"  largest difference {apart:.1g} (allowed: {PARITY})")
    show("fit, CPU ms a step", ours, plain, min, "at most 1.05")


def compare_sampling(model: Any, processor: Any, rows: Sequence[Row], new_tokens: int, n: int, repeats: int) -> None:
    def rate(side: Callable[..., int]) -> float:
        start = time.process_time()
        tokens = side(model, processor, rows, new_tokens, n)
        if tokens != len(rows) * n * new_tokens:
            raise SystemExit(f"{side.__name__} made {tokens} tokens, not {len(rows) * n * new_tokens}: no equal work")
        return tokens / (time.process_time() - start)

    for side in (sample_ours, sample_plain):
        side(model, processor, rows[:BATCH], 4, n)  # warm-up
    ours, plain = in_turns(lambda: rate(sample_ours), lambda: rate(sample_plain), repeats)
    how = f"{n} samples a prompt at temperature 1" if n > 1 else "greedy"
    show(f"sampling ({how}), tokens per CPU second", ours, plain, max, "at least 0.97")


def show(title: str, ours: list[float], plain: list[float], best: Callable[[list[float]], float], goal: str) -> None:
    print(title)
    for name, values in (("ours", ours), ("plain", plain)):
        print(
            f"  {name:6}median {median(values):8.1f}   best {best(values):8.1f}   all {[round(v, 1) for v in values]}"
        )
    print(f"  ratio median {median(ours) / median(plain):8.3f}   best {best(ours) / best(plain):8.3f}   (goal: {goal})",
          flush=True)  # fmt: skip


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
        parser.error(
            "--steps is at least 10 (their losses are compared); --repeats, --prompts, --new-tokens at least 1"
        )
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder, rows = args.model, []
        if folder is None:
            folder, rows = Path(scratch) / "model", make_rows(Path(scratch), max(args.steps * BATCH, args.prompts))
            processor = make_processor(rows)
            make_model(processor.tokenizer).save_pretrained(folder)
            processor.save_pretrained(folder)
        else:
            rows = read_rows(args.rows)
        measure(folder, rows, args)


def measure(folder: Path, rows: Sequence[Row], args: argparse.Namespace) -> None:
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)

    def load() -> Any:
        return Qwen2VLForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True)  # fmt: skip

    print(
        f"{load().num_parameters():,} parameters, {len(rows)} rows, batch {BATCH}, fp32, one thread, torch {torch.__version__}"
    )
    compare_fits(load, processor, rows, args.steps, args.repeats)
    for n in (1, 4):
        prompts: list[Row] = [{"question": r["question"], "images": r["images"]} for r in rows[: args.prompts]]
        compare_sampling(load(), processor, prompts, args.new_tokens, n, args.repeats)


if __name__ == "__main__":
    main()
