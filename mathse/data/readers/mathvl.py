"""MathVL: the paper's own 341,346 Chinese K12 problems. It is not released: bring your own file in this form.

Source    Yang et al. 2024, "MathGLM-Vision", arXiv 2409.13729; neither problems nor test set are published
Licence   that of your file
Files     mathvl*.jsonl, {train,val,test}*.jsonl, or any *.jsonl or *.json in the folder
A record  {"id": "k12/17", "question": "如图,...", "images": ["images/17_1.png", "images/17_2.png"],
           "choices": ["12", "13", "14", "15"], "answer": "B", "solution": "解:...", "grade": "junior"}
          "images" may be one path, or left out; "choices" a list, {"A": ..., "B": ...}, or left out; "id" may be left
          out (a hash of question and pictures then); further keys become metadata.
We hold no sample of it: tested against records written by us in this shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mathse.data.readers.base import PublishedSet, RecordOrigin, Values, found_image, list_of, tagged, text_of
from mathse.data.readers.llava import images_of

FOLDERS = ("", "images")
KNOWN = {"id", "question", "image", "images", "choices", "answer", "solution", "unit"}


def rows(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    choices = values.get("choices")
    choices = list(choices.values()) if isinstance(choices, Mapping) else list_of(values, "choices")
    yield tagged(
        "mathvl",
        values.get("id"),
        text_of(values, "question"),
        text_of(values, "answer"),
        images=[found_image(ref, origin, FOLDERS) for ref in images_of(values)],
        choices=choices,
        solution=values.get("solution"),
        unit=values.get("unit"),
        **{key: value for key, value in values.items() if key not in KNOWN},
    )


READER = PublishedSet(
    name="mathvl",
    title="MathVL (your own copy)",
    home="https://arxiv.org/abs/2409.13729",
    licence="that of your file",
    patterns=("**/mathvl*.jsonl", "**/{split}*.jsonl", "*.jsonl", "*.json"),
    rows=rows,
)
