"""open_trl.py EXPORT MODEL: the rows of an export as TRL's SFTTrainer collates them.

Run by TRL's interpreter, see test_tools.py. Prints one JSON list, as open_llamafactory.py.
"""

from __future__ import annotations

import json
import sys
import tempfile

from datasets import load_dataset
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import SFTConfig, SFTTrainer

export, model = sys.argv[1:]
cache = tempfile.mkdtemp()
settings = SFTConfig(
    output_dir=tempfile.mkdtemp(),
    per_device_train_batch_size=1,
    max_length=None,
    report_to="none",
    use_cpu=True,
    bf16=False,
)
trainer = SFTTrainer(
    model=AutoModelForImageTextToText.from_pretrained(model),
    args=settings,
    train_dataset=load_dataset(export, split="train", cache_dir=cache),
    processing_class=AutoProcessor.from_pretrained(model),
)
encoded = [trainer.data_collator([row]) for row in trainer.train_dataset]
print(
    "ROWS", json.dumps([{"ids": row["input_ids"][0].tolist(), "labels": row["labels"][0].tolist()} for row in encoded])
)
