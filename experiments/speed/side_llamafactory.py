"""LLaMA-Factory on the same work. Started by peers.py, in an environment that has LLaMA-Factory."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch
from llamafactory.train.tuner import run_exp
from turns import hugging_face_trainer_in_turns


def main() -> None:
    task = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    hugging_face_trainer_in_turns()
    folder = Path(task["folder"])
    with tempfile.TemporaryDirectory() as out:
        settings = {
            "model_name_or_path": str(folder / "model"), "trust_remote_code": False, "flash_attn": "sdpa",
            "image_max_pixels": task["max_pixels"], "image_min_pixels": task["min_pixels"],
            "stage": "sft", "do_train": True, "finetuning_type": "full", "dataset": "rows", "dataset_dir": str(folder),
            "freeze_vision_tower": task["frozen_tower"], "freeze_multi_modal_projector": task["frozen_tower"],
            "freeze_language_model": False, "template": "qwen2_vl", "cutoff_len": 2048, "overwrite_cache": True,
            "preprocessing_num_workers": 1, "dataloader_num_workers": 0, "output_dir": out, "logging_steps": 5,
            "save_strategy": "no", "report_to": "none", "per_device_train_batch_size": task["micro"],
            "gradient_accumulation_steps": task["batch"] // task["micro"], "learning_rate": task["lr"],
            "max_steps": 10_000, "lr_scheduler_type": "constant", "bf16": task["bf16"], "fp16": False,
            "use_cpu": True, "seed": 0, "disable_gradient_checkpointing": True, "disable_tqdm": True,
        }  # fmt: skip
        if task["lora"]:
            settings |= {"finetuning_type": "lora", "lora_rank": 8, "lora_alpha": 16,
                         "lora_target": ",".join(task["lora_modules"])}  # fmt: skip
        if task["batch"] > task["micro"]:
            settings["train_sampling_strategy"] = "group_by_length"
        run_exp(settings)


if __name__ == "__main__":
    main()
