"""The task: read the labelled paths, have them judged, write the figures and the page."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import cached_property
from pathlib import Path
from typing import Any

from mathse import __version__
from mathse.config import build, flatten
from mathse.config.schema import EvaluateConfig
from mathse.config.scoring import ORMTest as Section
from mathse.data.images import png_bytes
from mathse.data.labelled import LabelledPath, read_labelled
from mathse.evaluation.files import DISAGREEMENTS, IDENTITY, JUDGED, METRICS, REPORT, SETTINGS, VERDICTS
from mathse.evaluation.identity import fingerprint, keep
from mathse.evaluation.orm_test import ORMTest
from mathse.evaluation.orm_test.measured import JudgedPath, circumstances, judged, metrics
from mathse.evaluation.orm_test.page import page
from mathse.evaluation.rewards import are_all_there
from mathse.judges import judge_paths
from mathse.judges.orm_rows import read_orm
from mathse.reporting.progress import Progress
from mathse.reporting.report import write_page
from mathse.runs.folder_lock import FolderLock
from mathse.runs.store import make_folder, read_jsonl, to_json, write_json, write_jsonl
from mathse.types import Problem, Verdict


def chosen(config: EvaluateConfig) -> str | None:
    """The name under which benchmark=orm_test is chosen; None where an answering benchmark is."""
    return next((name for name, section in config.benchmark.items() if isinstance(section, Section)), None)


def measure(config: EvaluateConfig, folder: Path) -> float | None:
    """Measure the ORM of ``checkpoint`` into ``folder``; its overall accuracy."""
    name = str(chosen(config))
    asked: ORMTest = build(config.benchmark[name])
    how = read_orm(Path(str(config.checkpoint)), "checkpoint")
    given = read_labelled(asked.paths, Problems(config).get)[: config.limit]  # a mistake leaves no trace
    with ExitStack() as stack:
        make_folder(folder)
        stack.enter_context(closing(FolderLock(folder)))
        progress = stack.enter_context(Progress(config.progress))
        place = folder / name
        keep({place / IDENTITY: identity(config, how, given)}, folder)
        write_json(folder / SETTINGS, flatten(config))
        rows = judged(given, verdicts_on(config, given, place / VERDICTS, progress), asked.threshold)
        found = {
            "benchmark": name,
            **metrics(rows, asked.threshold, writes_steps=how["kind"] != "binary", seed=config.seed),
            "protocol": {**how, **protocol(config, asked)},
        }
        write(rows, found, place, folder)
        for note in found["notes"]:
            progress.say(f"{name}: {note}")
        progress.say(f"{name}: {circumstances(found)}: {place / METRICS}")
        progress.say(f"report: {folder / REPORT}")
    overall: float | None = found["overall_accuracy"]
    return overall


class Problems:
    """The problems of ``data=...``, for rows that name one; the source is opened when the first is asked for."""

    def __init__(self, config: EvaluateConfig) -> None:
        self.config = config

    @cached_property
    def source(self) -> Any:
        return build(self.config.data)

    def get(self, problem_id: str) -> Problem:
        found: Problem = self.source.get(problem_id)
        return found


def verdicts_on(
    config: EvaluateConfig, given: Sequence[LabelledPath], file: Path, progress: Progress
) -> Sequence[Verdict]:
    """The ORM's verdicts; its weights are read only where some are missing in ``file``."""
    if are_all_there(file, len(given)):
        return list(read_jsonl(file, Verdict))
    from mathse.evaluation import models

    judge = models.measured_orm(config)
    problems = {row.problem.id: row.problem for row in given}
    paths = [row.path for row in given]
    with closing(progress.track("verdicts", len(paths))) as track:
        return judge_paths(judge, problems, paths, file, batch_size=config.judge.batch_size, advance=track.advance)


def identity(config: EvaluateConfig, how: dict[str, Any], given: Sequence[LabelledPath]) -> dict[str, Any]:
    """What the verdicts were made with: another threshold, or other labels, change none of them."""
    backbone = {key: value for key, value in flatten(config).items() if key.startswith("backbone.")}
    return {
        "checkpoint": config.checkpoint,
        "checkpoint_sha256": fingerprint(config.checkpoint),
        **how,
        **backbone,
        "judge.batch_size": config.judge.batch_size,
        "judge.max_new_tokens": config.judge.max_new_tokens,
        "paths": len(given),
        "paths_sha256": _digest(given),
    }


def _digest(given: Sequence[LabelledPath]) -> str:
    """Hash of what is judged: ids, texts, questions, answers and which pictures; not where the pictures lie."""
    digest = hashlib.sha256()
    for row in given:
        problem = row.problem
        asked = [problem.id, problem.question, problem.choices, problem.answer, [Path(i).name for i in problem.images]]
        digest.update(to_json([row.path.id, row.path.text, asked]).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def protocol(config: EvaluateConfig, asked: ORMTest) -> dict[str, Any]:
    """What the figures were measured with."""
    return {
        "checkpoint": config.checkpoint,
        "paths": str(asked.paths),
        "threshold": asked.threshold,
        "limit": config.limit,
        "max_new_tokens": config.judge.max_new_tokens,
        "mathse": __version__,
    }


def write(rows: Sequence[JudgedPath], found: dict[str, Any], place: Path, folder: Path) -> None:
    """metrics.json before the page, and after all else that is read from it."""
    wrong = sorted((r for r in rows if not r.judged_rightly), key=lambda r: (-r.confidence, r.given.path.id))
    write_jsonl(place / JUDGED, (r.to_json() for r in rows))
    write_jsonl(place / DISAGREEMENTS, (r.to_json() for r in wrong))
    write_json(place / METRICS, found)
    drawn = page(found, rows, wrong, png_bytes)
    for where in (place, folder):
        write_page(drawn, where / REPORT)
