"""The snippets of CONTRIBUTING work as they stand there: in a package and a conf folder of the user's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
import transformers
from small import tiny_backbone

from docs.desk import execute, small
from docs.pages import ROOT, Block, blocks, program
from mathse.commands.tiny import main as tiny
from mathse.config.options import look_in
from mathse.runs.store import read_json, write_jsonl

SECTIONS = ("judge", "callback", "backbone", "data source", "benchmark", "study")
SLOW = ("backbone", "study")


def sections() -> dict[str, list[Block]]:
    """The blocks below each "### Add a ..."."""
    page = ROOT / "CONTRIBUTING.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    heads = {number: line.removeprefix("### Add a ") for number, line in enumerate(lines, 1) if line.startswith("##")}

    def section(block: Block) -> str:
        return heads[max(number for number in heads if number < block.line)]

    return {name: list(found) for name, found in groupby(blocks(page), section) if name in SECTIONS}


def test_contributing_shows_how_to_add_each_part() -> None:
    assert tuple(sections()) == SECTIONS


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder outside the repository, with what the commands name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_project"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "my_project").mkdir()
    (tmp_path / "my_project" / "__init__.py").touch()
    tiny_backbone().save(tmp_path / "CHECKPOINT")
    rows = [{"id": str(k), "question": f"What is {k} + 1?", "answer": str(k + 1)} for k in range(3)]
    write_jsonl(tmp_path / "words.jsonl", rows)
    yield tmp_path
    look_in(None)


def write(project: Path, section: list[Block]) -> list[list[str]]:
    """The section's files; its commands."""
    for block in section:
        if block.language in ("python", "yaml"):
            file = project / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
    return [words for block in section if block.language == "bash" for words in block.commands]


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in SECTIONS])
def test_the_part_that_a_section_adds_runs(name: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "backbone":
        qwen2_5vl(project / "DIR")
    for words in write(project, sections()[name]):
        assert execute(words, monkeypatch) == 0, " ".join(words)
    if name == "judge":
        config = read_json(next(project.rglob("run.json")))["config"]
        assert config["judge"]["limit"] == 300
    if name == "benchmark":
        metrics = read_json(next(project.rglob("word_problems/metrics.json")))
        assert metrics["total"] == 3
    if name == "study":
        assert "cool" in (project / "experiments" / "temperature" / "README.md").read_text()


def qwen2_5vl(folder: Path) -> None:
    """A checkpoint of Qwen2.5-VL's architecture, tiny and random."""
    tiny(["qwen2vl", str(folder)])
    config = read_json(folder / "config.json")
    text, ids = config["text_config"], {key: value for key, value in config.items() if key.endswith("_token_id")}
    text["model_type"] = "qwen2_5_vl_text"
    vision = {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "fullatt_block_indexes": [0]}
    vision["out_hidden_size"] = text["hidden_size"]
    made = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
    transformers.Qwen2_5_VLForConditionalGeneration(made).save_pretrained(folder)


@pytest.mark.slow
def test_a_judge_of_a_users_own_runs_in_a_process_of_its_own(project: Path) -> None:
    (words,) = write(project, sections()["judge"])
    name, arguments = program(words)
    done = subprocess.run(
        [sys.executable, "-m", "mathse", name, *small(name, arguments)],
        env={**os.environ, "PYTHONPATH": f"{project}{os.pathsep}{ROOT}"}, cwd=project, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
