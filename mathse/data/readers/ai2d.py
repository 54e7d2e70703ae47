"""AI2D: about 15,500 questions with four choices about 4,900 diagrams of school science.

Source    Kembhavi et al. 2016, "A Diagram Is Worth a Dozen Images", prior.allenai.org/projects/diagram-understanding
Licence   the archive's own (license.txt); academic use
Files     questions/<image>.json, pictures in images/; with "abcLabel" those in abc_images/, where letters stand for the
          labels; ai2d_test_ids.csv, the images of the test split: all others are train
Hub       lmms-lab/ai2d: {"question", "options", "answer": "2", "image"}
A record  {"imageName": "0.png", "questions": {"What does the mouse eat?": {"abcLabel": false,
           "answerTexts": ["grass", "owl", "fox", "snake"], "correctAnswer": 0, "questionId": "0.png-0"}}}

We hold no sample of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from mathse.data.json_records import BadRow, kind
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

TEST_IDS = "ai2d_test_ids.csv"


def rows(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    if "options" in values:  # the hub's table
        options, image = list_of(values, "options"), found_image(values.get("image"), origin, ("",))
        answer = letter_of(values, "answer", options)
        yield tagged("ai2d", None, text_of(values, "question"), answer, images=[image], choices=options)
        return
    name, questions = text_of(values, "imageName"), values.get("questions")
    if not isinstance(questions, Mapping):
        raise BadRow(f'"questions" is an object of question -> record, got {kind(questions)}; correct the record')
    in_test = Path(name).stem in test_images(origin.file.parent.parent)
    if origin.split not in ("all", "test" if in_test else "train"):
        return
    set_folder = Path(origin.folder).parent.as_posix().removeprefix(".")
    for question, record in questions.items():
        if not isinstance(record, Mapping):
            raise BadRow(f'"questions" has {question!r:.80}, whose record is {kind(record)} and no object; correct it')
        pictures = ("abc_images", "images") if record.get("abcLabel") is True else ("images",)
        folders = ["/".join(filter(None, (set_folder, folder))) for folder in pictures]
        choices = list_of(record, "answerTexts")
        yield tagged(
            "ai2d",
            record.get("questionId"),
            question,
            letter_of(record, "correctAnswer", choices),
            images=[found_image(name, origin, folders)],
            choices=choices,
        )


@cache
def test_images(folder: Path) -> frozenset[str]:
    """The images of the test split by number; none where the list is not there, and all is train."""
    file = folder / TEST_IDS
    lines = file.read_text(encoding="utf-8").split() if file.is_file() else ()
    return frozenset(Path(line.strip(" ,\"'")).stem for line in lines)


READER = PublishedSet(
    name="ai2d",
    title="AI2D",
    home="https://prior.allenai.org/projects/diagram-understanding",
    licence="the archive's own (license.txt); academic use",
    patterns=("**/questions/*.json",),
    rows=rows,
)
