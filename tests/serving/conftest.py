from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from api_server import KEY, ApiServer, Body, text_of
from engine import Engine
from small import problems, tiny_backbone
from transformers.utils import logging

from mathse.inference.llm import faults
from mathse.inference.prompts import binary_json, feedback_json
from mathse.inference.rows import judge_row
from mathse.models.tiny import TinyBackbone
from mathse.runs.store import write_json
from mathse.types import Verdict

STEPS = 60  # after these the ORM's answers are JSON of both kinds


def taught(body: Body) -> str:
    """A teacher who adds up all numbers it sees, and finds every path wrong at its first step."""
    text = text_of(body)
    if "improvement_suggestion" in text:
        word = {"status": "WRONG", "error_step": "Step 1", "error_analysis": "The sum is another one."}
        return json.dumps({**word, "improvement_suggestion": "Add again."})
    return f"Step 1: so.\nThe answer to this problem is {sum(map(int, re.findall(r'[0-9]', text))) % 10}."


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    logging.disable_progress_bar()
    monkeypatch.setattr(faults, "FIRST_WAIT_SECONDS", 0.01)


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """The settings of a teacher behind an API."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ApiServer(taught) as api:
        yield ["teacher=openai", f"teacher.base_url={api.url}", f"teacher.cache_dir={tmp_path / 'taught'}"]


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student's, with random weights."""
    folder = tmp_path_factory.mktemp("student") / "checkpoint"
    tiny_backbone(seed=1).save(folder)
    return folder


@pytest.fixture(scope="session")
def orm_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``orm_of("analysis_first")``, "verdict_first" or "binary": the checkpoint of an ORM that has learnt to write its
    JSON, and nothing else."""
    made: dict[str, Path] = {}

    def orm(form: str) -> Path:
        if form not in made:
            made[form] = teach_orm(form, tmp_path_factory.mktemp(form) / "checkpoint", tiny_backbone(seed=5))
        return made[form]

    return orm


def teach_orm(form: str, folder: Path, backbone: TinyBackbone, steps: int = STEPS, lr: float = 8e-3) -> Path:
    """An ORM that has learnt to write its JSON, and nothing else."""
    words = (Verdict("", "correct"), Verdict("", "wrong", "Step 1", "no"))
    rows = []
    for k, problem in enumerate(problems(32)):
        row = judge_row(
            backbone.prompt_style, problem, f"Step 1: {k}.\nThe answer to this problem is {k % 10}.", False, True
        )
        word = words[k % 2]
        row["response"] = binary_json(word) if form == "binary" else feedback_json(word, form)
        rows.append(row)
    _fit(backbone, rows, steps, lr)
    backbone.save(folder)
    kind = "binary" if form == "binary" else "generative"
    order = "verdict_first" if form == "binary" else form
    write_json(folder / "orm.json", {"kind": kind, "order": order, "see_answer": False, "see_image": True})
    return folder


def _fit(backbone: TinyBackbone, rows: list, steps: int, lr: float) -> None:  # type: ignore[type-arg]
    batch = backbone.collate(rows)
    optimizer = torch.optim.AdamW(backbone.model.parameters(), lr=lr)
    for _ in range(steps):
        logits, targets = backbone.answer_logits(batch)
        torch.nn.functional.cross_entropy(logits, targets).backward()
        optimizer.step()
        optimizer.zero_grad()
