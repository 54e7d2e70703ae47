"""open_swift.py EXPORT MODEL: the rows of an export as ms-swift's own loader and template encode them.

Run by ms-swift's interpreter, see test_tools.py, with ROOT_IMAGE_DIR. Prints as open_llamafactory.py does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from swift import get_processor, get_template
from swift.dataset import load_dataset
from swift.template.templates import qwen
from tool_rows import hand_over, tool_row

export, model = sys.argv[1:]
config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
# The template knows the ids of the published tokenizer; a tiny one has others.
qwen.Qwen2VLTemplate.image_token_id = config["image_token_id"]
qwen.Qwen2VLTemplate.video_token_id = config["video_token_id"]
processor = get_processor(model, model_type="qwen2_vl")
template = get_template(processor, template_type="qwen2_vl", max_length=4096)
template.set_mode("train")
rows, _ = load_dataset(str(Path(export) / "train.jsonl"), strict=True, load_from_cache_file=False)
encoded = [template.encode(row) for row in rows]
hand_over(tool_row(row["input_ids"], row["labels"], row) for row in encoded)
