"""The task of benchmark=orm_test: read the labelled paths, judge them with the ORM, write the figures and the page."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path
from typing import Any

from mathse import __version__
from mathse.config import build, flatten
from mathse.config.evaluation import ORMTest as Section
from mathse.config.schema import EvaluateConfig
from mathse.data.domains import open_domain
from mathse.data.images import png_bytes
from mathse.data.labelled_paths import LabelledPath, read_labelled
from mathse.data.sources import open_source
from mathse.evaluation.folder import (
    DISAGREEMENTS,
    IDENTITY,
    JUDGED,
    SETTINGS,
    domain_settings,
    fingerprint,
    keep_identities,
)
from mathse.evaluation.orm_test import ORMTest
from mathse.evaluation.orm_test.metrics import add_verdicts, orm_metrics, result_line
from mathse.evaluation.orm_test.page import render_orm_test
from mathse.evaluation.rewards import is_complete
from mathse.judges import judge_paths
from mathse.judges.orm_rows import read_orm
from mathse.reporting.pages import write_page
from mathse.reporting.progress import Progress
from mathse.runs.folder_lock import FolderLock
from mathse.runs.layout import METRICS, REPORT, VERDICTS
from mathse.runs.store import make_folder, read_jsonl, to_json, write_json, write_jsonl
from mathse.types import Problem, Verdict


def measure(config: EvaluateConfig, folder: Path) -> float | None:
    """Measure the ORM of ``checkpoint`` and write the results into ``folder``.

    Returns its overall accuracy, a fraction.
    """
    name = next(name for name, section in config.benchmark.items() if isinstance(section, Section))
    test: ORMTest = build(config.benchmark[name])
    orm = read_orm(Path(str(config.checkpoint)), "checkpoint")  # kind, order, see_answer, see_image

    # 1. Read the labelled paths before the folder is made: an error in them leaves no folder. A row may name a problem
    # of ``data``, which is opened at the first such row.
    open_data = cache(lambda: open_source(config))

    def problem_of(problem_id: str) -> Problem:
        problem: Problem = open_data().get(problem_id)
        return problem

    labelled = read_labelled(test.paths, problem_of, open_domain(config.task_domain))[: config.limit]

    # 2. Judge them, and write the figures.
    with ExitStack() as stack:
        make_folder(folder)
        stack.enter_context(closing(FolderLock(folder)))
        progress = stack.enter_context(Progress(config.progress))
        test_folder = folder / name
        keep_identities({test_folder / IDENTITY: identity(config, orm, labelled)}, folder)
        write_json(folder / SETTINGS, flatten(config))
        rows = add_verdicts(labelled, judge_all(config, labelled, test_folder / VERDICTS, progress), test.threshold)
        figures = {
            "benchmark": name,
            **orm_metrics(rows, test.threshold, writes_steps=orm["kind"] != "binary", seed=config.seed),
            "protocol": {
                **orm,
                "checkpoint": config.checkpoint,
                "paths": str(test.paths),
                "threshold": test.threshold,
                "limit": config.limit,
                "max_new_tokens": config.judge.max_new_tokens,
                "mathse": __version__,
            },
        }
        wrong = sorted((r for r in rows if not r.judged_rightly), key=lambda r: (-r.confidence, r.labelled.path.id))
        write_jsonl(test_folder / JUDGED, (r.to_json() for r in rows))
        write_jsonl(test_folder / DISAGREEMENTS, (r.to_json() for r in wrong))
        # metrics.json comes after the rows that it counts, and before the page.
        write_json(test_folder / METRICS, figures)
        text = render_orm_test(figures, rows, wrong, png_bytes)
        for page_folder in (test_folder, folder):
            write_page(text, page_folder / REPORT)
        for note in figures["notes"]:
            progress.say(f"{name}: {note}")
        progress.say(f"{name}: {result_line(figures)}: {test_folder / METRICS}")
        progress.say(f"report: {folder / REPORT}")
    overall: float | None = figures["overall_accuracy"]
    return overall


def judge_all(
    config: EvaluateConfig, labelled: Sequence[LabelledPath], file: Path, progress: Progress
) -> Sequence[Verdict]:
    """Return the ORM's verdicts. Its weights are read only if verdicts are missing in ``file``."""
    if is_complete(file, len(labelled)):
        return list(read_jsonl(file, Verdict))
    from mathse.evaluation import models

    served = models.engine_of(config, file.parent, progress.say) if config.judge.engine == "vllm" else None
    judge = models.measured_orm(config, served)
    problems = {row.problem.id: row.problem for row in labelled}
    paths = [row.path for row in labelled]
    with closing(progress.track("verdicts", len(paths))) as track, ExitStack() as stack:
        if served is not None:
            stack.callback(served.engine.stop)
        return judge_paths(judge, problems, paths, file, batch_size=config.judge.batch_size, advance=track.advance)


def identity(config: EvaluateConfig, orm: dict[str, Any], labelled: Sequence[LabelledPath]) -> dict[str, Any]:
    """Return the settings that make the verdicts. The threshold and the labels do not affect them."""
    # Hash of ids, texts, questions, answers, and the names of the pictures; the pictures' folder does not count.
    digest = hashlib.sha256()
    for row in labelled:
        problem = row.problem
        pictures = [Path(ref).name for ref in problem.images]
        question = [problem.id, problem.question, problem.choices, problem.answer, pictures]
        digest.update(to_json([row.path.id, row.path.text, question]).encode("utf-8", "backslashreplace"))
    backbone = {key: value for key, value in flatten(config).items() if key.startswith("backbone.")}
    return {
        "checkpoint": config.checkpoint,
        "checkpoint_sha256": fingerprint(config.checkpoint),
        **orm,
        **backbone,
        **domain_settings(config),
        "judge.batch_size": config.judge.batch_size,
        "judge.max_new_tokens": config.judge.max_new_tokens,
        "paths": len(labelled),
        "paths_sha256": digest.hexdigest(),
    }
