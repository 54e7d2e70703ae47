"""``python evaluate.py``: answers first, then verdicts, each benchmark in a folder of its own below the run folder.

    <run>/<benchmark>/predictions.jsonl    id, response; appended as they come, a rerun goes on
                      scored.jsonl         id, response, extraction, prediction, answer, correct, decided_by, ...
                      samples.jsonl        the same of every sample, where n_samples > 1
                      disagreements.jsonl  where math-verify's verdict differs
                      metrics.json         benchmark, split, correct, total, accuracy, ci95, buckets, protocol, ...
                      report.html
    <run>/evaluation.json                  the settings
    <run>/report.html                      all benchmarks

With benchmark=synthetic alone, <run> itself also holds metrics.json and predictions.jsonl in the form in which the
stages of a training run write them.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathse.config import build, flatten
from mathse.config.evaluation import ORMTestConfig, OwnBenchmarkConfig
from mathse.config.generators import ServerGeneratorConfig, VLLMGeneratorConfig
from mathse.config.options import find_option
from mathse.config.origin import find_origin
from mathse.config.schema import EvaluateConfig
from mathse.config.trust import locate
from mathse.evaluation.folder import SETTINGS, keep_identity
from mathse.evaluation.opened import OpenedBenchmark, open_benchmarks
from mathse.evaluation.page import write_pages
from mathse.evaluation.predictions import Answer, read_predictions, require_all
from mathse.evaluation.results import Scorer, write_stage_files
from mathse.reporting.progress import Progress
from mathse.runs.folder_lock import FolderLock
from mathse.runs.layout import PREDICTIONS, REPORT
from mathse.runs.store import make_folder, write_json, write_jsonl

if TYPE_CHECKING:
    from mathse.evaluation.sampling import Decoding, Student
    from mathse.inference.serving.student import ServedStudents


def evaluate(config: EvaluateConfig, folder: Path) -> float | None:
    """Score a model's answers, or a file's, on each benchmark chosen; the mean accuracy, None if one is not known."""
    work: Callable[[EvaluateConfig, Path], float | None] = _evaluate
    measures_orm = [section for section in config.benchmark.values() if isinstance(section, ORMTestConfig)]
    if measures_orm:
        # There are no answers to score: the class of this benchmark does all of the work.
        test_class: Any = locate(measures_orm[0]._target_, "benchmark")
        work = test_class.evaluate
    elif config.predictions is not None and config.judge.checkpoint is None and config.trainer.devices == 1:
        return _evaluate(config, folder)  # no model, and so no torch
    from mathse.evaluation.models import on_devices

    return on_devices(config.trainer, lambda: work(config, folder))


def _evaluate(config: EvaluateConfig, folder: Path) -> float | None:
    # Benchmarks and a file's answers are read before the folder is made: a mistake in them leaves no trace.
    benchmarks = open_benchmarks(config, folder)
    answers: list[list[Answer]] = []
    if config.predictions is not None:
        answers = [_answers_in_file(config, opened) for opened in benchmarks]
    with ExitStack() as stack:
        make_folder(folder)
        stack.enter_context(closing(FolderLock(folder)))
        progress = stack.enter_context(Progress(config.progress))

        decoding: Decoding | None = None
        if config.predictions is None:
            from mathse.evaluation.sampling import decoding_of

            decoding = decoding_of(config)
        decoded = None if decoding is None else {**decoding.described(), "batch_size": decoding.batch_size}
        keep_identity(config, folder, benchmarks, decoded)
        served = None
        if isinstance(config.generator, VLLMGeneratorConfig) and (
            decoding is not None or config.judge.engine == "vllm"
        ):
            from mathse.evaluation.models import engine_of

            served = engine_of(config, folder, progress.say)
            if served is not None:
                stack.callback(served.engine.stop)
        if decoding is not None:
            answers = _answers_of_student(config, folder, benchmarks, decoding, progress, served)
            gc.collect()  # the student is gone before the ORM is read
        write_json(folder / SETTINGS, flatten(config))

        llm = None
        if config.llm.model is not None:
            from mathse.evaluation.scoring_llm import ScoringLLM  # here: its package takes seconds to load

            llm = ScoringLLM(config.llm, config.llm.model, folder, progress.say)
        scorer = Scorer(config, progress, llm, decoding, served)
        results = []
        for opened, given_answers in zip(benchmarks, answers, strict=True):
            if decoding is None:
                rows = [answer.to_json(several=config.n_samples > 1) for answer in given_answers]
                write_jsonl(opened.folder / PREDICTIONS, rows)
            result = scorer.result(opened, given_answers)
            results.append(result)
            if any(isinstance(s, OwnBenchmarkConfig) for s in config.benchmark.values()) and len(config.benchmark) == 1:
                write_stage_files(result, folder)
        write_pages(folder, results)
        progress.say(f"report: {folder / REPORT}")
    accuracies = [result.metrics["accuracy"] for result in results]
    return sum(accuracies) / len(accuracies) if accuracies and None not in accuracies else None


def _answers_of_student(
    config: EvaluateConfig,
    folder: Path,
    benchmarks: Sequence[OpenedBenchmark],
    decoding: Decoding,
    progress: Progress,
    served: ServedStudents | None,
) -> list[list[Answer]]:
    """The model's answers to each benchmark; those of an earlier start are kept."""
    from mathse.evaluation import models, sampling

    @cache
    def student() -> Student:
        """Read, or its server's client made, when it is first asked for."""
        if isinstance(config.generator, ServerGeneratorConfig):
            served_elsewhere: Student = build(config.generator).student(folder)
            return served_elsewhere
        if served is not None:
            return models.served_student(config, served)
        return models.student(config)

    if config.checkpoint is not None:
        progress.say(f"student: {config.checkpoint}, {_opened_as(config)}")
    answers = []
    for opened in benchmarks:
        with closing(progress.track(f"{opened.name}: answers", len(opened.items) * decoding.n)) as track:
            answers.append(sampling.answers(opened, decoding, student, track.advance))
    return answers


def _opened_as(config: EvaluateConfig) -> str:
    """The family of the checkpoint, and where that and its limits come from."""
    origin = find_origin(Path(str(config.checkpoint)))
    section = config.backbone
    family = section["_target_"] if isinstance(section, dict) else find_option(type(section))
    source = "its config.json, since it lies in no run folder" if origin is None else f"{origin.file}"
    return f"backbone={family}, at most {config.evaluation.max_new_tokens:,} new tokens; settings begin with {source}"


def _answers_in_file(config: EvaluateConfig, opened: OpenedBenchmark) -> list[Answer]:
    """The answers of a predictions file to the problems asked, in the benchmark's order."""
    file = Path(str(config.predictions))
    answers = read_predictions(file, opened.name, opened.known_ids, config.n_samples)
    wanted_ids = [item.problem.id for item in opened.items]
    if not config.partial:
        require_all(file, answers, opened.name, wanted_ids, config.n_samples)
    return [answers[key] for i in wanted_ids for k in range(config.n_samples) if (key := (i, k)) in answers]
