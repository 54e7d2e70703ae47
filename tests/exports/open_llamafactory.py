"""open_llamafactory.py EXPORT MODEL: the rows of an export as LLaMA-Factory's own loader gives them to its trainer.

Run by LLaMA-Factory's interpreter, see test_tools.py. Prints input ids, labels and pixels of each row.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer
from tool_rows import hand_over, tool_row

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


def pixels(row: dict[str, Any]) -> dict[str, Any]:
    """What its collator makes of a row's pictures (in a batch without any it would show a blank one)."""
    shown = row["images"] or []
    return template.mm_plugin.get_mm_inputs(
        shown, [], [], [len(shown)], [0], [0], [row["input_ids"]], tokenizer["processor"]
    )


hand_over(tool_row(row["input_ids"], row["labels"], pixels(row)) for row in rows)
