"""ms-swift on the same work. Started by peers.py, in an environment that has ms-swift.

Its defaults that differ from the other sides' are set to theirs: LoRA dropout 0.05, weight decay 0.1, beta2 0.95, data
seed 42, a second shuffle, the first step logged alone.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import torch


def main() -> None:
    task = json.loads(sys.argv[1])
    os.environ |= {"MAX_PIXELS": str(task["max_pixels"]), "MIN_PIXELS": str(task["min_pixels"])}
    torch.set_num_threads(1)
    from turns import hugging_face_trainer_in_turns

    hugging_face_trainer_in_turns()
    import swift.template.templates.qwen as qwen
    from swift import sft_main

    folder = Path(task["folder"])
    config = json.loads((folder / "model" / "config.json").read_text())
    # its template class holds the published vocabulary's ids
    qwen.Qwen2VLTemplate.image_token_id = config["image_token_id"]
    qwen.Qwen2VLTemplate.video_token_id = config["video_token_id"]
    with tempfile.TemporaryDirectory() as out:
        settings = {
            "model": folder / "model", "model_type": "qwen2_vl", "template": "qwen2_vl",
            "dataset": folder / "swift.jsonl", "torch_dtype": "float32", "attn_impl": "sdpa", "bf16": task["bf16"],
            "per_device_train_batch_size": task["micro"],
            "gradient_accumulation_steps": task["batch"] // task["micro"], "learning_rate": task["lr"],
            "lr_scheduler_type": "constant", "max_steps": 10_000, "logging_steps": 5, "save_strategy": "no",
            "report_to": "none", "output_dir": out, "gradient_checkpointing": False,
            "vit_gradient_checkpointing": False, "dataloader_num_workers": 0, "dataset_num_proc": 1,
            "split_dataset_ratio": 0, "max_length": 2048, "seed": 0,
            "freeze_vit": task["frozen_tower"], "freeze_aligner": task["frozen_tower"], "freeze_llm": False,
            "use_cpu": True, "lazy_tokenize": True, "lora_dropout": 0, "weight_decay": 0, "adam_beta2": 0.999,
            "data_seed": 0, "dataset_shuffle": False, "logging_first_step": False, "disable_tqdm": True,
            "tuner_type": "lora" if task["lora"] else "full",
        }  # fmt: skip
        if task["lora"]:
            settings |= {"lora_rank": 8, "lora_alpha": 16, "target_modules": task["lora_modules"]}
        if task["batch"] > task["micro"]:
            settings |= {"lazy_tokenize": False, "train_sampling_strategy": "group_by_length"}
        arguments = []
        for name, value in settings.items():
            values = value if isinstance(value, list) else [str(value).lower() if isinstance(value, bool) else value]
            arguments += [f"--{name}", *map(str, values)]
        sft_main(arguments)


if __name__ == "__main__":
    main()
