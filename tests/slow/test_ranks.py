"""Runs of two processes through train.py and evaluate.py, and what becomes of them when one of them is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from e2e.runs import ROOT, TINY, WORLD, contents, rows
from safetensors.torch import load_file
from small import log_of

from mathse.runs.store import read_json

pytestmark = pytest.mark.slow

STUCK = 300  # seconds after which a run is rather ended than waited for
EXACT = (*TINY, "trainer.precision=32-true", "trainer.log_every=1", "generator.batch_size=3", "evaluation.batch_size=3")
TWO = ("trainer.devices=2", "trainer.accelerator=cpu", "trainer.workers=0")
DDP, FSDP = ("trainer=ddp", *TWO), ("trainer=fsdp", *TWO)


def start(program: str, *settings: str, launcher: Sequence[str] = (sys.executable,)) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*launcher, str(ROOT / program), *settings], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(program: str, *settings: str, launcher: Sequence[str] = (sys.executable,)) -> str:
    """What a program said that ended well."""
    process = start(program, *settings, launcher=launcher)
    said, _ = process.communicate(timeout=STUCK)
    assert process.returncode == 0, said
    return said


def fitted(folder: Path, *settings: str) -> Path:
    run("train.py", *EXACT, *settings, f"hydra.run.dir={folder}")
    return folder


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """The ranks that a run has started, rank 0 first."""
    found = subprocess.run(["ps", "--ppid", str(process.pid), "-o", "pid="], capture_output=True, text=True)
    return sorted(map(int, found.stdout.split()))


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + STUCK
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.02)


def wait_until_gone(pids: Sequence[int]) -> None:
    end = time.monotonic() + STUCK
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < end:
        time.sleep(0.02)


def apart(one: Path, other: Path) -> float:
    """The largest difference between two checkpoints' weights."""
    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert a.keys() == b.keys()
    return max(float((a[k] - b[k]).abs().max()) for k in a)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted(tmp_path_factory.mktemp("single") / "run", "trainer=cpu")


@pytest.fixture(scope="module")
def ddp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted(tmp_path_factory.mktemp("ddp") / "run", *DDP)


MANY = ("sft.max_steps=30", "trainer.checkpoint_every=4")


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted(tmp_path_factory.mktemp("longer") / "run", *DDP, *MANY)


STAGES = ("base", "orm/student_8", "orm/solver", "orm", "distill", "round_01", "final")


def comparable(single: Path, other: Path) -> None:
    """Every stage of both runs has the same rows, and all but the same weights."""
    names = {f.relative_to(single) for f in single.rglob("*.jsonl")}
    assert names == {f.relative_to(other) for f in other.rglob("*.jsonl")}
    for stage in STAGES:
        assert apart(single / stage / "checkpoint", other / stage / "checkpoint") < 1e-5, stage
    for name in sorted(names):
        if name.name == "train_log.jsonl":
            for a, b in zip(log_of((single / name).parent), log_of((other / name).parent), strict=True):
                assert a.keys() == b.keys() and all(b[k] == pytest.approx(a[k], abs=2e-5) for k in a)
        elif "verdicts" not in name.name and "held" not in name.name:  # those hold an ORM's probability
            assert (single / name).read_bytes() == (other / name).read_bytes(), name


def test_two_ddp_ranks_make_the_run_of_one_process(single: Path, ddp: Path) -> None:
    comparable(single, ddp)


def test_two_fsdp_ranks_make_the_run_of_one_process(single: Path, tmp_path: Path) -> None:
    comparable(single, fitted(tmp_path / "run", *FSDP))


@pytest.mark.parametrize("family", ["qwen2vl", "internvl2_5", "cogvlm2"])
def test_two_fsdp_ranks_fit_every_family_as_one_process_does(single: Path, tmp_path: Path, family: str) -> None:
    subprocess.run([sys.executable, "-m", "mathse", "tiny", family, str(tmp_path / "tiny")], cwd=ROOT, check=True)
    settings = ("experiment=smoke", "task=sft", f"sft.train={single / 'final' / 'train.jsonl'}", *WORLD,
                f"backbone={family}", f"backbone.path={tmp_path / 'tiny'}", "sft.epochs=null", "sft.max_steps=3",
                "sft.method=full", "sft.batch_size=6", "sft.micro_batch_size=2",
                "evaluation.max_new_tokens=4", "progress=plain", "trainer.precision=32-true")  # fmt: skip
    run("train.py", *settings, "trainer=cpu", f"hydra.run.dir={tmp_path / 'one'}")
    run("train.py", *settings, *FSDP, f"hydra.run.dir={tmp_path / 'two'}")
    assert apart(tmp_path / "one" / "sft" / "checkpoint", tmp_path / "two" / "sft" / "checkpoint") < 1e-5


def test_two_ranks_predict_what_one_process_does_to_the_byte(single: Path, tmp_path: Path) -> None:
    asked = (f"checkpoint={single / 'final' / 'checkpoint'}", "evaluation.limit=20", "evaluation.batch_size=3",
             "evaluation.max_new_tokens=8")  # fmt: skip
    run("evaluate.py", *asked, f"hydra.run.dir={tmp_path / 'one'}")
    run("evaluate.py", *asked, *DDP, f"hydra.run.dir={tmp_path / 'two'}")
    found = sorted(f.relative_to(tmp_path / "one") for f in (tmp_path / "one").rglob("predictions.jsonl"))
    assert found
    for name in found:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_reflecting_student_writes_on_both_ranks_what_it_writes_on_one(tmp_path: Path) -> None:
    writes = ("evolution.reflect.writer=student", "sft.max_steps=1", "generator.batch_size=2")
    one = fitted(tmp_path / "one", "trainer=cpu", *writes)
    two = fitted(tmp_path / "two", *DDP, *writes)
    written = "reflection/reflections.jsonl"
    assert rows(one / written) and (one / written).read_bytes() == (two / written).read_bytes()


@pytest.mark.parametrize(
    ("which", "sent", "end"),
    [
        (0, signal.SIGKILL, "was ended by SIGKILL"),
        (1, signal.SIGKILL, "was ended by SIGKILL"),
        (0, signal.SIGSTOP, "did not answer the others any more"),
        (1, signal.SIGSTOP, "did not answer the others any more"),
    ],
    ids=["rank_0_killed", "rank_1_killed", "rank_0_stuck", "rank_1_stuck"],
)
def test_a_rank_that_is_lost_is_started_again_and_the_run_ends_in_the_same_bytes(
    longer: Path, tmp_path: Path, which: int, sent: signal.Signals, end: str
) -> None:
    folder = tmp_path / "run"
    process = start("train.py", *EXACT, *DDP, *MANY, "trainer.timeout_minutes=0.5", f"hydra.run.dir={folder}")
    wait_for(lambda: list((folder / "distill" / "fit").glob("point_*")), process)
    started = ranks_of(process)
    assert len(started) == 2
    os.kill(started[which], sent)
    said, _ = process.communicate(timeout=STUCK)
    assert process.returncode == 0, said
    assert f"rank {which} {end}; all ranks start again and continue from the run folder (restart 1 of 3)" in said
    assert "Traceback" not in said and not any(Path(f"/proc/{pid}").exists() for pid in started)
    assert contents(folder) == contents(longer)


def test_a_run_goes_on_with_one_rank_where_two_began_it_and_says_what_that_changes(tmp_path: Path) -> None:
    process = start("train.py", *EXACT, *DDP, *MANY, f"hydra.run.dir={tmp_path / 'run'}")
    wait_for(lambda: list((tmp_path / "run" / "distill" / "fit").glob("point_*")), process)
    started = ranks_of(process)
    process.kill()
    process.communicate()
    wait_until_gone(started)
    said = run("train.py", *EXACT, "trainer=cpu", *MANY, f"hydra.run.dir={tmp_path / 'run'}")
    assert "continues with 1 rank: trainings by 2 ranks (ddp) stay (orm/student_8, orm/solver, orm)" in said
    assert "the training of distill by 2 ranks (ddp) continues from its resume point" in said
    records = {stage: read_json(tmp_path / "run" / stage / "stage.json")["config"] for stage in STAGES}
    devices = {stage: record.get("trainer.devices") for stage, record in records.items()}
    by_two = dict.fromkeys(("orm/student_8", "orm/solver", "orm"), 2)
    assert devices == {"base": None, **by_two, "distill": "2, then 1", "round_01": 1, "final": 1}
    assert any("continues with 1 rank" in note for note in read_json(tmp_path / "run" / "summary.json")["notes"])


KILLS = 10


@pytest.mark.parametrize("settings", [DDP, FSDP], ids=["ddp", "fsdp"])
def test_ten_kills_of_ranks_and_agent_change_nothing(
    request: pytest.FixtureRequest, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    """At random moments; a rank is started again by its agent, a killed agent (the command itself) by the command."""
    whole = request.getfixturevalue("longer") if settings is DDP else fitted(tmp_path / "whole", *settings, *MANY)
    draw, landed = random.Random(0), 0
    for attempt in count():  # a quick machine ends a run before ten kills
        folder = tmp_path / str(attempt)
        command = (*EXACT, *settings, *MANY, f"trainer.max_restarts={KILLS}", f"hydra.run.dir={folder}")
        process, said = start("train.py", *command), ""
        while landed < KILLS:
            try:
                said, _ = process.communicate(timeout=draw.uniform(4, 22))
                break
            except subprocess.TimeoutExpired:
                victim = draw.choice([process.pid, *ranks_of(process)])
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                landed += 1
            if victim == process.pid:
                process.communicate()  # its ranks hold the pipe, and end with it
                process = start("train.py", *command)
        if process.poll() is None:
            said, _ = process.communicate(timeout=STUCK)
        assert process.returncode == 0 and "Traceback" not in said, said
        assert contents(folder) == contents(whole)
        if landed == KILLS:
            return


def test_ctrl_c_ends_both_ranks_with_one_sentence(tmp_path: Path) -> None:
    process = start("train.py", *EXACT, *DDP, "sft.max_steps=500", f"hydra.run.dir={tmp_path / 'run'}")
    wait_for(lambda: (tmp_path / "run" / "distill" / "train_log.jsonl").exists(), process)
    started = ranks_of(process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=STUCK)
    assert process.returncode == 130 and said.splitlines()[-1] == "stopped; the same command continues from here"
    assert "Traceback" not in said and not any(Path(f"/proc/{pid}").exists() for pid in started)


def test_a_folder_in_use_is_one_sentence_with_ranks_too(tmp_path: Path) -> None:
    process = start("train.py", *EXACT, "trainer=cpu", "sft.max_steps=500", f"hydra.run.dir={tmp_path / 'run'}")
    wait_for((tmp_path / "run" / "run.json").exists, process)
    second = start("train.py", *EXACT, *DDP, f"hydra.run.dir={tmp_path / 'run'}")
    said, _ = second.communicate(timeout=STUCK)
    process.kill()
    process.communicate()
    errors = [line for line in said.splitlines() if "error" in line]
    assert second.returncode == 1 and len(errors) == 1 and "is in use by process" in errors[0], said


def test_a_finished_run_is_found_finished_and_a_wrong_setting_starts_no_rank(ddp: Path, tmp_path: Path) -> None:
    before = contents(ddp)
    assert "was finished before; nothing to do" in run("train.py", *EXACT, *DDP, f"hydra.run.dir={ddp}")
    assert contents(ddp) == before
    process = start("train.py", *EXACT, "trainer.devices=2", f"hydra.run.dir={tmp_path / 'run'}")
    said, _ = process.communicate(timeout=STUCK)
    assert process.returncode == 1 and said.startswith("error: trainer.devices = 2: several devices need a strategy")


def test_each_job_of_a_sweep_starts_ranks_of_its_own(tmp_path: Path) -> None:
    short = ("task=distill", "judge=answer", "seed=0,1", f"hydra.sweep.dir={tmp_path}")
    run("train.py", "-m", *EXACT, *DDP, *short)
    summaries = [read_json(file) for file in tmp_path.rglob("summary.json")]
    assert sorted(summary["seed"] for summary in summaries) == [0, 1]


def test_ranks_that_torchrun_started_make_the_same_run(ddp: Path, tmp_path: Path) -> None:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone")
    run("train.py", *EXACT, *DDP, f"hydra.run.dir={tmp_path / 'run'}", launcher=torchrun)
    assert contents(tmp_path / "run") == contents(ddp)


def test_torchrun_starts_a_killed_rank_again_and_none_outlives_it(longer: Path, tmp_path: Path) -> None:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "--max-restarts=2")
    command = (*EXACT, *DDP, *MANY, f"hydra.run.dir={tmp_path / 'run'}")
    process = start("train.py", *command, launcher=torchrun)
    wait_for(lambda: list((tmp_path / "run" / "distill" / "fit").glob("point_*")), process)
    os.kill(ranks_of(process)[1], signal.SIGKILL)
    wait_for((tmp_path / "run" / "distill" / "stage.json").exists, process)
    started = ranks_of(process)
    assert len(started) == 2
    process.kill()
    process.communicate(timeout=STUCK)  # returns once nobody holds the pipe
    wait_until_gone(started)  # who has no parent left is taken away by the system, in its own time
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)
    run("train.py", *command, launcher=torchrun)
    assert contents(tmp_path / "run") == contents(longer)
