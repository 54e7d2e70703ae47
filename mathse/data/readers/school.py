"""Readers of sets with a question a record, about charts, tables, diagrams and school subjects: ChartQA, TabMWP,
ScienceQA, AI2D and MathVL."""

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
    find_image,
    make_row,
    read_answer,
    read_letter,
    read_list,
    text_of,
)
from mathse.data.readers.llava import images_of


def read_chartqa(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    """ChartQA: about 32,700 questions about charts, written by people (human) or by a model (augmented); short answers.

    Source    Masry et al. 2022, "ChartQA", github.com/vis-nlp/ChartQA, folder "ChartQA Dataset"
    Licence   GPL-3.0
    Files     {train,val,test}/{split}_human.json and {split}_augmented.json, pictures in {split}/png/
    Hub       HuggingFaceM4/ChartQA: {"image", "query", "label": [text], "human_or_machine"}
    A record  {"imgname": "41699051005347.png", "query": "How many food item is shown in the bar graph?", "label": "14"}
    """
    # Images lie beside the file. With split=all the file's split is another than the setting's.
    beside = "/".join(filter(None, (origin.folder, "png")))
    folders = (beside, "{split}/png", "png", "ChartQA Dataset/{split}/png", "")

    # The hub's table has a column for the author of the question; the archive has the author in the file's name.
    written_by = None
    if (author := values.get("human_or_machine")) is not None:
        written_by = {0: "human", 1: "machine"}.get(author, str(author))
    elif "human" in origin.file.name:
        written_by = "human"
    elif "augmented" in origin.file.name:
        written_by = "machine"
    yield make_row(
        "chartqa",
        None,
        text_of(values, "query", "question"),
        read_answer(values, "label", "answer"),
        images=[find_image(values.get("imgname", values.get("image")), origin, folders)],
        written_by=written_by,
    )


def read_tabmwp(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    """TabMWP: 38,431 school problems about a table, with solutions in prose; free answers and choices.

    Source    Lu et al. 2023, "PromptPG", github.com/lupantech/PromptPG, data/tabmwp
    Licence   MIT for the code; for the data the page shows CC BY-SA 4.0 and links CC BY-NC-SA 4.0: ask the authors
    Files     problems_{train,dev,test}.json, objects of id -> record, pictures of the tables in tables/<id>.png
    A record  {"question": "How many parking lots had exactly 44 cars?", "choices": null, "answer": "4",
               "unit": "parking lots", "table": "Stem | Leaf\\n...", "solution": "For the number 44, ...", "grade": 6}
    """
    number = text_of(values, "id")
    beside = "/".join(filter(None, (origin.folder, "tables")))
    yield make_row(
        "tabmwp",
        number,
        text_of(values, "question"),
        text_of(values, "answer"),
        images=[find_image(f"{number}.png", origin, (beside, "tables"))],
        choices=read_list(values, "choices"),
        unit=values.get("unit"),
        solution=values.get("solution"),
        grade=values.get("grade"),
    )


def read_scienceqa(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
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
    split = values.get("split", origin.split)
    if origin.split not in ("all", split):  # one file holds all splits
        return
    number, image = values.get("id"), values.get("image")
    if isinstance(image, str) and number is not None:
        image = f"{number}/{image}"
    folders = (f"images/{split}", str(split), f"data/scienceqa/images/{split}", "")
    choices, hint = read_list(values, "choices"), str(values.get("hint") or "").strip()
    question = text_of(values, "question")
    yield make_row(
        "scienceqa",
        number,
        f"{hint}\n{question}" if hint else question,
        read_letter(values, "answer", choices),
        images=[] if image is None else [find_image(image, origin, folders)],
        choices=choices,
        solution=values.get("solution"),
        **{name: values.get(name) for name in ("subject", "topic", "category", "skill", "grade")},
    )


def read_ai2d(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    """AI2D: about 15,500 questions with four choices about 4,900 diagrams of school science.

    Source    Kembhavi et al. 2016, "A Diagram Is Worth a Dozen Images",
              prior.allenai.org/projects/diagram-understanding
    Licence   the archive's own (license.txt); academic use
    Files     questions/<image>.json, pictures in images/; with "abcLabel" the pictures in abc_images/, which show
              letters in place of the labels; ai2d_test_ids.csv, the images of the test split: all others are train
    Hub       lmms-lab/ai2d: {"question", "options", "answer": "2", "image"}
    A record  {"imageName": "0.png", "questions": {"What does the mouse eat?": {"abcLabel": false,
               "answerTexts": ["grass", "owl", "fox", "snake"], "correctAnswer": 0, "questionId": "0.png-0"}}}

    We hold no sample of it.
    """
    if "options" in values:  # the hub's table
        options, image = read_list(values, "options"), find_image(values.get("image"), origin, ("",))
        answer = read_letter(values, "answer", options)
        yield make_row("ai2d", None, text_of(values, "question"), answer, images=[image], choices=options)
        return
    name, questions = text_of(values, "imageName"), values.get("questions")
    if not isinstance(questions, Mapping):
        raise BadRow(f'"questions" is an object of question -> record, got {kind(questions)}; correct the record')
    in_test = Path(name).stem in read_ai2d_test_images(origin.file.parent.parent)
    if origin.split not in ("all", "test" if in_test else "train"):
        return
    set_folder = Path(origin.folder).parent.as_posix().removeprefix(".")
    for question, record in questions.items():
        if not isinstance(record, Mapping):
            raise BadRow(f'"questions" has {question!r:.80}, whose record is {kind(record)} and no object; correct it')
        pictures = ("abc_images", "images") if record.get("abcLabel") is True else ("images",)
        folders = ["/".join(filter(None, (set_folder, folder))) for folder in pictures]
        choices = read_list(record, "answerTexts")
        yield make_row(
            "ai2d",
            record.get("questionId"),
            question,
            read_letter(record, "correctAnswer", choices),
            images=[find_image(name, origin, folders)],
            choices=choices,
        )


@cache
def read_ai2d_test_images(folder: Path) -> frozenset[str]:
    """Read the names of the images of the test split. Empty if the list is missing, so that every image is train."""
    file = folder / "ai2d_test_ids.csv"
    lines = file.read_text(encoding="utf-8").split() if file.is_file() else ()
    return frozenset(Path(line.strip(" ,\"'")).stem for line in lines)


MATHVL_KEYS = frozenset({"id", "question", "image", "images", "choices", "answer", "solution", "unit"})


def read_mathvl(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    """MathVL: the paper's own 341,346 Chinese K12 problems. It is not released: bring your own file in this form.

    Source    Yang et al. 2024, "MathGLM-Vision", arXiv 2409.13729; neither problems nor test set are published
    Licence   that of your file
    Files     mathvl*.jsonl, {train,val,test}*.jsonl, or any *.jsonl or *.json in the folder
    A record  {"id": "k12/17", "question": "如图,...", "images": ["images/17_1.png", "images/17_2.png"],
               "choices": ["12", "13", "14", "15"], "answer": "B", "solution": "解:...", "grade": "junior"}
              "images" may be one path, or left out; "choices" a list, {"A": ..., "B": ...}, or left out; "id" may be
              left out (a hash of question and pictures then); further keys become metadata.
    We hold no sample of it: tested against records written by us in this shape.
    """
    choices = values.get("choices")
    choices = list(choices.values()) if isinstance(choices, Mapping) else read_list(values, "choices")
    yield make_row(
        "mathvl",
        values.get("id"),
        text_of(values, "question"),
        text_of(values, "answer"),
        images=[find_image(ref, origin, ("", "images")) for ref in images_of(values)],
        choices=choices,
        solution=values.get("solution"),
        unit=values.get("unit"),
        **{key: value for key, value in values.items() if key not in MATHVL_KEYS},
    )


SETS = (
    PublishedSet(
        name="chartqa",
        title="ChartQA",
        home="https://github.com/vis-nlp/ChartQA",
        licence="GPL-3.0",
        patterns=("**/{split}/{split}_*.json", "**/{split}_*.json", "*.jsonl", "*.json"),
        rows=read_chartqa,
    ),
    PublishedSet(
        name="tabmwp",
        title="TabMWP",
        home="https://github.com/lupantech/PromptPG",
        licence="unclear: CC BY-SA 4.0 or CC BY-NC-SA 4.0",
        patterns=("**/problems_{split}.json", "**/problems_{split}*.json"),
        rows=read_tabmwp,
        split_names={"val": "dev"},
    ),
    PublishedSet(
        name="scienceqa",
        title="ScienceQA",
        home="https://github.com/lupantech/ScienceQA",
        licence="CC BY-NC-SA 4.0",
        patterns=("**/problems.json", "*.json"),
        rows=read_scienceqa,
    ),
    PublishedSet(
        name="ai2d",
        title="AI2D",
        home="https://prior.allenai.org/projects/diagram-understanding",
        licence="the archive's own (license.txt); academic use",
        patterns=("**/questions/*.json",),
        rows=read_ai2d,
    ),
    PublishedSet(
        name="mathvl",
        title="MathVL (your own copy)",
        home="https://arxiv.org/abs/2409.13729",
        licence="that of your file",
        patterns=("**/mathvl*.jsonl", "**/{split}*.jsonl", "*.jsonl", "*.json"),
        rows=read_mathvl,
    ),
)
