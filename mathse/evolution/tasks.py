"""The tasks of ``mathse train``: open the run folder, run the stages, write the summary and the report."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from mathse.config import build
from mathse.config.schema import TrainConfig, chosen_callbacks
from mathse.config.sections import plain
from mathse.data.content_hashes import content_hashes, prompt_hashes
from mathse.data.decontamination.hash_lists import location
from mathse.data.images import load_image, png_bytes
from mathse.data.problem_table import ids_of
from mathse.data.sources import open_source, problem_named
from mathse.errors import DataError, SettingsChanged
from mathse.evolution import memory
from mathse.evolution.evolution_run import RunContext
from mathse.evolution.keys import flatten_for_identity
from mathse.evolution.loop import EvolutionLoop
from mathse.evolution.measure import summarize_run
from mathse.evolution.models import RunModels
from mathse.evolution.planner import plan_stages
from mathse.evolution.problems import RunProblems
from mathse.inference.llm.account import format_totals
from mathse.judges.served_orm import note_unscored
from mathse.judges.teachers import PaidTeacher
from mathse.models import silence_transformers
from mathse.models.adapters import require_four_bit
from mathse.reporting import report
from mathse.reporting.loggers import RunLoggers
from mathse.reporting.progress import Progress
from mathse.reporting.progress.outlook import Outlook
from mathse.runs.layout import CONTROLS, REPORT, RUN, SUMMARY
from mathse.runs.reader import read_finished_summary
from mathse.runs.stage_cache import Compute, RunFolder, name_branch
from mathse.runs.store import read_jsonl, sha256_file, write_json
from mathse.training import ranks
from mathse.training.fit import device_of
from mathse.types import ReasoningPath

MAX_NAMED = 3  # runs that a message names; the others are counted


def run_task(config: TrainConfig, folder: Path) -> float | None:
    """Run ``config.task`` in ``folder``, or resume it.

    Rank 0 runs the task. The other ranks join its fits and its sampling.

    Returns:
        The number that a sweep optimises, which comes from dev problems; None on other ranks.
    """
    silence_transformers()
    torch.set_num_threads(config.trainer.threads)
    with ExitStack() as stack:
        trainer = config.trainer
        rank = stack.enter_context(ranks.join(trainer.accelerator, trainer.devices, trainer.timeout_minutes))
        if not rank.is_main:
            rank.follow()
            return None
        device = memory.read_device(config)
        if read_finished_summary(folder) is None:
            # Both checks come before the run has a folder, downloads or sends a request.
            ranks.find_device(trainer.accelerator)
            memory.check_memory(config, device)
        progress = stack.enter_context(Progress(config.progress))
        run = stack.enter_context(open_run(config, folder, progress))
        if (summary := read_finished_summary(run.path)) is not None:
            progress.say(f"{run.path} was finished before; nothing to do")
        else:
            for line in (run.other_ranks, memory.describe_run(config, device)):
                if line is not None:
                    progress.say(line)
            summary = _run_stages(config, run, progress, stack)
        progress.table(summary)
        if config.note is not None:
            progress.say(config.note)
        if config.task == "evolve" and not (run.path / CONTROLS).exists():
            progress.say(f"no control has been made of this result: mathse control {run.path}")
        progress.say(f"report: {run.path / REPORT}")
    return summary["metric"]


def _run_stages(config: TrainConfig, run: RunFolder, progress: Progress, stack: ExitStack) -> dict[str, Any]:
    """Run all stages, and write the report and summary.json.

    Args:
        stack: closes loggers and engines when the run ends, with or without an error.

    Returns:
        The summary.
    """
    # 1) Open data, loggers and models.
    if "qlora" in (config.sft.method, config.orm.fit.method):
        require_four_bit()  # before a model is read
    source = open_source(config)
    progress.outlook = Outlook(plan_stages(config, source))
    loggers = RunLoggers.open(config.logger, run=run, problem_of=source.get, image=load_image)
    stack.callback(loggers.say_remaining_tasks, progress.say)  # after the loggers are closed
    stack.enter_context(closing(loggers))
    teacher = build(config.teacher)
    if isinstance(teacher, PaidTeacher):
        teacher.account_in(run.path)
    notes = [*source.notes, *(note for note in (config.note, run.other_ranks) if note is not None)]
    context = RunContext(config, run, progress, loggers, notes)
    problems, models = RunProblems(source, config.evaluation.limit), RunModels(context, teacher, source)
    stack.callback(models.stop_engines)
    progress.say(problems.require(config))
    loop = EvolutionLoop(context, problems, models, [build(callback) for callback in chosen_callbacks(config)])

    # 2) Run.
    TASKS[config.task](loop)

    # 3) Report. summary.json is written last: a run with a summary is finished, and nothing is done for it again.
    if models.served_orm is not None and (note := note_unscored(run.path)) is not None:
        context.note(note)
    summary = summarize_run(loop)
    page = run.path / REPORT
    report.write_report([run.path], page, lambda _, i: problems.by_id.get(i), png_bytes, summary)
    loggers.finish(summary)
    loggers.close()
    write_json(run.path / SUMMARY, summary)
    if isinstance(teacher, PaidTeacher):
        progress.say(f"teacher: {format_totals(teacher.usage())}")
    return summary


# --- tasks ------------------------------------------------------------------------------------------------------------


def fit_on_file(loop: EvolutionLoop) -> None:
    """task=sft: train on the rows of ``sft.train``, except rows of test and dev problems."""
    file, problems = Path(str(loop.config.sft.train)), loop.problems
    rows = read_training_rows(file, problems)
    measured = {*ids_of(problems.splits["test"]), *ids_of(problems.splits["dev"])}
    kept = [row for row in rows if row.problem_id not in measured]
    if len(kept) < len(rows):
        advice = "data.test_path=FILE measures on others, data.dev_share=0 on no dev split"
        of_splits = f"of problems of the test and dev splits, on which the student is measured; {advice}"
        if not kept:
            raise DataError(f"{file}: all rows are {of_splits}")
        left_out = len(rows) - len(kept)
        loop.context.note(f"{left_out:,} of {len(rows):,} rows of sft.train are left out: they are {of_splits}.")
    loop.fit_only(kept)


TASKS: dict[str, Callable[[EvolutionLoop], None]] = {
    "evolve": EvolutionLoop.run,
    "distill": EvolutionLoop.distill_only,
    "orm": EvolutionLoop.train_base_and_orm,
    "sft": fit_on_file,
}


def read_training_rows(file: Path, problems: RunProblems) -> list[ReasoningPath]:
    """Read the rows of a train.jsonl.

    Raises:
        DataError: the file has no row, or a row has a problem that is not in the run's data.
    """
    rows = []
    for number, row in enumerate(read_jsonl(file, ReasoningPath), 1):
        problem_named(row.problem_id, problems.add, f"{file}:{number}")
        rows.append(row)
    if not rows:
        raise DataError(f"sft.train = {str(file)!r}: holds no rows; name a train.jsonl with at least one")
    return rows


# --- run folders ------------------------------------------------------------------------------------------------------


def flatten_settings(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that stages depend on, by dotted key.

    Files are replaced by hashes of their contents. ``trainer.devices`` counts the devices of all machines.
    """
    flat = flatten_for_identity(config) | content_hashes(config.data) | prompt_hashes(config.task_domain)
    flat["trainer.devices"] = ranks.current().world_size
    if config.sft.train:
        flat["sft.train_sha256"] = sha256_file(Path(config.sft.train))
    for key in ("orm.train", "orm.held"):
        file = flat.pop(key)
        if file is not None:
            flat[f"{key}_sha256"] = sha256_file(Path(file))
    if config.decontaminate.against:
        flat["decontaminate.against_sha256"] = [sha256_file(location(file)) for file in config.decontaminate.against]
    return flat


def open_run(config: TrainConfig, folder: Path, progress: Progress) -> RunFolder:
    """Open the run folder.

    With ``resume=branch`` this is ``folder`` if it is new or has the same settings, and else a new folder beside it.
    The run then reuses stages of other runs with equal identities.
    """
    if config.resume != "branch":
        return _open_folder(config, folder)
    others = [Path(p) for p in config.resume_from] or [file.parent for file in folder.parent.glob(f"*/{RUN}")]
    # Try the given folder, then its branches from the newest on, then make a new branch.
    candidates = [folder, *sorted(folder.parent.glob(f"{folder.name}-branch-*"), reverse=True)]
    for candidate in candidates:
        try:
            run = _open_folder(config, candidate)
            break
        except SettingsChanged:
            others.append(candidate)
    else:
        run = _open_folder(config, name_branch(folder))
    sources = [other for other in dict.fromkeys(others) if other.resolve() != run.path.resolve()]
    run.branch_from(sources)
    names = ", ".join(map(str, sources[:MAX_NAMED])) or "no other run"
    more = f" and {len(sources) - MAX_NAMED:,} more" if len(sources) > MAX_NAMED else ""
    progress.say(f"{run.path} takes over what it can from {names}{more}")
    return run


def _open_folder(config: TrainConfig, folder: Path) -> RunFolder:
    varying = ("resume", "resume_from", "progress", "plan")  # settings that may change when a run is resumed
    nested = {key: value for key, value in plain(config).items() if key not in varying}
    run = RunFolder.open(
        folder, flatten_settings(config), name=config.name, task=config.task, seed=config.seed, nested=nested
    )
    rank = ranks.current()
    on_gpu = device_of(config.trainer).type == "cuda"
    run.compute = Compute("gpu", lambda: rank.world_size * monotonic()) if on_gpu else Compute("cpu", rank.cpu_seconds)
    return run
