"""The folder of an export: whole or not there, nothing of anybody else's touched; what is said where there is none."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from e2e.runs import killed
from run_builder import build_run, record_again

from exports.own_run import OwnRun, export, hashes, own_run
from mathse.__main__ import main
from mathse.commands.export.formats import FORMATS
from mathse.runs.store import read_json, read_jsonl, write_json, write_jsonl
from mathse.types import ReasoningPath

# --- the folder -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_run_gives_the_same_bytes_wherever_it_lies(tmp_path: Path, format: str) -> None:
    places = [own_run(tmp_path / name).folder for name in ("here", "there")]
    first, second = (hashes(export(run, run / "out", "--format", format)) for run in places)
    assert first == second


def test_an_export_is_made_anew_and_another_folder_is_refused(
    own: OwnRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = export(own.folder, tmp_path / "out", "--format", "swift")
    before = hashes(out)
    (out / "images" / "old.png").write_bytes(b"of rows that are gone")
    os.utime(out / "images" / "old.png", (0, 0))
    assert hashes(export(own.folder, tmp_path / "out", "--format", "swift")) == before
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work", encoding="utf-8")
    assert main(["export", str(own.folder), "--format", "swift", "--out", str(mine)]) == 1
    assert "was not made by this command" in capsys.readouterr().err
    assert [file.name for file in mine.iterdir()] == ["thesis.tex"]


def test_an_export_with_a_file_of_somebody_s_own_is_left_alone(
    own: OwnRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("notes.txt", "README.md"):
        out = export(own.folder, tmp_path / name, "--format", "swift")
        (out / name).write_text("mine", encoding="utf-8")
        assert main(["export", str(own.folder), "--format", "swift", "--out", str(out)]) == 1
        assert f"{name} was added or changed since" in capsys.readouterr().err
        assert (out / name).read_text(encoding="utf-8") == "mine"


def test_a_run_whose_files_were_changed_is_not_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = own_run(tmp_path).folder
    rows = run / "final" / "train.jsonl"
    export(run, tmp_path / "out", "--format", "swift")
    rows.write_text(rows.read_text(encoding="utf-8").replace("Look.", "Hook."), encoding="utf-8")
    capsys.readouterr()
    assert main(["export", str(run), "--format", "swift", "--out", str(tmp_path / "again")]) == 1
    assert "final/train.jsonl has other contents than recorded" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def test_a_file_of_the_markers_name_does_not_make_a_folder_ours(
    own: OwnRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    for text in ('{"rows": 3}', "[1]", "no JSON"):
        (mine / "export.json").write_text(text, encoding="utf-8")
        assert main(["export", str(own.folder), "--format", "swift", "--out", str(mine)]) == 1
        assert "was not made by this command" in capsys.readouterr().err
        assert (mine / "export.json").read_text(encoding="utf-8") == text


def test_an_export_may_go_through_a_link_and_into_the_current_folder(
    own: OwnRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    for _ in range(2):
        export(own.folder, tmp_path / "link", "--format", "swift")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "train.jsonl").is_file()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    export(own.folder, Path("."), "--format", "swift")
    assert (tmp_path / "here" / "train.jsonl").is_file()


def test_a_kill_leaves_no_half_export(own: OwnRun, tmp_path: Path) -> None:
    out, at = tmp_path / "out", 1
    while killed(lambda: export(own.folder, out, "--format", "llamafactory"), at):
        assert not out.exists() or (out / "export.json").is_file()
        at += 5
    assert at > 10
    fresh = hashes(export(own.folder, tmp_path / "fresh", "--format", "llamafactory"))
    assert hashes(export(own.folder, out, "--format", "llamafactory")) == fresh
    assert sorted(file.name for file in tmp_path.iterdir()) == ["fresh", "out"]


def test_a_row_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = own_run(tmp_path)
    (own.folder / "final" / "train.jsonl").write_text('{"id": "x"}\n', encoding="utf-8")
    record_again(own.folder)
    assert main(["export", str(own.folder), "--format", "hf", "--out", str(tmp_path / "out")]) == 1
    assert "train.jsonl:1" in capsys.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["data", "run"]


# --- runs that have no such rows --------------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], run: Path, *options: str) -> str:
    before = hashes(run) if run.exists() else {}
    assert main(["export", str(run), "--format", "llamafactory", *options]) == 1
    assert (hashes(run) if run.exists() else {}) == before
    return capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not a run folder" in refused(capsys, tmp_path)
    assert "is not a run folder" in refused(capsys, tmp_path / "nowhere")


def test_an_unfinished_run_is_refused_with_the_stages_that_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = build_run(tmp_path / "run", size=12)
    for file in ("final/stage.json", "summary.json"):
        (run / file).unlink()
    assert "no finished stage with a train.jsonl; choose --stage" in refused(capsys, run)
    out = export(run, tmp_path / "out", "--format", "llamafactory", "--stage", "round_01")
    assert "The run was not finished when this was made." in (out / "README.md").read_text(encoding="utf-8")


def test_an_orm_that_found_nothing_to_be_fitted_on_has_no_figure_on_the_card(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run", size=12)
    for file in (run / "summary.json", run / "orm" / "stage.json", run / "orm" / "metrics.json"):
        text = file.read_text(encoding="utf-8")
        file.write_text(re.sub(r'"overall_accuracy": ?[0-9.]+', '"overall_accuracy": null', text), encoding="utf-8")
    record_again(run)
    out = export(run, tmp_path / "out", "--format", "llamafactory")
    assert "% right" not in (out / "README.md").read_text(encoding="utf-8")


def test_a_run_of_the_orm_alone_has_no_rows_for_a_student(own: OwnRun, capsys: pytest.CaptureFixture[str]) -> None:
    only = own.folder.parent / "only_orm"
    shutil.copytree(own.folder, only)
    shutil.rmtree(only / "final")
    write_json(only / "run.json", {**read_json(only / "run.json"), "task": "orm"})
    assert "pass --what orm" in refused(capsys, only)


def test_a_run_that_trained_no_orm_is_told_so(own: OwnRun, capsys: pytest.CaptureFixture[str]) -> None:
    without = own.folder.parent / "without_orm"
    shutil.copytree(own.folder, without)
    shutil.rmtree(without / "orm")
    assert "the run must have trained its ORM" in refused(capsys, without, "--what", "orm")


def test_no_row_at_all_is_no_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = own_run(tmp_path).folder
    (run / "orm" / "feedback.jsonl").write_text("")
    record_again(run)
    assert main(["export", str(run), "--format", "swift", "--what", "orm", "--out", str(tmp_path / "out")]) == 1
    assert "run/orm: holds no rows of orm data" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_picture_is_told_by_its_problems_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = own_run(tmp_path)
    (own.pictures / "clear.png").unlink()
    said = refused(capsys, own.folder)
    assert "problems.jsonl:6" in said and "clear.png" in said
    head = read_json(own.folder / "run.json")
    head["config"]["data"]["on_bad_row"] = "skip"
    write_json(own.folder / "run.json", head)
    said = refused(capsys, own.folder)
    assert "train.jsonl:6" in said and "problem 'clear' was left out" in said and "clear.png" in said


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "--format: choose one of llamafactory"),
        (("--format", "csv"), "invalid choice"),
        (("--format", "swift", "--what", "model"), "leave out --format"),
        (("--format", "swift", "--what", "orm", "--stage", "final"), "leave out --stage"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    own: OwnRun, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", str(own.folder), *options])
    assert ended.value.code == 2
    assert reason in capsys.readouterr().err


def test_rows_are_written_one_at_a_time(tmp_path: Path) -> None:
    peaks = []
    for rows in (20, 1_000):
        run = own_run(tmp_path / str(rows)).folder
        path = next(read_jsonl(run / "final" / "train.jsonl", ReasoningPath))
        long = (replace(path, id=f"round_01/one/{n}", text="Step 1: Look. " * 400) for n in range(rows))
        write_jsonl(run / "final" / "train.jsonl", long)
        record_again(run)
        tracemalloc.start()
        export(run, tmp_path / f"out_{rows}", "--format", "llamafactory")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert len(list(read_jsonl(tmp_path / "out_1000" / "train.jsonl"))) == 1_000
    assert peaks[1] < peaks[0] + 1_000_000  # the texts are 5.6 MB


def test_exporting_loads_no_model_library(own: OwnRun, tmp_path: Path) -> None:
    script = (
        "import sys; from mathse.__main__ import main; code = main(sys.argv[1:]); "
        "print(code, *(m for m in ('torch', 'transformers') if m in sys.modules))"
    )
    command = ("export", str(own.folder), "--format", "hf", "--out", str(tmp_path / "out"))
    done = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
