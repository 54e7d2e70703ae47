"""Geometry3K: 3,002 geometry problems from two textbooks, 4 choices each, with formal annotations.

Source    Lu et al. 2021, "Inter-GPS", github.com/lupantech/InterGPS; data/geometry3k/{train,val,test}.zip
Licence   MIT
Files     {train,val,test}/<number>/data.json beside img_diagram.png; or records.jsonl with "image_file"
Hub       hiyouga/geometry3k: {"images", "problem", "answer"}, the answer as text
A record  {"problem_text": "Find x.", "choices": ["12", "13", "14", "15"], "answer": "B", "id": 12, "unit": "",
           "problem_type_goal": ["Length"], ...}
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mathse.data.readers.base import Place, PublicSet, Values, found_image, list_of, tagged, text_of
from mathse.data.readers.llava import question_of

PICTURE = "img_diagram.png"


def rows(values: Values, place: Place) -> Iterator[dict[str, Any]]:
    if "problem_text" not in values and "problem" in values:
        yield _of_hub(values, place)
        return
    image = values.get("image_file")
    picture = place.beside(PICTURE) if image is None else found_image(image, place, ("",))
    yield tagged(
        "geometry3k",
        text_of(values, "id"),
        text_of(values, "problem_text"),
        text_of(values, "answer"),
        images=[picture],
        choices=list_of(values, "choices"),
        unit=values.get("unit"),
        solution=_filled(values.get("detailed_solution")),
        goal=values.get("problem_type_goal"),
    )


def _of_hub(values: Values, place: Place) -> dict[str, Any]:
    question, choices = question_of(text_of(values, "problem"))
    images = [found_image(ref, place, ("",)) for ref in list_of(values, "images")]
    return tagged("geometry3k", None, question, text_of(values, "answer"), images=images, choices=choices)


def _filled(value: object) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


READER = PublicSet(
    name="geometry3k",
    title="Geometry3K",
    home="https://github.com/lupantech/InterGPS",
    licence="MIT",
    hub="hiyouga/geometry3k",
    patterns=("**/{split}/*/data.json", "*/data.json", "records.jsonl", "*.jsonl"),
    rows=rows,
)
