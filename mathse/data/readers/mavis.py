"""MAVIS-Instruct: 834K diagrams drawn by rule with questions and chains of thought; the published part is geometry and
functions.

Source    Zhang et al. 2024, "MAVIS", github.com/ZrrSkywalker/MAVIS; hub CaraJ/MAVIS-Geometry, CaraJ/MAVIS-Function
Licence   none stated on the hub pages
Files     *.json (conversations, "question_type"); hub: a table with one diagram in three versions and two languages
A record  {"id": "func_17", "image": "rule_base_geo/depth1/17.png", "question_type": "multi-choice",
           "conversations": [{"from": "human", "value": "<image>\\nAccording to the question shown in the image, ...
           Question: ...\\nChoices:\\nA:24°\\nB:30°"}, {"from": "gpt", "value": "...\\nAnswer: B"}]}
   (hub)  {"image_text_lite": IMAGE, "choices": ["24°", "30°"], "answer_index": 1,
           "text_en": {"text_lite_question": "...", "CoT_reasoning": "..."}, "text_zh": {...}}
The hub's table gives one problem a language; the picture is the text-lite one, whose question says the rest.
We hold no sample of it: tested against records written by us in these shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mathse.data.json_records import BadRow
from mathse.data.readers.base import (
    PublishedSet,
    RecordOrigin,
    Values,
    content_id,
    found_image,
    letter_of,
    list_of,
    tagged,
    text_of,
)
from mathse.data.readers.llava import conversation

FOLDERS = ("", "images")
LANGUAGES = {"text_en": "en", "text_zh": "zh"}


def rows(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    if "conversations" in values:
        yield from conversation("mavis", values, origin, FOLDERS, question_type=values.get("question_type"))
        return
    # The hub's table: one problem a language.
    image = found_image(values.get("image_text_lite"), origin, FOLDERS)
    choices = list_of(values, "choices")
    answer = letter_of(values, "answer_index", choices)
    texts = {code: values[name] for name, code in LANGUAGES.items() if isinstance(values.get(name), Mapping)}
    if not texts:
        raise BadRow('"text_en" is missing; is this file of another set?')
    for code, text in texts.items():
        question = text_of(text, "text_lite_question")
        yield tagged(
            "mavis",
            f"{content_id(question, [image])}/{code}",
            question,
            answer,
            images=[image],
            choices=choices,
            solution=text.get("CoT_reasoning"),
        )


READER = PublishedSet(
    name="mavis",
    title="MAVIS-Instruct",
    home="https://github.com/ZrrSkywalker/MAVIS",
    licence="none stated",
    patterns=("**/{split}*.json*", "**/*Question*.json", "**/*.jsonl", "**/*.json"),
    rows=rows,
    split_names={"train": "visualization"},
)
