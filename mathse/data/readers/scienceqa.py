"""ScienceQA: 21,208 school questions about nature, society and language with choices; half of them have a picture.

Source    Lu et al. 2022, "Learn to Explain", github.com/lupantech/ScienceQA
Licence   CC BY-NC-SA 4.0
Files     problems.json, an object of id -> record with its split in it; pictures in images/{split}/<id>/image.png
Hub       derek-thomas/ScienceQA: the same fields, without id and split
A record  {"question": "Which is a solid?", "choices": ["wind", "a rock"], "answer": 1, "hint": "", "image": null,
           "subject": "natural science", "topic": "physics", "category": "Matter", "skill": "Identify solids",
           "grade": "grade2", "lecture": "...", "solution": "A rock keeps its shape.", "split": "train"}

We hold no sample of it.
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

FOLDERS = ("images/{split}", "{split}", "data/scienceqa/images/{split}", "")


def rows(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    split = values.get("split", origin.split)
    if origin.split not in ("all", split):  # one file holds all splits
        return
    number, image = values.get("id"), values.get("image")
    if isinstance(image, str) and number is not None:
        image = f"{number}/{image}"
    folders = [folder.replace("{split}", str(split)) for folder in FOLDERS]
    choices, hint = list_of(values, "choices"), str(values.get("hint") or "").strip()
    question = text_of(values, "question")
    yield tagged(
        "scienceqa",
        number,
        f"{hint}\n{question}" if hint else question,
        letter_of(values, "answer", choices),
        images=[] if image is None else [found_image(image, origin, folders)],
        choices=choices,
        solution=values.get("solution"),
        **{name: values.get(name) for name in ("subject", "topic", "category", "skill", "grade")},
    )


READER = PublishedSet(
    name="scienceqa",
    title="ScienceQA",
    home="https://github.com/lupantech/ScienceQA",
    licence="CC BY-NC-SA 4.0",
    patterns=("**/problems.json", "*.json"),
    rows=rows,
)
