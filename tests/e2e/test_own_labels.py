"""task=orm on labelled paths of somebody's own (``orm.train``, ``orm.held``) instead of sampled ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from e2e.runs import TINY, rows, run
from mathse.config import build
from mathse.config.data import SyntheticData
from mathse.config.evolution import Distill
from mathse.config.fits import ORM
from mathse.config.schema import TrainConfig
from mathse.data.images import png_bytes
from mathse.errors import ConfigError, DataError
from mathse.evolution.tasks import flatten_settings
from mathse.runs.store import read_json, write_jsonl

Row = dict[str, Any]


def labelled(folder: Path, name: str, numbers: Sequence[int]) -> Path:
    """A right and a wrong path of each of these problems of the world, as problems of somebody's own."""
    world = build(SyntheticData(seed=5, seed_size=8, pool=8, test=8, dev=8, orm_train=8, orm_held=8))
    found: list[Row] = []
    for number in numbers:
        problem = world.splits()["pool"][number]
        (folder / f"{number}.png").write_bytes(png_bytes(problem.images[0]))
        asked = {"problem_id": f"own/{number}", "question": problem.question, "answer": problem.answer}
        asked |= {"images": [f"{number}.png"], "solution": problem.solution}
        wrong = {
            "path": "Step 1: no digits.",
            "status": "wrong",
            "error_step": "Step 1",
            "error_analysis": "None read.",
        }
        found.append({"id": f"{name}/{number}/right", **asked, "path": problem.solution, "status": "correct"})
        found.append({"id": f"{name}/{number}/wrong", **asked, **wrong})
    file = folder / f"{name}.jsonl"
    write_jsonl(file, found)
    return file


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    train, held = labelled(tmp_path, "train", range(4)), labelled(tmp_path, "held", range(4, 7))
    return f"orm.train={train}", f"orm.held={held}"


def test_an_orm_learns_from_own_labels_and_is_measured_on_others(tmp_path: Path, files: tuple[str, str]) -> None:
    folder = tmp_path / "run"
    summary = run(folder, *TINY, "task=orm", *files)
    learnt = rows(folder / "orm" / "feedback.jsonl")
    assert [row["path"]["id"] for row in learnt] == [
        f"train/{k}/{kind}" for k in range(4) for kind in ("right", "wrong")
    ]
    assert {row["verdict"]["error_analysis"] for row in learnt} == {None, "None read."}
    assert [row["path"]["id"].split("/")[0] for row in rows(folder / "orm" / "orm_held.jsonl")] == ["held"] * 6
    assert summary["orm"]["n"] == 6 and summary["metric"] == summary["orm"]["overall_accuracy"] is not None
    assert not list((folder / "orm").glob("student_*"))  # nobody samples
    assert read_json(folder / "orm" / "solver" / "stage.json")["summary"]["solutions"] == 4
    recorded = read_json(folder / "orm" / "stage.json")["config"]
    assert {"orm.train_sha256", "orm.held_sha256"} <= set(recorded)
    assert run(folder, *TINY, "task=orm", *files) == summary


def test_a_note_says_so_where_no_problem_has_a_solution_that_an_orm_with_own_answers_could_learn(
    tmp_path: Path, files: tuple[str, str]
) -> None:
    train = Path(files[0].partition("=")[2])
    write_jsonl(train, [{**row, "solution": None} for row in rows(train)])
    notes = run(tmp_path / "run", *TINY, "task=orm", *files, "orm.own_answer=true")["notes"]
    [note] = [note for note in notes if "has a solution, so its fit does not teach it to solve" in note]
    assert note.startswith("orm: no problem of its paths") and "no better than chance" in note


def test_a_problem_in_both_files_ends_the_run_before_a_fit(tmp_path: Path, files: tuple[str, str]) -> None:
    both = labelled(tmp_path, "both", [6, 2])
    with pytest.raises(DataError, match=r"both.jsonl:3: problem 'own/2' is in .*train.jsonl:5 too .*2 of 4 rows"):
        run(tmp_path / "run", *TINY, "task=orm", files[0], f"orm.held={both}")
    assert not (tmp_path / "run" / "base").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("{train}",), "orm.held = null: orm.train is set"),
        (("{held}",), "orm.train = null: orm.held is set"),
        (("{train}", "orm.held=gone.jsonl"), "orm.held = 'gone.jsonl': no such file"),
    ],
)
def test_both_files_are_there_or_none(
    tmp_path: Path, files: tuple[str, str], given: tuple[str, ...], said: str
) -> None:
    named = dict(zip(("train", "held"), files, strict=True))
    with pytest.raises(ConfigError, match=said):
        run(tmp_path / "run", *TINY, "task=orm", *(setting.format(**named) for setting in given))


def test_without_own_labels_a_stage_depends_on_what_it_always_did(tmp_path: Path, files: tuple[str, str]) -> None:
    by_orm = Distill(judge="orm")
    assert not [
        key for key in flatten_settings(TrainConfig(distill=by_orm)) if key.startswith(("orm.train", "orm.held"))
    ]
    given = [value.partition("=")[2] for value in files]
    flat = flatten_settings(TrainConfig(orm=ORM(train=given[0], held=given[1]), distill=by_orm))
    assert {key for key in flat if key.startswith(("orm.train", "orm.held"))} == {"orm.train_sha256", "orm.held_sha256"}
