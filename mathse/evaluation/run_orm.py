"""The ORM of a finished run, for the rewards of ``mathse reward-server``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from mathse.config import recorded
from mathse.config.schema import Trainer
from mathse.inference.rows import judge_row
from mathse.judges.orm import open_orm
from mathse.models import silence_transformers
from mathse.models.base import Backbone
from mathse.models.model_spec import make_spec
from mathse.runs.layout import CHECKPOINT
from mathse.runs.reader import Run
from mathse.scoring.ranking import rank_of
from mathse.training.fit import device_of, dtype_of
from mathse.types import Problem, ReasoningPath, Verdict


class RunORM:
    """The ORM of a run. ``verdicts`` judges ``batch_size`` paths at a time.

    Raises CheckpointError if the run trained no ORM, DataError as ``recorded`` does.
    """

    def __init__(self, run: Run, accelerator: str, batch_size: int, explain: bool, threads: int = 1) -> None:
        self.batch_size = batch_size
        section = recorded("backbone", run.config["orm"].get("backbone") or run.config["backbone"])
        silence_transformers()
        torch.set_num_threads(threads)
        trainer = Trainer(accelerator=accelerator, precision="bf16-mixed")  # type: ignore[arg-type]
        checkpoint = Path(run.config["judge"].get("checkpoint") or run.folder / "orm" / CHECKPOINT)
        read = partial(_open, section, checkpoint, trainer)
        self.judge = open_orm(checkpoint, read, int(run.config["judge"]["max_new_tokens"])).explaining(explain)

    def verdicts(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        """Judge each path; verdicts are in the order of the paths. A path too long for the model is unparsed.

        Raises DataError for a picture that cannot be read, or that the family refuses.
        """
        judge, backbone = self.judge, self.judge.backbone
        max_prompt_tokens = backbone.context - judge.max_new_tokens
        # 1. Paths that are too long get their verdict at once.
        readable, verdicts = list[int](), dict[int, Verdict]()  # by position
        for k, (problem, path) in enumerate(zip(problems, paths, strict=True)):
            row = judge_row(backbone.prompt_style, problem, path.text, judge.see_answer, judge.see_image)
            if reason := backbone.too_long(row, max_prompt_tokens):
                verdicts[k] = Verdict(path.id, "unparsed", judge=judge.name, raw=reason)
            else:
                readable.append(k)
        # 2. The ORM judges all others, in batches of similar length to save padding.
        readable.sort(key=lambda k: (len(paths[k].text), k))
        chunks = [readable[k : k + self.batch_size] for k in range(0, len(readable), self.batch_size)]
        batches = [([problems[k] for k in chunk], [paths[k] for k in chunk]) for chunk in chunks]
        for chunk, batch_verdicts in zip(chunks, judge.judge_all(batches), strict=True):
            verdicts |= zip(chunk, batch_verdicts, strict=True)
        return [verdicts[k] for k in range(len(paths))]


def reward_of(verdict: Verdict) -> float:
    """Return P(correct) in [0, 1]; 0 for an unparsed verdict."""
    return 0.0 if verdict.status == "unparsed" else rank_of(verdict)


def _open(section: object, checkpoint: Path, trainer: Trainer) -> Backbone:
    return make_spec(section, checkpoint, dtype_of(trainer)).open(device_of(trainer))
