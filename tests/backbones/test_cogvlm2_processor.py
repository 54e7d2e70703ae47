"""CogVLM2's processor gives the ids, types, labels and pixels of the published preprocessing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoProcessor, PreTrainedTokenizerFast

from mathse.errors import CheckpointError, ConfigError, DataError
from mathse.models.cogvlm2 import CogVLM2Processor
from mathse.models.cogvlm2.processing import IGNORED, make_square_image_processor
from mathse.models.cogvlm2.prompt import TEMPLATES, build_chat_template, build_prompt
from mathse.models.tiny_tokenizer import build_tokenizer


class Bytes:
    """The fixture's tokenizer: a byte is a token."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.offset = facts["offset"]
        self.bos_token_id, self.eos_token_id, self.pad_token_id = facts["bos"], facts["eos"], facts["pad"]

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [self.offset + byte for byte in text.encode()]

    def decode(self, ids: list[int]) -> str:
        return bytes(i - self.offset for i in ids).decode()


@pytest.fixture(scope="module")
def folder(fixtures: Path) -> Path:
    place = fixtures / "backbones" / "cogvlm2" / "preprocess"
    if not place.is_dir():
        pytest.skip(f"needs {place}, which does not exist")
    return place


@pytest.fixture(scope="module")
def facts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "prompts.json").read_text())


@pytest.fixture(scope="module")
def sizes(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "expected.json").read_text())


@pytest.fixture(scope="module")
def processor(facts: dict[str, Any], sizes: dict[str, Any]) -> CogVLM2Processor:
    return CogVLM2Processor(make_square_image_processor(sizes["tiny"]["image_size"]), Bytes(facts["tokenizer"]))


@pytest.fixture(scope="module")
def picture(folder: Path, sizes: dict[str, Any]) -> Image.Image:
    return Image.open(folder / sizes["image"])


@pytest.fixture
def words() -> PreTrainedTokenizerFast:
    tokenizer = build_tokenizer()
    tokenizer.bos_token = "<|user|>"
    return tokenizer


def row(case: dict[str, Any], picture: Image.Image) -> dict[str, Any]:
    history = [tuple(turn) for turn in case["history"]]
    image = picture if case["image"] else None
    return {"text": case["query"], "images": image, "history": history, "answer": case["answer"]}


# --- ids ------------------------------------------------------------------------------------------------------------


def test_every_published_case_comes_out_as_published(
    processor: CogVLM2Processor, facts: dict[str, Any], picture: Image.Image
) -> None:
    assert {case["template"] for case in facts["cases"]} == set(TEMPLATES)
    for case in facts["cases"]:
        out = processor(**row(case, picture), template=case["template"])
        wanted = ("input_ids", "token_type_ids") + (("labels",) if case["answer"] is not None else ())
        for name in wanted:
            assert out[name].tolist() == [case[name]], (case, name)
        assert out["attention_mask"].tolist() == [[1] * len(case["input_ids"])]
        assert ("labels" in out) is (case["labels"] is not None)
        assert ("pixel_values" in out) is case["image"]
        turns = [tuple(turn) for turn in case["history"]]
        assert build_prompt(case["query"], turns, case["template"]) == case["text"]


def test_labels_decode_to_exactly_the_answer(processor: CogVLM2Processor, picture: Image.Image) -> None:
    out = processor(text="求 x", images=picture, history=[("a", "b")], answer="x = 3, 因此 $\\frac{1}{2}$ 🙂")
    kept = out["labels"][out["labels"] != IGNORED].tolist()
    assert kept[-1] == processor.tokenizer.eos_token_id
    assert processor.tokenizer.decode(kept[:-1]) == "x = 3, 因此 $\\frac{1}{2}$ 🙂"
    assert out["input_ids"][0, -len(kept) :].tolist() == kept


def test_an_image_takes_the_tokens_that_its_size_gives(facts: dict[str, Any], processor: CogVLM2Processor) -> None:
    assert processor.image_tokens == facts["image_tokens"]
    big = CogVLM2Processor(make_square_image_processor(1344), processor.tokenizer)
    assert big.image_tokens == facts["image_tokens_at_1344"] == 2306


def test_rows_of_a_batch_are_padded_on_the_left(processor: CogVLM2Processor, picture: Image.Image) -> None:
    texts, images, answers = ["What is it?", "1 + 1?", "Why?"], [picture, None, picture], ["A disc.", "2", "So."]
    batch = processor(text=texts, images=images, history=[[("a", "b")], None, []], answer=answers)
    assert batch["pixel_values"].shape[0] == 2
    for i, (text, image, history, answer) in enumerate(
        zip(texts, images, [[("a", "b")], [], []], answers, strict=True)
    ):
        alone = processor(text=text, images=image, history=history, answer=answer)
        length = alone["input_ids"].shape[1]
        padding = batch["input_ids"].shape[1] - length
        fill = {"input_ids": processor.tokenizer.pad_token_id, "labels": IGNORED}
        for name in ("input_ids", "attention_mask", "token_type_ids", "labels"):
            assert torch.equal(batch[name][i, padding:], alone[name][0])
            assert batch[name][i, :padding].tolist() == [fill.get(name, 0)] * padding


@pytest.mark.parametrize("many", [False, True])
def test_a_second_image_in_a_row_is_refused(processor: CogVLM2Processor, picture: Image.Image, many: bool) -> None:
    two = [picture, picture]
    with pytest.raises(DataError, match="2 images in a row, and CogVLM2 takes one"):
        processor(text=["?", "?"], images=[picture, two]) if many else processor(text="?", images=two)
    one = processor(text="?", images=[picture])
    assert torch.equal(one["pixel_values"], processor(text="?", images=picture)["pixel_values"])


def test_what_cannot_be_meant_is_refused(processor: CogVLM2Processor, picture: Image.Image) -> None:
    with pytest.raises(ConfigError, match="template 'llama': must be one of base, chat, vqa"):
        processor(text="?", template="llama")
    with pytest.raises(DataError, match="images: 1 entries for 2 texts"):
        processor(text=["?", "?"], images=[picture])
    with pytest.raises(DataError, match="answer"):
        processor(text=["?", "?"], answer=["1", None])
    with pytest.raises(DataError, match="no such file"):
        processor(text="?", images="nowhere.png")
    for option in ({"truncation": True}, {"return_tensors": "np"}, {"padding": False}):
        with pytest.raises(TypeError, match="gives padded torch tensors"):
            processor(text="?", **option)


# --- pixels ---------------------------------------------------------------------------------------------------------


def test_pixels_are_those_of_the_published_preprocessing(
    processor: CogVLM2Processor, folder: Path, sizes: dict[str, Any], picture: Image.Image
) -> None:
    expected = load_file(folder / "expected.safetensors")
    pixels = processor(text="?", images=picture)["pixel_values"]
    assert pixels.shape == (1, *sizes["tiny"]["shape"])
    assert (pixels[0] - expected["pixel_values"]).abs().max() <= 1e-6
    big = CogVLM2Processor(make_square_image_processor(sizes["big"]["image_size"]), processor.tokenizer)
    pixels, index = big.prepare_pixels([picture])[0], expected["big_sample_index"].long()
    assert (pixels[:, index][:, :, index] - expected["big_sample"]).abs().max() <= 1e-6
    assert pixels.mean((1, 2)).tolist() == pytest.approx(sizes["big"]["channel_mean"], abs=1e-5)
    assert pixels.std((1, 2)).tolist() == pytest.approx(sizes["big"]["channel_std"], abs=1e-5)


def test_a_file_and_its_picture_give_the_same_pixels(
    processor: CogVLM2Processor, folder: Path, sizes: dict[str, Any], picture: Image.Image
) -> None:
    file = folder / sizes["image"]
    for image in (file, str(file)):
        assert torch.equal(
            processor(text="?", images=image)["pixel_values"], processor.prepare_pixels([picture.convert("RGB")])
        )


# --- chat template --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_chat_template_renders_the_prompt(
    words: PreTrainedTokenizerFast, picture: Image.Image, template: str
) -> None:
    processor = CogVLM2Processor(make_square_image_processor(56), words, chat_template=build_chat_template(template))
    talk = [
        {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "How many?"}]},
        {"role": "assistant", "content": "Three."},
        {"role": "user", "content": "Is it\nblue?"},
    ]
    said = build_prompt("Is it\nblue?", [("How many?", "Three.")], template)
    assert processor.apply_chat_template(talk, add_generation_prompt=True) == f"<|user|><|endoftext|>{said}"
    ids = words.apply_chat_template(talk[2:], chat_template=processor.chat_template, return_dict=False)
    assert ids == processor(text="Is it\nblue?", template=template)["input_ids"][0].tolist()
    for given in (talk, [talk]):
        asked = processor.apply_chat_template(given, tokenize=True, add_generation_prompt=True, return_dict=True)
        direct = processor(text="Is it\nblue?", images=picture, history=[("How many?", "Three.")], template=template)
        assert all(torch.equal(asked[name], direct[name]) for name in direct)


# --- files ----------------------------------------------------------------------------------------------------------


def test_a_saved_processor_opens_as_it_was(
    words: PreTrainedTokenizerFast, picture: Image.Image, tmp_path: Path
) -> None:
    processor = CogVLM2Processor(make_square_image_processor(84), words, chat_template=build_chat_template("vqa"))
    processor.save_pretrained(tmp_path)
    expected = processor(text="What is 3 + 4?", images=picture, answer="7")
    for again in (CogVLM2Processor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert type(again) is CogVLM2Processor and again.chat_template == processor.chat_template
        out = again(text="What is 3 + 4?", images=picture, answer="7")
        assert out.keys() == expected.keys()
        assert all(torch.equal(out[name], expected[name]) for name in expected)


def test_a_published_folder_needs_no_processor_files(
    words: PreTrainedTokenizerFast, folder: Path, sizes: dict[str, Any], picture: Image.Image, tmp_path: Path
) -> None:
    words.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes((folder.parent / "config.json").read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    processor = CogVLM2Processor.from_pretrained(tmp_path)
    for name in ("bos", "eos", "pad"):  # whatever the tokenizer's own are
        assert getattr(processor.tokenizer, f"{name}_token_id") == config[f"{name}_token_id"]
    assert processor(text="?", images=picture)["pixel_values"].shape == (1, *sizes["tiny"]["shape"])
    processor.save_pretrained(tmp_path / "again")
    again = CogVLM2Processor.from_pretrained(tmp_path / "again")
    assert torch.equal(again(text="?", images=picture)["input_ids"], processor(text="?", images=picture)["input_ids"])


def test_missing_files_are_named(words: PreTrainedTokenizerFast, folder: Path, tmp_path: Path) -> None:
    config = (folder.parent / "config.json").read_bytes()
    (tmp_path / "config.json").write_bytes(config)
    with pytest.raises(CheckpointError, match="no tokenizer.json"):
        CogVLM2Processor.from_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match="has the size of images"):
        CogVLM2Processor.from_pretrained(tmp_path)
