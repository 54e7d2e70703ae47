"""Hydra's launcher for SLURM: submits the jobs of a sweep, or joins those that run, and tells what becomes of them.

A job is the command of a single run in its folder, under ``conf/hydra/launcher/job.sh``, which queues it again where it
was stopped. So it can be stopped, looked at and gone on with as any run, and nothing is lost with the terminal: closed
or left by Ctrl-C, it leaves the jobs as they are, and the same command watches them again.
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
from mathse.runs.reader import finished_summary

SCRIPT = CONF / "hydra" / "launcher" / "job.sh"
FIRST_LOOK, RARELY = 1.0, 15.0  # seconds between two looks at the queue: at first, and later on
UNSEEN = 3  # looks in which a job that has ended may still write its exit code: shared disks are slow


@dataclass(frozen=True)
class SweptJob:
    name: str  # the overrides that make it different
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
    """Run a job for each list of overrides, and wait until all have ended. ``config``: the composed one, with Hydra's
    own node.

    Raises ConfigError before anything is submitted, JobFailed where jobs failed and no sweeper is interested in which,
    KeyboardInterrupt (with a sentence) after Ctrl-C, which the jobs outlive.
    """
    plain: dict[str, Any] = {key: _plain(value) for key, value in settings.items()}
    slurm = SlurmSettings(**plain)
    in_all = set.intersection(*(set(overrides) for overrides in job_overrides))
    jobs = []
    for overrides in job_overrides:
        job = _composed(overrides, in_all, hydra, config)
        slurm.refuse_other_devices(program.check(_without_hydra(job.config)).trainer.devices)
        jobs.append(job)
    commands = {job.folder: program.command(job.overrides, job.folder) for job in jobs}
    reasons = _watch(_under_way(jobs, commands, Path(str(config.hydra.sweep.dir)).absolute(), slurm))
    choosing = sweeps.chooses_settings(config.hydra.sweeper)
    if reasons and not choosing:
        raise JobFailed(f"{len(reasons)} of {len(jobs)} jobs failed")
    return [_returned(job, reasons.get(job.folder), choosing) for job in jobs]


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _composed(overrides: Sequence[str], in_all: Set[str], hydra: HydraContext, config: DictConfig) -> SweptJob:
    """What Hydra's own launcher would run."""
    composed = hydra.config_loader.load_sweep_config(config, list(overrides))
    HydraConfig.instance().set_config(composed)
    folder = Path(str(composed.hydra.sweep.dir), str(composed.hydra.sweep.subdir)).absolute()
    of_run = [override for override in overrides if override.lstrip("+").partition("=")[0] != "sweep"]
    name = ",".join(override for override in of_run if override not in in_all)
    return SweptJob(name or folder.name, of_run, composed, folder)


def _without_hydra(config: DictConfig) -> DictConfig:
    of_task = deepcopy(config)
    with read_write(of_task), open_dict(of_task):
        del of_task["hydra"]
    return of_task


def _under_way(
    jobs: Sequence[SweptJob], commands: Mapping[Path, list[str]], sweep: Path, slurm: SlurmSettings
) -> dict[SlurmJob, SweptJob]:
    """Those that are not finished, by their job in SLURM: it is there already, or is submitted here."""
    unfinished = [job for job in jobs if finished_summary(job.folder) is None]
    before = submission.submitted(sweep)
    alive = {number for number, state in queue.states().items() if state.alive} if before else set()
    joined = {j.folder: j for j in before.values() if j.number in alive and j.status() is None}
    new = [job for job in unfinished if job.folder not in joined]
    new_commands = {job.folder: commands[job.folder] for job in new}
    numbers = joined | {job.folder: job for job in _submitted(new_commands, sweep, slurm)}
    finished, joining = len(jobs) - len(unfinished), len(unfinished) - len(new)
    _say(f"{_shown(sweep)}: {len(jobs)} jobs: {finished} finished before, {joining} under way, {len(new)} submitted")
    watched = {numbers[job.folder]: job for job in unfinished}
    for number, job in watched.items():
        _say(f"{number.number}: {job.name}; log: {_shown(number.log)}")
    return watched


def _submitted(commands: Mapping[Path, list[str]], sweep: Path, slurm: SlurmSettings) -> list[SlurmJob]:
    """``commands``: by run folder."""
    if not commands:
        return []
    files = submission.new_files(sweep)
    lines = files / submission.COMMANDS
    lines.write_text("".join(f"{shlex.join(command)}\n" for command in commands.values()), encoding="utf-8")
    try:
        number = queue.submit([*slurm.options(files, len(commands))], [str(SCRIPT), str(lines)], slurm.environment())
    except MathSEError:
        submission.take_back(files)
        raise
    return submission.record(files, number, [*commands])


def _returned(job: SweptJob, reason: str | None, choosing: bool) -> JobReturn:
    number = (finished_summary(job.folder) or {}).get("metric")
    if reason is None and number is None and choosing:
        reason = "the run has no dev accuracy for the sweeper to choose by; callbacks.evaluate measures it"
    returned = JobReturn(overrides=job.overrides, cfg=job.config, working_dir=str(job.folder))
    returned.status = JobStatus.COMPLETED if reason is None else JobStatus.FAILED
    returned.return_value = number if reason is None else JobFailed(reason)
    return returned


def _watch(jobs: Mapping[SlurmJob, SweptJob]) -> dict[Path, str]:
    """Tell what becomes of the jobs until all have ended; why each that failed did so, by its run folder.

    Raises KeyboardInterrupt with a sentence after Ctrl-C or SIGTERM, which leave them as they are.
    """
    last_state: dict[SlurmJob, str] = {}
    unseen = dict.fromkeys(jobs, 0)
    reasons: dict[Path, str] = {}
    pause = FIRST_LOOK
    try:
        while unseen:
            states = _states()
            for job in list(unseen) if states is not None else ():
                state = (states or {}).get(job.number)
                status = job.status()
                unseen[job] += status is None and (state is None or not state.alive)
                if status is None and unseen[job] < UNSEEN:
                    if state is not None and state.alive and last_state.get(job) != str(state):
                        last_state[job] = str(state)
                        _say(f"{job.number} ({jobs[job].name}): {state}")
                    continue
                del unseen[job]
                if (reason := _why_it_failed(job, status, state)) is None:
                    _say(f"{job.number} ({jobs[job].name}): finished: {_shown(job.folder)}")
                else:
                    reasons[job.folder] = reason
                    _say(f"error: {job.number} ({jobs[job].name}): {reason}; log: {_shown(job.log)}")
            if unseen:
                time.sleep(pause)
                pause = min(pause * 1.2, RARELY)
    except KeyboardInterrupt:
        numbers = " ".join(job.number for job in unseen)
        raise KeyboardInterrupt(
            f"jobs {numbers} are left as they are; the same command watches them again, `scancel {numbers}` stops them"
        ) from None
    return reasons


def _states() -> dict[str, JobState] | None:
    """None where SLURM does not answer: it is asked again."""
    try:
        return queue.states()
    except MathSEError as e:
        _say(f"{e}; the jobs are not touched by that")
        return None


def _why_it_failed(job: SlurmJob, status: int | None, state: JobState | None) -> str | None:
    """None: it did not."""
    if status == 0:
        return None
    if status is not None and (state is None or state.state in ("FAILED", "COMPLETED", "COMPLETING")):
        return f"exit code {status}: {job.last_words()}"
    endings = {
        "CANCELLED": "was cancelled",
        "TIMEOUT": "ran out of its time (hydra.launcher.timeout_min) and could not be queued again",
        "OUT_OF_MEMORY": "took more memory than it had asked for (hydra.launcher.mem_gb)",
        "NODE_FAIL": "lost its node",
    }
    ended = endings.get(state.state, f"ended as {state.state}") if state is not None else "is gone from SLURM's queue"
    return f"{ended}; the same command submits it again, and it goes on where it was"


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
