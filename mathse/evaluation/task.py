"""``python evaluate.py``: answers first, then verdicts, each benchmark in a folder of its own below the run folder.

    <run>/<benchmark>/predictions.jsonl    id, response; appended as they come, a rerun goes on
                      scored.jsonl         id, response, extraction, prediction, answer, correct, decided_by, ...
                      samples.jsonl        the same of every sample, where n_samples > 1
                      disagreements.jsonl  where math-verify says otherwise
                      metrics.json         benchmark, split, correct, total, accuracy, ci95, buckets, protocol, ...
                      report.html
    <run>/evaluation.json                  the settings
    <run>/report.html                      all benchmarks

With benchmark=synthetic alone, <run> itself also holds metrics.json and predictions.jsonl in the form in which the
stages of a training run write them.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mathse.config import build, flatten
from mathse.config.actors import ServerGenerator
from mathse.config.schema import EvaluateConfig
from mathse.config.scoring import ORMTest
from mathse.evaluation.decoding import decoding_of
from mathse.evaluation.files import PREDICTIONS, SETTINGS
from mathse.evaluation.identity import keep_identity
from mathse.evaluation.opened import Opened, open_benchmarks
from mathse.evaluation.page import write_pages
from mathse.evaluation.predictions import Answer, read_predictions, require_all
from mathse.evaluation.results import Result, Scorer, own_form
from mathse.reporting.progress import Progress
from mathse.runs.folder_lock import FolderLock
from mathse.runs.store import make_folder, write_json, write_jsonl

if TYPE_CHECKING:
    from mathse.inference.serving.student import ServedStudent
    from mathse.models.base import Backbone

OWN = "synthetic"


def evaluate(config: EvaluateConfig, folder: Path) -> float | None:
    """Score a model's answers, or a file's, on each benchmark chosen; the mean accuracy, None if one is not known."""
    if any(isinstance(section, ORMTest) for section in config.benchmark.values()):
        from mathse.evaluation.models import on_devices
        from mathse.evaluation.orm_test.task import measure

        return on_devices(config.trainer, lambda: measure(config, folder))
    if config.predictions is not None and config.judge.checkpoint is None and config.trainer.devices == 1:
        return _evaluate(config, folder)  # no model, no torch
    from mathse.evaluation.models import on_devices

    return on_devices(config.trainer, lambda: _evaluate(config, folder))


def _evaluate(config: EvaluateConfig, folder: Path) -> float | None:
    benchmarks = open_benchmarks(config, folder)  # before the folder: a mistake leaves no trace
    given = [_given(config, opened) for opened in benchmarks] if config.predictions is not None else None
    with ExitStack() as stack:
        make_folder(folder)
        stack.enter_context(closing(FolderLock(folder)))
        progress = stack.enter_context(Progress(config.progress))
        run = Run(config, folder, progress)
        keep_identity(config, folder, benchmarks, run.how)
        answers = given or [run.answers(opened) for opened in benchmarks]
        run.free_student()
        write_json(folder / SETTINGS, flatten(config))
        results = [run.scored(opened, found) for opened, found in zip(benchmarks, answers, strict=True)]
        write_pages(folder, results)
        progress.say(f"report: {folder / 'report.html'}")
    return _mean([result.metrics["accuracy"] for result in results])


def _given(config: EvaluateConfig, opened: Opened) -> list[Answer]:
    """The answers of a predictions file to the problems asked, in the benchmark's order."""
    file = Path(str(config.predictions))
    found = read_predictions(file, opened.name, opened.known, config.n_samples)
    wanted = [item.problem.id for item in opened.items]
    if not config.partial:
        require_all(file, found, opened.name, wanted, config.n_samples)
    return [found[key] for i in wanted for k in range(config.n_samples) if (key := (i, k)) in found]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


class Run:
    """What the benchmarks of one start share: the settings, the voice, the student while it is needed."""

    def __init__(self, config: EvaluateConfig, folder: Path, progress: Progress) -> None:
        self.config, self.folder, self.progress = config, folder, progress
        self.how = decoding_of(config) if config.predictions is None else None
        self._student: Backbone | ServedStudent | None = None

    def student(self) -> Backbone | ServedStudent:
        """The model, read (or its server's client made) when it is first asked for."""
        from mathse.evaluation import models

        if self._student is None:
            served = isinstance(self.config.generator, ServerGenerator)
            self._student = build(self.config.generator).student(self.folder) if served else models.student(self.config)
        return self._student

    def free_student(self) -> None:
        self._student = None  # before the ORM is read
        gc.collect()

    def answers(self, opened: Opened) -> list[Answer]:
        """The model's answers; those of an earlier start are kept."""
        from mathse.evaluation import sampling

        assert self.how is not None  # there is no file
        with closing(self.progress.track(f"{opened.name}: answers", len(opened.items) * self.how.n)) as track:
            return sampling.answers(opened, self.how, self.student, track.advance)

    @cached_property
    def scorer(self) -> Scorer:
        llm = None
        if self.config.llm.model is not None:
            from mathse.evaluation.asking import Asked  # here: its package takes seconds to load

            llm = Asked(self.config.llm, self.config.llm.model, self.folder, self.progress.say)
        return Scorer(self.config, self.progress, llm, self.how)

    def scored(self, opened: Opened, answers: Sequence[Answer]) -> Result:
        """Verdicts and figures of one benchmark, written into its folder."""
        if self.how is None:
            several = self.config.n_samples > 1
            write_jsonl(opened.folder / PREDICTIONS, [a.to_json(several) for a in answers])
        result = self.scorer.result(opened, answers)
        if opened.name == OWN and len(self.config.benchmark) == 1:
            own_form(result, self.folder)
        return result
