"""Each export, opened by the tool that it is for: token ids, labels and pixels are those of our own fit.

The tools do not go into one environment, so each has its interpreter, named by a variable; without it the test is
skipped. On CPUs:

    python -m venv trl && trl/bin/pip install 'trl==1.16.*' torchvision
    MATHSE_TRL_PYTHON=$PWD/trl/bin/python python -m pytest -m slow tests/exports/test_tools.py

and likewise MATHSE_LLAMAFACTORY_PYTHON (llamafactory==0.9.5) and MATHSE_SWIFT_PYTHON ('ms-swift==4.6.*',
qwen_vl_utils, torchvision). Last opened, all 15 green, on 2026-11-27 with torch 2.13.0 on a CPU: trl 1.16.0
(transformers 5.24.0, datasets 5.2.0), llamafactory 0.9.5 (5.6.0, 4.0.0), ms-swift 4.6.0 (5.19.0, 4.8.4).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from run_builder import build_run

from exports.own_run import PROBLEMS, own_run
from exports.tool_rows import handed_over, tool_row
from mathse import models
from mathse.__main__ import main
from mathse.commands.export.examples import Example, read_orm_examples, read_sft_examples
from mathse.commands.export.formats import defuse_marks
from mathse.models.base import IGNORED, Backbone
from mathse.models.row import Row
from mathse.runs.reader import read_run

pytestmark = pytest.mark.slow

TOOLS = ("llamafactory", "swift", "trl")
PIXELS = {"min_pixels": 784, "max_pixels": 12544}
# The conversation of the published Qwen2-VL, which the tools write themselves; the tiny folder's own is shorter.
TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "qwen2vl"
    assert main(["tiny", "qwen2vl", str(folder)]) == 0
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return folder


def ask(tool: str, out: Path, model: Path) -> list[dict[str, Any]]:
    """Each row as the tool has it: see tool_rows.py."""
    variable = f"MATHSE_{tool.upper()}_PYTHON"
    interpreter = os.environ.get(variable)
    if interpreter is None:
        pytest.skip(f"needs an interpreter with {tool} installed, named by {variable}; see the head of this file")
    own = {"ROOT_IMAGE_DIR": str(out), "USE_HF": "1", "MIN_PIXELS": "784", "MAX_PIXELS": "12544"}  # ms-swift's
    script = Path(__file__).with_name(f"open_{tool}.py")
    command = [interpreter, str(script), str(out), str(model)]
    done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, cwd=out.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    return handed_over(done.stdout)


def texts(row: dict[str, Any], end: int) -> tuple[list[int], list[int]]:
    """Ids and labels, without what stands behind the end of the response: two of the tools learn a line break there."""
    last = max(place for place, token in enumerate(row["ids"]) if token == end)
    assert len(row["ids"]) - last <= 2
    return row["ids"][: last + 1], row["labels"][: last + 1]


def ours(backbone: Backbone, example: Example) -> dict[str, Any]:
    row = Row(
        question=example.prompt,
        images=example.images,
        response=example.response,
        history=example.history,
        marked=example.marked,
    )
    encoded = backbone.encode([row])[0]
    return tool_row(encoded.ids, [IGNORED] * len(encoded.prompt) + encoded.response, encoded.features)


@pytest.mark.parametrize("what", ["sft", "orm"])
@pytest.mark.parametrize("images", ["copy", "reference"])
@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_trains_on_the_tokens_and_pixels_that_our_fit_trains_on(
    tmp_path: Path, model: Path, tool: str, images: str, what: str
) -> None:
    folder = own_run(tmp_path).folder
    out = tmp_path / "out"
    assert main(["export", str(folder), "--format", tool, "--what", what, "--images", images, "--out", str(out)]) == 0
    rows = ask(tool, out, model)
    backbone: Any = models.load("qwen2vl", model, **PIXELS)
    run = read_run(folder)
    examples = [defuse_marks(e) for e in (read_orm_examples(run) if what == "orm" else read_sft_examples(run, "final"))]
    assert len(rows) == len(examples) == len(PROBLEMS)
    for row, example in zip(rows, examples, strict=True):
        own = ours(backbone, example)
        assert texts(row, backbone.end_id) == texts(own, backbone.end_id)
        assert len(row["grids"]) == len(example.images)
        assert (row["grids"], row["pixels"]) == (own["grids"], own["pixels"])


@pytest.mark.parametrize("tool", TOOLS)
def test_of_several_turns_a_tool_learns_the_last_answer_alone(tmp_path: Path, model: Path, tool: str) -> None:
    folder = build_run(tmp_path / "run", size=12)  # the tiny ORM's prompt has the path as an earlier turn
    out = tmp_path / "out"
    assert main(["export", str(folder), "--format", tool, "--what", "orm", "--out", str(out)]) == 0
    backbone: Any = models.load("qwen2vl", model, **PIXELS)
    for row, example in zip(ask(tool, out, model), read_orm_examples(read_run(folder)), strict=True):
        _, labels = texts(row, backbone.end_id)
        learnt = [token for token in labels if token != IGNORED]
        assert backbone.tokenizer.decode(learnt[:-1]) == example.response
        assert len(row["grids"]) == len(example.images) == 1
