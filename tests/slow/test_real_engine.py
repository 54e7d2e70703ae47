"""The teacher behind a real engine: a tiny Qwen2-VL served by ``transformers serve`` on this machine.

Needs what ``pip install transformers[serving]`` brings; skipped where it is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.runs import SIZES, run

from mathse.__main__ import main as mathse
from mathse.config import build
from mathse.config import teachers as teacher_settings
from mathse.config.data import JsonlDataConfig
from mathse.judges.teachers.openai_api import OpenAITeacher
from mathse.types import Draft, Lineage, ReasoningPath, Verdict
from slow.served import needs_serving, served, taught

pytestmark = [pytest.mark.slow, needs_serving]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught(
        tmp_path_factory.mktemp("served") / "tiny",
        "Step 1: it is so.\nThe answer to this problem is 12.",
        lambda step: [{"type": "text", "text": f"Problem {step}. " * (1 + step % 40)}],
        steps=300,
    )


@pytest.fixture(scope="module")
def url(model: Path) -> Iterator[str]:
    with served(model) as address:
        yield address


@pytest.fixture(scope="module")
def problems(fixtures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("real") / "own.jsonl"
    source = fixtures / "datasets" / "geometry3k_samples"
    assert mathse(["convert-data", str(source), str(target), "--format", "geometry3k"]) == 0
    return target


def test_the_three_jobs_with_real_problems_and_their_pictures(
    model: Path, url: str, problems: Path, tmp_path: Path
) -> None:
    def teacher() -> OpenAITeacher:
        return OpenAITeacher(
            teacher_settings.OpenAITeacherConfig(
                model=str(model),
                base_url=url,
                api_key_env=None,
                cache_dir=str(tmp_path),
                max_tokens=64,
                image_side=256,
                max_concurrency=2,
            )
        )

    rows = build(JsonlDataConfig(path=str(problems))).distillable()[:3]
    drafts = [ReasoningPath(f"x/{p.id}", p.id, "Step 1: 13.", Lineage("student", "x", "m")) for p in rows]
    one = teacher()
    solved = one.solve(rows)
    assert all(solved)
    said = one.annotate(rows, drafts)
    assert all(v.status == "unparsed" and v.raw for v in said)  # after one repair each
    tasks = [
        Draft(row, path, Verdict(path.id, "wrong", "Step 1", "It is not 13."))
        for row, path in zip(rows, drafts, strict=True)
    ]
    assert all(one.reflect(tasks))
    usage = one.usage()
    assert {job: sums["requests"] for job, sums in usage["jobs"].items()} == {
        "annotate": 3, "generate": 3, "reflect": 3, "repair": 3}  # fmt: skip
    assert usage["prompt_tokens"] > usage["completion_tokens"] > 0 and usage["usd"] is None
    again = teacher()
    assert again.solve(rows) == solved and again.usage()["paid"]["requests"] == 0


def test_the_engine_reads_text_and_picture_as_the_local_processor_does(
    model: Path, url: str, problems: Path, tmp_path: Path
) -> None:
    """By its count of prompt tokens, the picture's among them."""
    from transformers import AutoProcessor

    from mathse.data.images import load_image
    from mathse.inference import prompts

    processor = AutoProcessor.from_pretrained(model)
    teacher = OpenAITeacher(
        teacher_settings.OpenAITeacherConfig(
            model=str(model), base_url=url, api_key_env=None, cache_dir=str(tmp_path), max_tokens=64
        )
    )
    counted = 0
    for problem in build(JsonlDataConfig(path=str(problems))).distillable()[:3]:
        teacher.solve([problem])
        before, counted = counted, teacher.usage()["prompt_tokens"]
        parts = [{"type": "image"}, {"type": "text", "text": prompts.generation_prompt(problem, "full")}]
        asked = [{"role": "user", "content": parts}]
        text = processor.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        local = processor(text=[text], images=[load_image(problem.images[0])], return_tensors="pt")
        assert counted - before == local["input_ids"].shape[1]


def test_distilling_through_the_engine(model: Path, url: str, problems: Path, tmp_path: Path) -> None:
    server = (f"teacher.model={model}", f"teacher.base_url={url}", "teacher.api_key_env=null", "teacher.max_tokens=64")
    data = ("data=jsonl", f"data.path={problems}", "judge=answer", "teacher=openai")
    summary = run(tmp_path / "run", *SIZES, *data, "task=distill", *server, f"teacher.cache_dir={tmp_path / 'cache'}")
    line = summary["stages"][-1]
    assert line["accepted"] + line["rejected"] == 10 and line["accepted"] < 10  # it says 12 to everything
    assert summary["usage"]["outcomes"] == {"answered": 10}
