"""open_trl.py EXPORT MODEL: the rows of an export as TRL's SFTTrainer collates them.

Run by TRL's interpreter, see test_tools.py. Prints as open_llamafactory.py does.
"""

from __future__ import annotations

import sys
import tempfile

from datasets import load_dataset
from tool_rows import hand_over, tool_row
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
hand_over(tool_row(row["input_ids"][0].tolist(), row["labels"][0].tolist(), row) for row in encoded)
