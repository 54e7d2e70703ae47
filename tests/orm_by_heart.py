"""ORMs for tests: a tiny backbone that has learnt the verdicts on six paths by heart, within seconds."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from small import path, problems, tiny_backbone

from mathse.config.fits import ORMConfig
from mathse.judges.orm_rows import training_row
from mathse.models.tiny import TinyBackbone
from mathse.runs.layout import ORM_FILE
from mathse.runs.store import write_json
from mathse.types import Problem, ReasoningPath, Verdict

ANALYSIS = "CORRECT or WRONG? 7 + 5 = 12: WRONG"  # full of statuses, none of which is the verdict's
STEPS = 120
Asked = tuple[Problem, ReasoningPath, Verdict]


def six_paths() -> list[Asked]:
    """Right paths and wrong ones by turns, with their labels."""
    asked = []
    for k, problem in enumerate(problems(6)):
        of = path(problem.id, text=f"Step 1: 1 + 1 = {2 + k % 2}.")
        asked.append((problem, of, Verdict(of.id, "wrong", "Step 1", ANALYSIS) if k % 2 else Verdict(of.id, "correct")))
    return asked


def trained(settings: ORMConfig) -> TinyBackbone:
    """The backbone of an ORM with these settings."""
    return _trained(settings.kind, settings.order, settings.see_answer, settings.see_image)


@cache
def _trained(kind: str, order: str, see_answer: bool, see_image: bool) -> TinyBackbone:
    torch.set_num_threads(1)
    backbone, settings = tiny_backbone(), ORMConfig(kind, order, see_answer, see_image)
    rows = [training_row(backbone.prompt_style, problem, of.text, word, settings) for problem, of, word in six_paths()]
    batch = backbone.collate(rows)
    optimizer = torch.optim.AdamW(backbone.model.parameters(), lr=1e-2)
    rate = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, STEPS)
    backbone.model.train()
    for _ in range(STEPS):
        backbone.model(**batch).loss.backward()
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
    backbone.model.eval()
    return backbone


def saved(settings: ORMConfig, folder: Path) -> Path:
    """The ORM as a run leaves it: a checkpoint folder."""
    trained(settings).save(folder)
    keys = ("kind", "order", "see_answer", "see_image")
    write_json(folder / ORM_FILE, {key: getattr(settings, key) for key in keys})
    return folder
