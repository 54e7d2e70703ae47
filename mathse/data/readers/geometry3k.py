"""Geometry3K: 3,002 geometry problems from two textbooks, 4 choices each, with formal annotations.

Source    Lu et al. 2021, "Inter-GPS", github.com/lupantech/InterGPS; data/geometry3k/{train,val,test}.zip
Licence   MIT
Files     {train,val,test}/<number>/data.json beside img_diagram.png; or records.jsonl with "image_file"
Hub       hiyouga/geometry3k: {"images", "problem", "answer"}, the answer as text
A record  {"problem_text": "Find x.", "annotat_text": "Find $x$.", "choices": ["12", "13", "14", "15"],
           "answer": "B", "id": 12, "unit": "", "problem_type_goal": ["Length"], ...}
Read is "annotat_text", which the authors cleaned: "problem_text" has blanks in names ("A B") and LaTeX without dollars.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mathse.data.readers.base import PublishedSet, RecordOrigin, Values, found_image, list_of, tagged, text_of
from mathse.data.readers.llava import question_of

DIAGRAM = "img_diagram.png"  # beside each data.json


def rows(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    if "problem_text" not in values and "problem" in values:  # the hub's table
        question, choices = question_of(text_of(values, "problem"))
        images = [found_image(ref, origin, ("",)) for ref in list_of(values, "images")]
        yield tagged("geometry3k", None, question, text_of(values, "answer"), images=images, choices=choices)
        return
    image, solution = values.get("image_file"), values.get("detailed_solution")
    yield tagged(
        "geometry3k",
        text_of(values, "id"),
        text_of(values, "annotat_text", "problem_text"),
        text_of(values, "answer"),
        images=[f"{origin.folder}/{DIAGRAM}".lstrip("/") if image is None else found_image(image, origin, ("",))],
        choices=list_of(values, "choices"),
        unit=values.get("unit"),
        solution=solution.strip() if isinstance(solution, str) else None,
        goal=values.get("problem_type_goal"),
    )


READER = PublishedSet(
    name="geometry3k",
    title="Geometry3K",
    home="https://github.com/lupantech/InterGPS",
    licence="MIT",
    patterns=("**/{split}/*/data.json", "*/data.json", "records.jsonl", "*.jsonl"),
    rows=rows,
)
