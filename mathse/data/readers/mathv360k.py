"""MathV360K: 360,000 questions about 40,000 pictures of 24 public sets, many rewritten by GPT-4V; short answers.

Source    Shi et al. 2024, "Math-LLaVA", hub Zhiqiang007/MathV360K; github.com/HZQ950419/Math-LLaVA
Licence   none of its own: pictures and questions keep the terms of the 24 sets, some for research only
Files     train_samples_all_tuning.json, data_images.zip unpacked to data_images/
A record  {"image": "TabMWP/images/17.png", "conversations": [{"from": "human", "value": "<image>\\nHint: Please answer
           the question and provide the correct option letter, e.g., A, B, C, D, at the end.\\nQuestion: Find x.\\n
           Choices:\\n(A) 12\\n(B) 13"}, {"from": "gpt", "value": "The answer is B"}]}
Several of its sets share pictures with MathVista: train on it with decontaminate.against=[...].
We hold no sample of it: tested against records written by us in this shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mathse.data.readers.base import PublishedSet, RecordOrigin, Values
from mathse.data.readers.llava import conversation, images_of

FOLDERS = ("data_images", "images_data", "images", "")


def rows(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    # An image's first folder is the name of the set it was taken from.
    refs = [str(ref) for ref in images_of(values)]
    subset = refs[0].split("/")[0] if refs and "/" in refs[0] else None
    yield from conversation("mathv360k", values, origin, FOLDERS, subset=subset)


READER = PublishedSet(
    name="mathv360k",
    title="MathV360K",
    home="https://huggingface.co/datasets/Zhiqiang007/MathV360K",
    licence="mixed, those of its 24 sets",
    patterns=("**/{split}_samples_all_tuning.json", "**/{split}*.json*", "*.jsonl", "*.json"),
    rows=rows,
)
