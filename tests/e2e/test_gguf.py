"""A run whose student comes from a GGUF file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from gguf_model import write_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer

from e2e.runs import SIZES, killed, run

OF_TINY = ("backbone.hidden_size", "backbone.layers", "backbone.heads", "backbone.mlp_size", "backbone.vision_size")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    pytest.importorskip("gguf")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_gguf(tmp_path / "model.gguf")
    problems = tmp_path / "problems.jsonl"
    with problems.open("w") as lines:
        for k in range(30):
            kind = f"{chr(97 + k % 26)}{k * 37}"
            row = {"id": str(k), "question": f"{k} and {k * k} of {kind}?", "images": [], "answer": str(k + k * k)}
            row["solution"] = f"Step 1: {k} + {k * k} = {k + k * k}\nThe answer to this problem is {k + k * k}."
            lines.write(json.dumps(row) + "\n")
    sizes = [size for size in SIZES if not size.startswith(OF_TINY)]
    data = ["data=jsonl", f"data.path={problems}", "teacher=replay", "judge=random", "distill.judge=answer"]
    return [*sizes, *data, "backbone=causal_lm", f"backbone.path={tmp_path / 'model.gguf'}"]


def test_a_run_goes_on_where_the_cache_was_cleared_and_its_student_opens_with_plain_transformers(
    settings: list[str], tmp_path: Path
) -> None:
    folder, cache = tmp_path / "run", tmp_path / "cache" / "mathse" / "gguf"
    assert killed(lambda: run(folder, *settings), at=200)
    assert (folder / "base" / "stage.json").is_file() and not (folder / "final").exists()
    assert (folder / "base" / "checkpoint" / "model.safetensors").resolve().is_relative_to(cache)
    shutil.rmtree(cache)
    summary = run(folder, *settings)
    assert [entry["stage"] for entry in summary["stages"]][-1] == "final"
    student = folder / "final" / "checkpoint"
    assert AutoModelForCausalLM.from_pretrained(student).config.model_type == "llama"
    one, two, both = AutoTokenizer.from_pretrained(student)(["1", "2", "12"])["input_ids"]
    assert both == one + two  # digits are apart, although the file has a merge of them
