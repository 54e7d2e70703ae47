"""MathVerse judged through a real engine: a tiny Qwen2-VL that has learnt to say "1", behind ``transformers serve``.

Needs what ``pip install transformers[serving]`` brings; skipped where it is missing.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from evaluation.cases import metrics, rows, run, verse_row, write_rows

from mathse.__main__ import main as mathse
from slow.test_real_engine import TEMPLATE, _wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (find_spec("fastapi") and find_spec("uvicorn")), reason="needs transformers[serving]"),
]


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint that says "1" to whatever it is asked."""
    import torch
    from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

    folder = tmp_path_factory.mktemp("served") / "judge"
    assert mathse(["tiny", "qwen2vl", str(folder)]) == 0
    processor = AutoProcessor.from_pretrained(folder)
    processor.chat_template = processor.tokenizer.chat_template = TEMPLATE
    net = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    answer = processor.tokenizer("1" + processor.tokenizer.eos_token, return_tensors="pt")["input_ids"]
    for step in range(120):
        asked = [{"role": "user", "content": f"Question {step}. " * (1 + step % 60)}]
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
def url(judge: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(judge)]
    with subprocess.Popen([*program, "--device", "cpu", "--port", str(port)], env=dict(os.environ)) as server:
        try:
            _wait_for(f"http://localhost:{port}/health", server)
            yield f"http://localhost:{port}/v1"
        finally:
            server.terminate()


def test_a_real_engine_extracts_and_judges(judge: Path, url: str, tmp_path: Path) -> None:
    problems = write_rows(tmp_path / "mathverse.jsonl", [verse_row(k) for k in range(1, 5)])
    answers = write_rows(tmp_path / "a.jsonl", [{"id": str(k), "response": f"It is {k}."} for k in range(1, 5)])
    settings = ["benchmark=mathverse", f"benchmark.mathverse.problems={problems}", f"predictions={answers}"]
    server = [f"llm.model={judge}", f"llm.base_url={url}", "llm.api_key_env=null", f"llm.cache_dir={tmp_path}/cache"]
    assert run(tmp_path / "run", *settings, *server, "llm.max_concurrency=2") == 1.0
    scored = rows(tmp_path / "run" / "mathverse" / "scored.jsonl")
    assert [row["extraction"] for row in scored] == ["1"] * 4 and all(row["correct"] for row in scored)
    usage = metrics(tmp_path / "run", "mathverse")["protocol"]["llm"]["usage"]
    assert usage["outcomes"] == {"answered": 8}  # four extractions, four judgements
