"""UniGeo, calculation part: GeoQA's 4,998 problems in English, 4 choices, a program as annotation.

Source    Chen et al. 2022, "UniGeo", github.com/chen-judge/UniGeo; calculation_{train,val,test}.pk
Licence   none stated by the repository
Files     the published pickles are not read (a pickle can run any program): export them to JSON once, where you trust
          them, with the pictures as files: calculation_{train,val,test}.json(l), "image" a path
A record  {"id": 3, "English_problem": "As shown in the figure, ...", "choices": ["20°", "30°", "40°", "50°"],
           "label": 2, "image": "calculation_images/3.png", "answer": "...", "manual_program": [...]}
We hold no sample of it: tested against records written by us in this shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mathse.data.readers.base import (
    PublishedSet,
    RecordOrigin,
    Values,
    found_image,
    letter_of,
    list_of,
    tagged,
    text_of,
)
from mathse.data.readers.geoqa_plus import PICKLE
from mathse.data.readers.llava import images_of

FOLDERS = ("", "images", "calculation_images")


def rows(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    choices = list_of(values, "choices")
    images = images_of(values) or [values.get("image_file")]
    yield tagged(
        "unigeo",
        values.get("id"),
        text_of(values, "English_problem", "subject", "problem", "question"),
        letter_of(values, "label", choices),
        images=[found_image(ref, origin, FOLDERS) for ref in images],
        choices=choices,
    )


READER = PublishedSet(
    name="unigeo",
    title="UniGeo (calculation)",
    home="https://github.com/chen-judge/UniGeo",
    licence="none stated",
    patterns=("**/calculation_{split}.jsonl", "**/calculation_{split}.json", "**/{split}*.json*", "*.jsonl", "*.json"),
    rows=rows,
    refused={".pk": PICKLE, ".pkl": PICKLE},
)
