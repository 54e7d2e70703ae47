"""evaluate.py as it is started: published outputs give the published numbers, real pictures are answered, mistakes end
in one sentence."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from evaluation.cases import leave_scoring_processes
from evaluation.cases import run as evaluated

from e2e.conftest import Command, Outcome
from e2e.runs import ROOT, contents, killed, rows
from mathse.__main__ import main as mathse
from mathse.runs.store import read_json

Row = dict[str, Any]


def zipped(file: Path) -> Iterator[Row]:
    with gzip.open(file) as lines:
        yield from map(json.loads, lines)


def write(file: Path, given: list[Row]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in given))
    return file


# --- published outputs ------------------------------------------------------------------------------------------------


def smallest(folder: Path, beside: str) -> Path:
    """The smallest file of outputs that has published figures beside it."""
    found = [f for f in folder.glob("*.jsonl.gz") if f.with_name(f.name.removesuffix(".jsonl.gz") + beside).is_file()]
    if not found:
        pytest.skip(f"needs published outputs in {folder}")
    return min(found, key=lambda f: f.stat().st_size)


@pytest.mark.slow
def test_published_mathvista_outputs_give_the_published_groups(fixtures: Path, tmp_path: Path) -> None:
    """Each file's groups under the released rule, or under the strict one that the files of 2023 obey; the verdicts of
    the released rule in any case. Groups go by the metadata in the outputs, which has changed since."""
    folder = fixtures / "benchmarks" / "mathvista"
    published = sorted(folder.glob("*.scores.json"))
    if not published:
        pytest.skip(f"needs published outputs in {folder}")
    for scores in published:
        name = scores.name.removesuffix(".scores.json")
        given = list(zipped(folder / f"{name}.jsonl.gz"))
        keys = ("pid", "response", "extraction", "metadata")
        file = write(tmp_path / f"{name}.jsonl", [{key: row.get(key) for key in keys} for row in given])
        official, found = counts(read_json(scores)), {}
        for rule in ("released", "strict"):
            settings = ["benchmark=mathvista", f"benchmark.mathvista.problems={folder / 'testmini.jsonl.gz'}"]
            out = tmp_path / name / rule
            evaluated(out, *settings, f"benchmark.mathvista.rule={rule}", f"predictions={file}")
            found[rule] = counts(read_json(out / "mathvista" / "metrics.json")["buckets"])
            if found[rule] == official:
                break
        scored = rows(tmp_path / name / "released" / "mathvista" / "scored.jsonl")
        assert {r["id"]: r["correct"] for r in scored} == {r["pid"]: r["expected_released_true"] for r in given}, name
        assert official in found.values(), name


def counts(groups: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """(right, of) by group and key."""
    flat = {f"{group}/{key}": v for group, keys in groups.items() if group != "average" for key, v in keys.items()}
    return {name: (share["correct"], share["total"]) for name, share in [("average", groups["average"]), *flat.items()]}


@pytest.mark.slow
def test_published_mathvision_outputs_give_the_published_strings(
    fixtures: Path, tmp_path: Path, command: Command
) -> None:
    folder = fixtures / "benchmarks" / "mathvision"
    outputs = smallest(folder, "_result.json")
    file = write(tmp_path / "answers.jsonl", [{"id": r["id"], "response": r["response"]} for r in zipped(outputs)])
    problems = f"benchmark.mathvision.problems={folder / 'test.jsonl.gz'}"
    done = command("evaluate.py", "benchmark=mathvision", problems, f"predictions={file}", "hydra.run.dir=out")
    assert done.code == 0, done.err
    published = read_json(outputs.with_name(outputs.name.removesuffix(".jsonl.gz") + "_result.json"))
    found = read_json(Path("out/mathvision/metrics.json"))
    assert found["buckets"] == published
    assert found["buckets"]["-all"].startswith(f"{found['correct']}/{found['total']}=")
    assert "latex2sympy2 1.9.1" in found["protocol"]["parser"]


def test_scoring_a_file_loads_no_model_and_no_torch(tmp_path: Path) -> None:
    problem = {"id": "1", "question": "1 + 1?", "options": [], "answer": "2", "level": 1, "subject": "arithmetic"}
    problems = write(tmp_path / "problems.jsonl", [{**problem, "image": "images/1.jpg"}])
    file = write(tmp_path / "answers.jsonl", [{"id": "1", "response": "2"}])
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['evaluate.py', 'benchmark=mathvision', 'benchmark.mathvision.problems={problems}', "
        f"'predictions={file}', 'hydra.run.dir=out']\n"
        f"runpy.run_path({str(ROOT / 'evaluate.py')!r}, run_name='__main__')\n"
        "sys.exit('torch was loaded' if 'torch' in sys.modules else 0)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_json(tmp_path / "out" / "mathvision" / "metrics.json")["accuracy"] == 1


# --- a real architecture on real pictures -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen2-VL's own architecture, tiny, with random weights."""
    folder = tmp_path_factory.mktemp("qwen") / "checkpoint"
    assert mathse(["tiny", "qwen2vl", str(folder)]) == 0
    return folder


@pytest.fixture
def real(fixtures: Path, tmp_path: Path) -> list[str]:
    """Settings for MathVista and MATH-Vision problems with their pictures."""
    settings = ["benchmark=[mathvista,mathvision]"]
    for name, source in (("mathvista", "mathvista_notebook"), ("mathvision", "mathvision")):
        records = fixtures / "datasets" / source / "records.jsonl"
        if not records.is_file():
            pytest.skip(f"needs {records}")
        problems = [{**row, "image": row["image_file"]} for row in rows(records)][:6]
        write(tmp_path / f"{name}.jsonl", problems)
        settings.append(f"benchmark.{name}.problems={tmp_path / name}.jsonl")
        settings.append(f"benchmark.{name}.images={records.parent}")
    return settings


QUICK = ("backbone=qwen2vl", "evaluation.batch_size=2", "evaluation.max_new_tokens=4")


@pytest.mark.slow
def test_real_pictures_are_answered_and_two_kills_change_nothing(real: list[str], qwen: Path, tmp_path: Path) -> None:
    settings = (*QUICK, *real, f"checkpoint={qwen}")
    leave_scoring_processes()
    kills = [killed(partial(evaluated, tmp_path / "run", *settings), at) for at in (28, 20)]
    assert kills == [True, True] and predicted(tmp_path / "run") > 2
    evaluated(tmp_path / "run", *settings)
    evaluated(tmp_path / "whole", *settings)
    each_once(tmp_path / "run", tmp_path / "whole")


def each_once(run: Path, whole: Path) -> None:
    """``run`` has every prediction once, and the same as a run that nobody killed."""
    for name in ("mathvista", "mathvision"):
        written = [row["id"] for row in rows(run / name / "predictions.jsonl")]
        assert len(written) == len(set(written)) == read_json(run / name / "metrics.json")["total"]
        for file in ("predictions.jsonl", "scored.jsonl"):
            assert (run / name / file).read_text() == (whole / name / file).read_text()


@pytest.mark.slow
def test_an_evaluation_killed_twice_ends_with_each_prediction_made_once(
    real: list[str], qwen: Path, tmp_path: Path
) -> None:
    """The kills are real ones, as soon as there are a few more predictions than before."""
    run = tmp_path / "run"
    command = [sys.executable, str(ROOT / "evaluate.py"), *real, *QUICK, f"checkpoint={qwen}", "progress=plain"]
    kills = 0
    for wanted in (3, 8):
        with subprocess.Popen([*command, f"hydra.run.dir={run}"], stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and predicted(run) < wanted:
                time.sleep(0.01)
            kills += process.poll() is None
            os.kill(process.pid, signal.SIGKILL)
    assert kills == 2
    done = subprocess.run([*command, f"hydra.run.dir={run}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    subprocess.run([*command, f"hydra.run.dir={tmp_path / 'whole'}"], check=True, stdout=subprocess.DEVNULL)
    each_once(run, tmp_path / "whole")


def predicted(run: Path) -> int:
    files = [run / name / "predictions.jsonl" for name in ("mathvista", "mathvision")]
    return sum(file.read_bytes().count(b"\n") for file in files if file.is_file())


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    """Three MATH-Vision problems without pictures."""
    return write(tmp_path / "problems.jsonl", [
        {"id": str(k), "question": f"How much is {k} + 0?\n<image1>", "options": [], "answer": str(k), "level": 1,
         "subject": "arithmetic", "image": f"images/{k}.jpg"}
        for k in (1, 2, 3)
    ])  # fmt: skip


def answers(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(line + "\n" for line in lines))
    return file


RIGHT = tuple(f'{{"id": "{k}", "response": "{k}"}}' for k in (1, 2, 3))


def one_sentence(done: Outcome, *says: object) -> None:
    assert done.code == 1, done.out
    lines = done.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.err
    assert all(str(part) in lines[0] for part in says), lines[0]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (('{"id": "1", "response": "1"}', '{"id": "2", "resp'), (":2: broken JSON", "one JSON object a line")),
        ((*RIGHT, '{"id": "4", "response": "4"}'), (":4: id '4' is none of mathvision's 3", "remove the row")),
        ((*RIGHT, RIGHT[1]), (":4: id '2' is already in line 2", "keep one")),
        ((), ("holds no rows", "write one answer a line")),
        (RIGHT[:2], ("lacks 1 of mathvision's 3 answers", "partial=true")),
        (('{"pid": "1", "response": "1"}',), (":1: ", "pass benchmark=mathvista")),
    ],
)
def test_a_broken_predictions_file_is_told_in_one_sentence(
    command: Command, problems: Path, tmp_path: Path, lines: tuple[str, ...], says: tuple[str, ...]
) -> None:
    file = answers(tmp_path, *lines)
    settings = ("benchmark=mathvision", f"benchmark.mathvision.problems={problems}", "hydra.run.dir=out")
    one_sentence(command("evaluate.py", *settings, f"predictions={file}"), file, *says)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ("the file is empty", "give the benchmark's problems")),
        ('{"id": "1", "question": "q"}\n', (":1: no row of mathvision", "give mathvision's own problems file")),
        ('{"id": "1"\n', (":1: broken JSON",)),
    ],
)
def test_a_broken_problems_file_is_told_in_one_sentence(
    command: Command, tmp_path: Path, text: str, says: tuple[str, ...]
) -> None:
    problems = tmp_path / "problems.jsonl"
    problems.write_text(text)
    settings = ("benchmark=mathvision", f"benchmark.mathvision.problems={problems}", "hydra.run.dir=out")
    file = answers(tmp_path, *RIGHT)
    one_sentence(command("evaluate.py", *settings, f"predictions={file}"), problems, *says)


def test_a_missing_picture_is_told_in_one_sentence(
    command: Command, problems: Path, tmp_path: Path, qwen: Path
) -> None:
    settings = ("benchmark=mathvision", f"benchmark.mathvision.problems={problems}", "hydra.run.dir=out")
    done = command("evaluate.py", *settings, "backbone=qwen2vl", f"checkpoint={qwen}")
    one_sentence(done, f"{problems}:1: no image 'images/1.jpg'", "give the folder")


def test_another_benchmark_s_file_is_told_in_one_sentence(command: Command, problems: Path, tmp_path: Path) -> None:
    settings = ("benchmark=mathvista", f"benchmark.mathvista.problems={problems}", "hydra.run.dir=out")
    done = command("evaluate.py", *settings, f"predictions={answers(tmp_path, *RIGHT)}")
    one_sentence(done, f"{problems}:1: ", "benchmark=mathvision")


def test_a_mistake_in_a_rerun_loses_nothing(command: Command, problems: Path, tmp_path: Path) -> None:
    settings = ("benchmark=mathvision", f"benchmark.mathvision.problems={problems}", "hydra.run.dir=out")
    file = answers(tmp_path, *RIGHT)
    assert command("evaluate.py", *settings, f"predictions={file}").code == 0
    before = contents(Path("out"))
    answers(tmp_path, *RIGHT, "{")
    one_sentence(command("evaluate.py", *settings, f"predictions={file}"), f"{file}:4: broken JSON")
    assert contents(Path("out")) == before
