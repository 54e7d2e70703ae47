"""Rows that a backbone cannot take: refused or left out, listed by id, never cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from e2e.runs import SIZES, TINY, WORLD, rows, run
from mathse.config import data as data_settings
from mathse.data.synthetic import SyntheticData
from mathse.errors import ConfigError, DataError
from mathse.inference.rows import solve_row
from mathse.models import load

OWN = (*SIZES, "data=jsonl", "teacher=replay", "judge=random", "distill.judge=answer")


def problem(number: int, question: str = "What is 1 + 1?", images: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"id": f"p{number}", "question": f"{question} ({number})", "images": list(images), "answer": "2"}


def file_of(folder: Path, *special: dict[str, Any]) -> Path:
    Image.new("RGB", (1000, 4)).save(folder / "thin.png")
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*(problem(k) for k in range(24)), *special]))
    return path


def used(folder: Path, data: Path) -> set[str]:
    """The problems that any stage of a finished run sampled, solved or measured."""
    named = {row["problem_id"] for f in folder.rglob("*paths.jsonl") for row in rows(f)}
    return named | {row["id"] for f in folder.rglob("*predictions.jsonl") for row in rows(f)}


def build_source() -> SyntheticData:
    sizes = dict(setting.removeprefix("data.").split("=") for setting in WORLD)
    return SyntheticData(data_settings.SyntheticDataConfig(seed=0, **{name: int(size) for name, size in sizes.items()}))


def test_a_question_too_long_for_the_context_is_left_out_and_listed(tmp_path: Path) -> None:
    data = file_of(tmp_path, problem(98, "long " * 1000))
    summary = run(tmp_path / "run", *OWN, f"data.path={data}")
    [listed] = rows(tmp_path / "run" / "base" / "bad_rows.jsonl")
    assert (listed["file"], listed["id"]) == ("rows.jsonl", "p98")
    assert "at most 2,040 fit" in listed["reason"]  # 2,048 less 8 new tokens
    assert used(tmp_path / "run", data) | {"p98"} == {f"p{k}" for k in (*range(24), 98)}
    assert any("1 rows of the data were left out" in note for note in summary["notes"])


def test_an_image_that_the_family_cannot_take_is_an_error_that_names_the_row(tmp_path: Path) -> None:
    data = file_of(tmp_path, problem(99, images=("thin.png",)))
    with pytest.raises(DataError, match=r"rows.jsonl: p99: .*1000 x 4 pixels.*data.on_bad_row=skip"):
        run(tmp_path / "run", *OWN, f"data.path={data}")


def test_under_skip_bad_rows_of_both_kinds_are_listed_and_all_others_used(tmp_path: Path) -> None:
    broken = {**problem(97), "images": ["missing.png"]}
    data = file_of(tmp_path, broken, problem(99, images=("thin.png",)))
    settings = (*OWN, f"data.path={data}", "data.on_bad_row=skip", "data.max_left_out=0.1")
    run(tmp_path / "run", *settings)
    listed = rows(tmp_path / "run" / "base" / "bad_rows.jsonl")
    assert [(row["id"], row["line"]) for row in listed] == [("p97", 25), ("p99", None)]
    assert used(tmp_path / "run", data) == {f"p{k}" for k in range(24)}  # rows in = rows used + rows listed
    run(tmp_path / "again", *settings, "resume=branch", f"resume_from=[{tmp_path / 'run'}]", "evolution.rounds=2")
    assert used(tmp_path / "again", data) == {f"p{k}" for k in range(24)}, "a taken-over base leaves them out too"


def test_a_run_that_would_leave_out_too_many_rows_ends_with_the_reason(tmp_path: Path) -> None:
    data = file_of(tmp_path, *(problem(90 + k, "long " * 1000) for k in range(3)))
    with pytest.raises(DataError, match=r"3 of 27 rows cannot be used; at most 5% .*rows\.jsonl: p9\d: .* tokens"):
        run(tmp_path / "run", *OWN, f"data.path={data}")
    with pytest.raises(ConfigError, match=r"max_new_tokens = 2,040: leaves 8 tokens for a prompt.* context is 2,048"):
        run(tmp_path / "other", *OWN, f"data.path={data}", "evaluation.max_new_tokens=2040")


def test_training_rows_above_the_length_limit_are_listed_and_the_others_fitted(tmp_path: Path, tiny: Path) -> None:
    backbone = load("tiny", tiny / "base" / "checkpoint")
    problems = {p.id: p for split in build_source().splits().values() for p in split}
    paths = rows(tiny / "distill" / "train.jsonl")
    tokens = {
        p["id"]: len(backbone.encode([solve_row(backbone.prompt_style, problems[p["problem_id"]], p["text"])])[0].ids)
        for p in paths
    }
    limit = sorted(tokens.values())[len(tokens) // 2]
    run(tmp_path, *TINY, f"sft.max_length={limit}", "orm.fit.max_length=null")
    listed = rows(tmp_path / "distill" / "too_long.jsonl")
    assert {row["id"] for row in listed} == {i for i, count in tokens.items() if count > limit} != set()
    assert [row["id"] for row in listed] == [paths[row["row"] - 1]["id"] for row in listed]
    assert (tmp_path / "distill" / "checkpoint" / "model.safetensors").exists()


def test_where_every_row_is_too_long_the_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"too_long.jsonl: every row is too long \([\d,]+ tokens, and at most 16 fit"):
        run(tmp_path, *TINY, "sft.max_length=16")
