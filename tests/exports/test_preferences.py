"""``export --what preferences``: an accepted path beside a rejected one, in the forms that DPO trainers read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from run_builder import write_stage
from small import verdict

from exports.own_run import OwnRun, export, own_run
from exports.test_exports import opened
from mathse.__main__ import main
from mathse.evolution.state import Judged
from mathse.evolution.training_rows import Preference
from mathse.runs.store import read_json, read_jsonl, write_jsonl
from mathse.types import Lineage, ReasoningPath

DRAFTS = {"two": ("It is <image> 9.",), "text": ("5", "6"), "mark": ("no",)}


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> OwnRun:
    """The run over own problems, some of which were answered wrongly in a round too."""
    own = own_run(tmp_path_factory.mktemp("paired"))
    final = own.folder / "final"
    drafts = [
        ReasoningPath(f"round_01/{problem}/{k + 1}", problem, text, Lineage("student", "round_01", "somebody"))
        for problem, texts in DRAFTS.items()
        for k, text in enumerate(texts)
    ]
    write_jsonl(final / "incorrect.jsonl", [Judged(draft, verdict(draft, "wrong")) for draft in drafts])
    (final / "stage.json").unlink()
    write_stage(final)
    return own


EXPECTED = [("two", "It is < image> 9."), ("text", "6"), ("text", "5"), ("mark", "no")]  # newest drafts first


def test_llamafactory_ranks_an_accepted_path_above_a_rejected_one(paired: OwnRun, tmp_path: Path) -> None:
    out = export(paired.folder, tmp_path / "out", "--format", "llamafactory", "--what", "preferences")
    info = read_json(out / "dataset_info.json")["mathse"]
    assert info["ranking"] is True and info["columns"]["rejected"] == "rejected"
    rows = list(read_jsonl(out / "train.jsonl"))
    assert [(row["problem_id"], row["rejected"]["content"]) for row in rows] == EXPECTED
    for row in rows:
        assert [turn["role"] for turn in (*row["messages"], row["chosen"], row["rejected"])] == [
            "user", "assistant", "assistant",
        ]  # fmt: skip
        assert row["messages"][0]["content"].count("<image>") == len(row["images"])
        assert f"The answer to this problem is {row['problem_id']}." in row["chosen"]["content"]
        for name in row["images"]:
            Image.open(out / name).verify()
    assert "dpo" in (out / "README.md").read_text(encoding="utf-8")


def test_trl_opens_prompt_chosen_and_rejected_as_messages(paired: OwnRun, tmp_path: Path) -> None:
    rows = opened(export(paired.folder, tmp_path / "out", "--format", "trl", "--what", "preferences"), tmp_path)
    assert {"prompt", "chosen", "rejected", "images"} <= set(rows.column_names)
    assert "completion" not in rows.column_names
    assert [(row["problem_id"], row["rejected"][0]["content"][0]["text"]) for row in rows] == EXPECTED
    for row in rows:
        parts: Any = row["prompt"][0]["content"]
        kinds = [part["type"] for part in parts]
        if row["problem_id"] == "mark":  # its question says where the picture stands
            assert kinds == ["text", "image", "text"]
        else:
            assert kinds == ["image"] * len(row["images"]) + ["text"]
        assert row["chosen"][0]["role"] == row["rejected"][0]["role"] == "assistant"


def test_swift_and_the_plain_table_have_the_rejected_text_in_a_column(paired: OwnRun, tmp_path: Path) -> None:
    swift = export(paired.folder, tmp_path / "swift", "--format", "swift", "--what", "preferences")
    rows = list(read_jsonl(swift / "train.jsonl"))
    assert [(row["problem_id"], row["rejected_response"]) for row in rows] == EXPECTED
    table = opened(export(paired.folder, tmp_path / "hf", "--format", "hf", "--what", "preferences"), tmp_path)
    assert table["rejected"][0] == "It is <image> 9." and table["response"][0].endswith("two.")


def test_pairs_that_a_fit_learnt_from_are_those_that_are_exported(tmp_path: Path) -> None:
    own = own_run(tmp_path)
    final = own.folder / "final"
    chosen = next(read_jsonl(final / "train.jsonl", ReasoningPath))
    draft = ReasoningPath("round_01/one/1", "one", "wrong", Lineage("student", "round_01", "somebody"))
    write_jsonl(final / "preferences.jsonl", [Preference(chosen, draft)])
    (final / "stage.json").unlink()
    write_stage(final)
    rows = list(read_jsonl(
        export(own.folder, tmp_path / "out", "--format", "llamafactory", "--what", "preferences") / "train.jsonl"
    ))  # fmt: skip
    assert [(row["problem_id"], row["rejected"]["content"]) for row in rows] == [("one", "wrong")]


def test_a_stage_without_a_pair_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = own_run(tmp_path)
    assert main(["export", str(own.folder), "--format", "trl", "--what", "preferences", "--out", str(tmp_path / "o")])
    assert "holds no rows of preferences data" in capsys.readouterr().err
