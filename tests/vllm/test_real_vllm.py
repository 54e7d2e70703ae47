"""What generator=vllm and judge.engine=vllm promise, on real vLLM: this process's answers, through swaps and kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from e2e.runs import ROOT
from serving.conftest import teach_orm
from small import path, picture, problems

from mathse.config.backbones import InternVL25BackboneConfig, Qwen2VLBackboneConfig, TinyBackboneConfig
from mathse.config.judges import JudgeConfig
from mathse.inference.rows import solve_row
from mathse.inference.serving.student import ServedStudents
from mathse.inference.serving.vllm import VLLMEngine
from mathse.judges.orm import open_orm
from mathse.judges.served_orm import ServedORM
from mathse.models import load
from mathse.models.internvl2_5.tiny import tiny_internvl2_5
from mathse.models.row import Row
from mathse.models.tiny import TinyBackbone, tiny_qwen2vl
from mathse.runs.store import read_json, read_jsonl
from vllm.conftest import OPTIONS

pytestmark = pytest.mark.vllm
Open = Callable[..., ServedStudents]


SIZES = TinyBackboneConfig(
    hidden_size=64, layers=2, heads=2, mlp_size=128, vision_size=32
)  # heads of 32, which vLLM takes


def checkpoint(folder: Path, seed: int) -> Path:
    TinyBackbone(SIZES, init_seed=seed).save(folder)
    return folder


def rows(count: int) -> list[Row]:
    prompts = [solve_row("compact", problem) for problem in problems(count)]
    prompts.append(Row(question="What is 3 plus 4?", images=()))
    prompts.append(Row(question="Which is larger?", images=[picture(56, 84), picture(140, 28, seed=1)]))
    prompts.append(Row(question="And now?", images=[picture(28, 28)], history=[("What is it?", "It is 4.")]))
    return prompts


def below(pid: int, deep: bool = True) -> list[int]:
    """The processes that a process has started, and those that they have."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()[1:]]
    children = [child for child, parent in pairs if parent == pid]
    return [*children, *(further for child in children for further in below(child))] if deep else children


def engine_pids(engine: VLLMEngine) -> list[int]:
    """The processes of the engine: the server and what it started."""
    assert engine._process is not None and engine._process.child is not None
    return below(engine._process.child.process.pid)


def texts(answers: list[list[str]]) -> list[list[str]]:
    """Without a character that was cut off in the middle at the end, which engines leave out or write as U+FFFD."""
    return [[text.rstrip("\ufffd") for text in row] for row in answers]


def test_one_engine_answers_as_each_checkpoint_through_swaps_and_kills(students: Open, tmp_path: Path) -> None:
    served, prompts = students(SIZES), rows(12)
    engine = served.engine
    assert isinstance(engine, VLLMEngine)
    folders = {seed: checkpoint(tmp_path / f"checkpoint_{seed}", seed) for seed in (1, 2)}
    local, student = load("tiny", folders[1]), served.of(folders[1], lambda: load("tiny", folders[1]))
    assert texts(student.generate(prompts, max_new_tokens=16)) == texts(local.generate(prompts, max_new_tokens=16))

    # the ORM takes the student's place: verdicts, and P(correct) from two log-probabilities a token
    orm = teach_orm("analysis_first", tmp_path / "orm", TinyBackbone(SIZES, init_seed=5), steps=100, lr=5e-3)
    chosen = problems(12)
    said = [f"Step 1: {k}.\nThe answer to this problem is {k % 10}." for k in range(len(chosen))]
    paths = [path(problem.id, text=text) for problem, text in zip(chosen, said, strict=True)]
    settings = JudgeConfig(engine="vllm", max_new_tokens=40)
    judge = ServedORM(settings, SIZES, tmp_path, engine).of(orm, lambda: load("tiny", orm))
    there = judge.judge(chosen, paths)
    local_ones = open_orm(orm, lambda: load("tiny", orm), 40).judge(chosen, paths)
    assert [(v.status, v.error_step, v.error_analysis) for v in there] == [
        (v.status, v.error_step, v.error_analysis) for v in local_ones
    ]
    assert [v.score for v in there] == [pytest.approx(v.score, abs=1e-4) for v in local_ones]
    assert {v.status for v in there} == {"correct", "wrong"} and None not in [v.score for v in there]

    # the next round's student, and samples of it
    other, next_one = load("tiny", folders[2]), served.of(folders[2], lambda: load("tiny", folders[2]))
    assert texts(next_one.generate(prompts, max_new_tokens=16)) == texts(other.generate(prompts, max_new_tokens=16))
    drawn = next_one.generate(prompts, max_new_tokens=8, n=3, temperature=1.0, seed=7)
    assert [len(samples) for samples in drawn] == [3] * len(prompts) and any(len(set(samples)) > 1 for samples in drawn)
    assert engine._log.read_text().count("POST /reset_encoder_cache") == 2 and engine.loads == 3

    # killed in the middle of a stage: started again, and nothing is lost
    pids = engine_pids(engine)
    killing = threading.Timer(0.5, lambda: [os.kill(pid, signal.SIGKILL) for pid in pids])
    killing.start()
    longer = {"max_new_tokens": 150}
    assert texts(next_one.generate(prompts, **longer)) == texts(other.generate(prompts, **longer))
    killing.join()
    assert not set(engine_pids(engine)) & set(pids) and engine.loads == 4


@pytest.mark.parametrize(
    ("family", "section"), [("qwen2vl", Qwen2VLBackboneConfig()), ("internvl2_5", InternVL25BackboneConfig())]
)
def test_prompts_of_the_real_families_are_read_alike(family: str, section: Any, students: Open, tmp_path: Path) -> None:
    """Counts of prompt tokens, among them those of pictures that are cut into tiles or scaled, and greedy answers."""
    make = {"qwen2vl": tiny_qwen2vl, "internvl2_5": tiny_internvl2_5}[family]
    made, folder = tmp_path / "made", tmp_path / "checkpoint"
    make(1, heads=2).save(made)
    load(family, made).save(folder)  # as a run's base stage: with the family's own pixel bounds
    local = load(family, folder)
    sizes = [(28, 28), (56, 84), (84, 56), (300, 200), (90, 310)]
    prompts = [Row(question=f"What is {k}?", images=[picture(*size, seed=k)]) for k, size in enumerate(sizes)]
    prompts += [
        Row(question="And these?", images=[picture(56, 56), picture(84, 28)]),
        Row(question="2 + 2?", images=()),
    ]
    student = students(section).of(folder, lambda: load(family, folder))
    by_engine = texts(student.generate(prompts, max_new_tokens=12))
    by_checkpoint = texts(local.generate(prompts, max_new_tokens=12))
    assert by_engine == by_checkpoint
    for row in prompts:  # each one's own count, not only the first ones'
        body = student.model.dialect.body(student.model.request(row), "x")
        answered = student.model.engine.addresses[0].chat({**body, "max_tokens": 1})
        assert json.loads(answered.text)["usage"]["prompt_tokens"] == len(local.encode([row])[0].prompt)


# --- a whole run ------------------------------------------------------------------------------------------------------

# The smoke run as its users start it, greedy throughout, so that one engine's paths can be held against another's.
GREEDY = ("generator.temperature=0", "generator.top_p=1", "generator.max_new_tokens=56", "orm.temperature=0")
# Its ORM is fitted for longer, until its critiques have their form: else no verdict has a probability.
SMOKE = ("experiment=smoke", "progress=plain", "orm.order=verdict_first", "orm.fit.max_steps=150")
ENGINE = ("generator=vllm", "judge.engine=vllm", f"generator.options='{OPTIONS}'")


def train(folder: Path, *settings: str) -> list[str]:
    command = [sys.executable, str(ROOT / "train.py"), *SMOKE, *settings, *GREEDY]
    return [*command, f"hydra.run.dir={folder}"]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with both models in its own process."""
    folder = tmp_path_factory.mktemp("local") / "run"
    subprocess.run(train(folder), check=True, stdout=subprocess.DEVNULL)
    return folder


def same_as(local: Path, served: Path) -> None:
    assert read_json(served / "summary.json")["stages"] == read_json(local / "summary.json")["stages"]
    for pattern in ("paths.jsonl", "*predictions.jsonl", "train.jsonl", "*verdicts.jsonl"):
        by_hf, by_vllm = (rows_without_scores(folder, pattern) for folder in (local, served))
        assert by_hf and by_hf == by_vllm, pattern
    scores = [
        [row["score"] for file in sorted(folder.rglob("*verdicts.jsonl")) for row in read_jsonl(file)]
        for folder in (local, served)
    ]
    assert any(score is not None for score in scores[0]) and scores[1] == pytest.approx(scores[0], abs=1e-4)


def starts(run: Path) -> int:
    """How often an engine was started, whatever the number of its processes."""
    return (run / "served" / "vllm.log").read_text().count("non-default args")


def test_a_run_in_one_engine_with_two_replicas_writes_and_judges_as_a_local_one(
    program: str, local: Path, tmp_path: Path
) -> None:
    """The whole of Algorithm 1: base, ORM, distillation, a round, reflection, the final student."""
    engine = (f"generator.program={program}", f"generator.cache_dir={tmp_path / 'answers'}", "generator.replicas=2")
    subprocess.run(train(tmp_path / "served", *ENGINE, *engine), check=True)
    same_as(local, tmp_path / "served")
    assert starts(tmp_path / "served") == 1
    assert (tmp_path / "served" / "served" / "vllm.log").read_text().count("POST /reset_mm_cache") > 4


def test_kills_of_engine_and_run_and_both_change_nothing(program: str, local: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers"
    command = train(tmp_path / "served", *ENGINE, f"generator.program={program}", f"generator.cache_dir={answers}")

    def run_up_to(count: int) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command)
        while sum(1 for _ in answers.rglob("*.json")) < count:
            assert process.poll() is None
            time.sleep(0.05)
        return process

    def kill(*pids: int) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    run = run_up_to(30)
    kill(*(pid for supervisor in below(run.pid, deep=False) for pid in below(supervisor)))  # the engine: it comes back
    while sum(1 for _ in answers.rglob("*.json")) < 150:
        assert run.poll() is None
        time.sleep(0.05)
    kill(run.pid)  # the run: the engine goes with it
    run.wait()
    run = run_up_to(300)
    kill(run.pid, *below(run.pid))  # both
    run.wait()
    written_before = {file: file.stat().st_mtime_ns for file in answers.rglob("*.json")}
    subprocess.run(command, check=True)
    same_as(local, tmp_path / "served")
    assert starts(tmp_path / "served") == 4
    assert all(file.stat().st_mtime_ns == written for file, written in written_before.items())  # none was asked again


def rows_without_scores(folder: Path, pattern: str) -> dict[str, list[object]]:
    """The last digits of P(correct) go by the batch; texts of random weights have bytes that are no character, which
    engines leave out or write as U+FFFD, so that a prediction may be such bytes, or none."""

    def rounded(row: dict[str, object]) -> dict[str, object]:
        texts = {key: str(value).replace("\ufffd", "") for key, value in row.items() if key not in ("score", "raw")}
        if "prediction" in texts:
            texts["prediction"] = texts["prediction"].removesuffix("None").strip()
        return texts

    return {
        str(file.relative_to(folder)): [rounded(row) for row in read_jsonl(file)]
        for file in sorted(folder.rglob(pattern))
    }
