"""The tasks of train.py: open the run folder, run the stages, write the summary and the report."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from mathse.config import build
from mathse.config.schema import TrainConfig, select_callbacks
from mathse.config.sections import to_plain
from mathse.data.content_hashes import content_hashes, prompt_hashes
from mathse.data.decontamination.hash_lists import location
from mathse.data.images import load_image, png_bytes
from mathse.data.problem_table import ids_of
from mathse.data.sources import open_source, problem_named
from mathse.errors import DataError, SettingsChanged
from mathse.evolution import memory
from mathse.evolution.context import RunContext
from mathse.evolution.keys import recorded_settings
from mathse.evolution.loop import EvolutionLoop
from mathse.evolution.models import RunModels
from mathse.evolution.planner import stages_ahead
from mathse.evolution.problems import RunProblems
from mathse.evolution.summary import summarize
from mathse.inference.llm.account import format_totals
from mathse.judges.served_orm import note_unscored
from mathse.judges.teachers import PaidTeacher
from mathse.models import quiet
from mathse.models.adapters import require_four_bit
from mathse.reporting import report
from mathse.reporting.loggers import RunLoggers
from mathse.reporting.progress import Progress
from mathse.reporting.progress.outlook import Outlook
from mathse.runs.layout import CONTROLS, REPORT, RUN, SUMMARY
from mathse.runs.reader import finished_summary
from mathse.runs.stage_cache import Compute, RunFolder, branch_folder
from mathse.runs.store import read_jsonl, sha256_file, write_json
from mathse.training import ranks
from mathse.training.fit import device_of
from mathse.types import ReasoningPath

NAMED = 3  # runs in a message; the others are counted


def run_task(config: TrainConfig, folder: Path) -> float | None:
    """Run ``config.task`` in ``folder``, or go on with it; the number a sweep optimises (from dev problems).

    Of several ranks the first one runs the task; the others take part in its fits and its sampling, and return None.
    """
    quiet()
    torch.set_num_threads(config.trainer.threads)
    with ExitStack() as stack:
        trainer = config.trainer
        rank = stack.enter_context(ranks.join(trainer.accelerator, trainer.devices, trainer.timeout_minutes))
        if not rank.is_main:
            rank.follow()
            return None
        device = memory.device_of(config)
        if finished_summary(folder) is None:
            # Both before a folder, a download, a request.
            ranks.find_device(trainer.accelerator)
            memory.refuse_what_cannot_fit(config, device)
        progress = stack.enter_context(Progress(config.progress))
        run = stack.enter_context(open_run(config, folder, progress))
        if (summary := finished_summary(run.path)) is not None:
            progress.say(f"{run.path} was finished before; nothing to do")
        else:
            for line in (run.other_ranks, memory.first_line(config, device)):
                if line is not None:
                    progress.say(line)
            summary = _run(config, run, progress, stack)
        progress.table(summary)
        if config.note is not None:
            progress.say(config.note)
        if config.task == "evolve" and not (run.path / CONTROLS).exists():
            progress.say(f"no control has been made of this result: mathse control {run.path}")
        progress.say(f"report: {run.path / REPORT}")
    return summary["metric"]


def _run(config: TrainConfig, run: RunFolder, progress: Progress, stack: ExitStack) -> dict[str, Any]:
    if "qlora" in (config.sft.method, config.orm.fit.method):
        require_four_bit()  # before a model is read
    source = open_source(config)
    progress.outlook = Outlook(stages_ahead(config, source))
    loggers = RunLoggers.open(config.logger, run=run, problem_of=source.get, image=load_image)
    stack.callback(loggers.say_what_is_left, progress.say)  # at the very end, however it comes
    stack.enter_context(closing(loggers))
    teacher = build(config.teacher)
    if isinstance(teacher, PaidTeacher):
        teacher.account_in(run.path)
    notes = [*source.notes, *(note for note in (config.note, run.other_ranks) if note is not None)]
    context = RunContext(config, run, progress, loggers, notes)
    problems, models = RunProblems(source, config.evaluation.limit), RunModels(context, teacher, source)
    stack.callback(models.stop_engines)
    progress.say(problems.require(config))
    loop = EvolutionLoop(context, problems, models, [build(callback) for callback in select_callbacks(config)])
    TASKS[config.task](loop)

    # The run is over; what follows describes it.
    if models.served_orm is not None and (note := note_unscored(run.path)) is not None:
        context.note(note)
    summary = summarize(loop)
    page = run.path / REPORT
    report.write_report([run.path], page, lambda _, i: problems.by_id.get(i), png_bytes, summary)
    loggers.finish(summary)
    loggers.close()
    write_json(run.path / SUMMARY, summary)  # last: a run with a summary is finished, and nothing is done for it again
    if isinstance(teacher, PaidTeacher):
        progress.say(f"teacher: {format_totals(teacher.usage())}")
    return summary


# --- tasks ------------------------------------------------------------------------------------------------------------


def sft(loop: EvolutionLoop) -> None:
    file = Path(str(loop.config.sft.train))
    rows, problems = read_training_rows(file, loop.problems), loop.problems
    measured_on = {problem_id for split in ("test", "dev") for problem_id in ids_of(problems.splits[split])}
    learnt_from = [row for row in rows if row.problem_id not in measured_on]
    if len(learnt_from) < len(rows):
        advice = "data.test_path=FILE measures on others, data.dev_share=0 on no dev split"
        of_splits = f"of problems of the test and dev splits, on which the student is measured; {advice}"
        if not learnt_from:
            raise DataError(f"{file}: all rows are {of_splits}")
        left_out = len(rows) - len(learnt_from)
        loop.context.note(f"{left_out:,} of {len(rows):,} rows of sft.train are left out: they are {of_splits}.")
    loop.fit_only(learnt_from)


TASKS: dict[str, Callable[[EvolutionLoop], None]] = {
    "evolve": EvolutionLoop.run,
    "distill": EvolutionLoop.distill_only,
    "orm": EvolutionLoop.base_and_orm,
    "sft": sft,
}


def read_training_rows(file: Path, problems: RunProblems) -> list[ReasoningPath]:
    """The rows of a train.jsonl whose problems are in this run's data; a DataError names the first that is not."""
    rows = []
    for number, row in enumerate(read_jsonl(file, ReasoningPath), 1):
        problem_named(row.problem_id, problems.add, f"{file}:{number}")
        rows.append(row)
    if not rows:
        raise DataError(f"sft.train = {str(file)!r}: holds no rows; name a train.jsonl with at least one")
    return rows


# --- run folders ------------------------------------------------------------------------------------------------------


def settings(config: TrainConfig) -> dict[str, Any]:
    """The flat settings that stages depend on, files by content, devices of all machines."""
    flat = recorded_settings(config) | content_hashes(config.data) | prompt_hashes(config.task_domain)
    flat["trainer.devices"] = ranks.current().world_size
    if config.sft.train:
        flat["sft.train_sha256"] = sha256_file(Path(config.sft.train))
    for key in ("orm.train", "orm.held"):
        if (file := flat.pop(key)) is not None:
            flat[f"{key}_sha256"] = sha256_file(Path(file))
    if config.decontaminate.against:
        flat["decontaminate.against_sha256"] = [sha256_file(location(file)) for file in config.decontaminate.against]
    return flat


def open_run(config: TrainConfig, folder: Path, progress: Progress) -> RunFolder:
    """The run folder to work in. With ``resume=branch``: ``folder`` if it is new or goes with these settings, else a
    new one beside it; either takes over the stages of the other runs that these settings would make alike."""
    if config.resume != "branch":
        return _open(config, folder)
    others = [Path(p) for p in config.resume_from] or [file.parent for file in folder.parent.glob(f"*/{RUN}")]
    # The folder asked for, else the newest of its branches that has these settings, else a new branch.
    candidates = [folder, *sorted(folder.parent.glob(f"{folder.name}-branch-*"), reverse=True)]
    for candidate in candidates:
        try:
            run = _open(config, candidate)
            break
        except SettingsChanged:
            others.append(candidate)
    else:
        run = _open(config, branch_folder(folder))
    sources = [o for o in dict.fromkeys(others) if o.resolve() != run.path.resolve()]
    run.branch_from(sources)
    names = ", ".join(map(str, sources[:NAMED])) or "no other run"
    more = f" and {len(sources) - NAMED:,} more" if len(sources) > NAMED else ""
    progress.say(f"{run.path} takes over what it can from {names}{more}")
    return run


def _open(config: TrainConfig, folder: Path) -> RunFolder:
    of_this_start = ("resume", "resume_from", "progress", "plan")  # another start of the run may have other values
    nested = {key: value for key, value in to_plain(config).items() if key not in of_this_start}
    run = RunFolder.open(folder, settings(config), name=config.name, task=config.task, seed=config.seed, nested=nested)
    rank = ranks.current()
    on_gpu = device_of(config.trainer).type == "cuda"
    run.compute = Compute("gpu", lambda: rank.world_size * monotonic()) if on_gpu else Compute("cpu", rank.cpu_seconds)
    return run
