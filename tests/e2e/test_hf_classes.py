"""Model classes that ``backbone=hf`` opens, and one of ``backbone=smollm2_vision``, each through every stage on own
problems in pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small import picture
from transformers import AutoModelForImageTextToText, AutoProcessor

from e2e.conftest import Command
from mathse.commands.tiny import main as make

LEAST = [
    "orm.students=[4]",
    "orm.student_steps=2",
    "orm.solver_steps=2",
    "orm.fit.max_steps=2",
    "sft.max_steps=2",
    "sft.method=full",
    "sft.batch_size=4",
    "sft.micro_batch_size=4",
    "generator.max_new_tokens=6",
    "evaluation.max_new_tokens=6",
    "judge.max_new_tokens=6",
]


def problems(folder: Path) -> Path:
    """Own problems, a picture each, with worked solutions."""
    (folder / "pictures").mkdir()
    rows = []
    for k in range(60):
        picture(56 + 28 * (k % 2), 28, seed=k).save(folder / "pictures" / f"{k}.png")
        rows.append(
            {
                "id": f"p{k}",
                "question": f"What is {k} + 5?",
                "images": [f"pictures/{k}.png"],
                "answer": str(k + 5),
                "solution": f"Step 1: {k} + 5 = {k + 5}.\nStep 2: The answer is {k + 5}.",
            }
        )
    file = folder / "problems.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "family"),
    [("qwen2_5_vl", "hf"), ("internvl", "hf"), ("smolvlm", "hf"), ("llava", "smollm2_vision")],
)
def test_a_class_goes_through_every_stage_and_plain_transformers_opens_what_comes_out(
    name: str, family: str, command: Command, tmp_path: Path
) -> None:
    if name == "smolvlm":
        pytest.importorskip("num2words", reason="transformers' processor of SmolVLM wants it")
    assert make([name, str(tmp_path / name)]) == 0
    done = command(
        "train.py",
        "experiment=smoke",
        f"backbone={family}",
        f"backbone.path={tmp_path / name}",
        "backbone.prompt_style=compact",
        "data=jsonl",
        f"data.path={problems(tmp_path)}",
        "teacher=replay",
        "progress=off",
        f"trainer.tower_features_folder={tmp_path / 'features'}",
        f"hydra.run.dir={tmp_path / 'run'}",
        *LEAST,
    )
    assert done.code == 0, done.out + done.err
    assert (tmp_path / "features").exists() == (family == "smollm2_vision")  # whose fits keep them
    stages = {"base", "orm", "distill", "round_01", "final"}
    assert stages <= {folder.name for folder in (tmp_path / "run").iterdir()}
    opened = {
        checkpoint.parent.name: AutoModelForImageTextToText.from_pretrained(checkpoint)
        for checkpoint in (tmp_path / "run").glob("*/checkpoint")
    }
    assert {"orm", "distill", "final"} <= set(opened)
    assert len({type(model) for model in opened.values()}) == 1
    assert AutoProcessor.from_pretrained(tmp_path / "run" / "final" / "checkpoint").chat_template
