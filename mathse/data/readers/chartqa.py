"""ChartQA: about 32,700 questions about charts, written by people (human) or by a model (augmented); short answers.

Source    Masry et al. 2022, "ChartQA", github.com/vis-nlp/ChartQA, folder "ChartQA Dataset"
Licence   GPL-3.0
Files     {train,val,test}/{split}_human.json and {split}_augmented.json, pictures in {split}/png/
Hub       HuggingFaceM4/ChartQA: {"image", "query", "label": [text], "human_or_machine"}
A record  {"imgname": "41699051005347.png", "query": "How many food item is shown in the bar graph?", "label": "14"}
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mathse.data.readers.base import PublishedSet, RecordOrigin, Values, answer_of, found_image, tagged, text_of

FOLDERS = ("{split}/png", "png", "ChartQA Dataset/{split}/png", "")


def rows(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    # Images lie beside the file, whose split may be another than the one asked for (split=all).
    folders = ("/".join(filter(None, (origin.folder, "png"))), *FOLDERS)
    # The hub's table says who wrote the question; the files have it in their names.
    author = values.get("human_or_machine")
    if author is None:
        authors = {"human": "human", "augmented": "machine"}
        written_by = next((author for part, author in authors.items() if part in origin.file.name), None)
    else:
        written_by = {0: "human", 1: "machine"}.get(author, str(author))
    yield tagged(
        "chartqa",
        None,
        text_of(values, "query", "question"),
        answer_of(values, "label", "answer"),
        images=[found_image(values.get("imgname", values.get("image")), origin, folders)],
        written_by=written_by,
    )


READER = PublishedSet(
    name="chartqa",
    title="ChartQA",
    home="https://github.com/vis-nlp/ChartQA",
    licence="GPL-3.0",
    patterns=("**/{split}/{split}_*.json", "**/{split}_*.json", "*.jsonl", "*.json"),
    rows=rows,
)
