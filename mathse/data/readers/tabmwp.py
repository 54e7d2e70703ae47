"""TabMWP: 38,431 school problems about a table, with solutions in prose; free answers and choices.

Source    Lu et al. 2023, "PromptPG", github.com/lupantech/PromptPG, data/tabmwp
Licence   MIT for the code; for the data the page shows CC BY-SA 4.0 and links CC BY-NC-SA 4.0: ask the authors
Files     problems_{train,dev,test}.json, objects of id -> record, pictures of the tables in tables/<id>.png
A record  {"question": "How many parking lots had exactly 44 cars?", "choices": null, "answer": "4",
           "unit": "parking lots", "table": "Stem | Leaf\\n...", "solution": "For the number 44, ...", "grade": 6}
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mathse.data.readers.base import PublishedSet, RecordOrigin, Values, found_image, list_of, tagged, text_of


def rows(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    number = text_of(values, "id")
    beside = "/".join(filter(None, (origin.folder, "tables")))
    yield tagged(
        "tabmwp",
        number,
        text_of(values, "question"),
        text_of(values, "answer"),
        images=[found_image(f"{number}.png", origin, (beside, "tables"))],
        choices=list_of(values, "choices"),
        unit=values.get("unit"),
        solution=values.get("solution"),
        grade=values.get("grade"),
    )


READER = PublishedSet(
    name="tabmwp",
    title="TabMWP",
    home="https://github.com/lupantech/PromptPG",
    licence="unclear: CC BY-SA 4.0 or CC BY-NC-SA 4.0",
    patterns=("**/problems_{split}.json", "**/problems_{split}*.json"),
    rows=rows,
    split_names={"val": "dev"},
)
