"""The tiny backbone is a Qwen2-VL like any other: same prompt everywhere, same pixels, same positions, same files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from small import picture, problems, solved_rows, tiny_backbone
from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

from mathse.config import backbones as backbones_settings
from mathse.data.images import load_image
from mathse.errors import CheckpointError, DataError
from mathse.models import load
from mathse.models.base import IGNORED
from mathse.models.checkpoint import open_processor
from mathse.models.row import Row
from mathse.models.tiny import TinyBackbone
from mathse.models.tiny_tokenizer import END, SPECIAL

ATOL = 1e-5  # logits of order 1, in float32, summed in another order


@pytest.fixture(scope="module")
def backbone() -> Iterator[TinyBackbone]:
    yield tiny_backbone()


@pytest.fixture(scope="module")
def saved(backbone: TinyBackbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    backbone.save(folder)
    return folder


def asks(question: str, *images: Image.Image | str, response: str = "Step 1: The digits are 1, 2, 3.") -> Row:
    return Row(question=question, images=images, response=response)


def several(backbone: TinyBackbone) -> list[Row]:
    """Rows of unequal length: the world's, none, several and large images, Chinese."""
    return [
        *solved_rows(backbone, 3),
        asks("What is 7 + 5?", response="12"),
        asks("Which of the two is larger?", picture(56, 28, 1), picture(28, 84, 2)),
        asks("求图中三角形的面积。", picture(100, 60, 3), response="面积是 12 平方厘米。"),
        asks("Three", picture(28, 28, 4), picture(28, 28, 5), problems(1)[0].images[0], response="\\frac{1}{2}"),
    ]


def opened(row: Row) -> list[Image.Image]:
    return [load_image(image) if isinstance(image, str) else image for image in row["images"]]  # type: ignore[misc]


# --- encoding -------------------------------------------------------------------------------------------------------


def test_a_prompt_has_the_ids_and_pixels_of_the_processor_itself(backbone: TinyBackbone) -> None:
    for row in several(backbone):
        [encoded] = backbone.encode([row])
        parts = [{"type": "image"} for _ in row["images"]] + [{"type": "text", "text": row["question"]}]
        text = backbone.processor.apply_chat_template(
            [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=False
        )
        theirs = backbone.processor(text=[text], images=opened(row) or None, return_tensors="pt")
        assert theirs["input_ids"][0].tolist() == encoded.prompt
        for name in ("pixel_values", "image_grid_thw"):
            assert (name in encoded.features) == (name in theirs) == bool(row["images"])
            assert name not in theirs or torch.equal(theirs[name], encoded.features[name])


def test_rows_encode_together_as_they_do_alone(backbone: TinyBackbone) -> None:
    rows = several(backbone)
    for row, together in zip(rows, backbone.encode(rows), strict=True):
        [alone] = tiny_backbone().encode([row])
        assert (alone.prompt, alone.response) == (together.prompt, together.response)
        assert torch.equal(alone.extras["position_ids"], together.extras["position_ids"])
        assert alone.features.keys() == together.features.keys()
        assert all(torch.equal(alone.features[k], together.features[k]) for k in alone.features)


def test_positions_are_the_models_own(backbone: TinyBackbone) -> None:
    for row in several(backbone):
        [encoded] = backbone.encode([row])
        ids, grids = torch.tensor([encoded.ids]), encoded.features.get("image_grid_thw")
        kinds = (ids == backbone.image_id).int()
        theirs, _ = backbone.model.model.get_rope_index(ids, mm_token_type_ids=kinds, image_grid_thw=grids)
        assert torch.equal(encoded.extras["position_ids"], theirs[:, 0])


def test_labels_are_exactly_the_response_and_its_end(backbone: TinyBackbone) -> None:
    rows = several(backbone)
    batch = backbone.collate(rows)
    for row, ids, labels in zip(rows, batch["input_ids"], batch["labels"], strict=True):
        kept = labels != IGNORED
        assert backbone.tokenizer.decode(labels[kept]) == row["response"] + END
        assert torch.equal(ids[kept], labels[kept])
        places = kept.nonzero()[:, 0]
        assert places[-1] - places[0] + 1 == len(places), "one stretch"
        assert backbone.tokenizer.decode(ids[: places[0]]).endswith("<|assistant|>")


def test_a_row_without_response_has_no_target(backbone: TinyBackbone) -> None:
    [encoded] = backbone.encode([Row(question="What is 7 + 5?", images=())])
    assert encoded.response == [] and (backbone.pad([encoded])["labels"] == IGNORED).all()


def test_special_tokens_in_a_users_text_mean_nothing(backbone: TinyBackbone) -> None:
    hostile = "".join(SPECIAL) + "<<|im_end|>|im_end|><|image_pad|><|vision_start|>"
    for images in ((), (picture(56, 28),)):
        plain, attacked = backbone.encode([asks("words", *images), asks(hostile, *images, response=hostile)])
        special = set(backbone.tokenizer.all_special_ids)
        assert [i for i in attacked.prompt if i in special] == [i for i in plain.prompt if i in special]
        assert [i for i in attacked.response if i in special] == [backbone.end_id]
        assert attacked.extras["position_ids"].shape == (3, len(attacked.ids))


@pytest.mark.parametrize("size", [(28, 28), (84, 28), (100, 60), (13, 7), (640, 480), (90, 900), (1, 1), (112, 112)])
def test_an_image_of_any_size_takes_the_tokens_announced_and_stays_within_the_pixel_cap(
    backbone: TinyBackbone, size: tuple[int, int]
) -> None:
    [encoded] = backbone.encode([asks("What is it?", picture(*size))])
    count = encoded.prompt.count(backbone.image_id)
    assert 1 <= count == backbone.image_tokens(*size)
    assert count * 28 * 28 <= backbone.processor.image_processor.size["longest_edge"]
    assert torch.isfinite(backbone.answer_logits(backbone.pad([encoded]))[0]).all()


def test_a_picture_of_the_world_is_one_token_a_digit(backbone: TinyBackbone) -> None:
    [encoded] = backbone.encode(solved_rows(backbone, 1))
    assert encoded.prompt.count(backbone.image_id) == backbone.image_tokens(84, 28) == 3


def test_an_image_that_is_missing_is_named(backbone: TinyBackbone) -> None:
    with pytest.raises(DataError, match="no-such-picture.png"):
        backbone.encode([asks("What is it?", "no-such-picture.png")])


def test_an_image_too_thin_for_the_processor_is_an_error_of_the_data(backbone: TinyBackbone, tmp_path: Path) -> None:
    picture(1000, 4).save(tmp_path / "thin.png")
    with pytest.raises(DataError, match="thin.png"):
        backbone.encode([asks("What is it?", str(tmp_path / "thin.png"))])


# --- the model ------------------------------------------------------------------------------------------------------


def full_logits(backbone: TinyBackbone, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return backbone.model(**{k: v for k, v in batch.items() if k != "labels"}).logits.float()


def test_answer_logits_are_the_full_logits_where_there_is_loss(backbone: TinyBackbone) -> None:
    batch = backbone.collate(several(backbone))
    logits, targets = backbone.answer_logits(batch)
    full = full_logits(backbone, batch)[:, :-1]
    expected = F.cross_entropy(full.flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED)
    assert torch.allclose(F.cross_entropy(logits, targets), expected, atol=ATOL)
    assert torch.allclose(backbone.model(**batch).loss, expected, atol=ATOL), "transformers' own loss"
    assert torch.equal(targets, batch["labels"][batch["labels"] != IGNORED])


def test_padding_changes_no_row(backbone: TinyBackbone) -> None:
    rows = several(backbone)
    logits, _ = backbone.answer_logits(backbone.collate(rows))
    alone = torch.cat([backbone.answer_logits(backbone.collate([row]))[0] for row in rows])
    assert torch.allclose(logits, alone, atol=ATOL)


def test_training_sees_what_sampling_sees(backbone: TinyBackbone) -> None:
    """The first token's odds, from a left-padded batch that transformers positions, and from a training batch."""
    rows = several(backbone)
    tokens = [i for i in range(len(backbone.tokenizer)) if i not in backbone.never_sampled]
    sampled = [c.watched[0] for [c] in backbone.complete(rows, max_new_tokens=1, watch=tokens)]  # type: ignore[index]
    batch = backbone.collate(rows)
    first = [int((labels != IGNORED).nonzero()[0]) - 1 for labels in batch["labels"]]
    trained = full_logits(backbone, batch)[range(len(rows)), first][:, tokens]
    assert torch.allclose(torch.stack(sampled), trained.log_softmax(-1), atol=ATOL)


def test_the_image_matters(backbone: TinyBackbone) -> None:
    one, other = (backbone.collate([asks("What is it?", picture(56, 28, seed))]) for seed in (1, 2))
    assert not torch.allclose(backbone.answer_logits(one)[0], backbone.answer_logits(other)[0], atol=ATOL)


# --- sampling -------------------------------------------------------------------------------------------------------


def test_a_batch_says_what_its_rows_say_alone(backbone: TinyBackbone) -> None:
    rows = several(backbone)
    together = backbone.complete(rows, max_new_tokens=12, watch=[0, 1, 2])
    for row, [mine] in zip(rows, together, strict=True):
        [[alone]] = backbone.complete([row], max_new_tokens=12, watch=[0, 1, 2])
        assert (alone.text, alone.ids) == (mine.text, mine.ids)
        assert torch.allclose(alone.watched, mine.watched, atol=ATOL)  # type: ignore[arg-type]


def test_samples_depend_on_the_seed_and_differ_from_each_other(backbone: TinyBackbone) -> None:
    rows = several(backbone)[:4]

    def sample(seed: int) -> list[list[str]]:
        return backbone.generate(rows, n=5, max_new_tokens=8, temperature=1.0, seed=seed)

    torch.manual_seed(1)
    first = sample(0)
    torch.manual_seed(2)
    assert sample(0) == first
    assert sample(1) != first
    assert [len(set(texts)) for texts in first] == [5] * 4


def test_sampling_leaves_the_global_generator_and_the_mode_alone(backbone: TinyBackbone) -> None:
    rows = several(backbone)[:2]
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    backbone.model.train()
    backbone.generate(rows, n=2, max_new_tokens=2, temperature=1.0, seed=7)
    assert backbone.model.training and torch.equal(torch.rand(3), expected)
    backbone.model.eval()
    backbone.generate(rows, max_new_tokens=2)
    assert not backbone.model.training


def test_images_are_encoded_once_for_all_samples(backbone: TinyBackbone) -> None:
    rows, patches = several(backbone), []
    hook = backbone.model.model.visual.register_forward_hook(
        lambda module, args, kwargs, out: patches.append(len(args[0] if args else kwargs["hidden_states"])),
        with_kwargs=True,
    )
    backbone.generate(rows, n=4, max_new_tokens=3, temperature=1.0)
    hook.remove()
    encoded = backbone.encode(rows)
    assert sum(patches) == sum(len(e.features["pixel_values"]) for e in encoded if e.features)


def test_no_image_token_is_ever_sampled(backbone: TinyBackbone) -> None:
    vision = {backbone.tokenizer.convert_tokens_to_ids(t) for t in SPECIAL if "vision" in t or "pad" in t}
    done = backbone.complete(solved_rows(backbone, 4), n=16, max_new_tokens=64, temperature=50.0)  # nearly uniform
    sampled = {i for row in done for c in row for i in c.ids}
    assert len(sampled) > 300 and not vision & sampled


def test_a_completion_ends_with_its_end_token_and_its_text_does_not_show_it(backbone: TinyBackbone) -> None:
    rows = backbone.complete(solved_rows(backbone, 8), n=16, max_new_tokens=64, temperature=50.0, watch=[0])
    done = [c for row in rows for c in row]
    ended = [c for c in done if c.ids[-1] == backbone.end_id]
    assert ended and len(ended) < len(done)
    for c in done:
        assert backbone.end_id not in c.ids[:-1] and END not in c.text
        assert c in ended or len(c.ids) == 64
        assert c.watched is not None and c.watched.shape == (len(c.ids), 1)


def test_watched_logits_are_raw_whatever_the_temperature(backbone: TinyBackbone) -> None:
    rows = several(backbone)[:3]
    cold, hot = (backbone.complete(rows, max_new_tokens=1, temperature=t, watch=[9, 70]) for t in (0.0, 3.0))
    for [one], [other] in zip(cold, hot, strict=True):
        assert torch.allclose(one.watched, other.watched, atol=ATOL)  # type: ignore[arg-type]


# --- files ----------------------------------------------------------------------------------------------------------


def same_weights(one: Any, other: Any) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(v, theirs[k]) for k, v in one.state_dict().items())


def test_a_saved_backbone_opens_equal(backbone: TinyBackbone, saved: Path) -> None:
    again, rows = load("tiny", saved), several(backbone)
    assert same_weights(backbone.model, again.model)
    one, other = (b.answer_logits(b.collate(rows))[0] for b in (backbone, again))
    assert torch.equal(one, other)
    assert again.generate(rows, max_new_tokens=8) == backbone.generate(rows, max_new_tokens=8)


def test_plain_transformers_opens_a_saved_backbone(backbone: TinyBackbone, saved: Path) -> None:
    model = Qwen2VLForConditionalGeneration.from_pretrained(saved, local_files_only=True)
    processor = AutoProcessor.from_pretrained(saved, local_files_only=True)
    assert same_weights(backbone.model, model)
    row = several(backbone)[4]
    batch = processor(text=[backbone.render(row)], images=opened(row), return_tensors="pt")
    said = model.generate(**batch, max_new_tokens=8, do_sample=False, suppress_tokens=backbone.never_sampled)
    text = processor.decode(said[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    assert [text] == backbone.generate([row], max_new_tokens=8)[0]


def test_saving_again_writes_the_same_bytes(backbone: TinyBackbone, saved: Path, tmp_path: Path) -> None:
    load("tiny", saved).save(tmp_path / "again")
    for name in ("model.safetensors", "tokenizer.json", "chat_template.jinja", "processor_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes(), name


def test_the_seed_of_the_weights_is_the_only_draw() -> None:
    torch.manual_seed(1)
    one = tiny_backbone(3)
    torch.manual_seed(2)
    assert same_weights(one.model, tiny_backbone(3).model)
    assert not same_weights(one.model, tiny_backbone(4).model)


def test_the_default_size_is_about_a_million_parameters() -> None:
    assert 0.5e6 < sum(p.numel() for p in TinyBackbone(backbones_settings.TinyBackbone()).model.parameters()) < 1.5e6


@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
     "chat_template.jinja"],
)  # fmt: skip
def test_a_checkpoint_without_one_of_its_files_is_refused_by_that_name(saved: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(saved, tmp_path / "c")
    (tmp_path / "c" / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load("tiny", tmp_path / "c")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "processor_config.json", "tokenizer.json"])
def test_a_checkpoint_with_a_file_cut_short_is_refused(saved: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(saved, tmp_path / "c")
    file = tmp_path / "c" / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=str(tmp_path / "c")):
        load("tiny", tmp_path / "c")


def test_a_checkpoint_that_lacks_a_weight_is_refused_not_filled_with_noise(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "c")
    weights = load_file(saved / "model.safetensors")
    lost = next(name for name in weights if "mlp" in name)
    del weights[lost]
    save_file(weights, tmp_path / "c" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=lost):
        load("tiny", tmp_path / "c")


def test_a_checkpoint_of_another_family_is_refused(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "c")
    config = json.loads((saved / "config.json").read_text())
    (tmp_path / "c" / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    with pytest.raises(CheckpointError, match="llama"):
        load("tiny", tmp_path / "c")


def test_weights_are_read_from_safetensors_alone(saved: Path, tmp_path: Path) -> None:
    """A pickle runs code when it is opened; this one would leave a file behind."""
    shutil.copytree(saved, tmp_path / "c")
    (tmp_path / "c" / "model.safetensors").unlink()
    torch.save(Trap(tmp_path / "sprung"), tmp_path / "c" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"its weights are pickles \(pytorch_model.bin\)"):
        load("tiny", tmp_path / "c")
    shutil.copy(saved / "model.safetensors", tmp_path / "c")
    load("tiny", tmp_path / "c")
    assert not (tmp_path / "sprung").exists()


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_earlier_turns_come_first_and_hold_the_images(backbone: TinyBackbone) -> None:
    image = picture(84, 28)
    row: Row = {"question": "And now?", "images": [image], "history": [("First?", "One."), ("Second?", "Two.")]}
    text = backbone.render(row)
    assert text.index("<|image_pad|>") < text.index("First?") < text.index("One.") < text.index("Second?")
    assert text.endswith("<|user|>And now?<|assistant|>") and text.count("<|image_pad|>") == 1
    [encoded] = backbone.encode([row])
    assert encoded.prompt.count(backbone.image_id) == 3 and encoded.prompt.count(backbone.end_id) == 2


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for m in messages %}{{ m.content", r"cannot be rendered \(unexpected end of template"),
        ("{{ raise_exception('roles must alternate') }}", r"cannot be rendered \(roles must alternate\)"),
        ("{{ messages + 1 }}", r"cannot be rendered \(can only concatenate list"),
        ("{{ no_such.thing }}", r"cannot be rendered \('no_such' is undefined\)"),
        ("How many sides?", r"loses a part of the question \(one picture becomes 0\)"),
        ("{{ messages[0].role }}", r"loses a part of the question \(the question is not in its prompts\)"),
    ],
)
def test_a_broken_chat_template_is_told_when_the_checkpoint_is_opened(
    saved: Path, tmp_path: Path, template: str, reason: str
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(saved, folder)
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(CheckpointError, match=f"its chat template {reason}.*; fetch chat_template.jinja"):
        open_processor(folder)
