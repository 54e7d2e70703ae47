"""The command line of ``mathse train`` and ``mathse evaluate``: compose the settings, check them, run the task.

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
from omegaconf import DictConfig

from hydra_plugins.mathse_slurm import SlurmLauncher
from mathse.commands.mistakes import RUNTIME_ERRORS, JobFailed, explain_error, wants_traceback
from mathse.commands.stop_signals import StopSignals, handle_stop_signals
from mathse.commands.sweep import find_jobs, format_sweep_table, is_sweep, refuse_impossible_sweeps
from mathse.config import sweeps
from mathse.config.compose import help_page, sweep_folder
from mathse.config.hydra_calls import refuse_calls_by_hydra
from mathse.config.options import CONF, FLAG, look_in, own_folder
from mathse.config.overrides import COMPOSING, as_spelt, command_line, explain, given, quoted, refuse_early
from mathse.config.parse import parse
from mathse.config.programs import program_of
from mathse.config.register import register
from mathse.errors import ConfigError, MathSEError, RankLost
from mathse.runs.layout import NOTE_OF_SWEEP
from mathse.training import launch
from mathse.training.allocator import keep_freed_memory

Task = Callable[[Any, Path], float | None]


@dataclass(frozen=True)
class Program:
    """The command of a sweep's jobs, for a launcher that starts them in other processes.

    Attributes:
        check: returns the settings of a composed config, or raises ConfigError.
        command: returns the command line of a run with these overrides in this folder.
    """

    check: Callable[[DictConfig], Any]
    command: Callable[[Sequence[str], Path], list[str]]


def main(task: Task, config_name: str, schema: type, arguments: Sequence[str] | None = None) -> None:
    """Run ``task(config, folder)`` once, or once per job of a sweep (``-m``).

    Args:
        task: takes the settings and the run folder, and returns the number by which a sweeper chooses.
        config_name: the file of conf/ to compose, "train" or "evaluate".
        schema: the settings class.
        arguments: the command line without the program and its subcommand; default: that of this process.

    Exits with 1 after a user's mistake, 130 after Ctrl-C, 143 after SIGTERM.
    """
    if arguments is not None:
        sys.argv = [sys.argv[0], *arguments]  # Hydra reads sys.argv
    launch.end_with_agent()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # on a busy machine, threads that wait by spinning are slow
    register()
    # Hydra searches folders for plugins. An editable install has import hooks instead, where it finds none.
    Plugins.instance().register(SlurmLauncher)
    traceback = wants_traceback()
    arguments = sys.argv[1:]

    started_folders: list[str] = []  # run folders of the jobs that have started

    def start(signals: StopSignals) -> None:
        line = command_line(arguments)
        look_in(line.config_dir)
        refuse_early(arguments, schema)
        refuse_calls_by_hydra(arguments, schema)
        sys.argv[1:] = as_spelt(arguments)
        if line.help:
            print(help_page(arguments, schema))
            return
        rank_command = _read_rank_command(config_name)
        job = _make_job(task, schema, traceback, rank_command, signals, started_folders)
        vars(job)["program"] = _make_program(schema, rank_command)
        if (rank := launch.read_own_rank()) is not None and rank.rank:
            # Run folders are named by their time of start. All ranks use that of rank 0, and this value is not used.
            sys.argv.insert(1, "hydra.run.dir=outputs")
        program = program_of(line.overrides, schema)
        run = hydra.main(version_base="1.3", config_path=str(CONF), config_name=program)(job)
        if not line.multirun:
            run()
            return
        try:
            run()
        except JobFailed:
            _print_sweep_table(started_folders, arguments, schema)
            raise
        else:
            _print_sweep_table(started_folders, arguments, schema)
        finally:
            # A sweep that failed before its first job leaves an empty folder.
            if not any(Path(folder).exists() for folder in started_folders):
                with suppress(*COMPOSING):  # a command line that does not compose has no sweep folder
                    _remove_if_empty(sweep_folder(arguments, schema).absolute())

    # Hydra raises its errors with the first variable; this module prints them.
    os.environ |= {"HYDRA_FULL_ERROR": "1", "MATHSE_TRACEBACK": str(int(traceback))}
    with handle_stop_signals() as signals:
        if traceback:
            start(signals)
        else:
            _run_without_traceback(partial(start, signals), arguments, schema, signals, started_folders)


def _run_without_traceback(
    start: Callable[[], None],
    arguments: Sequence[str],
    schema: type,
    signals: StopSignals,
    started_folders: Sequence[str],
) -> None:
    """Call ``start()``. A user's mistake is printed as a sentence and ends the process; a bug keeps its traceback."""
    try:
        start()
    except JobFailed:
        sys.exit(1)
    except BrokenPipeError:  # `python train.py --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except MathSEError as e:
        _fail(str(e), e)
    except COMPOSING as e:
        # COMPOSING includes ValueError. Once a job has started, a ValueError is a bug.
        is_bug = bool(started_folders) and isinstance(e, ValueError)
        _fail(None if is_bug else explain(e, arguments, schema), e)
    except RUNTIME_ERRORS as e:
        text = explain_error(e) or (sweeps.missing_plugin(e) if isinstance(e, RuntimeError) else None)
        if text is None and isinstance(e, OSError) and not started_folders:
            text = f"the run folder cannot be made: {e}; choose another place with hydra.run.dir=DIR"
        _fail(text, e)
    except KeyboardInterrupt as e:
        _print_error(str(e) or f"{signals.stopped} before the run started")
        sys.exit(signals.exit_code)


def _make_job(
    task: Task,
    schema: type,
    traceback: bool,
    rank_command: Sequence[str],
    signals: StopSignals,
    started_folders: list[str],
) -> Callable[[DictConfig], float | None]:
    """Return the function that Hydra calls with each composed config.

    Args:
        rank_command: the command that starts a rank, without its settings.
        started_folders: receives the run folder of each job.
    """

    @functools.wraps(task)
    def job(cfg: DictConfig) -> float | None:
        folder = Path(HydraConfig.get().runtime.output_dir)
        started_folders.append(str(folder))
        launch.end_with_sweep()
        try:
            config = _parse_job_settings(cfg, schema)
            if getattr(config, "plan", False):
                # A plan starts no rank and leaves no folder.
                _remove_if_empty(folder)
                return task(config, folder)
            refuse_impossible_sweeps(config)
            settings = _list_job_settings(HydraConfig.get().overrides.task) if is_sweep() else sys.argv[1:]
            number = run_or_start_ranks(task, config, folder, [*rank_command, *settings])
            if number is None and is_sweep() and sweeps.chooses(HydraConfig.get().sweeper):
                raise MathSEError(
                    "the run has no dev accuracy for the sweeper to choose by; callbacks.evaluate measures it"
                )
            launch.report(number)
            return number
        except RUNTIME_ERRORS as e:
            _remove_if_empty(folder)
            # A rank that lost the others did not fail itself.
            if isinstance(e, RankLost) and launch.is_supervised():
                launch.end_after_others()  # the agent names the lost rank
            text = explain_error(e)
            if traceback:
                if text is not None:
                    launch.record_mistake(e)
                raise
            if text is None or not is_sweep():
                _fail(text, e)
            _print_error(*(f"job {HydraConfig.get().job.num}: {line}" for line in text.splitlines()))
            raise JobFailed(text) from e
        except launch.RanksFailed as e:
            _remove_if_empty(folder)
            if is_sweep():
                raise JobFailed(str(e)) from e
            sys.exit(e.code)
        except KeyboardInterrupt:
            _remove_if_empty(folder)
            rank = launch.read_own_rank()
            # Only rank 0 speaks, and none where an agent watches the ranks and speaks for them.
            if not launch.is_supervised() and (rank is None or rank.rank == 0):
                names_folder = any(a.startswith("hydra.run.dir=") or a == "resume=last" for a in sys.argv[1:])
                command = "the same command"
                if not is_sweep() and not names_folder:
                    with suppress(ValueError):
                        folder = folder.relative_to(Path.cwd())
                    command += f" with hydra.run.dir={folder}"
                _print_error(f"{signals.stopped}; {command} continues from here")
            sys.exit(signals.exit_code)

    return job


def _parse_job_settings(cfg: DictConfig, schema: type) -> Any:
    """Return the settings of a job.

    Hydra composes all jobs of a sweep onto one program's defaults. A job that names another checkpoint has another
    program, and is composed again onto its own.
    """
    overrides = list(HydraConfig.get().overrides.task)
    program = program_of(overrides, schema)
    if is_sweep() and program != HydraConfig.get().job.config_name:
        cfg = compose(program, overrides=overrides)
    return parse(cfg, schema, given=given(overrides))


def _list_job_settings(overrides: Sequence[str]) -> list[str]:
    """Return the arguments of a sweep's job: its own settings, and the folder of the user's own options."""
    return [*([] if own_folder() is None else [f"{FLAG}={own_folder()}"]), *overrides]


def _make_program(schema: type, run_command: Sequence[str]) -> Program:
    """Return the command that hydra/launcher=slurm starts. ``run_command``: without the settings."""

    def check(cfg: DictConfig) -> Any:
        config = _parse_job_settings(cfg, schema)
        refuse_impossible_sweeps(config)
        if getattr(config, "plan", False):
            raise ConfigError("plan = true: hydra/launcher=slurm would submit every job; leave one of the two out")
        return config

    def command(overrides: Sequence[str], folder: Path) -> list[str]:
        return [*run_command, *_list_job_settings(overrides), format_run_dir(folder)]

    return Program(check, command)


def run_or_start_ranks(task: Task, config: Any, folder: Path, command: Sequence[str]) -> float | None:
    """Run ``task(config, folder)`` in this process, or start one process per device.

    Args:
        command: the command of the same run, which starts a rank. Used where the run needs several devices and this
            process is not yet a rank.
    """
    launch.require_packages(config.trainer.strategy)
    if launch.read_own_rank() is not None or config.trainer.devices == 1:
        keep_freed_memory()
        return task(config, folder)
    from mathse.training import agent  # loads torch

    trainer = config.trainer
    number: float | None = agent.run([*command, format_run_dir(folder)], trainer.devices, trainer.max_restarts)
    return number


def format_run_dir(folder: Path) -> str:
    """Return the override that makes ``folder`` the run folder."""
    return f"hydra.run.dir={quoted(str(folder.absolute()))}"


def _read_rank_command(subcommand: str) -> list[str]:
    """Return the command that started this process, without its settings and with the interpreter's own flags.

    Examples: ``python train.py``, ``mathse train``, ``python -m mathse train``. Where the settings did not come from
    the command line: ``build_python_command``.
    """
    command, settings = sys.orig_argv, sys.argv[1:]
    if command[len(command) - len(settings) :] != settings:
        return build_python_command(subcommand)
    start = command[1 : len(command) - len(settings)]
    return [sys.executable, *(os.path.abspath(part) if part == sys.argv[0] else part for part in start)]


def build_python_command(subcommand: str) -> list[str]:
    """Return a command that is ``mathse SUBCOMMAND`` with the Python path of this process.

    A notebook or a script may have changed its path, and a rank must import the same modules.
    """
    code = f"import sys; sys.path[:] = {sys.path!r}; from mathse.__main__ import main; sys.exit(main())"
    return [sys.executable, "-c", code, subcommand]


def _print_sweep_table(started_folders: Sequence[str], arguments: Sequence[str], schema: type) -> None:
    """Print the table of a sweep. Without ``started_folders`` a launcher ran the jobs in other processes."""
    if table := format_sweep_table([*map(Path, started_folders)] or find_jobs(sweep_folder(arguments, schema))):
        print("", *table, sep="\n", flush=True)


def _remove_if_empty(folder: Path) -> None:
    """Remove the empty folder that Hydra made for a run that did not start, and empty folders above it.

    A sweep's folder counts as empty if it has only Hydra's own note of the sweep.
    """
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
    """Print ``text`` as an error and exit with 1. Without a text the error is a bug, and is raised."""
    if text is None:
        raise error
    _print_error(*(f"error: {line}" for line in text.splitlines()))
    launch.record_mistake(error)
    sys.exit(1)


def _print_error(*lines: str) -> None:
    rank = launch.read_own_rank()
    if rank is not None and rank.rank and not launch.is_supervised():  # the agent adds the rank itself
        lines = tuple(f"rank {rank.rank}: {line}" for line in lines)
    print(*lines, sep="\n", file=sys.stderr, flush=True)
