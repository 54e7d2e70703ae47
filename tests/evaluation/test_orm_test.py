"""``evaluate.py benchmark=orm_test``: its files, its page, its resume and its errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from e2e.runs import killed
from orm_by_heart import ANALYSIS, saved, six_paths

from evaluation.cases import leave_scoring_processes, metrics, rows, run, write_rows
from mathse.config.fits import ORM
from mathse.data.images import png_bytes
from mathse.errors import CheckpointError, ConfigError, DataError, SettingsChanged
from mathse.evaluation import models

Row = dict[str, Any]
Settings = list[str]


@pytest.fixture(scope="session")
def orm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(ORM(order="verdict_first"), tmp_path_factory.mktemp("orm") / "checkpoint")


@pytest.fixture(scope="session")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(ORM(kind="binary"), tmp_path_factory.mktemp("binary") / "checkpoint")


def labelled() -> list[Row]:
    """The six paths that the ORMs know by heart as a user's rows; the first two have the other label."""
    found = []
    for k, (problem, of, label) in enumerate(six_paths()):
        status = label.status if k > 1 else {"correct": "wrong", "wrong": "correct"}[label.status]
        row = {"id": f"path-{k}", "problem_id": f"problem-{k}", "question": problem.question, "answer": problem.answer}
        row |= {"images": [f"{k}.png"], "path": of.text, "status": status, "subject": "sums" if k < 4 else "rest"}
        found.append({**row, "error_step": "Step 2" if status == "wrong" else None})
    return found


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    for k, (problem, _, _) in enumerate(six_paths()):
        (folder / f"{k}.png").write_bytes(png_bytes(problem.images[0]))
    return write_rows(folder / "paths.jsonl", labelled())


def asks(orm: Path, file: Path) -> Settings:
    where = ["benchmark=orm_test", f"checkpoint={orm}", f"benchmark.orm_test.paths={file}"]
    return [*where, "judge.batch_size=2", "progress=off"]


def never(*arguments: Any) -> None:
    raise AssertionError("the weights were read")


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "measured_orm", never)


# --- files and page ---------------------------------------------------------------------------------------------------


def test_the_orm_is_measured_against_the_labels(tmp_path: Path, orm: Path, file: Path) -> None:
    overall = run(tmp_path, *asks(orm, file))
    found = metrics(tmp_path, "orm_test")
    assert overall == found["overall_accuracy"] == pytest.approx(4 / 6)
    assert (found["positive_accuracy"], found["negative_accuracy"]) == pytest.approx((2 / 3, 2 / 3))
    assert (found["paths"], found["right"], found["wrong"], found["unparsed"]) == (6, 3, 3, 0)
    assert (found["error_step_exact"], found["error_step_within_one"]) == (0, pytest.approx(2 / 3))
    assert 0 < found["auroc"] < 1 and 0 < found["ece"] < 1
    assert all(low <= found[key] <= high for key, (low, high) in found["ci95"].items() if key != "ece")
    assert {name: part["paths"] for name, part in found["by_subject"].items()} == {"rest": 2, "sums": 4}
    assert found["by_subject"]["rest"]["overall_accuracy"] == 1
    assert sum(part["paths"] for part in found["by_length"]) == 6
    assert len(found["thresholds"]) >= 21 and found["agreement"]["paths"] == 6
    assert {name: row["overall"] for name, row in found["paper"].items()} == {
        "ORM, verdict only, 60K": 92.65,
        "ORM, verdict, step and analysis, 60K": 97.1,
    }
    assert found["protocol"]["order"] == "verdict_first" and found["protocol"]["paths"] == str(file)


def test_each_path_has_its_verdict_and_the_worst_disagreements_come_first(
    tmp_path: Path, orm: Path, file: Path
) -> None:
    run(tmp_path, *asks(orm, file))
    judged = rows(tmp_path / "orm_test" / "judged.jsonl")
    assert [row["id"] for row in judged] == [f"path-{k}" for k in range(6)]
    assert [row["right"] for row in judged] == [False, False, True, True, True, True]
    assert [row["accepted"] for row in judged] == [True, False] * 3
    assert {row["verdict"]["error_analysis"] for row in judged if not row["accepted"]} == {ANALYSIS}
    worst = rows(tmp_path / "orm_test" / "disagreements.jsonl")
    assert {row["id"] for row in worst} == {"path-0", "path-1"}
    sure = [row["verdict"]["score"] if row["accepted"] else 1 - row["verdict"]["score"] for row in worst]
    assert sure == sorted(sure, reverse=True)


def test_the_page_stands_alone_and_shows_picture_path_and_critique_of_a_disagreement(
    tmp_path: Path, orm: Path, file: Path
) -> None:
    run(tmp_path, *asks(orm, file))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "orm_test" / "report.html").read_text(encoding="utf-8") == page
    assert not re.search(r'(src|href)="(?!#|data:)', page)
    gallery = page[page.index("The worst disagreements") :]
    assert page.count('"png":"') == 2  # of the two problems judged wrongly, and no other
    assert "1 + 1 = 3." in gallery and ANALYSIS in gallery
    for said in ("92.65", "97.10", "66.67", "AUROC", "ECE", "subject sums", "threshold", "Agreement with answer match"):
        assert said in page


def test_a_binary_orm_is_measured_by_its_verdicts_alone(tmp_path: Path, binary: Path, file: Path) -> None:
    assert run(tmp_path, *asks(binary, file)) == pytest.approx(4 / 6)
    found = metrics(tmp_path, "orm_test")
    assert found["protocol"]["kind"] == "binary"
    assert found["error_step_exact"] is None and found["auroc"] is not None
    assert any("writes no step" in note for note in found["notes"])
    assert "writes no step" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_rows_may_name_problems_of_the_data(tmp_path: Path, orm: Path) -> None:
    sizes = [f"data.{split}=6" for split in ("seed_size", "pool", "test", "dev", "orm_train", "orm_held")]
    given = [
        {"id": of.id, "problem_id": problem.id, "path": of.text, "status": label.status}
        for problem, of, label in six_paths()
    ]
    file = write_rows(tmp_path / "paths.jsonl", given)
    assert run(tmp_path / "run", *asks(orm, file), *sizes) == 1.0
    assert run(tmp_path / "some", *asks(orm, file), *sizes, "limit=3") == 1.0
    assert metrics(tmp_path / "some", "orm_test")["paths"] == 3


# --- resume -----------------------------------------------------------------------------------------------------------


def test_another_threshold_or_other_labels_are_measured_without_the_model(
    tmp_path: Path, orm: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, *asks(orm, file))
    monkeypatch.setattr(models, "measured_orm", never)
    run(tmp_path, *asks(orm, file), "benchmark.orm_test.threshold=1")
    found = metrics(tmp_path, "orm_test")
    assert (found["threshold"], found["positive_accuracy"], found["negative_accuracy"]) == (1, 0, 1)
    turned = [{**row, "status": "wrong"} for row in labelled()]
    other = write_rows(file.with_name("turned.jsonl"), turned)
    assert run(tmp_path, *asks(orm, other)) == 0.5


def test_a_measurement_that_was_killed_judges_no_whole_batch_again(tmp_path: Path, orm: Path, file: Path) -> None:
    run(tmp_path / "whole", *asks(orm, file))
    folder, verdicts = tmp_path / "killed", "orm_test/verdicts.jsonl"
    leave_scoring_processes()
    kept = b""
    for at, batches in ((20, 1), (16, 2)):  # writes: amid the verdicts, twice
        assert killed(partial(run, folder, *asks(orm, file)), at)
        now = (folder / verdicts).read_bytes()
        assert now.startswith(kept) and now.count(b"\n") == 2 * batches
        kept = now
    run(folder, *asks(orm, file))
    for name in (verdicts, "orm_test/judged.jsonl", "orm_test/metrics.json", "orm_test/disagreements.jsonl"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "said"), [("judge.max_new_tokens=90", "judge.max_new_tokens"), ("limit=3", "paths, paths_sha256")]
)
def test_verdicts_of_other_settings_are_not_gone_on_with(
    tmp_path: Path, orm: Path, file: Path, change: str, said: str
) -> None:
    run(tmp_path, *asks(orm, file))
    with pytest.raises(SettingsChanged, match=rf"other settings \({said}\); choose another hydra.run.dir"):
        run(tmp_path, *asks(orm, file), change)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda rows: [*rows[:2], "{broken"], r"bad.jsonl:3: broken JSON.*write one JSON object a line"),
        (lambda rows: [rows[0], {**rows[1], "status": "unsure"}], r"bad.jsonl:2: \"status\" is .*'unsure'; write"),
        (lambda rows: [{**rows[0], "images": ["gone.png"]}], r"bad.jsonl:1: .*gone.png"),
        (lambda rows: [rows[0], rows[0]], r"bad.jsonl:2: \"id\" 'path-0' stands already at line 1.*rename"),
        (lambda rows: [{**rows[0], "path": ""}], r"bad.jsonl:1: \"path\" is empty; fill it in"),
        (lambda rows: [], r"bad.jsonl: holds no rows"),
    ],
    ids=["json", "status", "image", "id", "text", "nothing"],
)
def test_a_bad_row_ends_it_before_weights_are_read_and_leaves_no_folder(
    tmp_path: Path, orm: Path, file: Path, spoil: Callable[[list[Row]], list[Row | str]], said: str
) -> None:
    bad = file.with_name("bad.jsonl")
    bad.write_text("".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in spoil(labelled())))
    with pytest.raises(DataError, match=said):
        run(tmp_path / "run", *asks(orm, bad))
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("benchmark.orm_test.paths=null", "benchmark.orm_test.paths = null: needs labelled paths"),
        ("benchmark.orm_test.paths=gone.jsonl", "benchmark.orm_test.paths = 'gone.jsonl': no such file"),
        ("benchmark.orm_test.threshold=2", "benchmark.orm_test.threshold"),
        ("benchmark=[orm_test,synthetic]", "measures an ORM, not a student; run it by itself"),
        ("checkpoint=null", "checkpoint = null: benchmark=orm_test measures an ORM"),
        ("n_samples=4", "benchmark=orm_test samples nothing"),
        ("judge.checkpoint={orm}", "benchmark=orm_test measures checkpoint"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, orm: Path, file: Path, change: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        run(tmp_path / "run", *asks(orm, file), change.format(orm=orm))
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_model")
def test_a_student_is_not_measured_as_an_orm(tmp_path: Path, checkpoint: Path, file: Path) -> None:
    with pytest.raises((ConfigError, CheckpointError), match="orm.json"):
        run(tmp_path / "run", *asks(checkpoint, file))
