"""The smallest real parts that tests build on: a backbone of 60,000 parameters and a few problems of the world."""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from mathse.config import backbones as backbones_settings
from mathse.config import data as data_settings
from mathse.config import judges as settings
from mathse.data.synthetic.problems import SyntheticData
from mathse.inference.rows import solve_row
from mathse.judges import Judge
from mathse.judges.agreement import AgreementJudge
from mathse.judges.answer import AnswerJudge
from mathse.models.row import Row
from mathse.models.tiny import TinyBackbone
from mathse.runs.layout import TRAIN_LOG
from mathse.runs.reader import MEASURED
from mathse.runs.store import read_jsonl
from mathse.types import Lineage, Origin, Problem, ReasoningPath, Status, Verdict


def tiny_backbone(seed: int = 0) -> TinyBackbone:
    return TinyBackbone(
        backbones_settings.TinyBackboneConfig(hidden_size=32, layers=1, heads=2, mlp_size=64, vision_size=16),
        init_seed=seed,
    )


def world(seed: int = 0, size: int = 20) -> SyntheticData:
    return SyntheticData(
        data_settings.SyntheticDataConfig(
            seed=seed, seed_size=size, pool=size, test=size, dev=size, orm_train=size, orm_held=size
        )
    )


def problems(count: int, split: str = "pool") -> list[Problem]:
    return list(world(size=count).splits()[split])


def solved_rows(backbone: TinyBackbone, count: int) -> list[Row]:
    return [solve_row(backbone.prompt_style, problem, problem.solution) for problem in problems(count)]


def log_of(folder: Path) -> list[dict[str, Any]]:
    """A fit's log without what was measured by the clock: equal fits have equal lines."""
    return [{key: value for key, value in row.items() if key not in MEASURED} for row in read_jsonl(folder / TRAIN_LOG)]


def path(problem_id: str, name: str = "0", text: str = "words", origin: Origin = "student") -> ReasoningPath:
    return ReasoningPath(f"round_01/{problem_id}/{name}", problem_id, text, Lineage(origin, "round_01", "model"))


def verdict(of: ReasoningPath, status: Status, score: float | None = None) -> Verdict:
    return Verdict(of.id, status, score=score, judge="test")


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Noise, so that no two patches are alike."""
    return Image.frombytes("RGB", (width, height), random.Random(seed).randbytes(3 * width * height))


def any_text(draw: random.Random, alphabets: Sequence[str] = ()) -> str:
    """A string over the whole of Unicode (surrogates left out, as UTF-8 has none), and over what is usual."""
    usual = [string.printable, "\\frac{1}{2}$^_&∑√π≤", "求图中三角形的面积。", "😀👩‍🔬🏳️‍🌈", "ÀÉîõü ßæ", *alphabets]
    pieces = []
    for _ in range(draw.randrange(1, 12)):
        if draw.random() < 0.3:
            code = draw.choice([draw.randrange(0xD800), draw.randrange(0xE000, 0x110000)])
            pieces.append(chr(code))
        else:
            pieces.append("".join(draw.choices(draw.choice(usual), k=draw.randrange(1, 8))))
    return "".join(pieces)


def orm_and_answer(orm: Judge, threshold: float = 0.5) -> AgreementJudge:
    """``judge=orm_and_answer`` around this ORM."""
    parts = {"orm": orm, "answer": AnswerJudge()}
    return AgreementJudge(settings.AgreementJudgeConfig(threshold=threshold), parts.__getitem__)
