"""Readers of instruction sets, whose records are prompts and replies: conversations in LLaVA's form, MathV360K,
MultiMath-300K, MAVIS-Instruct and Math-PUMA.

A reply is a solution, and its answer the reference; a reply that announces no answer makes no problem. We hold no
sample of these sets.
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
    find_image,
    make_row,
    read_letter,
    read_list,
    text_of,
)
from mathse.data.readers.llava import images_of, make_exchange_row, read_conversation


def read_conversations(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    """Conversations in LLaVA's form, as many instruction sets have them: LLaVA-OneVision, MMR1-SFT, your own export.

    Source    Liu et al. 2023, "Visual Instruction Tuning", arXiv 2304.08485, for the form; the set is yours to name
    Licence   that of your file
    Files     one or more JSON or JSONL files of records, pictures below the folder
    A record  {"id": "17", "image": "images/17.png", "conversations": [{"from": "human", "value": "<image>\\nFind x."},
               {"from": "gpt", "value": "... The answer is 12."}]}; "images" may be a list, and "data_source" names a
               subset
    We hold no sample of it: tested against records written by us in this shape.
    """
    folders = ("", "images", "image")
    yield from read_conversation("conversations", values, origin, folders, subset=values.get("data_source"))


def read_mathv360k(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    """MathV360K: 360,000 questions about 40,000 pictures of 24 public sets, many rewritten by GPT-4V; short answers.

    Source    Shi et al. 2024, "Math-LLaVA", hub Zhiqiang007/MathV360K; github.com/HZQ950419/Math-LLaVA
    Licence   none of its own: pictures and questions keep the terms of the 24 sets, some for research only
    Files     train_samples_all_tuning.json, data_images.zip unpacked to data_images/
    A record  {"image": "TabMWP/images/17.png", "conversations": [{"from": "human", "value": "<image>\\nHint: Please
               answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.\\nQuestion: Find
               x.\\nChoices:\\n(A) 12\\n(B) 13"}, {"from": "gpt", "value": "The answer is B"}]}
    Several of its sets share pictures with MathVista: train on it with decontaminate.against=[...].
    We hold no sample of it: tested against records written by us in this shape.
    """
    # An image's first folder is the name of the set it was taken from.
    refs = [str(ref) for ref in images_of(values)]
    subset = refs[0].split("/")[0] if refs and "/" in refs[0] else None
    folders = ("data_images", "images_data", "images", "")
    yield from read_conversation("mathv360k", values, origin, folders, subset=subset)


def read_multimath(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    """MultiMath-300K: 298,670 K12 problems with a picture each, Chinese and English, solutions written by a model.

    Source    Peng et al. 2024, "MultiMath", hub pengshuai-rin/multimath-300k; github.com/pengshuai-rin/MultiMath
    Licence   none stated on the hub page
    Files     solution/*.json (conversations; the folder caption/ holds descriptions, which are no problems), images/
    A record  {"id": "17ff4c7d_zh", "image": "17ff4c7d.png", "conversations": [
               {"from": "human", "value": "<image>\\n如图,..."}, {"from": "gpt", "value": "...故选 B。"}]}
    We hold no sample of it: tested against records written by us in this shape. The set's other file, data.json, has a
    shape that we have not seen; it is not read.
    """
    folders = ("images", "", "multimath-300k/images", "{split}/images")
    yield from read_conversation("multimath", values, origin, folders)


def read_mavis(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    """MAVIS-Instruct: 834K diagrams drawn by rule with questions and chains of thought; the published part is geometry
    and functions.

    Source    Zhang et al. 2024, "MAVIS", github.com/ZrrSkywalker/MAVIS; hub CaraJ/MAVIS-Geometry, CaraJ/MAVIS-Function
    Licence   none stated on the hub pages
    Files     *.json (conversations, "question_type"); hub: a table with one diagram in three versions and two languages
    A record  {"id": "func_17", "image": "rule_base_geo/depth1/17.png", "question_type": "multi-choice",
               "conversations": [{"from": "human", "value": "<image>\\nAccording to the question shown in the image, ...
               Question: ...\\nChoices:\\nA:24°\\nB:30°"}, {"from": "gpt", "value": "...\\nAnswer: B"}]}
       (hub)  {"image_text_lite": IMAGE, "choices": ["24°", "30°"], "answer_index": 1,
               "text_en": {"text_lite_question": "...", "CoT_reasoning": "..."}, "text_zh": {...}}
    The hub's table makes a problem for each language; the picture is the text-lite version, because its question holds
    everything that the picture lacks.
    We hold no sample of it: tested against records written by us in these shapes.
    """
    folders = ("", "images")
    if "conversations" in values:
        question_type = values.get("question_type")
        yield from read_conversation("mavis", values, origin, folders, question_type=question_type)
        return
    image = find_image(values.get("image_text_lite"), origin, folders)
    choices = read_list(values, "choices")
    answer = read_letter(values, "answer_index", choices)
    columns = {"en": "text_en", "zh": "text_zh"}  # by language
    texts = {code: values[name] for code, name in columns.items() if isinstance(values.get(name), Mapping)}
    if not texts:
        raise BadRow('"text_en" is missing; is this file of another set?')
    for code, text in texts.items():
        question = text_of(text, "text_lite_question")
        yield make_row(
            "mavis",
            f"{content_id(question, [image])}/{code}",
            question,
            answer,
            images=[image],
            choices=choices,
            solution=text.get("CoT_reasoning"),
        )


def read_math_puma(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    """Math-PUMA: the training data of three stages, each from several sources, one picture a record or none.

    Source    Zhuang et al. 2024, "Math-PUMA", github.com/wwzhuang01/Math-PUMA;
              hub Math-PUMA/Math-PUMA_Data_Stage{1,2,3}
    Licence   GPL-3.0 on the hub pages; stage 3 holds other sets (MathV360K), which keep their own terms
    Files     <source>/train.json(l), pictures of images.tar.gz unpacked beside it; "image_url" is the picture's path
    A record  {"instruction": "Find the area of ...", "output": "... The answer is 12.", "image_url": "images/17.png",
               "image_url_2": "...", "instruction_2": "...", "output_2": "..."}
    The "_2" half of a stage-2 record asks the same with less text and more picture, to align the two; the first half is
    read. We hold no sample of it: tested against records written by us in this shape.
    """
    image = values.get("image_url") or values.get("image")
    beside = (origin.folder, f"{origin.folder}/images") if origin.folder else ()
    images = [find_image(image, origin, ("", *beside, "images"))] if image else []
    yield make_exchange_row("math_puma", text_of(values, "instruction"), text_of(values, "output"), images)


SETS = (
    PublishedSet(
        name="conversations",
        title="Conversations in LLaVA's form",
        home="https://arxiv.org/abs/2304.08485",
        licence="that of your file",
        patterns=("**/{split}*.jsonl", "**/{split}*.json", "**/*.jsonl", "**/*.json"),
        rows=read_conversations,
    ),
    PublishedSet(
        name="mathv360k",
        title="MathV360K",
        home="https://huggingface.co/datasets/Zhiqiang007/MathV360K",
        licence="mixed, those of its 24 sets",
        patterns=("**/{split}_samples_all_tuning.json", "**/{split}*.json*", "*.jsonl", "*.json"),
        rows=read_mathv360k,
    ),
    PublishedSet(
        name="multimath",
        title="MultiMath-300K",
        home="https://huggingface.co/datasets/pengshuai-rin/multimath-300k",
        licence="none stated",
        patterns=("**/solution/*{split}*.json", "**/solution/*.json", "**/{split}*.json*", "*.jsonl"),
        rows=read_multimath,
    ),
    PublishedSet(
        name="mavis",
        title="MAVIS-Instruct",
        home="https://github.com/ZrrSkywalker/MAVIS",
        licence="none stated",
        patterns=("**/{split}*.json*", "**/*Question*.json", "**/*.jsonl", "**/*.json"),
        rows=read_mavis,
        split_names={"train": "visualization"},
    ),
    PublishedSet(
        name="math_puma",
        title="Math-PUMA",
        home="https://github.com/wwzhuang01/Math-PUMA",
        licence="GPL-3.0",
        patterns=("**/{split}.jsonl", "**/{split}.json", "**/{split}.json*", "*.jsonl", "*.json"),
        rows=read_math_puma,
    ),
)
