"""Convert an example to a row in the format of another tool.

llamafactory   LLaMA-Factory: ShareGPT messages, ``<image>`` at the place of a picture, dataset_info.json;
               pairs: messages up to the question, "chosen" and "rejected", ``ranking``
swift          ms-swift: messages and images, ``loss`` false in turns without training;
               pairs: the accepted answer in the messages, ``rejected_response`` beside them
trl            TRL's SFTTrainer: prompt and completion as messages of parts, so that only the completion is trained;
               pairs: "prompt", "chosen" and "rejected", as for its DPOTrainer
hf             a plain table: one column per field, pictures as the library's Image
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from mathse.commands.export.examples import Example
from mathse.commands.export.parquet import write_table
from mathse.commands.export.pictures import ExportedPictures
from mathse.data.picture_marks import MARK as IMAGE
from mathse.models.marks import defuse_common
from mathse.models.row import split_turn
from mathse.runs.store import write_json, write_jsonl

ROWS = "train.jsonl"
DATASET = "mathse"  # its name in dataset_info.json
# Families that read a line break after a picture. ms-swift writes it, LLaMA-Factory does not.
BREAK_AFTER_PICTURE = ("internvl2_5", "internvl3")


class ToolFormat(NamedTuple):
    """The format of a tool.

    Attributes:
        has_marks: whether the tool could read text of a row as its own marks.
        opened_by: the command or settings that open the folder {out}.
        pairs_by: the same for pairs, if it differs.
    """

    has_marks: bool
    opened_by: str
    pairs_by: str | None = None


FORMATS: dict[str, ToolFormat] = {
    "llamafactory": ToolFormat(
        True,
        "dataset_dir: {out}, dataset: mathse (and mask_history: true) in LLaMA-Factory's yaml",
        "dataset_dir: {out}, dataset: mathse, stage: dpo in LLaMA-Factory's yaml",
    ),
    "swift": ToolFormat(
        True,
        "ROOT_IMAGE_DIR={out} swift sft --dataset {out}/train.jsonl",
        "ROOT_IMAGE_DIR={out} swift rlhf --rlhf_type dpo --dataset {out}/train.jsonl",
    ),
    "trl": ToolFormat(
        True,
        "datasets.load_dataset({out!r}), or trl sft --dataset_name {out}",
        "datasets.load_dataset({out!r}), or trl dpo --dataset_name {out}",
    ),
    "hf": ToolFormat(False, "datasets.load_dataset({out!r})"),
}


def write_rows(
    name: str, examples: Iterable[Example], folder: Path, pictures: ExportedPictures, pairs: bool = False
) -> None:
    """Write all rows in the format of the tool ``name``, one at a time. ``pairs``: rows have a rejected response."""
    if name == "llamafactory":
        write_jsonl(folder / ROWS, (_make_sharegpt_row(example, pictures) for example in examples))
        write_json(folder / "dataset_info.json", {DATASET: _RANKING_INFO if pairs else _DATASET_INFO})
    elif name == "swift":
        write_jsonl(folder / ROWS, (_make_swift_row(example, pictures) for example in examples))
    elif name == "trl":
        write_table(folder, (_make_trl_row(example, pictures) for example in examples), TRL_PAIRS if pairs else TRL)
    else:
        write_table(folder, _make_plain_rows(examples, pictures), {**HF, "rejected": "text"} if pairs else HF)


def defuse_marks(example: Example) -> Example:
    """Return the example with a space in each text that a tool could read as a picture or the end of a turn.

    Our training reads no such marks in texts. The marks of the example's own pictures stay.
    """
    turns: list[tuple[str, str]] = []
    for number, (question, answer) in enumerate(example.turns):
        if number == 0 and example.marked:
            question = IMAGE.join(map(defuse_common, question.split(IMAGE)))
        else:
            question = defuse_common(question)
        turns.append((question, defuse_common(answer)))
    *history, (prompt, response) = turns
    rejected = None if example.rejected is None else defuse_common(example.rejected)
    changed = replace(example, prompt=prompt, response=response, history=tuple(history), rejected=rejected)
    return example if changed == example else changed


# --- LLaMA-Factory and ms-swift ---------------------------------------------------------------------------------------

_DATASET_INFO = {
    "file_name": ROWS,
    "formatting": "sharegpt",
    "columns": {"messages": "messages", "images": "images"},
    "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
}

_RANKING_INFO = {
    **_DATASET_INFO,
    "ranking": True,
    "columns": {"messages": "messages", "chosen": "chosen", "rejected": "rejected", "images": "images"},
}


def _make_sharegpt_row(example: Example, pictures: ExportedPictures) -> dict[str, Any]:
    mark = IMAGE + "\n" if example.family in BREAK_AFTER_PICTURE else IMAGE
    messages, images = _make_messages(example, mark), [pictures.add_path(ref) for ref in example.images]
    if example.rejected is None:
        return {**example.lineage, "messages": messages, "images": images}
    *prompt, chosen = messages
    rejected = {**chosen, "content": example.rejected}
    return {**example.lineage, "messages": prompt, "chosen": chosen, "rejected": rejected, "images": images}


def _make_swift_row(example: Example, pictures: ExportedPictures) -> dict[str, Any]:
    messages = _make_messages(example, IMAGE)
    for message in messages[1:-1:2]:
        message["loss"] = False  # answers of earlier turns are input, not trained
    paired = {} if example.rejected is None else {"rejected_response": example.rejected}
    images = [pictures.add_path(ref) for ref in example.images]
    return {**example.lineage, "messages": messages, **paired, "images": images}


def _make_messages(example: Example, mark: str) -> list[dict[str, Any]]:
    """Return all turns. The pictures are in the first question or before it, as in our training."""
    messages: list[dict[str, Any]] = []
    for question, answer in example.turns:
        content = question
        if not messages:
            pieces = split_turn(question, example.images, example.marked)
            content = "".join(mark if piece.image is not None else piece.text for piece in pieces)
        messages.append({"role": "user", "content": content})
        messages.append({"role": "assistant", "content": answer})
    return messages


# --- tables of the datasets library -----------------------------------------------------------------------------------

_LINEAGE = dict.fromkeys(("id", "problem_id", "origin", "round", "source"), "text")
_TURNS = [{"role": "text", "content": [{"type": "text", "text": "text"}]}]
TRL: Mapping[str, Any] = {**_LINEAGE, "prompt": _TURNS, "completion": _TURNS, "images": ["image"]}
TRL_PAIRS: Mapping[str, Any] = {**_LINEAGE, "prompt": _TURNS, "chosen": _TURNS, "rejected": _TURNS, "images": ["image"]}
HF: Mapping[str, Any] = {
    **_LINEAGE,
    "writer": "text",
    "question": "text",
    "choices": ["text"],
    "answer": "text",
    "prompt": "text",
    "history": [{"question": "text", "answer": "text"}],
    "response": "text",
    "images": ["image"],
    "status": "text",
    "error_step": "text",
    "error_analysis": "text",
}


def _make_trl_row(example: Example, pictures: ExportedPictures) -> dict[str, Any]:
    turns = []
    for question, answer in example.turns:
        turns += [_make_turn("user", question), _make_turn("assistant", answer)]
    # The pictures are parts of the first question.
    *turns, completion = turns
    turns[0]["content"] = [
        {"type": "text", "text": piece.text} if piece.image is None else {"type": "image", "text": None}
        for piece in split_turn(example.turns[0][0], example.images, example.marked)
    ]
    if example.rejected is None:
        trained: dict[str, Any] = {"completion": [completion]}
    else:
        trained = {"chosen": [completion], "rejected": [_make_turn("assistant", example.rejected)]}
    return {
        **example.lineage,
        "prompt": turns,
        **trained,
        "images": [pictures.add_cell(ref) for ref in example.images],
    }


def _make_turn(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _make_plain_rows(examples: Iterable[Example], pictures: ExportedPictures) -> Iterator[dict[str, Any]]:
    for example in examples:
        problem, verdict = example.problem, example.verdict
        yield {
            **example.lineage,
            "writer": example.path.lineage.model,
            "question": problem.question,
            "choices": list(problem.choices),
            "answer": problem.answer,
            "prompt": example.prompt,
            "history": [{"question": question, "answer": answer} for question, answer in example.history],
            "response": example.response,
            **({} if example.rejected is None else {"rejected": example.rejected}),
            "images": [pictures.add_cell(ref) for ref in example.images],
            "status": verdict.status if verdict else None,
            "error_step": verdict.error_step if verdict else None,
            "error_analysis": verdict.error_analysis if verdict else None,
        }
