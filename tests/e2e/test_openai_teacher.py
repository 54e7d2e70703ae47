"""Runs whose teacher is behind an API: the real command line against a real server on this machine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import KEY, MODEL, ApiServer, Body, pictures_in, text_of
from PIL import Image

from e2e.conftest import Command
from e2e.runs import ROOT, SIZES, contents, rows, run
from mathse.inference.llm import faults
from mathse.runs.store import read_json, read_jsonl
from mathse.types import ReasoningPath, Reflection, Verdict

COUNT = 24
FIRST = ("429", "500", "half", "not_json", None, None)
LAST = {3: "refusal", 4: "empty", 5: "cut_off", 9: "too_long"}


def number_of(text: str) -> int:
    found = re.search(r"How much is (\d+) plus one|(\d+)加一", text)
    assert found is not None
    return int(found[1] or found[2])


def teacher(body: Body) -> str:
    """Right, but for one problem in four; it finds the fault in what a student writes."""
    text = text_of(body)
    if "improvement_suggestion" in text:
        k = number_of(text)
        word: Body = {"status": "WRONG", "error_step": "Step 1", "error_analysis": "It says nothing of the sum."}
        if f"The answer to this problem is {k + 1}." in text:
            word = {"status": "CORRECT", "error_step": None, "error_analysis": None}
        return json.dumps({**word, "improvement_suggestion": "Add the numbers."})
    k = number_of(text)
    return f"Step 1: {k} + 1 = {k + 1}.\nThe answer to this problem is {k + (2 if k % 4 == 3 else 1)}."


def troubled(text: str, nth: int) -> str | None:
    k = number_of(text)
    return (FIRST[k % 6] if nth == 1 else None) or LAST.get(k)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(faults, "FIRST_WAIT_SECONDS", 0.01)
    with ApiServer(teacher) as server:
        yield server


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    """Own problems with a picture each, one of them in Chinese."""
    lines = []
    for k in range(COUNT):
        Image.new("RGB", (28, 28), (10 * k, 0, 0)).save(tmp_path / f"{k}.png")
        question = f"{k}加一等于多少？" if k == 2 else f"How much is {k} plus one?"
        lines.append({"id": f"own/{k}", "question": question, "images": [f"{k}.png"], "answer": str(k + 1)})
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def settings(api: ApiServer, problems: Path, *more: str) -> list[str]:
    place = (f"teacher.base_url={api.url}", f"teacher.cache_dir={problems.parent / 'cache'}", "teacher.timeout=5")
    return [*SIZES, "judge=answer", "data=jsonl", f"data.path={problems}", "teacher=openai", *place, *more]


def by_number(file: Path) -> dict[int, ReasoningPath]:
    return {int(p.problem_id.partition("/")[2]): p for p in read_jsonl(file, ReasoningPath)}


def files_with_the_key(folder: Path) -> list[Path]:
    return [f for f in folder.rglob("*") if f.is_file() and KEY.encode() in f.read_bytes()]


def test_distilling_through_an_api_with_all_its_troubles(
    api: ApiServer, command: Command, problems: Path, tmp_path: Path
) -> None:
    api.mood = troubled
    done = command("train.py", *settings(api, problems, "task=distill", "logger=wandb", "hydra.run.dir=run"))
    assert done.code == 0, done.err
    paths = by_number(Path("run/distill/paths.jsonl"))
    assert sorted(paths) == list(range(COUNT))
    assert {k for k, path in paths.items() if not path.text} == set(LAST)
    line = read_json(Path("run/summary.json"))["stages"][-1]
    wrong = {k for k in range(COUNT) if k % 4 == 3 and k not in LAST}
    assert (line["unparsed"], line["rejected"], line["accepted"]) == (4, len(wrong), COUNT - 4 - len(wrong))
    usage = read_json(Path("run/summary.json"))["usage"]
    assert usage["outcomes"] == {"answered": 20, "cut_off": 1, "empty": 1, "refused": 1, "rejected": 1}
    assert usage["models"] == {MODEL: COUNT - 1} and usage["paid"]["requests"] == COUNT - 1
    assert usage["paid"]["usd"] == usage["usd"] > 0 and set(api.billed.values()) == {1}
    assert "teacher: 20 answers, 1 cut off, 1 empty, 1 refused, 1 rejected" in done.out
    # each row says how it was asked, and the teacher has seen its picture
    assert {path.lineage.prompt for path in paths.values()} == {"generate/full/en/1", "generate/full/zh/1"}
    assert paths[2].lineage.prompt == "generate/full/zh/1" and paths[2].lineage.model == MODEL
    assert "本题的答案是" in next(text_of(body) for body in api.asked if number_of(text_of(body)) == 2)
    assert all(len(pictures_in(body)) == 1 for body in api.asked)
    # the key is nowhere
    assert files_with_the_key(tmp_path) == [] and KEY not in done.out + done.err
    assert any(f.suffix == ".wandb" for f in Path("run").rglob("*"))


def test_a_second_run_in_another_folder_pays_for_nothing(api: ApiServer, problems: Path, tmp_path: Path) -> None:
    first = run(tmp_path / "one", *settings(api, problems, "task=distill"))
    asked = len(api.asked)
    second = run(tmp_path / "two", *settings(api, problems, "task=distill"))
    assert len(api.asked) == asked == COUNT
    assert second["usage"]["paid"]["requests"] == 0 and second["usage"]["usd"] == first["usage"]["usd"]
    both = [(tmp_path / name / "distill" / "paths.jsonl").read_text() for name in ("one", "two")]
    assert both[0] == both[1]


def test_half_a_character_from_the_teacher_ends_no_run_be_it_new_or_from_the_cache(
    api: ApiServer, command: Command, problems: Path
) -> None:
    api.answer = lambda body: teacher(body).replace("Step 1:", "Step 1 \ud83d:")
    done = command("train.py", *settings(api, problems, "task=distill", "hydra.run.dir=new"))
    assert done.code == 0, done.err
    kept = list((problems.parent / "cache").glob("??/*.json"))
    assert len(kept) == COUNT and all("\ufffd" in file.read_text() for file in kept)
    for file in kept:  # as a version of us kept it that did not look
        file.write_text(file.read_text().replace("\ufffd", "\\ud83d"))
    done = command("train.py", *settings(api, problems, "task=distill", "hydra.run.dir=old"))
    assert done.code == 0, done.err
    assert len(api.asked) == COUNT
    rows_of = Path("old/distill/train.jsonl").read_text()
    assert Path("new/distill/train.jsonl").read_text() == rows_of
    Path("rows.jsonl").write_text(rows_of.replace("\ufffd", "\\ud83d"))
    done = command("train.py", *settings(api, problems, "task=sft", "sft.train=rows.jsonl", "hydra.run.dir=sft"))
    assert done.code == 0, done.err


def test_a_batch_gives_the_same_run_at_half_the_price(api: ApiServer, problems: Path, tmp_path: Path) -> None:
    direct = run(tmp_path / "one", *settings(api, problems, "task=distill"))
    how = (f"teacher.cache_dir={tmp_path / 'other'}", "teacher.mode=batch", "teacher.poll_seconds=0.05")
    batched = run(tmp_path / "two", *settings(api, problems, "task=distill", *how))
    assert len(api.batches) == 1
    assert batched["usage"]["usd"] == pytest.approx(direct["usage"]["usd"] / 2, abs=1e-6)
    assert batched["stages"] == direct["stages"]


def test_the_budget_ends_the_run_in_a_sentence_and_a_larger_one_goes_on(
    api: ApiServer, command: Command, problems: Path
) -> None:
    prices = ("teacher.price_input=0", "teacher.price_output=100000", "teacher.max_tokens=20", "hydra.run.dir=run")
    how = settings(api, problems, "task=distill", "teacher.max_concurrency=2", *prices)
    done = command("train.py", *how, "teacher.budget_usd=10")
    (said,) = done.err.splitlines()
    assert done.code == 1 and said.startswith("error: teacher.budget_usd = 10: $")
    assert "hydra.run.dir=run goes on from there" in said
    spent = len(api.billed)
    assert 0 < spent < COUNT
    done = command("train.py", *how, "teacher.budget_usd=1000", "teacher.max_concurrency=4")
    assert done.code == 0, done.err
    assert len(api.billed) == COUNT and set(api.billed.values()) == {1}
    assert read_json(Path("run/summary.json"))["usage"]["paid"]["requests"] == COUNT


@pytest.mark.slow
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(api: ApiServer, problems: Path, tmp_path: Path) -> None:
    api.mood = troubled
    how = settings(api, problems, "task=distill", "teacher.max_concurrency=4")
    command = [sys.executable, str(ROOT / "train.py"), *how, f"hydra.run.dir={tmp_path / 'killed'}"]
    for at in (5, 20):
        api.freeze(at)
        with subprocess.Popen(command, cwd=tmp_path, env=dict(os.environ)) as process:
            assert api.frozen.wait(120)
            time.sleep(0.3)
            process.send_signal(signal.SIGKILL)
        api.thaw()
    killed = run(tmp_path / "killed", *how)
    assert set(api.billed.values()) == {1}
    whole = run(tmp_path / "whole", *how, f"teacher.cache_dir={tmp_path / 'other'}")
    assert killed == whole
    without_account = (
        {k: v for k, v in contents(tmp_path / run).items() if k != "usage.jsonl"} for run in ("killed", "whole")
    )
    assert next(without_account) == next(without_account)


def test_the_whole_loop_is_taught_through_an_api(api: ApiServer, problems: Path, tmp_path: Path) -> None:
    loop = ("judge=teacher", "distill.judge=answer", "evolution.reflect.feedback=teacher", "evolution.reflect.tries=2")
    summary = run(tmp_path / "run", *settings(api, problems, *loop, "data.on_bad_row=skip"))
    assert [entry["stage"] for entry in summary["stages"]] == ["base", "distill", "round_01", "final"]
    verdicts = list(read_jsonl(tmp_path / "run" / "round_01" / "verdicts.jsonl", Verdict))
    judged = [v for v in verdicts if v.status == "wrong"]
    assert judged and all(v.error_step == "Step 1" and "improvement_suggestion" in (v.raw or "") for v in judged)
    made = list(read_jsonl(tmp_path / "run" / "reflection" / "reflections.jsonl", Reflection))
    assert made and {r.revised.lineage.prompt for r in made} <= {"reflect/full/en/1", "reflect/full/zh/1"}
    assert all(r.feedback is not None and r.feedback.error_analysis for r in made if r.draft.text)
    assert any(r.revised.text for r in made)
    assert summary["stages"][-1]["origins"]["reflection"] > 0
    jobs: dict[str, Any] = summary["usage"]["jobs"]
    assert {"generate", "annotate", "reflect"} <= set(jobs)
    assert sum(job["requests"] for job in jobs.values()) == summary["usage"]["requests"] == len(api.billed)
    assert set(api.billed.values()) == {1}


def test_no_rewrite_is_paid_for_where_the_orm_says_nothing_that_can_be_read(
    api: ApiServer, problems: Path, tmp_path: Path
) -> None:
    loop = ("judge=orm", "distill.judge=answer", "evolution.reflect.feedback=none", "data.on_bad_row=skip")
    summary = run(tmp_path / "run", *settings(api, problems, *loop))  # an ORM of two steps writes no JSON
    assert "reflect" not in summary["usage"]["jobs"]
    assert any("the teacher is asked for none" in note for note in summary["notes"])
    assert summary["stages"][-1]["stage"] == "final"


def test_a_raised_budget_and_another_address_are_no_other_run(api: ApiServer, command: Command, problems: Path) -> None:
    how = settings(api, problems, "task=distill", "hydra.run.dir=run")
    assert command("train.py", *how).code == 0
    Path("run/summary.json").unlink()
    done = command("train.py", *how, "teacher.budget_usd=5", "teacher.max_concurrency=1", "teacher.mode=batch")
    assert done.code == 0 and "distill: finished before, kept" in done.out
    Path("run/summary.json").unlink()
    done = command("train.py", *how, "teacher.temperature=0.1")
    assert done.code == 1 and "teacher.temperature: recorded 0.7, now 0.1" in done.err


def test_the_student_can_be_its_own_teacher(problems: Path, tmp_path: Path) -> None:
    how = (*SIZES, "data=jsonl", f"data.path={problems}", "teacher=student", "judge=random", "distill.judge=random")
    summary = run(tmp_path / "run", *how, "evolution.reflect.feedback=teacher")
    paths = list(read_jsonl(tmp_path / "run" / "distill" / "paths.jsonl", ReasoningPath))
    assert paths and {p.lineage.model for p in paths} == {"base/checkpoint"}
    assert {p.lineage.prompt for p in paths} == {"generate/compact/1"}
    made = list(read_jsonl(tmp_path / "run" / "reflection" / "reflections.jsonl", Reflection))
    assert {r.revised.lineage.model for r in made} == {"round_01/checkpoint"}
    assert {r.feedback.judge for r in made if r.feedback} == {"teacher"}
    assert "usage" not in summary and rows(tmp_path / "run" / "final" / "train.jsonl")


def test_a_missing_key_is_told_before_anything_is_trained(
    command: Command, problems: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    done = command("train.py", *SIZES, "data=jsonl", f"data.path={problems}", "teacher=openai", "hydra.run.dir=run")
    (said,) = done.err.splitlines()
    assert done.code == 1 and "teacher.api_key_env = 'OPENAI_API_KEY': this environment variable is not set" in said
    assert not Path("run/base/checkpoint").exists()


def test_a_key_on_the_command_line_is_refused_unrepeated(command: Command, problems: Path) -> None:
    for setting in (f"teacher.api_key={KEY}", f"teacher.api_key_env={KEY}"):
        done = command("train.py", *SIZES, "data=jsonl", f"data.path={problems}", "teacher=openai", setting)
        assert done.code == 1 and KEY not in done.out + done.err, done.err
