"""A tiny Qwen2-VL that has learnt to say one thing to whatever it is asked, behind ``transformers serve``."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mathse.__main__ import main as mathse

needs_serving = pytest.mark.skipif(
    not (find_spec("fastapi") and find_spec("uvicorn")), reason="needs transformers[serving]"
)
# What the engine's own reader of answers goes by, for this family.
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def taught(folder: Path, answer: str, question: Callable[[int], Any], steps: int) -> Path:
    """The checkpoint, in ``folder``. ``question``: the content of the message that a step of its fit asks."""
    import torch
    from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

    assert mathse(["tiny", "qwen2vl", str(folder)]) == 0
    processor = AutoProcessor.from_pretrained(folder)
    processor.chat_template = processor.tokenizer.chat_template = TEMPLATE
    net = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    target = processor.tokenizer(answer + processor.tokenizer.eos_token, return_tensors="pt")["input_ids"]
    for step in range(steps):
        messages = [{"role": "user", "content": question(step)}]
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        prompt = processor.tokenizer(text, return_tensors="pt")["input_ids"]
        ids = torch.cat([prompt, target], 1)
        labels = ids.clone()
        labels[:, : prompt.shape[1]] = -100
        net(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    net.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@contextmanager
def served(model: Path) -> Iterator[str]:
    """The address of its server."""
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
