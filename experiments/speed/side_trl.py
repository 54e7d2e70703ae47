"""TRL's SFTTrainer on the same work. Started by peers.py, in an environment that has TRL."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch
from datasets import Image, Sequence, load_dataset
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import SFTConfig, SFTTrainer
from turns import hugging_face_trainer_in_turns


def main() -> None:
    task = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    hugging_face_trainer_in_turns()
    folder, grouped = Path(task["folder"]), task["batch"] > task["micro"]
    rows = load_dataset("json", data_files=str(folder / "trl.jsonl"), split="train", cache_dir=str(folder / "trl"))
    model = AutoModelForImageTextToText.from_pretrained(
        folder / "model", dtype=torch.float32, attn_implementation="sdpa"
    )
    if task["frozen_tower"]:
        model.model.visual.requires_grad_(False)
    peft = None
    if task["lora"]:
        from peft import LoraConfig

        peft = LoraConfig(r=8, lora_alpha=16, target_modules=task["lora_modules"])
    with tempfile.TemporaryDirectory() as out:
        config = SFTConfig(
            output_dir=out, max_steps=10_000, per_device_train_batch_size=task["micro"],
            gradient_accumulation_steps=task["batch"] // task["micro"], learning_rate=task["lr"],
            lr_scheduler_type="constant", logging_steps=5, save_strategy="no", report_to="none", bf16=task["bf16"],
            fp16=False, use_cpu=True, max_length=None, gradient_checkpointing=False, seed=0, dataloader_num_workers=0,
            completion_only_loss=True, disable_tqdm=True,
            # lengths are real tokens, images included, counted beforehand: it cannot tell by itself
            **({"train_sampling_strategy": "group_by_length", "length_column_name": "length",
                "remove_unused_columns": False} if grouped else {}),
        )  # fmt: skip
        SFTTrainer(
            model=model, args=config, train_dataset=rows.cast_column("images", Sequence(Image())),
            processing_class=AutoProcessor.from_pretrained(folder / "model"), peft_config=peft,
        ).train()  # fmt: skip


if __name__ == "__main__":
    main()
