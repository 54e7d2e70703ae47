"""From Hydra's command line to a task: compose, parse, run.

Loads no torch: a wrong setting is refused before anything heavy is imported.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import DictConfig

from hydra_plugins.mathse_slurm import SlurmLauncher
from mathse.commands.mistakes import RUNNING, JobFailed, sentence, wants_traceback
from mathse.commands.stop_signals import StopSignals, stopping_once
from mathse.commands.sweep_table import jobs_below, sweep_table
from mathse.config import sweeps
from mathse.config.compose import find_sweep_folder, format_help
from mathse.config.hydra_calls import refuse_calls_by_hydra
from mathse.config.options import CONF, FLAG, look_in, own_folder
from mathse.config.overrides import (
    COMPOSING,
    correct_spelling,
    explain,
    find_set_keys,
    parse_command_line,
    quote_value,
    refuse_early,
)
from mathse.config.parse import parse
from mathse.config.programs import register_config
from mathse.config.register import register
from mathse.errors import ConfigError, MathSEError, RankLost
from mathse.runs.layout import NOTE_OF_SWEEP
from mathse.training import launch
from mathse.training.allocator import keep_freed_memory

Task = Callable[[Any, Path], float | None]


@dataclass(frozen=True)
class Program:
    """The command that a sweep runs, for a launcher that starts its jobs elsewhere.

    ``check``: the settings of a composed config, or a ConfigError. ``command``: the command line of a run with these
    overrides in this folder.
    """

    check: Callable[[DictConfig], Any]
    command: Callable[[Sequence[str], Path], list[str]]


def main(task: Task, config_name: str, schema: type, arguments: Sequence[str] | None = None) -> None:
    """Runs ``task(config, folder)`` once, or once a job in a sweep (``-m``); a sweeper gets what it returns.

    Args:
        task: takes the settings and the run folder, and returns the number that a sweeper chooses by.
        config_name: the file of conf/ that is composed, "train" or "evaluate".
        schema: the dataclass of its settings.
        arguments: the command line without the program (and its verb); default: of this process.

    Exits with 1 after a user's mistake, 130 after Ctrl-C, 143 after SIGTERM.
    """
    if arguments is not None:
        sys.argv = [sys.argv[0], *arguments]  # which Hydra reads
    launch.end_with_agent()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait spinning ruin each other on a busy machine
    register()
    # Hydra searches folders for plugins; an editable install has import hooks in their place, where it finds none.
    Plugins.instance().register(SlurmLauncher)
    traceback = wants_traceback()
    arguments = sys.argv[1:]

    begun: list[str] = []  # run folders of jobs

    def start(signals: StopSignals) -> None:
        line = parse_command_line(arguments)
        look_in(line.config_dir)
        refuse_early(arguments, schema)
        refuse_calls_by_hydra(arguments, schema)
        sys.argv[1:] = correct_spelling(arguments)
        if line.help:
            print(format_help(arguments, schema))
            return
        job = _job(task, schema, traceback, _start_of_a_rank(config_name), signals, begun)
        vars(job)["program"] = _program(schema, _start_of_a_rank(config_name))
        if (rank := launch.own_rank()) is not None and rank.rank:
            sys.argv.insert(1, "hydra.run.dir=outputs")  # rank 0's, named by its time of start, is the run folder
        program = register_config(line.overrides, schema)
        run = hydra.main(version_base="1.3", config_path=str(CONF), config_name=program)(job)
        if not line.multirun:
            run()
            return
        try:
            run()
        except JobFailed:
            _show_jobs(begun, arguments, schema)
            raise
        else:
            _show_jobs(begun, arguments, schema)
        finally:
            if not any(Path(folder).exists() for folder in begun):
                with suppress(*COMPOSING):  # of a line that does not compose no folder was made
                    _remove_if_empty(find_sweep_folder(arguments, schema).absolute())

    os.environ |= {"HYDRA_FULL_ERROR": "1", "MATHSE_TRACEBACK": str(int(traceback))}  # Hydra raises; it is told here
    if traceback:
        with stopping_once() as signals:
            start(signals)
        return
    with stopping_once() as signals:
        _told(partial(start, signals), arguments, schema, signals, begun)


def _told(
    start: Callable[[], None], arguments: Sequence[str], schema: type, signals: StopSignals, begun: Sequence[str]
) -> None:
    """``start()``; what it raises by a user's mistake is told in a sentence, and ends the process."""
    try:
        start()
    except JobFailed:
        sys.exit(1)
    except BrokenPipeError:  # `python train.py --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except MathSEError as e:
        _fail(str(e), e)
    except COMPOSING as e:  # ValueErrors among them: of a job that has begun they are bugs
        _fail(None if begun and isinstance(e, ValueError) else explain(e, arguments, schema), e)
    except RUNNING as e:
        text = sentence(e) or (sweeps.explain_missing_plugin(e) if isinstance(e, RuntimeError) else None)
        if text is None and isinstance(e, OSError) and not begun:
            text = f"the run folder cannot be made: {e}; choose another place with hydra.run.dir=DIR"
        _fail(text, e)
    except KeyboardInterrupt as e:
        _say(str(e) or f"{signals.stopped} before the run began")
        sys.exit(signals.exit_code)


def _job(
    task: Task, schema: type, traceback: bool, start: Sequence[str], signals: StopSignals, begun: list[str]
) -> Callable[[DictConfig], float | None]:
    """What Hydra calls with each composed config. ``start``: the command of a rank, up to its settings. ``begun``: gets
    the run folder."""

    @functools.wraps(task)
    def job(cfg: DictConfig) -> float | None:
        folder = Path(HydraConfig.get().runtime.output_dir)
        begun.append(str(folder))
        launch.end_with_sweep()
        try:
            config = _settings(cfg, schema)
            if getattr(config, "plan", False):  # no rank is started for it, no folder is left
                _remove_if_empty(folder)
                return task(config, folder)
            _refuse_impossible_sweeps(config)
            settings = _settings_of_a_job(HydraConfig.get().overrides.task) if _is_sweep() else sys.argv[1:]
            number = run_or_start_ranks(task, config, folder, [*start, *settings])
            if number is None and _is_sweep() and sweeps.chooses_settings(HydraConfig.get().sweeper):
                raise MathSEError(
                    "the run has no dev accuracy for the sweeper to choose by; callbacks.evaluate measures it"
                )
            launch.report(number)
            return number
        except RUNNING as e:
            _remove_if_empty(folder)
            if isinstance(e, RankLost) and launch.is_supervised():
                launch.lost_others()  # the agent says whom it lost
            text = sentence(e)
            if traceback:
                if text is not None:
                    launch.record_mistake(e)
                raise
            if text is None or not _is_sweep():
                _fail(text, e)
            _say(*(f"job {HydraConfig.get().job.num}: {line}" for line in text.splitlines()))
            raise JobFailed(text) from e
        except launch.RanksFailed as e:
            _remove_if_empty(folder)
            if _is_sweep():
                raise JobFailed(str(e)) from e
            sys.exit(e.code)
        except KeyboardInterrupt:
            _remove_if_empty(folder)
            if not launch.is_supervised():
                again = "the same command"
                if not (_is_sweep() or any(a.startswith("hydra.run.dir=") or a == "resume=last" for a in sys.argv[1:])):
                    with suppress(ValueError):
                        folder = folder.relative_to(Path.cwd())
                    again += f" with hydra.run.dir={folder}"
                if (rank := launch.own_rank()) is None or rank.rank == 0:
                    _say(f"{signals.stopped}; {again} goes on from here")
            sys.exit(signals.exit_code)

    return job


def _settings(cfg: DictConfig, schema: type) -> Any:
    """The settings of a job. Jobs of a sweep may name other checkpoints than the one that Hydra composed all of them
    onto, so each is composed anew, onto its own."""
    overrides = list(HydraConfig.get().overrides.task)
    program, composed_onto = register_config(overrides, schema), HydraConfig.get().job.config_name
    if _is_sweep() and program != composed_onto:
        cfg = compose(program, overrides=overrides)
    return parse(cfg, schema, given=find_set_keys(overrides))


def _settings_of_a_job(overrides: Sequence[str]) -> list[str]:
    """The command line of one job of a sweep: its own settings, and where else options are looked for."""
    return [*([] if own_folder() is None else [f"{FLAG}={own_folder()}"]), *overrides]


def _program(schema: type, start: Sequence[str]) -> Program:
    """What hydra/launcher=slurm starts. ``start``: the command of a run, up to its settings."""

    def check(cfg: DictConfig) -> Any:
        config = _settings(cfg, schema)
        _refuse_impossible_sweeps(config)
        if getattr(config, "plan", False):
            raise ConfigError("plan = true: hydra/launcher=slurm would submit every job; leave one of the two out")
        return config

    def command(overrides: Sequence[str], folder: Path) -> list[str]:
        return [*start, *_settings_of_a_job(overrides), run_dir(folder)]

    return Program(check, command)


def run_or_start_ranks(task: Task, config: Any, folder: Path, again: Sequence[str]) -> float | None:
    """``task(config, folder)`` in this process; where it wants several devices and this is no rank yet, in as many
    processes as it has devices, each started with ``again``, the command of the same run."""
    launch.require(config.trainer.strategy)
    if launch.own_rank() is not None or config.trainer.devices == 1:
        keep_freed_memory()
        return task(config, folder)
    from mathse.training import agent  # which loads torch

    trainer = config.trainer
    number: float | None = agent.run([*again, run_dir(folder)], trainer.devices, trainer.max_restarts)
    return number


def run_dir(folder: Path) -> str:
    """The override that makes ``folder`` the run folder."""
    return f"hydra.run.dir={quote_value(str(folder.absolute()))}"


def _start_of_a_rank(verb: str) -> list[str]:
    """What started this process, up to its settings, with the interpreter's own flags: ``python train.py``, ``mathse
    train``, ``python -m mathse train``; ``start_from_python`` where the settings came from elsewhere."""
    command, settings = sys.orig_argv, sys.argv[1:]
    if command[len(command) - len(settings) :] != settings:
        return start_from_python(verb)
    start = command[1 : len(command) - len(settings)]
    return [sys.executable, *(os.path.abspath(part) if part == sys.argv[0] else part for part in start)]


def start_from_python(verb: str) -> list[str]:
    """A command that is ``mathse VERB`` with this process's own Python path, wherever that came from (a notebook's
    folder, a script's): a rank must import what this process imports."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from mathse.__main__ import main; sys.exit(main())"
    return [sys.executable, "-c", code, verb]


def _refuse_impossible_sweeps(config: Any) -> None:
    """Raises ConfigError for a sweep (``-m``) whose settings contradict it, and for a sweep without ``-m``."""
    hydra_config = HydraConfig.get()
    if not _is_sweep():
        option = hydra_config.runtime.choices.get("sweep")
        if option is not None and not launch.is_supervised():  # our ranks run one job each
            raise ConfigError(f"+sweep={option}: tries several values, which is a sweep; pass -m too")
        return
    if getattr(config, "resume", None) == "last":
        raise ConfigError(
            "resume = 'last': finds one run, and this is a sweep (-m); leave it out: with the same command, finished "
            "jobs return their number and the others go on"
        )
    rank = launch.own_rank()
    if rank is not None and rank.size > 1:
        raise ConfigError(
            f"a sweep (-m) was started {rank.size} times, once a rank: start it once, and each of its jobs starts its "
            "own ranks (trainer=ddp trainer.devices=...)"
        )
    if sweeps.chooses_settings(hydra_config.sweeper) and (
        mistakes := [*sweeps.refuse_choice(config, hydra_config.sweeper)]
    ):
        raise ConfigError("\n".join(mistakes))


def _show_jobs(begun: Sequence[str], arguments: Sequence[str], schema: type) -> None:
    """``begun``: the run folders of jobs in this process; none where a launcher started the jobs elsewhere."""
    if table := sweep_table([*map(Path, begun)] or jobs_below(find_sweep_folder(arguments, schema))):
        print("", *table, sep="\n", flush=True)


def _is_sweep() -> bool:
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def _remove_if_empty(folder: Path) -> None:
    """Takes back the folder that Hydra made for a run that did not begin, and empty ones above it. A sweep's folder is
    empty where Hydra's own note of the sweep is all that it holds."""
    if folder.is_dir() and [path.name for path in folder.iterdir()] == [NOTE_OF_SWEEP]:
        (folder / NOTE_OF_SWEEP).unlink()
    for parent in (folder, *folder.parents):
        if parent != folder and (parent == Path.cwd() or Path.cwd() not in parent.parents):
            return
        try:
            parent.rmdir()
        except OSError:  # not empty, or not ours to remove
            return


def _fail(text: str | None, error: BaseException) -> NoReturn:
    if text is None:
        raise error
    _say(*(f"error: {line}" for line in text.splitlines()))
    launch.record_mistake(error)
    sys.exit(1)


def _say(*lines: str) -> None:
    rank = launch.own_rank()
    if rank is not None and rank.rank and not launch.is_supervised():  # the agent names the rank itself
        lines = tuple(f"rank {rank.rank}: {line}" for line in lines)
    print(*lines, sep="\n", file=sys.stderr, flush=True)
