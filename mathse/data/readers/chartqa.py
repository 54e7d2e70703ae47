"""ChartQA: about 32,700 questions about charts, written by people (human) or by a model (augmented); short answers.

Source    Masry et al. 2022, "ChartQA", github.com/vis-nlp/ChartQA, folder "ChartQA Dataset"
Licence   GPL-3.0
Files     {train,val,test}/{split}_human.json and {split}_augmented.json, pictures in {split}/png/
Hub       HuggingFaceM4/ChartQA: {"image", "query", "label": [text], "human_or_machine"}
A record  {"imgname": "41699051005347.png", "query": "How many food item is shown in the bar graph?", "label": "14"}
We hold no sample of it: tested against records written by us in this shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mathse.data.readers.base import Place, PublicSet, Values, found_image, tagged, text_of
from mathse.data.records import BadRow

FOLDERS = ("{split}/png", "png", "ChartQA Dataset/{split}/png", "")
WRITTEN_BY = {"human": "human", "augmented": "machine"}


def rows(values: Values, place: Place) -> Iterator[dict[str, Any]]:
    image = values.get("imgname", values.get("image"))
    yield tagged(
        "chartqa",
        None,
        text_of(values, "query", "question"),
        _label(values),
        images=[found_image(image, place, _folders(place))],
        written_by=_written_by(values, place),
    )


def _label(values: Values) -> str:
    """The answer; the hub's rows have it in a list of one."""
    label = values.get("label", values.get("answer"))
    if isinstance(label, list):
        if len(label) != 1:
            raise BadRow(f'"label" holds {len(label)} answers; one is needed')
        return text_of({"label": label[0]}, "label")
    return text_of(values, "label", "answer")


def _folders(place: Place) -> tuple[str, ...]:
    """The pictures lie beside the file; its split may be another than the one asked for (all)."""
    beside = place.file.parent.relative_to(place.root).as_posix() if place.file.is_relative_to(place.root) else "."
    return (f"{beside}/png" if beside != "." else "png", *FOLDERS)


def _written_by(values: Values, place: Place) -> str | None:
    if (said := values.get("human_or_machine")) is not None:
        return {0: "human", 1: "machine"}.get(said, str(said))
    return next((who for part, who in WRITTEN_BY.items() if part in place.file.name), None)


READER = PublicSet(
    name="chartqa",
    title="ChartQA",
    home="https://github.com/vis-nlp/ChartQA",
    licence="GPL-3.0",
    hub="HuggingFaceM4/ChartQA",
    patterns=("**/{split}/{split}_*.json", "**/{split}_*.json", "*.jsonl", "*.json"),
    rows=rows,
    folders=FOLDERS,
)
