"""A plan against what the run then does: the real tasks on the tiny backbone, taught by a real server on localhost."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import KEY, MODEL, ApiServer, Body, pictures_in, text_of
from e2e.runs import SIZES, run
from PIL import Image

from mathse.__main__ import main
from mathse.commands.plan.tokens import count_text_tokens
from mathse.config.compose import train_config
from mathse.evolution.planner import Range
from mathse.evolution.tasks import open_run
from mathse.inference.llm.images import picture_of
from mathse.inference.llm.pricing import image_tokens
from mathse.reporting.progress import Progress
from mathse.runs.store import read_json, read_jsonl

ROOT = Path(__file__).resolve().parents[1]
COUNT = 30
Made = Callable[..., dict[str, Any]]


class CountingServer(ApiServer):
    """Counts tokens by a rule of its own: every word and every sign is one, and so is each digit's group."""

    def completion(self, body: Body, mood: str | None) -> Body:
        done = super().completion(body, mood)
        words = sum(len(re.findall(r"\w+|[^\w\s]", _words(message))) + 8 for message in body["messages"])
        pictures = sum(image_tokens(MODEL, *picture_of(url).size) for url in pictures_in(body))
        texts = [choice["message"]["content"] or "" for choice in done["choices"]]
        out = sum(len(re.findall(r"\w+|[^\w\s]", text)) for text in texts)
        done["usage"] = {"prompt_tokens": words + pictures, "completion_tokens": out, "total_tokens": words + out}
        return done


def _words(message: Body) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)


def solution(k: int) -> str:
    return (
        f"Step 1: The picture shows the number {k}, and we are asked for the next one.\n"
        f"Step 2: Adding one gives {k} + 1 = {k + 1}.\nThe answer to this problem is {k + 1}."
    )


def teacher(body: Body) -> str:
    text = text_of(body)
    if "improvement_suggestion" in text:
        word = {"status": "WRONG", "error_step": "Step 1", "error_analysis": "It says nothing of the sum."}
        return json.dumps({**word, "improvement_suggestion": "Add the numbers."})
    found = re.search(r"comes after (\d+)", text)
    return solution(int(found[1]) if found else 1)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with CountingServer(teacher) as server:
        yield server


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    """Own problems with pictures of several sizes, some with a solution; two ask the same."""
    lines = []
    for k in range(COUNT):
        Image.new("RGB", (28 + 40 * (k % 3), 28), (8 * k, 0, 0)).save(tmp_path / f"{k}.png")
        line = {
            "id": f"own/{k}",
            "question": f"Look at the picture. Which number comes after {k}?",
            "answer": str(k + 1),
        }
        lines.append({**line, "images": [f"{k}.png"], **({"solution": solution(k)} if k % 2 else {})})
    lines[4] |= {"question": lines[2]["question"], "images": lines[2]["images"], "answer": lines[2]["answer"]}
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.fixture
def made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Made:
    """``made(*overrides)``: the plan as ``python -m mathse plan`` writes it; ``said`` is what it printed."""

    def plan(*arguments: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["plan", *arguments, "--json", str(tmp_path / "plan.json")]) == 0, capsys.readouterr().err
        found: dict[str, Any] = read_json(tmp_path / "plan.json")
        return {**found, "said": capsys.readouterr().out, "by_name": {s["stage"]: s for s in found["stages"]}}

    return plan


def settings(api: ApiServer, problems: Path, *more: str) -> list[str]:
    place = (f"teacher.base_url={api.url}", f"teacher.cache_dir={problems.parent / 'cache'}", "teacher.timeout=5")
    shown = ("data=jsonl", f"data.path={problems}", "teacher=openai", "data.on_bad_row=skip")
    return [*SIZES, "judge=answer", *shown, *place, *more]


def jobs(folder: Path) -> dict[str, int]:
    """Requests of a run by job."""
    return {job: sums["requests"] for job, sums in read_json(folder / "summary.json")["usage"]["jobs"].items()}


def lines(file: Path) -> int:
    return sum(1 for _ in read_jsonl(file)) if file.is_file() else 0


def holds(planned: int | list[int], number: int) -> bool:
    low, high = planned if isinstance(planned, list) else (planned, planned)
    return low <= number <= high


def near(planned: int, measured: int) -> bool:
    return abs(planned - measured) <= 0.15 * measured


def test_distilling_is_planned_exactly_and_its_tokens_are_near(
    api: CountingServer, problems: Path, made: Made, tmp_path: Path
) -> None:
    how = settings(api, problems, "task=distill")
    plan = made(*how)
    assert api.asked == [] and not (tmp_path / "cache").exists()
    summary = run(tmp_path / "run", *how)
    stage, usage = plan["by_name"]["distill"], summary["usage"]
    assert stage["rows"] == lines(tmp_path / "run/distill/paths.jsonl") == COUNT
    assert stage["requests"] == usage["requests"] == len(api.billed) == COUNT - 1  # two problems ask the same
    assert near(stage["tokens_in"], usage["prompt_tokens"]), (stage["tokens_in"], usage["prompt_tokens"])
    assert near(stage["tokens_out"], usage["completion_tokens"]), (stage["tokens_out"], usage["completion_tokens"])
    assert near(round(1e6 * stage["usd"][0]), round(1e6 * usage["usd"])) and stage["usd"] == plan["total"]["usd"]
    evaluated = plan["by_name"]["base"]["evaluated"]
    assert evaluated == sum(lines(tmp_path / "run/base" / f"{n}predictions.jsonl") for n in ("", "dev_")) > 0


def test_the_orms_data_is_planned_exactly(api: CountingServer, problems: Path, made: Made, tmp_path: Path) -> None:
    how = settings(api, problems, "task=orm", "data.orm_share=0.5", "orm.references=true")
    plan = made(*how)["by_name"]
    run(tmp_path / "run", *how)
    student = tmp_path / "run/orm/student_8"
    made_there = lines(student / "paths.jsonl") + lines(student / "held_paths.jsonl")
    assert plan["orm/student_8"]["rows"] == plan["orm/student_8"]["samples"] == made_there > 0
    solving = plan["orm/student_8"]["requests"] + plan["orm/solver"]["requests"]
    assert solving == jobs(tmp_path / "run")["generate"] > 0
    assert holds(plan["orm"]["rows"], lines(tmp_path / "run/orm/feedback.jsonl"))
    asked = jobs(tmp_path / "run").get("annotate", 0)
    assert holds(plan["orm"]["jobs"]["annotate"], asked) and asked > 0
    assert holds(plan["orm"]["verdicts"], lines(tmp_path / "run/orm/held_verdicts.jsonl"))


@pytest.mark.parametrize("judge", ["teacher", "random", "answer"])
def test_later_stages_are_ranges_that_hold_what_the_run_does(
    api: CountingServer, problems: Path, made: Made, tmp_path: Path, judge: str
) -> None:
    loop = (f"judge={judge}", "distill.judge=answer", "evolution.reflect.feedback=teacher", "evolution.reflect.tries=2")
    how = settings(api, problems, *loop, "evolution.samples_per_problem=2")
    plan, folder = made(*how)["by_name"], tmp_path / "run"
    summary = run(folder, *how)
    assert [*plan] == ["base", "distill", "round_01", "reflection", "final"]
    assert plan["distill"]["rows"] == lines(folder / "distill/paths.jsonl")
    assert plan["distill"]["jobs"] == {"generate": jobs(folder)["generate"]}
    assert holds(plan["round_01"]["rows"], lines(folder / "round_01/paths.jsonl"))
    assert holds(plan["reflection"]["rows"], lines(folder / "reflection/reflections.jsonl"))
    asked: dict[str, list[int]] = {}
    for stage in plan.values():
        for job, number in stage["jobs"].items():
            low, high = number if isinstance(number, list) else (number, number)
            before = asked.get(job, [0, 0])
            asked[job] = [before[0] + low, before[1] + high]
    assert set(jobs(folder)) <= set(asked)
    assert all(holds(asked[job], number) for job, number in jobs(folder).items())
    low, high = (sum(stage["tokens_in"][end] if isinstance(stage["tokens_in"], list) else stage["tokens_in"]
                     for stage in plan.values()) for end in (0, 1))  # fmt: skip
    assert low <= 1.15 * summary["usage"]["prompt_tokens"] and summary["usage"]["prompt_tokens"] <= 1.15 * high


def test_steps_and_evaluation_of_a_loop_without_a_server(made: Made, tmp_path: Path) -> None:
    world = ("data.seed_size=8", "data.pool=16", "data.test=8", "data.dev=4", "data.orm_train=12", "data.orm_held=6")
    how = (*SIZES, *world, "judge=random", "distill.judge=answer", "evolution.reflect.feedback=orm")
    plan = made(*how)
    run(tmp_path / "run", *how)
    for name, stage in plan["by_name"].items():
        folder = tmp_path / "run" / name
        steps = max((row["step"] for row in read_jsonl(folder / "train_log.jsonl")), default=0) if (
            folder / "train_log.jsonl"
        ).is_file() else 0  # fmt: skip
        assert holds(stage["steps"], steps), name
        assert stage["requests"] == 0
        if stage["evaluated"]:
            assert stage["evaluated"] == lines(folder / "predictions.jsonl") + lines(folder / "dev_predictions.jsonl")
    assert [*plan["by_name"]] == [
        *("base", "orm/student_8", "orm/solver", "orm", "distill", "round_01", "reflection", "final")
    ]
    assert plan["total"]["usd"] == [0, 0] and "the teacher is no server" in plan["said"]


def test_an_earlier_run_gives_the_rates(api: CountingServer, problems: Path, made: Made, tmp_path: Path) -> None:
    how = settings(api, problems, "judge=random", "distill.judge=answer", "evolution.reflect.feedback=none")
    blind = made(*how)
    assert blind["total"]["gpu_hours"] is None and "GPU-hours: not estimated" in blind["said"]
    summary = run(tmp_path / "run", *how)
    told = made(*how, "--like", str(tmp_path / "run"))
    low, high = told["total"]["gpu_hours"]
    assert 0 < low <= high
    measured = summary["usage"]["jobs"]["generate"]
    mean = measured["completion_tokens"] / measured["requests"]
    stage = told["by_name"]["distill"]
    assert stage["tokens_out"] == pytest.approx(stage["requests"] * mean, abs=1)
    given = made(*how, "--rate", "fit=3600", "--rate", "sample=1e-9")
    assert given["by_name"]["distill"]["gpu_hours"] == [pytest.approx(0, abs=1e-6), pytest.approx(2)]


def test_a_batch_is_half_the_price_and_an_unknown_model_has_none(
    api: CountingServer, problems: Path, made: Made
) -> None:
    how = settings(api, problems, "task=distill")
    online, batch = made(*how)["total"]["usd"], made(*how, "teacher.mode=batch")["total"]["usd"]
    assert batch[1] == pytest.approx(online[1] / 2) and batch[1] > 0
    unknown = made(*how, "teacher.model=mine")
    assert unknown["total"]["usd"] is None and "no price is known for 'mine'" in unknown["said"]
    priced = made(*how, "teacher.model=mine", "teacher.price_input=0", "teacher.price_output=1e6")
    stage = priced["by_name"]["distill"]
    assert priced["total"]["usd"] == [stage["tokens_out"]] * 2


def test_a_budget_that_will_not_do_is_told(api: CountingServer, problems: Path, made: Made) -> None:
    how = settings(api, problems, "task=distill")
    assert "will end the run before it is done" in made(*how, "teacher.budget_usd=0.0001")["said"]
    assert "end the run" not in made(*how, "teacher.budget_usd=100")["said"]


def test_no_key_and_no_server_are_needed(problems: Path, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    shown = ("data=jsonl", f"data.path={problems}", "data.on_bad_row=skip")
    assert made("task=distill", "judge=answer", "teacher=openai", *shown)["by_name"]["distill"]["requests"] == COUNT - 1


def test_lengths_come_from_a_sample_spread_over_the_data(api: CountingServer, problems: Path, made: Made) -> None:
    how = settings(api, problems, "task=distill")
    whole, part = made(*how)["by_name"]["distill"], made(*how, "--sample", "5")["by_name"]["distill"]
    assert whole["requests"] == part["requests"] and near(part["tokens_in"], whole["tokens_in"])


def test_a_wrong_setting_ends_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["sft.lr=1"], ["data=jsonl"], ["--rate", "fit=fast"], ["--rate", "walk=1"]):
        assert main(["plan", *arguments]) == 1
        assert capsys.readouterr().err.startswith("error: ")


def test_ranges_add_up_and_hold_their_ends() -> None:
    both = Range(1, 3) + Range.of(2)
    assert both == Range(3, 5) and 3 in both and 5 in both and 6 not in both
    assert Range(2, 9).at_most(4) == Range(2, 4) and Range(2, 9).at_most(None) == Range(2, 9)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("Find the area of the triangle.", 7), ("12345", 2), ("如图所示求面积", 5), ("a = b", 3)],
)
def test_text_is_counted_in_words_numbers_and_signs(text: str, tokens: int) -> None:
    assert count_text_tokens(text) == tokens


def test_train_py_with_plan_true_prints_the_plan_and_does_nothing(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("experiment=smoke", "trainer=ddp", "trainer.devices=2")  # no rank is started for it
    assert main(["plan", *settings]) == 0
    expected = capsys.readouterr().out
    command = [sys.executable, str(root / "train.py"), *settings, "plan=true"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, expected), done.stderr
    assert not list(tmp_path.iterdir())


def test_a_plan_says_that_an_orm_s_own_answers_are_not_counted(capsys: pytest.CaptureFixture[str]) -> None:
    for own_answer in (True, False):
        main(["plan", "experiment=smoke", "judge=orm", f"orm.own_answer={str(own_answer).lower()}"])
        assert ("orm.own_answer: the ORM also solves" in capsys.readouterr().out) == own_answer


def test_a_plan_loads_no_torch_but_to_count_in_a_model_that_it_knows() -> None:
    script = (
        "import sys; from mathse.__main__ import main; "
        "code = main(['plan', 'backbone=hf', 'backbone.path=org/model']); "
        "print(code, [m for m in ('torch', 'transformers', 'openai') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


def test_a_run_that_was_planned_first_is_no_other_run(tmp_path: Path) -> None:
    described = []
    for more in ((), ("plan=true",)):
        config, _ = train_config(["experiment=smoke", *more])
        with open_run(config, tmp_path / "run", Progress("off")) as run:
            stage = run.stage("base", ("seed", "backbone", "data"))
            stage.begin()
        described.append((stage.identity, (tmp_path / "run" / "run.json").read_text()))
    assert described[0] == described[1]
