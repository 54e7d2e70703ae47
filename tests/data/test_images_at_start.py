"""A big set's pictures are not all decoded when it is opened: the rest is, once, in a run's first stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from e2e.runs import SIZES, rows, run
from PIL import Image

from mathse.config import build
from mathse.config.data import JsonlDataConfig
from mathse.data import problems as data_problems
from mathse.data.row_validation import ImageChecks
from mathse.errors import DataError

OWN = (*SIZES, "data=jsonl", "teacher=replay", "judge=random", "distill.judge=answer")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """24 rows; the picture of the last one breaks off behind its header."""
    for k in range(24):
        Image.effect_noise((40, 40), 50).save(tmp_path / f"{k}.jpg")
    (tmp_path / "23.jpg").write_bytes((tmp_path / "23.jpg").read_bytes()[:-300])
    lines = [{"id": f"p{k}", "question": f"{k}?", "images": [f"{k}.jpg"], "answer": "1"} for k in range(24)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path / "own.jsonl"


def few(monkeypatch: pytest.MonkeyPatch, eager: int) -> None:
    monkeypatch.setattr(data_problems, "ImageChecks", lambda: ImageChecks(eager))


def test_a_small_set_is_known_to_be_whole_when_it_is_opened(own: Path) -> None:
    with pytest.raises(DataError, match=r"own.jsonl:24: image 23.jpg: damaged or cut off"):
        build(JsonlDataConfig(path=str(own)))


def test_of_a_big_set_the_first_pictures_are_decoded_and_of_the_others_the_headers(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few(monkeypatch, 5)
    source = build(JsonlDataConfig(path=str(own)))
    assert len(source.images.decoded) == 5 and len(source.images.headed) == 19
    (own.parent / "9.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"own.jsonl:10: .* the file is empty"):
        build(JsonlDataConfig(path=str(own)))


def test_a_run_finds_the_damaged_one_before_it_opens_a_model(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few(monkeypatch, 5)
    with pytest.raises(DataError, match=rf"{own}:24: image .*23.jpg: damaged or cut off.*data.on_bad_row=skip"):
        run(tmp_path / "run", *OWN, f"data.path={own}")
    assert not (tmp_path / "run" / "base" / "checkpoint").exists()


def test_under_skip_it_is_listed_with_its_line_and_not_used(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few(monkeypatch, 5)
    run(tmp_path / "run", *OWN, f"data.path={own}", "data.on_bad_row=skip")
    (listed,) = rows(tmp_path / "run" / "base" / "bad_rows.jsonl")
    assert (listed["file"], listed["line"], listed["id"]) == (str(own), 24, "p23")
    named = {row["problem_id"] for f in (tmp_path / "run").rglob("*paths.jsonl") for row in rows(f)}
    assert named and "p23" not in named
