"""The teacher behind a real engine: a tiny Qwen2-VL served by ``transformers serve`` on this machine.

Needs what ``pip install transformers[serving]`` brings; skipped where it is missing.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from e2e.runs import SIZES, run

from mathse.__main__ import main as mathse
from mathse.config import build
from mathse.config import teachers as teacher_settings
from mathse.config.data import JsonlData
from mathse.inference.llm.client import ChatClient
from mathse.judges.teachers.openai_api import OpenAITeacher
from mathse.types import Lineage, ReasoningPath, Verdict

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (find_spec("fastapi") and find_spec("uvicorn")), reason="needs transformers[serving]"),
]

SAID = "Step 1: it is so.\nThe answer to this problem is 12."
# What the engine's own reader of answers goes by, for this family.
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint that has learnt to say one thing to whatever it is asked."""
    import torch
    from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

    folder = tmp_path_factory.mktemp("served") / "tiny"
    assert mathse(["tiny", "qwen2vl", str(folder)]) == 0
    processor = AutoProcessor.from_pretrained(folder)
    processor.chat_template = processor.tokenizer.chat_template = TEMPLATE
    net = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    answer = processor.tokenizer(SAID + processor.tokenizer.eos_token, return_tensors="pt")["input_ids"]
    for step in range(300):
        asked = [{"role": "user", "content": [{"type": "text", "text": f"Problem {step}. " * (1 + step % 40)}]}]
        text = processor.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        prompt = processor.tokenizer(text, return_tensors="pt")["input_ids"]
        ids = torch.cat([prompt, answer], 1)
        labels = ids.clone()
        labels[:, : prompt.shape[1]] = -100
        net(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    net.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def url(model: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model)]
    with subprocess.Popen([*program, "--device", "cpu", "--port", str(port)], env=dict(os.environ)) as server:
        try:
            _wait_for(f"http://localhost:{port}/health", server)
            yield f"http://localhost:{port}/v1"
        finally:
            server.terminate()


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(240):
        assert server.poll() is None, "transformers serve has ended"
        try:
            with urllib.request.urlopen(address, timeout=1):
                return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(address)


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
            teacher_settings.OpenAITeacher(
                model=str(model),
                base_url=url,
                api_key_env=None,
                cache_dir=str(tmp_path),
                max_tokens=64,
                image_side=256,
                max_concurrency=2,
            )
        )

    rows = build(JsonlData(path=str(problems))).distillable()[:3]
    drafts = [ReasoningPath(f"x/{p.id}", p.id, "Step 1: 13.", Lineage("student", "x", "m")) for p in rows]
    one = teacher()
    solved = one.solve(rows)
    assert all(solved)
    said = one.annotate(rows, drafts)
    assert all(v.status == "unparsed" and v.raw for v in said)  # after one repair each
    feedback = [Verdict(d.id, "wrong", "Step 1", "It is not 13.") for d in drafts]
    assert all(one.reflect(rows, drafts, feedback))
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
    client = ChatClient(url, str(model), None, cache_dir=tmp_path)
    teacher = OpenAITeacher(
        teacher_settings.OpenAITeacher(
            model=str(model), base_url=url, api_key_env=None, cache_dir=str(tmp_path), max_tokens=64
        )
    )
    for problem in build(JsonlData(path=str(problems))).distillable()[:3]:
        (reply,) = client.complete([teacher._solution(problem)])
        parts = [{"type": "image"}, {"type": "text", "text": prompts.generation_prompt(problem, "full")}]
        asked = [{"role": "user", "content": parts}]
        text = processor.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        local = processor(text=[text], images=[load_image(problem.images[0])], return_tensors="pt")
        assert reply.usage.prompt_tokens == local["input_ids"].shape[1]


def test_distilling_through_the_engine(model: Path, url: str, problems: Path, tmp_path: Path) -> None:
    server = (f"teacher.model={model}", f"teacher.base_url={url}", "teacher.api_key_env=null", "teacher.max_tokens=64")
    data = ("data=jsonl", f"data.path={problems}", "judge=answer", "teacher=openai")
    summary = run(tmp_path / "run", *SIZES, *data, "task=distill", *server, f"teacher.cache_dir={tmp_path / 'cache'}")
    line = summary["stages"][-1]
    assert line["accepted"] + line["rejected"] == 10 and line["accepted"] < 10  # it says 12 to everything
    assert summary["usage"]["outcomes"] == {"answered": 10}
