"""``python evaluate.py``: answers first, then verdicts, each benchmark in its folder below the run folder.

    <run>/<benchmark>/predictions.jsonl    id, response; appended batch by batch, and a rerun continues
                      scored.jsonl         id, response, extraction, prediction, answer, correct, decided_by, ...
                      samples.jsonl        the same for every sample, if n_samples > 1
                      disagreements.jsonl  the rows on which math-verify's verdict differs
                      metrics.json         benchmark, split, correct, total, accuracy, ci95, buckets, protocol, ...
                      report.html
    <run>/evaluation.json                  the settings
    <run>/report.html                      all benchmarks

If benchmark=synthetic is the only benchmark, <run> itself also has metrics.json and predictions.jsonl in the format of
a training run's stages.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathse.config import build, flatten
from mathse.config.evaluation import ORMTest, OwnBenchmark
from mathse.config.generators import ServerGenerator, VLLMGenerator
from mathse.config.options import option_of
from mathse.config.origin import origin_of
from mathse.config.schema import EvaluateConfig
from mathse.config.trust import locate
from mathse.evaluation.folder import SETTINGS, keep_identity
from mathse.evaluation.opened import OpenedBenchmark, open_benchmarks
from mathse.evaluation.page import write_pages
from mathse.evaluation.predictions import Answer, read_predictions, require_all
from mathse.evaluation.results import BenchmarkScorer, write_stage_files
from mathse.reporting.progress import Progress
from mathse.runs.folder_lock import FolderLock
from mathse.runs.layout import PREDICTIONS, REPORT
from mathse.runs.store import make_folder, write_json, write_jsonl

if TYPE_CHECKING:
    from mathse.evaluation.sampling import Decoding, Student
    from mathse.inference.serving.student import ServedStudents


def evaluate(config: EvaluateConfig, folder: Path) -> float | None:
    """Score answers of a model or of a file on each chosen benchmark.

    Returns the mean accuracy, a fraction; None if an accuracy is not known.
    """
    work: Callable[[EvaluateConfig, Path], float | None] = _evaluate
    orm_tests = [section for section in config.benchmark.values() if isinstance(section, ORMTest)]
    if orm_tests:
        # An ORM has no answers to score: the class of this benchmark does all of the work.
        test_class: Any = locate(orm_tests[0]._target_, "benchmark")
        work = test_class.evaluate
    elif config.predictions is not None and config.judge.checkpoint is None and config.trainer.devices == 1:
        return _evaluate(config, folder)  # without a model, torch is not imported
    from mathse.evaluation.models import on_devices

    return on_devices(config.trainer, lambda: work(config, folder))


def _evaluate(config: EvaluateConfig, folder: Path) -> float | None:
    # 1. Read benchmarks and a file's answers before the folder is made: an error in them leaves no folder.
    benchmarks = open_benchmarks(config, folder)
    answers: list[list[Answer]] = []
    if config.predictions is not None:
        answers = [_read_answers(config, opened) for opened in benchmarks]
    with ExitStack() as stack:
        make_folder(folder)
        stack.enter_context(closing(FolderLock(folder)))
        progress = stack.enter_context(Progress(config.progress))

        # 2. Sample answers, unless a file gave them. Answers of an earlier start are kept if the settings are equal.
        decoding: Decoding | None = None
        if config.predictions is None:
            from mathse.evaluation.sampling import decoding_of

            decoding = decoding_of(config)
        decoding_settings = None
        if decoding is not None:
            decoding_settings = {**decoding.to_json(), "batch_size": decoding.batch_size}
        keep_identity(config, folder, benchmarks, decoding_settings)
        served = None
        if isinstance(config.generator, VLLMGenerator) and (decoding is not None or config.judge.engine == "vllm"):
            from mathse.evaluation.models import engine_of

            served = engine_of(config, folder, progress.say)
            if served is not None:
                stack.callback(served.engine.stop)
        if decoding is not None:
            answers = _sample_answers(config, folder, benchmarks, decoding, progress, served)
            gc.collect()  # the student's memory is free before the ORM is read
        write_json(folder / SETTINGS, flatten(config))

        # 3. Score the answers of each benchmark, and write the pages.
        llm = None
        if config.llm.model is not None:
            from mathse.evaluation.scoring_llm import ScoringLLM  # here: its package takes seconds to import

            llm = ScoringLLM(config.llm, config.llm.model, folder, progress.say)
        scorer = BenchmarkScorer(config, progress, llm, decoding, served)
        sections = list(config.benchmark.values())
        is_only_own = len(sections) == 1 and isinstance(sections[0], OwnBenchmark)
        results = []
        for opened, benchmark_answers in zip(benchmarks, answers, strict=True):
            if decoding is None:
                rows = [answer.to_json(several=config.n_samples > 1) for answer in benchmark_answers]
                write_jsonl(opened.folder / PREDICTIONS, rows)
            result = scorer.score(opened, benchmark_answers)
            results.append(result)
            if is_only_own:
                write_stage_files(result, folder)
        write_pages(folder, results)
        progress.say(f"report: {folder / REPORT}")
    accuracies = [result.metrics["accuracy"] for result in results]
    return sum(accuracies) / len(accuracies) if accuracies and None not in accuracies else None


def _sample_answers(
    config: EvaluateConfig,
    folder: Path,
    benchmarks: Sequence[OpenedBenchmark],
    decoding: Decoding,
    progress: Progress,
    served: ServedStudents | None,
) -> list[list[Answer]]:
    """Sample the model's answers to each benchmark. Answers of an earlier start are kept."""
    from mathse.evaluation import models, sampling

    @cache
    def student() -> Student:
        """Open the model, or the client of its server, at the first call."""
        if isinstance(config.generator, ServerGenerator):
            remote_student: Student = build(config.generator).student(folder)
            return remote_student
        if served is not None:
            return models.served_student(config, served)
        return models.student(config)

    if config.checkpoint is not None:
        # Name the family of the checkpoint, and the origin of its settings and limits.
        origin = origin_of(Path(config.checkpoint))
        section = config.backbone
        family = section["_target_"] if isinstance(section, dict) else option_of(type(section))
        source = "its config.json, since it is in no run folder" if origin is None else f"{origin.file}"
        limit = f"at most {config.evaluation.max_new_tokens:,} new tokens"
        progress.say(f"student: {config.checkpoint}, backbone={family}, {limit}; settings begin with {source}")
    answers = []
    for opened in benchmarks:
        with closing(progress.track(f"{opened.name}: answers", len(opened.items) * decoding.n)) as track:
            answers.append(sampling.sample_answers(opened, decoding, student, track.advance))
    return answers


def _read_answers(config: EvaluateConfig, opened: OpenedBenchmark) -> list[Answer]:
    """Read the answers of the predictions file to the benchmark's problems, in the benchmark's order."""
    file = Path(str(config.predictions))
    answers = read_predictions(file, opened.name, opened.known_ids, config.n_samples)
    problem_ids = [item.problem.id for item in opened.items]
    if not config.partial:
        require_all(file, answers, opened.name, problem_ids, config.n_samples)
    # With partial=true some (id, sample) have no answer.
    keys = product(problem_ids, range(config.n_samples))
    return [answers[key] for key in keys if key in answers]
