"""generator=vllm and judge.engine=vllm: one engine for a run, whose weights are swapped in place.

``Engine(vllm=FOLDER)`` answers with real weights and takes vLLM's control requests; the stand-in of
experiments/engines is a program that is started, killed and started again. Real vLLM: tests/vllm.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from e2e.runs import ROOT, run
from engine import Engine
from evaluation.cases import TINY as EVALUATED
from evaluation.cases import configured
from evaluation.cases import run as evaluate
from small import picture, problems, tiny_backbone

from mathse.config import build
from mathse.config.backbones import TinyBackboneConfig
from mathse.config.generators import VLLMGeneratorConfig
from mathse.config.schema import TrainerConfig
from mathse.errors import ConfigError, TeacherError
from mathse.inference.generate import PromptBatch
from mathse.inference.rows import solve_row
from mathse.inference.serving.held_model import ClientLock, HeldModelLock
from mathse.inference.serving.names import content_name, make_served_folder
from mathse.inference.serving.student import ServedStudents
from mathse.inference.serving.vllm import VLLMEngine, form_of
from mathse.models import load
from mathse.models.row import Row
from mathse.runs.store import read_jsonl
from serving.test_evolve import JUDGED, LOOP, WRITTEN, same_rows, scores

STAND_IN = ROOT / "experiments" / "engines" / "stand_in.py"
GREEDY = {"max_new_tokens": 8}


def generator(place: Path, **how: Any) -> Any:
    settings = {"cache_dir": str(place / "answers"), "max_retries": 4, "timeout": 30.0, **how}
    return build(VLLMGeneratorConfig(**settings))


def students(place: Path, said: list[str] | None = None, **how: Any) -> ServedStudents:
    say = (said if said is not None else []).append
    return ServedStudents(generator(place, **how), TinyBackboneConfig(), place, TrainerConfig(), say)


def opener(checkpoint: Path) -> Callable[[], Any]:
    return lambda: load("tiny", checkpoint)


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the same form with other weights."""
    folder = tmp_path_factory.mktemp("other") / "checkpoint"
    tiny_backbone(seed=2).save(folder)
    return folder


# --- a whole run ------------------------------------------------------------------------------------------------------


def test_students_and_orm_in_one_engine_write_and_judge_what_local_ones_do(
    teacher: list[str], checkpoint: Path, orm_of: Callable[[str], Path], tmp_path: Path
) -> None:
    judged = (*LOOP, *JUDGED, f"judge.checkpoint={orm_of('analysis_first')}", *teacher)
    local = run(tmp_path / "local", *judged)
    with Engine(vllm=checkpoint) as engine:
        how = (f"base_urls=[{engine.url}]", f"cache_dir={tmp_path / 'answers'}", "max_new_tokens=8", "sleep=true")
        here = ("generator=vllm", "judge.engine=vllm", "generator.temperature=0", *(f"generator.{h}" for h in how))
        summary = run(tmp_path / "served", *judged, *here)
        loads = [body["kwargs"]["folder"] for _, body in engine.posted if body.get("method") == "mathse_load"]
        paths = [path for path, _ in engine.posted]
        bodies = engine.asked
    assert same_rows(tmp_path / "served", tmp_path / "local", *WRITTEN, "*verdicts.jsonl", but="score")
    assert scores(tmp_path / "served") == pytest.approx(scores(tmp_path / "local"), abs=1e-5)
    assert summary["stages"] == local["stages"] and summary["notes"] == local["notes"]
    # each swap is followed by the three resets, and each sleep by a load
    assert len(loads) == paths.count("/reset_encoder_cache") == paths.count("/reset_mm_cache") > 4
    assert paths.count("/sleep?level=2") >= 3 <= paths.count("/wake_up")
    # verdicts are asked for with two log-probabilities a token, and kept with two numbers
    assert any(len(body.get("logprob_token_ids", ())) == 2 and "top_logprobs" not in body for body in bodies)
    kept = [json.loads(file.read_text()) for file in (tmp_path / "answers").rglob("*.json")]
    verdicts = [answer["reply"] for answer in kept if answer["asked"]["prompt"] == "judge"]
    assert verdicts and all(len(reply["watched"]) == 2 and reply["logprobs"] is None for reply in verdicts)


def test_what_was_answered_needs_no_engine_in_another_run(
    teacher: list[str], checkpoint: Path, orm_of: Callable[[str], Path], tmp_path: Path
) -> None:
    judged = (*LOOP, *JUDGED, f"judge.checkpoint={orm_of('binary')}", *teacher, "task=distill")
    answers = ("generator=vllm", "judge.engine=vllm", f"generator.cache_dir={tmp_path / 'answers'}")
    greedy = ("generator.temperature=0", "generator.max_new_tokens=8")
    with Engine(vllm=checkpoint) as engine:
        run(tmp_path / "one", *judged, *answers, *greedy, f"generator.base_urls=[{engine.url}]")
        assert engine.asked
    run(tmp_path / "two", *judged, *answers, *greedy, "generator.program=no-such-program")
    assert same_rows(tmp_path / "two", tmp_path / "one", "*predictions.jsonl", "*verdicts.jsonl")


# --- swaps ------------------------------------------------------------------------------------------------------------


def test_weights_that_somebody_else_swapped_are_swapped_back_before_a_stage(
    checkpoint: Path, other: Path, tmp_path: Path
) -> None:
    rows = [solve_row("compact", problem) for problem in problems(3)]
    with Engine(vllm=other) as engine:
        served = students(tmp_path, base_urls=[engine.url])
        student = served.of(checkpoint, opener(checkpoint))
        assert student.generate(rows, **GREEDY) == load("tiny", checkpoint).generate(rows, **GREEDY)
        engine.post("/collective_rpc", {"method": "mathse_load", "kwargs": {"folder": str(other)}})
        assert student.generate(rows, max_new_tokens=9) == load("tiny", checkpoint).generate(rows, max_new_tokens=9)
        assert engine.held == content_name(checkpoint)


def test_a_server_that_is_away_when_weights_are_swapped_is_waited_for(
    checkpoint: Path, other: Path, tmp_path: Path
) -> None:
    rows, said, over = [solve_row("compact", problem) for problem in problems(3)], list[str](), threading.Event()
    with Engine(vllm=other) as engine:
        url, port = engine.url, engine._server.server_address[1]

    def come_back() -> None:
        while not said and not over.is_set():  # it is missed
            over.wait(0.05)
        with Engine(vllm=other, port=port):
            over.wait(60)

    returning = threading.Thread(target=come_back)
    returning.start()
    try:
        student = students(tmp_path, said, base_urls=[url]).of(checkpoint, opener(checkpoint))
        assert student.generate(rows, **GREEDY) == load("tiny", checkpoint).generate(rows, **GREEDY)
    finally:
        over.set()
        returning.join()
    assert [f"vllm: no answer from {url}, which is waited for", f"vllm: {url} answers again"] == said[:2]
    with pytest.raises(TeacherError, match="no server has answered at .* start it, or leave it out"):
        students(tmp_path, base_urls=[url], start_timeout=0.1).of(checkpoint, opener(checkpoint)).generate(
            [*rows, solve_row("compact", problems(4)[3])], **GREEDY
        )


def test_a_swap_that_took_no_weights_over_is_noticed_by_the_probe(
    checkpoint: Path, other: Path, tmp_path: Path
) -> None:
    rows = [solve_row("compact", problem) for problem in problems(3)]
    with Engine(vllm=other) as engine:
        engine.half_loads = True
        student = students(tmp_path, base_urls=[engine.url]).of(checkpoint, opener(checkpoint))
        with pytest.raises(TeacherError, match=f"does not answer as {checkpoint} does: token"):
            student.generate(rows, **GREEDY)
    assert not list((tmp_path / "answers").rglob("*.json"))


def test_two_checkpoints_of_one_form_may_take_each_others_place(
    checkpoint: Path, other: Path, orm_of: Callable[[str], Path], tmp_path: Path
) -> None:
    larger = tmp_path / "larger"
    tiny_backbone(seed=3).save(larger)
    config = json.loads((larger / "config.json").read_text())
    (larger / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    load("tiny", checkpoint).save(tmp_path / "again")  # a model that was read, as every fit's is
    folders = [checkpoint, other, orm_of("binary"), larger, tmp_path / "again"]
    forms = {form_of(make_served_folder(f, content_name(f), tmp_path / "served")) for f in folders}
    assert len(forms) == 1
    (larger / "chat_template.jinja").write_text("another")
    assert form_of(make_served_folder(larger, content_name(larger), tmp_path / "served")) not in forms


def test_requests_for_two_models_take_turns() -> None:
    lock, loaded = HeldModelLock(), list[str]()
    one, two = (ClientLock(lock, name, lambda name=name: loaded.append(name)) for name in ("one", "two"))  # type: ignore[misc]
    one.acquire()
    assert one.try_acquire() and not two.try_acquire() and loaded == ["one"]
    waiting = threading.Thread(target=two.acquire)
    waiting.start()
    one.release()
    waiting.join(0.1)
    assert waiting.is_alive() and loaded == ["one"]  # one request is still under way
    one.release()
    waiting.join(10)
    assert loaded == ["one", "two"] and two.try_acquire() and not one.try_acquire()
    lock.expire()
    assert not two.try_acquire()


# --- the process ------------------------------------------------------------------------------------------------------


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., ServedStudents]]:
    opened: list[ServedStudents] = []

    def start(said: list[str], **how: Any) -> ServedStudents:
        program = f"{sys.executable} {STAND_IN}"
        opened.append(students(tmp_path, said, program=program, probe=0, **how))
        return opened[-1]

    yield start
    for served in opened:
        served.engine.stop()


def test_one_engine_serves_all_checkpoints_and_reads_pictures_where_they_lie(
    started: Callable[..., ServedStudents], checkpoint: Path, other: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    served = started(said, options="--slots 8", max_concurrency=8)
    engine = served.engine
    assert isinstance(engine, VLLMEngine)
    picture(60, 40).save(tmp_path / "own.png")
    rows = [Row(question=f"Number {k}?", images=(str(tmp_path / "own.png"),)) for k in range(20)]
    for folder in (checkpoint, other, checkpoint):
        texts = served.of(folder, tiny_backbone).generate(rows, max_new_tokens=5 + len(said))
        assert all("The answer to this problem is" in text for (text,) in texts)
    counts = json.loads(engine.addresses[0].request_root("stats", None).text)
    assert counts["loads"] == 2 and counts["data_urls"] == 0 and counts["file_urls"] == counts["requests"] == 60
    assert len(list((tmp_path / "served" / "pictures").iterdir())) == 1
    assert [line.partition(" (")[0] for line in said if "starts" in line] == ["vllm: starts, for the whole run"]
    command = engine.arguments(checkpoint)
    assert "--worker-extension-cls" in command and "--enable-sleep-mode" not in command
    assert "--mm-processor-kwargs" not in command
    assert command[-2:] == ["--slots", "8"]


def test_internvl_pictures_are_resized_in_the_engine_by_what_resizes_them_here(tmp_path: Path) -> None:
    engine = VLLMEngine(VLLMGeneratorConfig(), tmp_path, "float32", 0, print)
    (tmp_path / "config.json").write_text('{"model_type": "internvl"}')
    command = engine.arguments(tmp_path)
    assert command[command.index("--mm-processor-kwargs") + 1] == '{"use_fast": false}'


def test_an_engine_that_is_killed_in_mid_stage_is_started_again_and_nothing_is_lost(
    started: Callable[..., ServedStudents], checkpoint: Path
) -> None:
    said: list[str] = []
    served = started(said, options="--slots 4 --tokens-per-second 200 --tokens 10-20", max_concurrency=8)
    rows = [Row(question=f"Number {k}?", images=()) for k in range(40)]
    student = served.of(checkpoint, tiny_backbone)
    engine = served.engine
    assert isinstance(engine, VLLMEngine)

    def kill() -> None:
        while not (engine._process and engine._process.child and engine.lock._held):
            time.sleep(0.01)
        time.sleep(0.3)
        supervisor = engine._process.child.process.pid
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(supervisor)], capture_output=True, text=True)
        os.kill(int(listed.stdout.split()[0]), signal.SIGKILL)

    killing = threading.Thread(target=kill)
    killing.start()
    texts = student.generate(rows, max_new_tokens=50)
    killing.join()
    assert len(texts) == 40 and all(text for (text,) in texts)
    assert sum("is started again" in line for line in said) == 1


def test_a_server_that_is_lost_leaves_its_requests_to_the_others_and_takes_part_again_when_it_is_back(
    checkpoint: Path, other: Path, tmp_path: Path
) -> None:
    progress, rows = list[str](), list[Row]()

    def asks(enough: Callable[[], bool]) -> Iterator[PromptBatch]:
        while not enough():
            rows.append(Row(question=f"Number {len(rows)}?", images=()))
            yield PromptBatch(rows[-1:], GREEDY)

    with ExitStack() as opened:
        one = opened.enter_context(Engine(vllm=checkpoint))
        with Engine(vllm=checkpoint) as two:
            url, port = two.url, two._server.server_address[1]
            served = students(tmp_path, progress, base_urls=[one.url, url], probe=2, max_concurrency=2)
            student = served.of(checkpoint, opener(checkpoint))
            texts = list(student.generate_batches(asks(lambda: len(two.asked) > 2)))
        texts += student.generate_batches(asks(lambda: len(progress) > 1 and len(rows) > 20))
        assert progress[1] == f"vllm: no answer from {url}; the other servers go on"
        two = opened.enter_context(Engine(vllm=other, port=port))
        texts += student.generate_batches(asks(lambda: len(two.asked) > 4))  # two of them are the probe's
        assert progress[2] == f"vllm: {url} answers again" and two.held == content_name(checkpoint)
    local = load("tiny", checkpoint)
    assert [text for (text,) in texts] == [local.generate([row], **GREEDY)[0] for row in rows]


# --- evaluate.py ------------------------------------------------------------------------------------------------------


def test_evaluate_has_the_student_and_the_orm_that_weighs_its_answers_in_the_engine(
    checkpoint: Path, orm_of: Callable[[str], Path], tmp_path: Path
) -> None:
    asked = (*EVALUATED, f"checkpoint={checkpoint}")
    evaluate(tmp_path / "local", *asked)
    with Engine(vllm=checkpoint) as engine:
        here = (f"generator.base_urls=[{engine.url}]", f"generator.cache_dir={tmp_path / 'answers'}", "generator=vllm")
        evaluate(tmp_path / "served", *asked, *here)
        files = (tmp_path / name / "predictions.jsonl" for name in ("local", "served"))
        assert len({file.read_text() for file in files}) == 1
        orm = (f"judge.checkpoint={orm_of('binary')}", "judge.engine=vllm", "judge.max_new_tokens=32", "selector=orm")
        evaluate(tmp_path / "weighed", *asked, *here, *orm, "n_samples=2")
        loads = [body["kwargs"]["folder"] for _, body in engine.posted if body.get("method") == "mathse_load"]
    (file,) = (tmp_path / "weighed").rglob("orm_verdicts-*.jsonl")
    verdicts = list(read_jsonl(file))
    assert len(verdicts) == 14 and all(verdict["score"] is not None for verdict in verdicts)
    assert Path(loads[-1]).name == content_name(orm_of("binary"))


def test_an_orm_in_the_engine_needs_the_engine() -> None:
    with pytest.raises(ConfigError, match="judge.engine = 'vllm': .*; pass generator=vllm too"):
        configured(*EVALUATED, "predictions=x", "judge.engine=vllm")
