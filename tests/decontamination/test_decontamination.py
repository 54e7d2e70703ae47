"""Decontamination before the first fit: what it drops, what it reports, and that a run goes on with the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from e2e.runs import SIZES, contents, everything, killed, problems_of, rows, run, stages

from mathse.config import build
from mathse.config.data import JsonlData
from mathse.errors import DataError, SettingsChanged
from mathse.evolution import problems
from mathse.runs.store import read_json, read_jsonl

OWN = (*SIZES, "data=jsonl", "teacher=replay", "judge=random", "distill.judge=answer", "evolution.reflect.when=never")
ROWS = 30
WORDS = "apple bread chair dream eagle flame grass house ivory jewel knife lemon mouse night ocean pearl queen sea sun"


def question(k: int) -> str:
    words = WORDS.split()
    one, other, third = words[k % 19], words[(k + 7) % 19], words[k % 17]
    return f"The {one} weighs {k} kg and the {other} {k + 5} kg. How heavy is the {third}?"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "own.jsonl"
    lines = [{"id": f"p{k}", "question": question(k), "images": [], "answer": str(k)} for k in range(ROWS)]
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


def benchmark(folder: Path, *numbers: int, name: str = "bench.jsonl") -> Path:
    """A benchmark that has these of our problems, and one of its own."""
    lines = [{"pid": str(900 + k), "question": question(k).upper().replace("KG", "$kg$")} for k in numbers]
    file = folder / name
    file.write_text("\n".join(map(json.dumps, [*lines, {"pid": "1", "question": "Another one?"}])))
    return file


def split_of(own: Path) -> dict[str, str]:
    source = build(JsonlData(path=str(own)))
    return {p.id: name for name, problems in source.splits().items() for p in problems}


def start(folder: Path, own: Path, *settings: str) -> dict[str, Any]:
    return run(folder, *OWN, f"data.path={own}", *settings)


def learnt_from(folder: Path) -> set[str]:
    """The problems of every path that was sampled or trained on."""
    return {i for file in folder.rglob("*.jsonl") if file.name.endswith(("paths.jsonl", "train.jsonl"))
            for i in problems_of(file)}  # fmt: skip


def test_rows_that_are_in_a_benchmark_are_dropped_and_the_test_split_is_left_alone(tmp_path: Path, own: Path) -> None:
    places = split_of(own)
    seed, test = (next(int(i[1:]) for i, name in places.items() if name == wanted) for wanted in ("seed", "test"))
    against = benchmark(tmp_path, seed, test)
    summary = start(tmp_path / "run", own, f"decontaminate.against=[{against}]", "decontaminate.action=drop")
    (pair,) = rows(tmp_path / "run" / "decontamination.jsonl")
    assert pair == {
        "id": f"p{seed}", "file": str(own), "line": seed + 1, "against": str(against), "against_id": str(900 + seed),
        "by": ["question"], "similarity": 1.0, "counts": True, "dropped": True,
    }  # fmt: skip
    used = learnt_from(tmp_path / "run")
    assert f"p{seed}" not in used and used
    assert f"p{test}" in {row["id"] for row in rows(tmp_path / "run" / "base" / "predictions.jsonl")}
    assert any("1 were dropped" in note for note in summary["notes"])


def test_the_run_prints_which_rows_it_leaves_out_and_where_the_list_is(
    tmp_path: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = next(int(i[1:]) for i, name in split_of(own).items() if name == "seed")
    drop = (f"decontaminate.against=[{benchmark(tmp_path, seed)}]", "decontaminate.action=drop")
    start(tmp_path / "run", own, *drop)
    printed = capsys.readouterr()
    told = f"left out of training: p{seed} (as {900 + seed}: question); the whole list: "
    assert f"{told}{tmp_path / 'run' / 'decontamination.jsonl'}" in printed.out + printed.err


def test_a_report_changes_nothing_but_what_is_said(tmp_path: Path, own: Path) -> None:
    against = benchmark(tmp_path, *range(ROWS))
    reported = start(tmp_path / "a", own, f"decontaminate.against=[{against}]")  # experiment=smoke reports
    plain = start(tmp_path / "b", own)
    identities = [{n: s["identity"] for n, s in stages(tmp_path / folder).items()} for folder in ("a", "b")]
    assert identities[0] == identities[1]
    own_files = {"decontamination.jsonl", "decontamination.json", "summary.json"}
    assert set(contents(tmp_path / "a")) - set(contents(tmp_path / "b")) == own_files - {"summary.json"}
    assert {k: v for k, v in contents(tmp_path / "a").items() if k not in own_files} == {
        k: v for k, v in contents(tmp_path / "b").items() if k not in own_files
    }
    assert any("reported, not dropped" in note for note in reported["notes"])
    assert any("was given no benchmark" in note for note in plain["notes"])
    assert not any(row["dropped"] for row in rows(tmp_path / "a" / "decontamination.jsonl"))


def test_switched_off_it_looks_at_nothing(tmp_path: Path, own: Path) -> None:
    against = benchmark(tmp_path, 1)
    summary = start(tmp_path / "run", own, f"decontaminate.against=[{against}]", "decontaminate.action=off")
    assert not (tmp_path / "run" / "decontamination.jsonl").exists()
    assert any("Decontamination is off" in note for note in summary["notes"])


def test_what_was_kept_out_is_part_of_what_stages_depend_on(tmp_path: Path, own: Path) -> None:
    against = benchmark(tmp_path, 1)
    drop = (f"decontaminate.against=[{against}]", "decontaminate.action=drop")
    start(tmp_path / "run", own, *drop)
    (tmp_path / "run" / "summary.json").unlink()  # as after a kill at the end
    for other in (("decontaminate.action=report", drop[0]), ("decontaminate.action=drop",)):
        with pytest.raises(SettingsChanged, match="decontaminate"):
            start(tmp_path / "run", own, *other)
    benchmark(tmp_path, 1, 2)
    with pytest.raises(SettingsChanged, match="decontaminate.against_sha256"):
        start(tmp_path / "run", own, *drop)


def test_a_second_start_does_not_search_again_and_finds_a_lost_report(tmp_path: Path, own: Path) -> None:
    settings = (f"decontaminate.against=[{benchmark(tmp_path, 1, 2)}]", "decontaminate.action=drop")
    start(tmp_path / "run", own, *settings)
    (tmp_path / "run" / "summary.json").unlink()
    report = tmp_path / "run" / "decontamination.jsonl"
    before, rows_before = everything(tmp_path / "run")[str(report)], report.read_bytes()
    start(tmp_path / "run", own, *settings)
    assert everything(tmp_path / "run")[str(report)] == before
    (tmp_path / "run" / "summary.json").unlink()
    report.unlink()
    start(tmp_path / "run", own, *settings)
    assert report.read_bytes() == rows_before


def test_a_run_that_has_stages_keeps_the_list_of_an_earlier_comparison(
    tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (f"decontaminate.against=[{benchmark(tmp_path, 1, 2)}]", "decontaminate.action=drop")
    start(tmp_path / "run", own, *settings)
    (tmp_path / "run" / "summary.json").unlink()
    report = tmp_path / "run" / "decontamination.jsonl"
    before = everything(tmp_path / "run")[str(report)]
    monkeypatch.setattr(problems, "COMPARISON_VERSION", problems.COMPARISON_VERSION + 1)
    start(tmp_path / "run", own, *settings)
    assert everything(tmp_path / "run")[str(report)] == before


def test_a_run_killed_while_decontaminating_ends_like_one_that_was_not(tmp_path: Path, own: Path) -> None:
    settings = (f"decontaminate.against=[{benchmark(tmp_path, *range(0, ROWS, 4))}]", "decontaminate.action=drop")
    start(tmp_path / "whole", own, *settings)
    for at in (10, 16, 24):
        folder = tmp_path / f"killed_{at}"
        assert killed(lambda folder=folder: start(folder, own, *settings), at)
        start(folder, own, *settings)
        assert contents(folder) == contents(tmp_path / "whole")


def test_distilling_takes_every_row_and_so_every_row_is_compared(tmp_path: Path, own: Path) -> None:
    against = benchmark(tmp_path, *range(10))
    drop = (f"decontaminate.against=[{against}]", "decontaminate.action=drop", "task=distill", "judge=answer")
    start(tmp_path / "run", own, *drop)
    solved = set(problems_of(tmp_path / "run" / "distill" / "paths.jsonl"))
    assert solved == {f"p{k}" for k in range(10, ROWS)}


def test_training_rows_that_are_handed_in_are_compared_too(tmp_path: Path, own: Path) -> None:
    start(tmp_path / "first", own, "task=distill", "judge=answer")
    train = tmp_path / "first" / "distill" / "train.jsonl"
    against = benchmark(tmp_path, *range(0, ROWS, 2))
    drop = (f"decontaminate.against=[{against}]", "decontaminate.action=drop")
    start(tmp_path / "run", own, *drop, "task=sft", f"sft.train={train}")
    sft = tmp_path / "run" / "sft"
    measured_on = {row["id"] for file in sft.glob("*predictions.jsonl") for row in read_jsonl(file)}
    learnt_from = set(problems_of(sft / "train.jsonl"))
    assert learnt_from == {i for i in problems_of(train) if int(i[1:]) % 2} - measured_on and learnt_from


def test_where_no_row_is_left_the_run_says_so(tmp_path: Path, own: Path) -> None:
    against = benchmark(tmp_path, *range(ROWS))
    with pytest.raises(DataError, match="every training row is in a benchmark.*decontaminate.action=report"):
        start(tmp_path / "run", own, f"decontaminate.against=[{against}]", "decontaminate.action=drop")
    counts = read_json(tmp_path / "run" / "decontamination.json")
    assert counts["dropped"] == counts["rows"] > 0
