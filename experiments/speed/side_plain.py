"""The loop, and the call of ``generate``, that one would write by hand around transformers. Started by peers.py.

Processor, all logits, fused AdamW, clipped gradients. Of several micro-batches a step, rows are sorted by their tokens
within the step, and the loss is divided by the whole step's tokens.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from turns import Turns

HEADER = "<|im_start|>assistant\n"  # of Qwen2-VL's chat template; no loss up to and with it
IGNORED = -100


def encode(processor: Any, rows: list[dict[str, Any]], end: str | None) -> dict[str, Any]:
    """One call of the processor for a batch; ``end`` is what a response ends with, None for the prompts alone."""
    texts = []
    for row in rows:
        content = [*({"type": "image"} for _ in row["images"]), {"type": "text", "text": row["question"]}]
        chat = [{"role": "user", "content": content}]
        prompt = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        texts.append(prompt if end is None else prompt + row["response"] + end)
    images = [[Image.open(image) for image in row["images"]] for row in rows]
    return dict(processor(text=texts, images=images, padding=True, return_tensors="pt"))


def fit(task: dict[str, Any], processor: Any, model: Any, rows: list[dict[str, Any]]) -> None:
    processor.tokenizer.padding_side = "right"
    header = processor.tokenizer(HEADER)["input_ids"]
    end = processor.tokenizer.eos_token + ("\n" if task["newline"] else "")
    if task["frozen_tower"]:
        model.model.visual.requires_grad_(False)
    if task["lora"]:
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(task["adapter_seed"])
        model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=task["lora_modules"]))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=task["lr"], weight_decay=0, fused=True)
    model.train()
    turns = Turns()
    turns.begin()
    for start in range(0, len(rows), task["batch"]):
        batch = rows[start : start + task["batch"]]
        if task["batch"] > task["micro"]:
            batch.sort(key=lambda row: row["tokens"])
        micro = []
        for k in range(0, len(batch), task["micro"]):
            inputs = encode(processor, batch[k : k + task["micro"]], end)
            labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, IGNORED)
            for ids, label in zip(inputs["input_ids"], labels, strict=True):
                label[: int((ids == header[0]).nonzero()[-1]) + len(header)] = IGNORED
            micro.append({**inputs, "labels": labels})
        count = sum(int((inputs["labels"][:, 1:] != IGNORED).sum()) for inputs in micro)
        total = 0.0
        for inputs in micro:
            with torch.autocast("cpu", torch.bfloat16, enabled=task["bf16"]):
                loss = model(**inputs, num_items_in_batch=count).loss
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        turns.done(loss=total, tokens=sum(int(inputs["attention_mask"].sum()) for inputs in micro))


@torch.inference_mode()
def sample(task: dict[str, Any], processor: Any, model: Any, rows: list[dict[str, Any]]) -> None:
    """``n`` samples a prompt, all of full length; their tokens are left undecoded."""
    processor.tokenizer.padding_side = "left"
    model.eval()
    torch.manual_seed(0)
    turns = Turns()
    turns.begin()
    for start in range(0, len(rows), task["batch"]):
        inputs = encode(processor, rows[start : start + task["batch"]], None)
        new = task["new_tokens"]
        out = model.generate(**inputs, do_sample=True, temperature=1.0, top_p=1.0, top_k=0,
                             num_return_sequences=task["n"], max_new_tokens=new, min_new_tokens=new)  # fmt: skip
        turns.done(tokens=out[:, inputs["input_ids"].shape[1] :].numel())


def main() -> None:
    task = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    folder = Path(task["folder"])
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    processor = transformers.AutoProcessor.from_pretrained(folder / "model", local_files_only=True)
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        folder / "model", dtype=torch.float32, attn_implementation="sdpa", local_files_only=True
    )
    if task["kind"] == "sample":
        sample(task, processor, model, rows)
    else:
        # the order in which transformers' Trainer draws rows at seed 0
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
        fit(task, processor, model, [rows[i] for i in order])


if __name__ == "__main__":
    main()
