"""Hydra's launcher for SLURM: submit the jobs of a sweep, or find the running jobs, and print their states.

A job is the command of a single run in its folder, in the script ``conf/hydra/launcher/job.sh``, which queues a stopped
job again. A job can be stopped, inspected and resumed as any run. A closed terminal or Ctrl-C does not stop the jobs,
and the same command watches them again.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping, Sequence, Set
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mathse.commands.cli import Program
from mathse.commands.mistakes import JobFailed
from mathse.commands.slurm import queue, submission
from mathse.commands.slurm.queue import JobState
from mathse.commands.slurm.settings import SlurmSettings
from mathse.commands.slurm.submission import SlurmJob
from mathse.config import sweeps
from mathse.config.options import CONF
from mathse.errors import MathSEError
from mathse.runs.reader import read_finished_summary

SCRIPT = CONF / "hydra" / "launcher" / "job.sh"
FIRST_PAUSE, MAX_PAUSE = 1.0, 15.0  # seconds between two queries of the queue; the pause grows
# Queries in which an ended job may still write its exit code, because shared disks are slow.
MAX_QUERIES_WITHOUT_STATUS = 3


@dataclass(frozen=True)
class SweepJob:
    """A job of the sweep. ``name``: the overrides in which it differs from the other jobs."""

    name: str
    overrides: list[str]
    config: DictConfig
    folder: Path


def launch(
    settings: Mapping[str, Any],
    program: Program,
    hydra: HydraContext,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
) -> list[JobReturn]:
    """Run one job per list of overrides, and wait until all have ended.

    Args:
        config: the composed config with Hydra's own node.

    Raises ConfigError before anything is submitted, JobFailed if jobs failed and no sweeper uses their results, and
    KeyboardInterrupt with a message after Ctrl-C, which does not stop the jobs.
    """
    # Check all jobs before the first is submitted.
    plain: dict[str, Any] = {}
    for key, value in settings.items():
        plain[key] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    slurm = SlurmSettings(**plain)
    shared = set.intersection(*(set(overrides) for overrides in job_overrides))
    jobs = []
    for overrides in job_overrides:
        job = _compose_job(overrides, shared, hydra, config)
        slurm.refuse_other_devices(program.check(_without_hydra(job.config)).trainer.devices)
        jobs.append(job)
    commands = {job.folder: program.command(job.overrides, job.folder) for job in jobs}
    reasons = _watch(_submit_or_find(jobs, commands, Path(str(config.hydra.sweep.dir)).absolute(), slurm))
    choosing = sweeps.chooses_settings(config.hydra.sweeper)
    if reasons and not choosing:
        raise JobFailed(f"{len(reasons)} of {len(jobs)} jobs failed")
    return [_make_return(job, reasons.get(job.folder), choosing) for job in jobs]


def _compose_job(overrides: Sequence[str], shared: Set[str], hydra: HydraContext, config: DictConfig) -> SweepJob:
    """Return the job that Hydra's own launcher would run. ``shared``: overrides of all jobs."""
    composed = hydra.config_loader.load_sweep_config(config, list(overrides))
    HydraConfig.instance().set_config(composed)
    folder = Path(str(composed.hydra.sweep.dir), str(composed.hydra.sweep.subdir)).absolute()
    run_overrides = [override for override in overrides if override.lstrip("+").partition("=")[0] != "sweep"]
    name = ",".join(override for override in run_overrides if override not in shared)
    return SweepJob(name or folder.name, run_overrides, composed, folder)


def _without_hydra(config: DictConfig) -> DictConfig:
    task_config = deepcopy(config)
    with read_write(task_config), open_dict(task_config):
        del task_config["hydra"]
    return task_config


def _submit_or_find(
    jobs: Sequence[SweepJob], commands: Mapping[Path, list[str]], sweep: Path, slurm: SlurmSettings
) -> dict[SlurmJob, SweepJob]:
    """Return the unfinished jobs by their job in SLURM, which is running already or is submitted here."""
    # A job of an earlier submission counts as running if SLURM still has it and it has no exit code.
    unfinished = [job for job in jobs if read_finished_summary(job.folder) is None]
    before = submission.read_submitted(sweep)
    alive = {number for number, state in queue.query_states().items() if state.is_alive} if before else set()
    running = {job.folder: job for job in before.values() if job.number in alive and job.status() is None}
    new = [job for job in unfinished if job.folder not in running]
    new_commands = {job.folder: commands[job.folder] for job in new}
    slurm_jobs = running | {job.folder: job for job in _submit(new_commands, sweep, slurm)}
    finished, joined = len(jobs) - len(unfinished), len(unfinished) - len(new)
    _print_status(
        f"{_shorten(sweep)}: {len(jobs)} jobs: {finished} finished before, {joined} running, {len(new)} submitted"
    )
    watched = {slurm_jobs[job.folder]: job for job in unfinished}
    for slurm_job, job in watched.items():
        _print_status(f"{slurm_job.number}: {job.name}; log: {_shorten(slurm_job.log)}")
    return watched


def _submit(commands: Mapping[Path, list[str]], sweep: Path, slurm: SlurmSettings) -> list[SlurmJob]:
    """Submit an array of jobs. ``commands``: by run folder."""
    if not commands:
        return []
    files = submission.make_files(sweep)
    lines = files / submission.COMMANDS
    lines.write_text("".join(f"{shlex.join(command)}\n" for command in commands.values()), encoding="utf-8")
    try:
        number = queue.submit([*slurm.options(files, len(commands))], [str(SCRIPT), str(lines)], slurm.environment())
    except MathSEError:
        submission.remove_files(files)
        raise
    return submission.write_record(files, number, [*commands])


def _make_return(job: SweepJob, reason: str | None, choosing: bool) -> JobReturn:
    number = (read_finished_summary(job.folder) or {}).get("metric")
    if reason is None and number is None and choosing:
        reason = "the run has no dev accuracy for the sweeper to choose by; callbacks.evaluate measures it"
    result = JobReturn(overrides=job.overrides, cfg=job.config, working_dir=str(job.folder))
    result.status = JobStatus.COMPLETED if reason is None else JobStatus.FAILED
    result.return_value = number if reason is None else JobFailed(reason)
    return result


def _watch(jobs: Mapping[SlurmJob, SweepJob]) -> dict[Path, str]:
    """Print the states of the jobs until all have ended. Returns the reason of each failed job by its run folder.

    Raises KeyboardInterrupt with a message after Ctrl-C or SIGTERM, which do not stop the jobs.
    """
    last_state: dict[SlurmJob, str] = {}
    queries = dict.fromkeys(jobs, 0)  # of ended jobs without an exit code
    reasons: dict[Path, str] = {}
    pause = FIRST_PAUSE
    try:
        while queries:
            states = _query_states()
            for job in list(queries) if states is not None else ():
                state = (states or {}).get(job.number)
                status = job.status()
                queries[job] += status is None and (state is None or not state.is_alive)
                # Wait for the exit code for some queries, then count the job as ended.
                if status is None and queries[job] < MAX_QUERIES_WITHOUT_STATUS:
                    if state is not None and state.is_alive and last_state.get(job) != str(state):
                        last_state[job] = str(state)
                        _print_status(f"{job.number} ({jobs[job].name}): {state}")
                    continue
                del queries[job]
                if (reason := _explain_failure(job, status, state)) is None:
                    _print_status(f"{job.number} ({jobs[job].name}): finished: {_shorten(job.folder)}")
                else:
                    reasons[job.folder] = reason
                    _print_status(f"error: {job.number} ({jobs[job].name}): {reason}; log: {_shorten(job.log)}")
            if queries:
                time.sleep(pause)
                pause = min(pause * 1.2, MAX_PAUSE)
    except KeyboardInterrupt:
        numbers = " ".join(job.number for job in queries)
        raise KeyboardInterrupt(
            f"jobs {numbers} continue; the same command watches them again, `scancel {numbers}` stops them"
        ) from None
    return reasons


def _query_states() -> dict[str, JobState] | None:
    """Return the states of all jobs, or None if SLURM does not answer and must be asked again."""
    try:
        return queue.query_states()
    except MathSEError as e:
        _print_status(f"{e}; the jobs continue")
        return None


def _explain_failure(job: SlurmJob, status: int | None, state: JobState | None) -> str | None:
    """Return the reason why a job failed, or None if it did not."""
    if status == 0:
        return None
    if status is not None and (state is None or state.state in ("FAILED", "COMPLETED", "COMPLETING")):
        return f"exit code {status}: {job.last_error()}"
    endings = {
        "CANCELLED": "was cancelled",
        "TIMEOUT": "exceeded its time (hydra.launcher.timeout_min) and could not be queued again",
        "OUT_OF_MEMORY": "used more memory than it requested (hydra.launcher.mem_gb)",
        "NODE_FAIL": "lost its node",
    }
    ended = "is gone from SLURM's queue"
    if state is not None:
        ended = endings.get(state.state, f"ended as {state.state}")
    return f"{ended}; the same command submits it again, and it continues from there"


def _shorten(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _print_status(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
