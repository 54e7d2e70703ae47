"""GeoQA+: about 12,000 Chinese geometry problems with 4 choices (GeoQA's 4,998 among them), small diagrams.

Source    Cao and Xiao 2022, github.com/SCNU203/GeoQA-Plus; Chen et al. 2021, github.com/chen-judge/GeoQA
Licence   none stated by either repository: ask the authors before you publish anything made from it
Files     the archives hold pickles, which are not read (a pickle can run any program), and the same problems as JSON:
          .../json/<number>.json beside .../image/<number>.png; or one file of records with an "image" each
A record  {"subject": "如图,AB∥CD,∠ABC=50°,则∠BCD等于()", "choices": ["40°", "50°", "60°", "130°"], "label": 1,
           "answer": "解:∵AB∥CD,...", "id": 17}
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

PICKLE = "a pickle can run any program when it is read; give the archive's JSON files, or records exported to JSON"


def rows(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    in_json_folder = origin.file.parent.name == "json"
    number = values.get("id", origin.file.stem if in_json_folder else None)
    image = values.get("image") or values.get("image_file") or f"{number}.png"
    beside = (f"{origin.folder.removesuffix('json')}image",) if in_json_folder else ()
    choices = list_of(values, "choices")
    yield tagged(
        "geoqa_plus",
        number,
        text_of(values, "subject", "problem", "question"),
        letter_of(values, "label", choices),
        images=[found_image(image, origin, (*beside, "image", "images", ""))],
        choices=choices,
        solution=values.get("answer") if isinstance(values.get("answer"), str) else None,
    )


READER = PublishedSet(
    name="geoqa_plus",
    title="GeoQA+",
    home="https://github.com/SCNU203/GeoQA-Plus",
    licence="none stated",
    patterns=("**/{split}/json/*.json", "**/json/*.json", "**/{split}*.jsonl", "**/{split}*.json", "*.jsonl", "*.json"),
    rows=rows,
    refused={".pk": PICKLE, ".pkl": PICKLE},
)
