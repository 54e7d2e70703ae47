"""Readers of four sets of geometry problems: Geometry3K, GeoQA+, UniGeo and FormalGeo7K."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mathse.data.readers.base import (
    PublishedSet,
    RecordOrigin,
    Values,
    find_image,
    make_row,
    read_letter,
    read_list,
    text_of,
)
from mathse.data.readers.llava import images_of, question_of

WHY_NO_PICKLE = (
    "a pickle can run any program when it is read; give the archive's JSON files, or records exported to JSON"
)
PICKLES = {".pk": WHY_NO_PICKLE, ".pkl": WHY_NO_PICKLE}


def read_geometry3k(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    """Geometry3K: 3,002 geometry problems from two textbooks, 4 choices each, with formal annotations.

    Source    Lu et al. 2021, "Inter-GPS", github.com/lupantech/InterGPS; data/geometry3k/{train,val,test}.zip
    Licence   MIT
    Files     {train,val,test}/<number>/data.json beside img_diagram.png; or records.jsonl with "image_file"
    Hub       hiyouga/geometry3k: {"images", "problem", "answer"}, the answer as text
    A record  {"problem_text": "Find x.", "annotat_text": "Find $x$.", "choices": ["12", "13", "14", "15"],
               "answer": "B", "id": 12, "unit": "", "problem_type_goal": ["Length"], ...}
    The question is "annotat_text", which the authors cleaned: "problem_text" has blanks in names ("A B") and LaTeX
    without dollars.
    """
    if "problem_text" not in values and "problem" in values:  # the hub's table
        question, choices = question_of(text_of(values, "problem"))
        images = [find_image(ref, origin, ("",)) for ref in read_list(values, "images")]
        yield make_row("geometry3k", None, question, text_of(values, "answer"), images=images, choices=choices)
        return
    if values.get("image_file") is None:
        image = f"{origin.folder}/img_diagram.png".lstrip("/")
    else:
        image = find_image(values["image_file"], origin, ("",))
    solution = values.get("detailed_solution")
    yield make_row(
        "geometry3k",
        text_of(values, "id"),
        text_of(values, "annotat_text", "problem_text"),
        text_of(values, "answer"),
        images=[image],
        choices=read_list(values, "choices"),
        unit=values.get("unit"),
        solution=solution.strip() if isinstance(solution, str) else None,
        goal=values.get("problem_type_goal"),
    )


def read_geoqa_plus(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    """GeoQA+: about 12,000 Chinese geometry problems with 4 choices (GeoQA's 4,998 among them), small diagrams.

    Source    Cao and Xiao 2022, github.com/SCNU203/GeoQA-Plus; Chen et al. 2021, github.com/chen-judge/GeoQA
    Licence   none stated by either repository: ask the authors before you publish anything made from it
    Files     the archives hold pickles, which are not read (a pickle can run any program), and the same problems as
              JSON: .../json/<number>.json beside .../image/<number>.png; or one file of records with an "image" each
    A record  {"subject": "如图,AB∥CD,∠ABC=50°,则∠BCD等于()", "choices": ["40°", "50°", "60°", "130°"], "label": 1,
               "answer": "解:∵AB∥CD,...", "id": 17}
    """
    in_json_folder = origin.file.parent.name == "json"
    number = values.get("id", origin.file.stem if in_json_folder else None)
    image = values.get("image") or values.get("image_file") or f"{number}.png"
    beside = (f"{origin.folder.removesuffix('json')}image",) if in_json_folder else ()
    choices = read_list(values, "choices")
    yield make_row(
        "geoqa_plus",
        number,
        text_of(values, "subject", "problem", "question"),
        read_letter(values, "label", choices),
        images=[find_image(image, origin, (*beside, "image", "images", ""))],
        choices=choices,
        solution=values.get("answer") if isinstance(values.get("answer"), str) else None,
    )


def read_unigeo(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    """UniGeo, calculation part: GeoQA's 4,998 problems in English, 4 choices, a program as annotation.

    Source    Chen et al. 2022, "UniGeo", github.com/chen-judge/UniGeo; calculation_{train,val,test}.pk
    Licence   none stated by the repository
    Files     the published pickles are not read (a pickle can run any program): export them to JSON once, where you
              trust them, with the pictures as files: calculation_{train,val,test}.json(l), "image" a path
    A record  {"id": 3, "English_problem": "As shown in the figure, ...", "choices": ["20°", "30°", "40°", "50°"],
               "label": 2, "image": "calculation_images/3.png", "answer": "...", "manual_program": [...]}
    We hold no sample of it: tested against records written by us in this shape.
    """
    choices = read_list(values, "choices")
    images = images_of(values) or [values.get("image_file")]
    yield make_row(
        "unigeo",
        values.get("id"),
        text_of(values, "English_problem", "subject", "problem", "question"),
        read_letter(values, "label", choices),
        images=[find_image(ref, origin, ("", "images", "calculation_images")) for ref in images],
        choices=choices,
    )


def read_formalgeo(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    """FormalGeo7K: 6,981 geometry problems with formal annotations; pictures of Geometry3K, GeoQA and GeoQA+, new
    texts.

    Source    Zhang et al. 2023, "FormalGeo", github.com/FormalGeo/FormalGeo, formalgeo7k_v1
    Licence   MIT; the pictures come from other sets
    Files     problems/<number>.json, pictures in diagrams/; the set has no splits of its own in these files
    A record  {"problem_id": 1, "problem_text_en": "As shown in the diagram, ...", "problem_text_cn": "如图所示,...",
               "problem_img": "1.png", "problem_answer": "15", "source": "Geometry3k-0", "problem_level": 1}
    The English text is read; the Chinese text asks the same. The benchmarks made of the same pictures (MathVista,
    MathVerse) share problems with it: train on it with decontaminate.against=[...].
    """
    beside = f"{origin.folder.removesuffix('problems')}diagrams"
    yield make_row(
        "formalgeo",
        text_of(values, "problem_id"),
        text_of(values, "problem_text_en"),
        text_of(values, "problem_answer"),
        images=[find_image(values.get("problem_img"), origin, (beside, "diagrams"))],
        taken_from=values.get("source"),
        level=values.get("problem_level"),
    )


SETS = (
    PublishedSet(
        name="geometry3k",
        title="Geometry3K",
        home="https://github.com/lupantech/InterGPS",
        licence="MIT",
        patterns=("**/{split}/*/data.json", "*/data.json", "records.jsonl", "*.jsonl"),
        rows=read_geometry3k,
    ),
    PublishedSet(
        name="geoqa_plus",
        title="GeoQA+",
        home="https://github.com/SCNU203/GeoQA-Plus",
        licence="none stated",
        patterns=(
            "**/{split}/json/*.json",
            "**/json/*.json",
            "**/{split}*.jsonl",
            "**/{split}*.json",
            "*.jsonl",
            "*.json",
        ),
        rows=read_geoqa_plus,
        refused=PICKLES,
    ),
    PublishedSet(
        name="unigeo",
        title="UniGeo (calculation)",
        home="https://github.com/chen-judge/UniGeo",
        licence="none stated",
        patterns=(
            "**/calculation_{split}.jsonl",
            "**/calculation_{split}.json",
            "**/{split}*.json*",
            "*.jsonl",
            "*.json",
        ),
        rows=read_unigeo,
        refused=PICKLES,
    ),
    PublishedSet(
        name="formalgeo",
        title="FormalGeo7K",
        home="https://github.com/FormalGeo/FormalGeo",
        licence="MIT",
        patterns=("**/problems/*.json",),
        rows=read_formalgeo,
    ),
)
