"""``--push-to-hub``: what lands in a repository, who may read it, and what is refused. The hub is a stand-in on this
machine, the client is the real huggingface_hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from e2e.runs import TINY, run
from hub_server import READER, TOKEN, HubServer, Repository
from huggingface_hub import DatasetCard, ModelCard
from run_builder import build_run, record_again

from exports.own_run import OwnRun, export, hashes
from mathse.__main__ import main
from mathse.runs.store import read_json, write_json


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user's own process; all other tests run as without a hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    # The library sends large files in a way of the hub's own where it can; the stand-in knows plain Git LFS.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def hub(online: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up run whose final student has an adapter on the run's base, which came from the hub."""
    folder = build_run(tmp_path_factory.mktemp("weights") / "run", size=12)
    for manifest in folder.rglob("stage.json"):
        checkpoint = manifest.parent / "checkpoint"
        checkpoint.mkdir()
        (checkpoint / "model.safetensors").write_bytes(manifest.parent.name.encode())
        write_json(checkpoint / "config.json", {"model_type": "qwen2_vl"})
    adapter = folder / "final" / "checkpoint" / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"of the adapter")
    write_json(adapter / "adapter_config.json", {"r": 8, "base_model_name_or_path": "../../../base/checkpoint"})
    run = read_json(folder / "run.json")
    run["config"]["backbone"] = {"_target_": "mathse.models.qwen2vl.load", "path": "Qwen/Qwen2-VL-2B-Instruct"}
    write_json(folder / "run.json", run)
    record_again(folder)
    return folder


def push(run: Path, out: Path, *options: str) -> int:
    return main(["export", str(run), "--out", str(out), *options])


def files(folder: Path) -> set[str]:
    return {*hashes(folder), ".gitattributes"}


# --- what lands there -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["model", "adapter", "orm model"])
def test_weights_land_in_a_private_repository_with_their_card(
    what: str, weights: Path, hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--what", "model", "--stage", "orm"] if what == "orm model" else ["--what", what]
    assert push(weights, tmp_path / "out", *options, "--push-to-hub", "me/student") == 0
    repository = hub.repositories["me/student"]
    assert repository.private
    assert repository.commits[0] == [("file", "export.json")]  # so that a push which breaks off is known again
    assert f"{hub.url}/me/student: pushed, private, commit {repository.head[:8]}" in capsys.readouterr().out
    assert set(repository.files) == files(tmp_path / "out")
    card = ModelCard(repository.files["README.md"].decode())
    assert card.data.base_model == "Qwen/Qwen2-VL-2B-Instruct"
    assert card.data.library_name == ("peft" if what == "adapter" else "transformers")
    if what == "adapter":
        config = json.loads(repository.files["adapter_config.json"])
        assert config == {"r": 8, "base_model_name_or_path": "Qwen/Qwen2-VL-2B-Instruct"}
        assert hashlib.sha256(b"of the adapter").hexdigest() in card.text
        assert "model.safetensors" not in repository.files


@pytest.mark.parametrize("what", ["sft", "orm"])
def test_rows_land_in_a_private_data_set_that_opens_again(
    what: str, own: OwnRun, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert push(own.folder, tmp_path / "out", "--what", what, "--format", "hf", "--push-to-hub", "me/rows") == 0
    repository = hub.repositories["datasets/me/rows"]
    assert repository.private and set(repository.files) == files(tmp_path / "out")
    assert DatasetCard(repository.files["README.md"].decode()).data.license == "other"
    copy = huggingface_hub.snapshot_download(
        "me/rows", repo_type="dataset", endpoint=hub.url, token=TOKEN, local_dir=tmp_path / "copy"
    )
    (made,), (fetched,) = (list(Path(folder).glob("data/*.parquet")) for folder in (tmp_path / "out", copy))
    assert made.read_bytes() == fetched.read_bytes()


def test_public_is_public_only_when_it_is_said(own: OwnRun, hub: HubServer, tmp_path: Path) -> None:
    assert push(own.folder, tmp_path / "out", "--format", "swift", "--push-to-hub", "me/rows", "--public") == 0
    assert not hub.repositories["datasets/me/rows"].private


# --- nothing twice ----------------------------------------------------------------------------------------------------


def test_the_same_export_again_sends_nothing(
    own: OwnRun, hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert push(own.folder, tmp_path / "out", "--format", "swift", "--push-to-hub", "me/rows") == 0
    repository = hub.repositories["datasets/me/rows"]
    assert len(repository.commits) == 2 and set(hub.uploaded.values()) == {1}
    assert "has all of it already" in capsys.readouterr().out


def test_a_later_export_sends_what_is_new_and_removes_what_is_gone(own: OwnRun, hub: HubServer, tmp_path: Path) -> None:
    for format in ("swift", "llamafactory", "hf"):
        assert push(own.folder, tmp_path / format, "--format", format, "--push-to-hub", "me/rows") == 0
    repository = hub.repositories["datasets/me/rows"]
    assert set(repository.files) == files(tmp_path / "hf")
    _, _, second, third = repository.commits
    assert not [path for _, path in second if path.startswith("images/")]  # the pictures were there
    assert ("deletedFile", "dataset_info.json") in third
    assert set(hub.uploaded.values()) == {1}


@pytest.mark.parametrize("broken", ["/commit/", "/objects/"])
def test_a_push_that_broke_off_goes_on_where_it_was(
    broken: str, own: OwnRun, hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.trouble[broken] = 400  # what the library does not try again by itself
    command = ("--format", "swift", "--push-to-hub", "me/rows")
    assert push(own.folder, tmp_path / "out", *command) == 1
    said = capsys.readouterr().err
    assert "run the same command again" in said and str(tmp_path / "out") in said and TOKEN not in said
    hub.trouble.clear()
    assert push(own.folder, tmp_path / "out", *command) == 0
    assert set(hub.uploaded.values()) == {1}


# --- what is refused --------------------------------------------------------------------------------------------------


def test_without_a_token_nothing_is_made_and_a_stored_one_is_not_taken(
    own: OwnRun, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stored").write_text(TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "stored"))
    for value in (None, "", "  "):
        monkeypatch.delenv("HF_TOKEN") if value is None else monkeypatch.setenv("HF_TOKEN", value)
        assert push(own.folder, tmp_path / "out", "--format", "swift", "--push-to-hub", "me/rows") == 1
        assert "HF_TOKEN is not set in the environment" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not hub.asked


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--format", "swift", "--push-to-hub", "rows"), "must be OWNER/NAME"),
        (("--format", "swift", "--push-to-hub", "https://x/me/rows"), "must be OWNER/NAME"),
        (("--format", "swift", "--images", "reference", "--push-to-hub", "me/rows"), "names files of this machine"),
    ],
)
def test_what_cannot_be_pushed_is_refused_before_it_is_made(
    options: tuple[str, ...],
    sentence: str,
    own: OwnRun,
    hub: HubServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert push(own.folder, tmp_path / "out", *options) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not hub.asked


@pytest.mark.parametrize(
    ("token", "sentence"),
    [("hf_of_nobody", "the hub does not know this HF_TOKEN"), (READER, "this HF_TOKEN may not write there")],
)
def test_a_token_that_may_not_write_is_named_in_a_sentence(
    token: str,
    sentence: str,
    own: OwnRun,
    hub: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    assert push(own.folder, tmp_path / "out", "--format", "swift", "--push-to-hub", "me/rows") == 1
    said = capsys.readouterr()
    assert sentence in said.err and token not in said.err + said.out
    assert not hub.repositories and (tmp_path / "out" / "README.md").is_file()


def test_a_repository_of_somebodys_own_files_is_left_alone(
    own: OwnRun, hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = hub.repositories["datasets/me/rows"] = Repository(private=True)
    command = ("--format", "swift", "--push-to-hub", "me/rows")
    for marker in ({}, {"export.json": b'{"rows": 3}'}):
        repository.files = {".gitattributes": b"", "thesis.tex": b"years of work", **marker}
        assert push(own.folder, tmp_path / "out", *command) == 1
        assert "holds files of no export" in capsys.readouterr().err
    assert not repository.commits
    repository.files = {".gitattributes": b""}
    assert push(own.folder, tmp_path / "out", *command) == 0  # an empty one, made by hand, is taken


def test_a_public_repository_is_not_written_to_by_accident(
    own: OwnRun, hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repositories["datasets/me/rows"] = Repository(private=False)
    assert push(own.folder, tmp_path / "out", "--format", "swift", "--push-to-hub", "me/rows") == 1
    assert "is public; pass --public" in capsys.readouterr().err
    assert not hub.repositories["datasets/me/rows"].commits


def test_a_hub_that_cannot_be_reached_is_a_sentence(
    own: OwnRun, online: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert push(own.folder, tmp_path / "out", "--format", "swift", "--push-to-hub", "me/rows") == 1
    assert "check the network and HF_ENDPOINT" in capsys.readouterr().err


def test_offline_is_said(
    own: OwnRun, tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert push(own.folder, tmp_path / "out", "--format", "swift", "--push-to-hub", "me/rows") == 1
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err


def test_a_stage_without_an_adapter_says_what_makes_one(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(weights, tmp_path / "out", "--what", "adapter", "--stage", "round_01") == 1
    assert "only a training with sft.method=lora has one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_exported_adapter_is_what_peft_puts_on_the_base(tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    folder = tmp_path / "run"
    run(folder, *TINY, "sft.method=lora", "sft.lora.rank=4", "evolution.rounds=0", "evolution.reflect.when=never")
    out = export(folder, tmp_path / "out", "--what", "adapter", "--stage", "distill")
    assert read_json(out / "adapter_config.json")["base_model_name_or_path"] is None  # random weights have no name
    base = AutoModelForImageTextToText.from_pretrained(str(folder / "base" / "checkpoint"), dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, str(out)).merge_and_unload().state_dict()
    theirs = AutoModelForImageTextToText.from_pretrained(str(folder / "distill" / "checkpoint"), dtype=torch.float32)
    for name, weight in theirs.state_dict().items():
        assert torch.allclose(weight, merged[name], atol=1e-6), name


def test_an_adapter_on_an_earlier_student_names_that_student_and_no_published_base(
    weights: Path, tmp_path: Path
) -> None:
    config = weights / "final" / "checkpoint" / "adapter" / "adapter_config.json"
    before = config.read_bytes()
    write_json(config, {"r": 8, "base_model_name_or_path": "../../../round_02/checkpoint"})
    record_again(weights)
    out = export(weights, tmp_path / "out", "--what", "adapter")
    config.write_bytes(before)
    record_again(weights)
    assert read_json(out / "adapter_config.json")["base_model_name_or_path"] is None
    card = ModelCard((out / "README.md").read_text(encoding="utf-8"))
    assert card.data.base_model is None and "Its base is the checkpoint of stage round 2" in card.text
