"""An example as a row of another tool, in the form that the tool itself reads.

llamafactory   LLaMA-Factory: ShareGPT messages, ``<image>`` where a picture stands, dataset_info.json;
               pairs: messages up to the question, "chosen" and "rejected", ``ranking``
swift          ms-swift: messages and images, ``loss`` false in turns that are not learnt;
               pairs: the accepted answer in the messages, ``rejected_response`` beside them
trl            TRL's SFTTrainer: prompt and completion as messages of parts, so that the completion alone is learnt
               pairs: "prompt", "chosen" and "rejected", as its DPOTrainer reads them
hf             a plain table: every field on its own, pictures as the library's Image
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
from mathse.models.marks import defuse_usual
from mathse.models.row import parts
from mathse.runs.store import write_json, write_jsonl

ROWS = "train.jsonl"
DATASET = "mathse"  # its name in dataset_info.json
BREAKS = (
    "internvl2_5",
    "internvl3",
)  # families that read a line break after a picture: LLaMA-Factory writes none, ms-swift does


class Format(NamedTuple):
    """``marks``: whether text of a row could be taken for the tool's own marks."""

    marks: bool
    opened_by: str  # {out} is the folder
    pairs_by: str | None = None  # the same of pairs, where it differs


FORMATS: dict[str, Format] = {
    "llamafactory": Format(
        True,
        "dataset_dir: {out}, dataset: mathse (and mask_history: true) in LLaMA-Factory's yaml",
        "dataset_dir: {out}, dataset: mathse, stage: dpo in LLaMA-Factory's yaml",
    ),
    "swift": Format(
        True,
        "ROOT_IMAGE_DIR={out} swift sft --dataset {out}/train.jsonl",
        "ROOT_IMAGE_DIR={out} swift rlhf --rlhf_type dpo --dataset {out}/train.jsonl",
    ),
    "trl": Format(
        True,
        "datasets.load_dataset({out!r}), or trl sft --dataset_name {out}",
        "datasets.load_dataset({out!r}), or trl dpo --dataset_name {out}",
    ),
    "hf": Format(False, "datasets.load_dataset({out!r})"),
}


def write(
    name: str, examples: Iterable[Example], folder: Path, pictures: ExportedPictures, pairs: bool = False
) -> None:
    """Write all rows in a tool's form, one at a time. ``pairs``: each has a rejected response."""
    if name == "llamafactory":
        write_jsonl(folder / ROWS, (_sharegpt(example, pictures) for example in examples))
        write_json(folder / "dataset_info.json", {DATASET: _RANKING_INFO if pairs else _DATASET_INFO})
    elif name == "swift":
        write_jsonl(folder / ROWS, (_swift(example, pictures) for example in examples))
    elif name == "trl":
        write_table(folder, (_trl(example, pictures) for example in examples), TRL_PAIRS if pairs else TRL)
    else:
        write_table(folder, _plain(examples, pictures), {**HF, "rejected": "text"} if pairs else HF)


def harmless(example: Example) -> Example:
    """The example in whose texts nothing reads as a picture or the end of a turn any more, as our fits read none; its
    pictures' own places stay."""
    (first, answer), *later = example.turns
    question = IMAGE.join(map(defuse_usual, first.split(IMAGE))) if example.marked else defuse_usual(first)
    turns = [(question, answer), *((defuse_usual(asked), said) for asked, said in later)]
    *history, (prompt, response) = [(asked, defuse_usual(said)) for asked, said in turns]
    rejected = None if example.rejected is None else defuse_usual(example.rejected)
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


def _sharegpt(example: Example, pictures: ExportedPictures) -> dict[str, Any]:
    mark = IMAGE + "\n" if example.family in BREAKS else IMAGE
    messages, images = _messages(example, mark), [pictures.path(ref) for ref in example.images]
    if example.rejected is None:
        return {**example.lineage, "messages": messages, "images": images}
    *prompt, chosen = messages
    rejected = {**chosen, "content": example.rejected}
    return {**example.lineage, "messages": prompt, "chosen": chosen, "rejected": rejected, "images": images}


def _swift(example: Example, pictures: ExportedPictures) -> dict[str, Any]:
    messages = _messages(example, IMAGE)
    for message in messages[1:-1:2]:
        message["loss"] = False  # an answer of an earlier turn is read, not learnt
    paired = {} if example.rejected is None else {"rejected_response": example.rejected}
    images = [pictures.path(ref) for ref in example.images]
    return {**example.lineage, "messages": messages, **paired, "images": images}


def _messages(example: Example, mark: str) -> list[dict[str, Any]]:
    """All turns; the pictures stand in the first question or before it, as in our fits."""
    messages: list[dict[str, Any]] = []
    for question, answer in example.turns:
        content = question
        if not messages:
            shown = parts(question, example.images, example.marked)
            content = "".join(mark if part.image is not None else part.text for part in shown)
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


def _trl(example: Example, pictures: ExportedPictures) -> dict[str, Any]:
    turns = []
    for question, answer in example.turns:
        turns += [_turn("user", question), _turn("assistant", answer)]
    *turns, completion = turns
    turns[0]["content"] = [
        {"type": "text", "text": part.text} if part.image is None else {"type": "image", "text": None}
        for part in parts(example.turns[0][0], example.images, example.marked)
    ]
    if example.rejected is None:
        learnt: dict[str, Any] = {"completion": [completion]}
    else:
        learnt = {"chosen": [completion], "rejected": [_turn("assistant", example.rejected)]}
    return {
        **example.lineage,
        "prompt": turns,
        **learnt,
        "images": [pictures.cell(ref) for ref in example.images],
    }


def _turn(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _plain(examples: Iterable[Example], pictures: ExportedPictures) -> Iterator[dict[str, Any]]:
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
            "images": [pictures.cell(ref) for ref in example.images],
            "status": verdict.status if verdict else None,
            "error_step": verdict.error_step if verdict else None,
            "error_analysis": verdict.error_analysis if verdict else None,
        }
