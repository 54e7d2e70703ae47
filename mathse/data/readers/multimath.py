"""MultiMath-300K: 298,670 K12 problems with a picture each, Chinese and English, solutions written by a model.

Source    Peng et al. 2024, "MultiMath", hub pengshuai-rin/multimath-300k; github.com/pengshuai-rin/MultiMath
Licence   none stated on the hub page
Files     solution/*.json (conversations; the folder caption/ holds descriptions, which are no problems), images/
A record  {"id": "17ff4c7d_zh", "image": "17ff4c7d.png",
           "conversations": [{"from": "human", "value": "<image>\\n如图,..."}, {"from": "gpt", "value": "...故选 B。"}]}
We hold no sample of it: tested against records written by us in this shape. The set's other file, data.json, has a
shape that we have not seen; it is not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mathse.data.readers.base import PublishedSet, RecordOrigin, Values
from mathse.data.readers.llava import conversation

FOLDERS = ("images", "", "multimath-300k/images", "{split}/images")


def rows(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    yield from conversation("multimath", values, origin, FOLDERS)


READER = PublishedSet(
    name="multimath",
    title="MultiMath-300K",
    home="https://huggingface.co/datasets/pengshuai-rin/multimath-300k",
    licence="none stated",
    patterns=("**/solution/*{split}*.json", "**/solution/*.json", "**/{split}*.json*", "*.jsonl"),
    rows=rows,
)
