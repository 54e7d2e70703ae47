"""What the comparison runs on: a random Qwen2-VL of about 4.7 million parameters, and rows in each side's form.

equal   56 x 56 pixels (4 image tokens), about 130 tokens a row
mixed   4 to 100 image tokens, responses of one to eight times that length, short ones more often
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

CELL = 28  # pixels on a side that make one image token: 2 x 2 merged patches
SMALLEST, LARGEST = 2 * CELL, 10 * CELL  # pixels on an image's side; 4 and 100 tokens
PAD, IM_START, IM_END, VISION_START, VISION_END, IMAGE, VIDEO = SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip
QUESTION = ("The picture shows red squares and blue circles. What is the number of squares times the number of circles "
            "plus the number of squares?")  # fmt: skip
RESPONSE = ("Step 1: Count the red squares in the picture, there are {a} of them. Step 2: Count the blue circles in "
            "the picture, there are {b} of them. Step 3: Multiply the two numbers to get {a} * {b} = {p}. Step 4: Add "
            "the number of squares to get {p} + {a} = {t}. The answer is \\boxed{{{t}}}.")  # fmt: skip
CHAT_TEMPLATE = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build(folder: Path, count: int, mixed: bool, instructions: str = "") -> None:
    """Write ``model/``, the images, and ``count`` rows as ``rows.jsonl`` (ours) and in the peers' forms.
    ``instructions``: of another prompt, which the tokenizer is to know too."""
    folder.mkdir(parents=True)
    rows = make_rows(folder, count, mixed)
    processor = make_processor(rows, instructions)
    model = make_model(processor.tokenizer)
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    for row in rows:
        text = len(processor.tokenizer(row["question"] + row["response"])["input_ids"])
        row["tokens"] = text + sum((Image.open(image).width // CELL) ** 2 for image in row["images"])
    write_lines(folder / "rows.jsonl", rows)
    chats = [
        {"messages": [{"role": "user", "content": "<image>" + row["question"]},
                      {"role": "assistant", "content": row["response"]}], "images": row["images"]}
        for row in rows
    ]  # fmt: skip
    write_lines(folder / "swift.jsonl", chats)
    (folder / "llamafactory.json").write_text(json.dumps(chats))
    roles = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    columns = {"messages": "messages", "images": "images"}
    dataset = {"file_name": "llamafactory.json", "formatting": "sharegpt", "columns": columns, "tags": roles}
    (folder / "dataset_info.json").write_text(json.dumps({"rows": dataset}))
    write_lines(folder / "trl.jsonl", [
        {"prompt": [{"role": "user", "content": row["question"]}], "images": row["images"], "length": row["tokens"],
         "completion": [{"role": "assistant", "content": row["response"]}]}
        for row in rows
    ])  # fmt: skip


def write_lines(path: Path, records: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def make_rows(folder: Path, count: int, mixed: bool) -> list[dict[str, Any]]:
    """Questions over pictures of up to nine squares and circles, the pictures as PNG files in ``folder``."""
    draw = random.Random(0)
    rows: list[dict[str, Any]] = []
    for i in range(count):
        a, b = draw.randint(1, 9), draw.randint(1, 9)
        picture = Image.new("RGB", (SMALLEST, SMALLEST), "white")
        pen = ImageDraw.Draw(picture)
        for k in range(a):
            pen.rectangle([2 + 6 * k, 4, 6 + 6 * k, 8], fill="red")
        for k in range(b):
            pen.ellipse([2 + 6 * k, 30, 6 + 6 * k, 34], fill="blue")
        side, times = SMALLEST, 1
        if mixed:
            side, times = draw.randrange(SMALLEST, LARGEST + 1, CELL), min(8, 1 + int(draw.expovariate(0.6)))
        path = folder / f"{i:05d}.png"
        picture.resize((side, side)).save(path)
        response = " ".join([RESPONSE.format(a=a, b=b, p=a * b, t=a * b + a)] * times)
        rows.append({"question": QUESTION, "images": [str(path)], "response": response})
    return rows


def make_processor(rows: Sequence[dict[str, Any]], instructions: str = "") -> Qwen2VLProcessor:
    """Qwen2-VL's processor around a byte-level BPE trained on these rows. It learns the words of ``instructions`` too,
    as a tokenizer of 150,000 words knows them."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    texts = ["system user assistant You are a helpful assistant.", *(f"{r['question']} {r['response']}" for r in rows)]
    texts += [instructions] * len(rows)
    words = 1000 + 3 * len(set(instructions.split()))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=words, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False))  # fmt: skip
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=IM_END, pad_token=PAD, model_max_length=2048,
        additional_special_tokens=list(SPECIAL[1:]),
    )  # fmt: skip
    image_processor = Qwen2VLImageProcessor(min_pixels=SMALLEST**2, max_pixels=LARGEST**2)
    return Qwen2VLProcessor(image_processor, tokenizer, Qwen2VLVideoProcessor(), chat_template=CHAT_TEMPLATE)


def make_model(tokenizer: Any) -> Qwen2VLForConditionalGeneration:
    """Hidden size 256, four layers in the language model and in the vision tower; weights from seed 0."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    config = Qwen2VLConfig(
        text_config={"vocab_size": len(tokenizer), "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4,
                     "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
                     "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]},
                     "bos_token_id": None, "eos_token_id": ids[IM_END], "pad_token_id": ids[PAD],
                     "tie_word_embeddings": False},
        vision_config={"depth": 4, "embed_dim": 128, "hidden_size": 256, "num_heads": 4, "mlp_ratio": 4},
        image_token_id=ids[IMAGE], video_token_id=ids[VIDEO], vision_start_token_id=ids[VISION_START],
        vision_end_token_id=ids[VISION_END], tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration(config)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = ids[IM_END], ids[PAD]
    return model
