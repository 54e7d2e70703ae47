"""What every family promises: one prompt everywhere, batches that change no row, checkpoints that plain tools open."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from small import picture

from mathse import models
from mathse.commands.tiny import BUILDERS, HF_CLASSES
from mathse.commands.tiny import main as make
from mathse.errors import CheckpointError, DataError
from mathse.models.base import IGNORED, Backbone
from mathse.models.row import Row

ATOL = 2e-5  # logits of order 1, in float32, summed in another order


FAST = "idefics3"  # one of the models that backbone=hf opens; each promises the same, and takes two seconds
AS_HF = {"qwen2_5_vl as hf": "qwen2_5_vl", "qwen3_vl as hf": "qwen3_vl"}  # families that backbone=hf opens too
OF_HF = (*HF_CLASSES, *AS_HF)
PARAMS = [*sorted(BUILDERS), *(pytest.param(name, marks=[pytest.mark.slow] * (name != FAST)) for name in OF_HF)]


@pytest.fixture(scope="module", params=PARAMS)
def name(request: pytest.FixtureRequest) -> str:
    if request.param == "smolvlm":
        pytest.importorskip("num2words", reason="transformers' processor of SmolVLM wants it")
    return str(request.param)


@pytest.fixture(scope="module")
def family(name: str) -> str:
    return "hf" if name in OF_HF else name


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp(name) / "checkpoint"
    assert make([AS_HF.get(name, name), str(made)]) == 0
    return made


@pytest.fixture(scope="module")
def backbone(family: str, folder: Path) -> Iterator[Backbone]:
    opened = models.load(family, folder, dtype=torch.float32)
    opened.model.eval()
    yield opened


def asks(question: str, *images: Image.Image, response: str = "Step 1: 3 + 4 = 7.") -> Row:
    return Row(question=question, images=images, response=response)


def several(backbone: Backbone) -> list[Row]:
    """Rows of unequal length: with an image, without one, in Chinese, with LaTeX."""
    rows = [
        asks("What is the sum of the digits?", picture(84, 28)),
        asks("What is 7 + 5?", response="12"),
        asks("求图中三角形的面积。", picture(100, 60, 3), response="面积是 $\\frac{1}{2}$ 平方厘米。😀\n完"),
        asks("Which of the two is larger, and why is that so?", picture(28, 84, 2), response="B"),
    ]
    return rows


def test_a_prompt_has_the_same_ids_for_training_sampling_and_serving(backbone: Backbone) -> None:
    for row in several(backbone):
        [encoded] = backbone.encode([row])
        [prompt] = backbone.encode([Row(question=row["question"], images=row["images"])])
        assert prompt.prompt == encoded.prompt
        batch = backbone._pad_left(backbone._make_pieces([prompt]))
        assert batch["input_ids"][0].tolist() == encoded.prompt
        collated = backbone.collate([row])["input_ids"][0].tolist()
        assert collated == encoded.ids
        assert served(backbone, row) == encoded.prompt


def served(backbone: Backbone, row: Row) -> list[int]:
    """What a server makes of the row: the chat template of the checkpoint, its processor, nothing of ours."""
    content: list[dict[str, str]] = [*({"type": "image"} for _ in row["images"])]
    content.append({"type": "text", "text": row["question"]})
    if row.get("marked"):
        content = [{"type": "text", "text": text} for text in row["question"].split("<image>")]
        for place in range(len(row["images"]), 0, -1):
            content.insert(place, {"type": "image"})
    text = backbone.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    if (
        backbone.family == "cogvlm2"
    ):  # BOS and the image's placeholder in front are what the processor puts there itself
        plain = text.removeprefix(backbone.tokenizer.bos_token).removeprefix(backbone.tokenizer.pad_token)
        made = backbone.processor(text=plain, images=next(iter(row["images"]), None), template="base")
    else:
        made = backbone.processor(text=[text], images=list(row["images"]) or None, return_tensors="pt")
    ids: list[int] = made["input_ids"][0].tolist()
    return ids


def test_a_picture_stands_where_the_question_marks_it(backbone: Backbone, caplog: pytest.LogCaptureFixture) -> None:
    row = Row(question="Is the number in <image> larger than 7?", images=[picture(84, 28)], marked=True)
    [encoded] = backbone.encode([row])
    assert served(backbone, row) == encoded.prompt
    assert backbone.lengths([row])[0].prompt == len(encoded.prompt)
    text = backbone.tokenizer.decode(encoded.prompt)
    if backbone.family == "cogvlm2":
        first = Row(question="Is the number in  larger than 7?", images=row["images"])
        assert encoded.prompt == backbone.encode([first])[0].prompt
        assert caplog.text.count("reads all pictures before the text") <= 1  # once, whatever test asked first
        return
    mark = backbone.processor.image_token
    assert mark in text[text.index("Is the number in ") : text.index(" larger than 7?")]
    if backbone.max_images is None:
        two = Row(
            question="Is A, <image>, or B, <image>, larger?", images=[picture(28, 84, 2), picture(56, 56)], marked=True
        )
        [encoded] = backbone.encode([two])
        assert served(backbone, two) == encoded.prompt
        text = backbone.tokenizer.decode(encoded.prompt)
        a, b, end = (text.index(words) for words in ("Is A, ", ", or B, ", ", larger?"))
        assert mark in text[a:b] and mark in text[b:end] and mark not in text[:a]


def test_labels_are_exactly_the_response_and_its_end(backbone: Backbone) -> None:
    rows = several(backbone)
    batch = backbone.collate(rows)
    for row, ids, labels in zip(rows, batch["input_ids"], batch["labels"], strict=True):
        kept = labels != IGNORED
        assert labels[kept][-1] == backbone.end_id and torch.equal(ids[kept], labels[kept])
        assert backbone.tokenizer.decode(labels[kept][:-1]) == row["response"]


def test_the_model_takes_a_collated_batch(backbone: Backbone) -> None:
    batch = backbone.collate(several(backbone))
    with torch.no_grad():
        out = backbone.model(**batch)
        logits, targets = backbone.answer_logits(batch)
    ours = torch.nn.functional.cross_entropy(logits, targets)
    assert torch.allclose(out.loss, ours, atol=ATOL)


def test_padding_on_either_side_changes_no_row(backbone: Backbone) -> None:
    rows = several(backbone)
    with torch.no_grad():
        together = backbone.answer_logits(backbone.collate(rows))[0]
        alone = torch.cat([backbone.answer_logits(backbone.collate([row]))[0] for row in rows])
    assert torch.allclose(together, alone, atol=ATOL)
    sampled = backbone.complete(rows, max_new_tokens=6, watch=[5, 6, 7])
    for row, [mine] in zip(rows, sampled, strict=True):
        [[one]] = backbone.complete([row], max_new_tokens=6, watch=[5, 6, 7])
        assert one.ids == mine.ids
        assert torch.allclose(one.watched, mine.watched, atol=ATOL)  # type: ignore[arg-type]


def test_several_pictures_in_a_row_change_no_other_row_in_whatever_order_they_come(backbone: Backbone) -> None:
    rows = several(backbone)
    if backbone.max_images is None:
        rows[1:1] = [
            asks("Which is larger?", picture(84, 28), picture(150, 90, 4), response="A"),
            asks("Which of three?", picture(28, 28, 5), picture(30, 120, 6), picture(84, 28), response="C, of course"),
        ]

    def of_each(order: list[int]) -> list[torch.Tensor]:
        """Log-probabilities of each row's response, by the row."""
        with torch.no_grad():
            logits, targets = backbone.answer_logits(backbone.collate([rows[k] for k in order]))
        chosen = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
        parts = chosen.split([backbone.lengths([rows[k]])[0].response for k in order])
        return [parts[order.index(k)] for k in range(len(rows))]

    whole = of_each(list(range(len(rows))))
    turned = of_each(list(range(len(rows)))[::-1])
    alone = []
    for row in rows:
        with torch.no_grad():
            logits, targets = backbone.answer_logits(backbone.collate([row]))
        alone.append(logits.log_softmax(-1).gather(1, targets[:, None])[:, 0])
    for one, other, single in zip(whole, turned, alone, strict=True):
        assert torch.allclose(one, other, atol=ATOL) and torch.allclose(one, single, atol=ATOL)


def test_greedy_sampling_with_a_cache_equals_recomputing_each_token(backbone: Backbone) -> None:
    for row in several(backbone)[:3]:
        [[said]] = backbone.complete([row], max_new_tokens=6)
        for k, token in enumerate(said.ids):
            [grown] = backbone.encode([row])
            trial = type(grown)(
                grown.prompt, said.ids[: k + 1], grown.features,
                backbone.extras(grown.prompt, said.ids[: k + 1], grown.features),
            )  # fmt: skip
            with torch.no_grad():
                logits, _ = backbone.answer_logits(backbone.pad([trial]))
            scores = logits[k].clone()
            scores[backbone.never_sampled] = -torch.inf
            assert int(scores.argmax()) == token


def test_n_samples_differ_and_encode_each_image_once(backbone: Backbone) -> None:
    rows = several(backbone)
    counted: list[int] = []
    name = next(
        n
        for n in ("model.visual", "model.vision_tower", "model.vision_model", "model.vision")
        if _has(backbone.model, n)
    )
    module = backbone.model.get_submodule(name)
    hook = module.register_forward_hook(lambda *_: counted.append(1))
    torch.manual_seed(0)
    texts = backbone.generate(rows, n=4, max_new_tokens=8, temperature=1.0, seed=1)
    hook.remove()
    assert len(counted) == 1, "one pass over the batch's images"
    assert [len(row) for row in texts] == [4] * 4 and all(len(set(row)) > 1 for row in texts)
    assert backbone.generate(rows, n=4, max_new_tokens=8, temperature=1.0, seed=1) == texts


def _has(model: Any, name: str) -> bool:
    try:
        model.get_submodule(name)
    except AttributeError:
        return False
    return True


def test_the_image_matters(backbone: Backbone) -> None:
    one, other = (backbone.collate([asks("What is it?", picture(56, 28, seed))]) for seed in (1, 2))
    with torch.no_grad():
        assert not torch.allclose(backbone.answer_logits(one)[0], backbone.answer_logits(other)[0], atol=ATOL)


def test_special_tokens_in_a_users_text_mean_nothing(backbone: Backbone) -> None:
    hostile = "".join(backbone.tokenizer.all_special_tokens)
    special = set(backbone.tokenizer.all_special_ids)
    for images in ((), (picture(56, 28),)):
        plain, attacked = backbone.encode([asks("words", *images), asks(hostile, *images, response=hostile)])
        assert [i for i in attacked.prompt if i in special] == [i for i in plain.prompt if i in special]
        assert [i for i in attacked.response if i in special] == [backbone.end_id]


def test_an_image_takes_the_tokens_announced(backbone: Backbone) -> None:
    [without] = backbone.encode([Row(question="What is it?", images=())])
    for size in ((56, 56), (100, 60), (30, 300)):
        [encoded] = backbone.encode([Row(question="What is it?", images=(picture(*size),))])
        added = len(encoded.prompt) - len(without.prompt)
        assert backbone.image_tokens(*size) <= added <= backbone.image_tokens(*size) + 3  # marks around it, a newline
        assert backbone.image_tokens(*size) <= backbone.max_image_tokens


def test_a_rows_length_is_known_without_its_pixels(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = several(backbone)
    rows += [Row(question="What is it?", images=(picture(*size),)) for size in ((56, 56), (100, 60), (30, 300))]
    rows.append(Row(question="And now?", images=(picture(56, 28),), history=[("It is?", " 12 ")], response="\nno"))
    if backbone.max_images is None:
        rows.append(asks("\n Which?", picture(56, 28, 1), picture(200, 28, 2)))
    encoded = backbone.encode(rows)
    monkeypatch.setattr(type(backbone), "prepare", None)
    assert backbone.lengths(rows) == [(len(e.prompt), len(e.response)) for e in encoded]


def test_what_encodes_can_be_sent_without_the_model(backbone: Backbone) -> None:
    rows = several(backbone)
    backbone.encode(rows)
    sent = pickle.dumps(backbone.encoder())
    weights = sum(p.nbytes for p in backbone.model.parameters())
    without_tokenizer = len(sent) - len(pickle.dumps(backbone.processor))
    assert without_tokenizer < min(20_000, weights / 10)
    assert b"torch.nn.modules" not in sent and b"_rebuild_parameter" not in sent
    encoder: Backbone = pickle.loads(sent)  # noqa: S301 - of this very test
    batch, here = encoder.collate(rows), backbone.collate(rows)
    assert batch.keys() == here.keys() and all(torch.equal(batch[k], here[k]) for k in here)
    assert encoder.lengths(rows) == backbone.lengths(rows) and encoder.context == backbone.context


def test_the_bound_on_a_rows_length_never_lets_a_long_row_pass(backbone: Backbone) -> None:
    for row in several(backbone):
        length = len(backbone.encode([row])[0].ids)
        assert backbone.too_long(row, length) is None
        said = backbone.too_long(row, length - 1)
        assert said is not None and f"{length:,} tokens" in said


def test_a_row_with_more_images_than_the_family_takes_is_refused_by_count(backbone: Backbone) -> None:
    row = asks("Which?", picture(56, 28, 1), picture(56, 28, 2))
    if backbone.max_images is None:
        assert backbone.refusal(row) is None
        both, one = (backbone.encode([r])[0] for r in (row, asks("Which?", picture(56, 28, 1))))
        assert len(both.prompt) > len(one.prompt)
    else:
        assert "takes at most 1 a row" in str(backbone.refusal(row))
        with pytest.raises(DataError, match="takes at most 1 a row"):
            backbone.encode([row])


# --- files ----------------------------------------------------------------------------------------------------------


def test_a_saved_checkpoint_opens_equal_and_with_plain_transformers(
    backbone: Backbone, family: str, tmp_path: Path
) -> None:
    backbone.save(tmp_path / "saved")
    again = models.load(family, tmp_path / "saved", dtype="float32")
    rows = several(backbone)
    with torch.no_grad():
        one, other = (b.answer_logits(b.collate(rows))[0] for b in (backbone, again))
    assert torch.equal(one, other)
    plain = type(backbone.model).from_pretrained(tmp_path / "saved", local_files_only=True)
    theirs = plain.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in backbone.model.state_dict().items())


def test_weights_come_in_the_dtype_asked_for(family: str, folder: Path) -> None:
    half = models.load(family, folder, dtype="bfloat16")
    assert {p.dtype for p in half.model.parameters()} == {torch.bfloat16}
    [[text]] = half.generate([asks("What is 7 + 5?", picture(56, 28))], max_new_tokens=2)
    assert isinstance(text, str)


def test_a_missing_shard_is_named_before_weights_are_read(family: str, folder: Path, tmp_path: Path) -> None:
    backbone = models.load(family, folder)
    backbone.model.save_pretrained(tmp_path / "c", max_shard_size="100KB")
    for file in folder.iterdir():
        if not (tmp_path / "c" / file.name).exists() and file.suffix != ".safetensors":
            shutil.copy(file, tmp_path / "c")
    models.load(family, tmp_path / "c")
    lost = sorted((tmp_path / "c").glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(CheckpointError, match=lost.name):
        models.load(family, tmp_path / "c")


def test_a_weight_of_another_shape_is_refused(family: str, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "c")
    weights = load_file(folder / "model.safetensors")
    name = next(n for n in weights if n.endswith("lm_head.weight"))
    weights[name] = weights[name][:-1].clone()
    save_file(weights, tmp_path / "c" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=str(tmp_path / "c")):
        models.load(family, tmp_path / "c")


def test_a_weight_too_few_is_refused_not_filled_with_noise(family: str, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "c")
    weights = load_file(folder / "model.safetensors")
    lost = next(n for n in weights if "mlp" in n and n.endswith("weight"))
    del weights[lost]
    save_file(weights, tmp_path / "c" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="missing weights"):
        models.load(family, tmp_path / "c")


def test_a_folder_of_another_family_is_refused_in_one_sentence(family: str, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "c")
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "c" / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    with pytest.raises(CheckpointError, match=r"'llama'") as caught:
        models.load(family, tmp_path / "c")
    assert "\n" not in str(caught.value)


def test_a_path_that_is_nothing_is_one_sentence(family: str) -> None:
    with pytest.raises(CheckpointError, match="nowhere-at-all") as caught:
        models.load(family, "nowhere-at-all")
    assert "\n" not in str(caught.value)


def test_an_unknown_family_is_refused_with_those_there_are() -> None:
    with pytest.raises(CheckpointError, match="must be one of tiny, qwen2vl, internvl2_5, cogvlm2"):
        models.load("qwen", "x")
