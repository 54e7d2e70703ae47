"""open_llamafactory.py EXPORT MODEL: the rows of an export as LLaMA-Factory's own loader gives them to its trainer.

Run by LLaMA-Factory's interpreter, see test_tools.py. Prints one JSON list: input ids and labels of each row.
"""

from __future__ import annotations

import json
import sys
import tempfile

from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer

export, model = sys.argv[1:]
settings = {
    "model_name_or_path": model,
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "full",
    "dataset": "mathse",
    "dataset_dir": export,
    "template": "qwen2_vl",
    "mask_history": True,
    "cutoff_len": 4096,
    "image_max_pixels": 12544,
    "image_min_pixels": 784,
    "output_dir": tempfile.mkdtemp(),
    "use_cpu": True,
    "report_to": "none",
}
model_args, data_args, training_args, _, _ = get_train_args(settings)
tokenizer = load_tokenizer(model_args)
template = get_template_and_fix_tokenizer(tokenizer["tokenizer"], data_args)
rows = get_dataset(template, model_args, data_args, training_args, stage="sft", **tokenizer)["train_dataset"]
print("ROWS", json.dumps([{"ids": row["input_ids"], "labels": row["labels"]} for row in rows]))
