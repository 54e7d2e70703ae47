"""Conversations in LLaVA's form, as many instruction sets have them: LLaVA-OneVision, MMR1-SFT, your own export.

Source    Liu et al. 2023, "Visual Instruction Tuning", arXiv 2304.08485, for the form; the set is yours to name
Licence   that of your file
Files     one or more JSON or JSONL files of records, pictures below the folder
A record  {"id": "17", "image": "images/17.png", "conversations": [{"from": "human", "value": "<image>\\nFind x."},
           {"from": "gpt", "value": "... The answer is 12."}]}; "images" may be a list, and "data_source" names a subset
A reply is a solution, and its answer the reference; a reply that announces no answer makes no problem.
We hold no sample of it: tested against records written by us in this shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mathse.data.readers.base import PublishedSet, RecordOrigin, Values
from mathse.data.readers.llava import conversation

FOLDERS = ("", "images", "image")


def rows(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    yield from conversation("conversations", values, origin, FOLDERS, subset=values.get("data_source"))


READER = PublishedSet(
    name="conversations",
    title="Conversations in LLaVA's form",
    home="https://arxiv.org/abs/2304.08485",
    licence="that of your file",
    patterns=("**/{split}*.jsonl", "**/{split}*.json", "**/*.jsonl", "**/*.json"),
    rows=rows,
)
