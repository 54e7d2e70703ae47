"""From a command line to a task: compose, parse, run. A user's mistake ends in one sentence, not in a traceback.

Loads no torch: a wrong setting is refused before anything heavy is imported. MATHSE_TRACEBACK=1 (or Hydra's own
HYDRA_FULL_ERROR=1) shows the traceback behind a sentence.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from safetensors import SafetensorError

from mathse.config import sweeps
from mathse.config.compose import help_page
from mathse.config.options import CONF
from mathse.config.overrides import COMPOSING, command_line, explain, refuse_early
from mathse.config.parse import parse
from mathse.config.register import register
from mathse.errors import ConfigError, MathSEError, RankLost
from mathse.training import launch
from mathse.training.launch import INTERRUPTED

Task = Callable[[Any, Path], float | None]

RUNNING = (MathSEError, OSError, SafetensorError)  # safetensors tells of a full disk in its own words


class JobFailed(MathSEError):
    """A job of a sweep failed and has said why; the other jobs go on."""


def main(task: Task, config_name: str, schema: type) -> None:
    """Runs ``task(config, folder)`` once, or once a job in a sweep (``-m``); a sweeper gets what it returns.

    Exits with 1 after a user's mistake, 130 after Ctrl-C.
    """
    launch.end_with_the_watcher()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait spinning ruin each other on a busy machine
    register()
    traceback = wants_traceback()
    arguments = sys.argv[1:]
    run = hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(_job(task, schema, traceback))

    def start() -> None:
        refuse_early(arguments, schema)
        if command_line(arguments).help:
            print(help_page(arguments, schema))
        else:
            run()

    os.environ |= {"HYDRA_FULL_ERROR": "1", "MATHSE_TRACEBACK": str(int(traceback))}  # Hydra raises; it is told here
    if traceback:
        start()
        return
    try:
        start()
    except JobFailed:
        sys.exit(1)
    except BrokenPipeError:  # `python train.py --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except COMPOSING as e:
        _fail(explain(e, arguments, schema), e)
    except RUNNING as e:
        _fail(sentence(e), e)
    except RuntimeError as e:
        _fail(sweeps.missing_plugin(e), e)
    except KeyboardInterrupt:
        _say("stopped before the run began")
        sys.exit(INTERRUPTED)


def guarded(run: Callable[[], int]) -> int:
    """``run()`` for a command without Hydra: its exit code, or 1 after a user's mistake, told in a sentence."""
    try:
        return run()
    except RUNNING as e:
        if wants_traceback() or (text := sentence(e)) is None:
            raise
        _say(*(f"error: {line}" for line in text.splitlines()))
        return 1
    except KeyboardInterrupt:
        _say("stopped")
        return INTERRUPTED


def wants_traceback() -> bool:
    """MATHSE_TRACEBACK decides where it is set (child processes inherit a 0); else Hydra's own variable."""
    return os.environ.get("MATHSE_TRACEBACK", os.environ.get("HYDRA_FULL_ERROR", "0")) not in ("", "0")


def sentence(error: BaseException) -> str | None:
    """What to tell the user; None if this is no mistake of theirs but a bug, which deserves its traceback."""
    if isinstance(error, MathSEError):
        return str(error)
    code = error.errno if isinstance(error, OSError) else errno.ENOSPC if "os error 28" in str(error) else None
    where = str(getattr(error, "filename", None) or "the run folder")
    if code in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}: no space left on the device; free some, then run the same command: nothing finished is lost"
    if code in (errno.EACCES, errno.EPERM):
        return f"{where}: permission denied; mend its rights, or choose another place with hydra.run.dir=DIR"
    if code == errno.EROFS:
        return f"{where}: on a read-only file system; choose another place with hydra.run.dir=DIR"
    if code in (errno.EEXIST, errno.ENOTDIR):
        return f"{where}: a file stands where a folder must be; move it, or choose another place with hydra.run.dir=DIR"
    return None


def _job(task: Task, schema: type, traceback: bool) -> Callable[[DictConfig], float | None]:
    """What Hydra calls with each composed config."""
    script = os.path.abspath(sys.argv[0])

    @functools.wraps(task)
    def job(cfg: DictConfig) -> float | None:
        folder = Path(HydraConfig.get().runtime.output_dir)
        launch.end_with_the_sweep()
        try:
            config: Any = parse(cfg, schema)
            if getattr(config, "plan", False):  # no rank is started for it, no folder is left
                _remove_if_empty(folder)
                return task(config, folder)
            _refuse_resuming_a_sweep(config)
            _refuse_a_sweep_in_ranks()
            _refuse_a_sweep_of_one()
            _refuse_a_wrong_choice(config)
            launch.require(config.trainer.strategy)
            if launch.place() is None and config.trainer.devices > 1:
                return _to_choose_by(launch.run(_command_of_a_rank(script, folder), config.trainer.devices))
            number = _to_choose_by(task(config, folder))
            launch.report(number)
            return number
        except RUNNING as e:
            _remove_if_empty(folder)
            if isinstance(e, RankLost) and launch.is_ours():
                sys.exit(launch.LEFT_ALONE)  # the watching process says whom it lost
            if traceback:
                raise
            _job_failed(e)
        except launch.RanksFailed as e:
            _remove_if_empty(folder)
            if _is_sweep():
                raise JobFailed(str(e)) from e
            sys.exit(e.code)
        except KeyboardInterrupt:
            _remove_if_empty(folder)
            if not launch.is_ours():
                _say(_how_to_go_on(folder, sys.argv[1:]))
            sys.exit(INTERRUPTED)

    return job


def _command_of_a_rank(script: str, folder: Path) -> list[str]:
    """What starts this job again, in this folder: a job of a sweep as a single run with that job's settings."""
    arguments = HydraConfig.get().overrides.task if _is_sweep() else sys.argv[1:]
    place = str(folder.absolute()).replace("\\", "\\\\").replace("'", "\\'")
    return [sys.executable, script, *arguments, f"hydra.run.dir='{place}'"]


def _job_failed(error: BaseException) -> NoReturn:
    if not _is_sweep():
        _fail(sentence(error), error)
    if (text := sentence(error)) is None:
        raise error
    _say(*(f"job {HydraConfig.get().job.num}: {line}" for line in text.splitlines()))
    raise JobFailed(text) from error


def _refuse_resuming_a_sweep(config: Any) -> None:
    if _is_sweep() and getattr(config, "resume", None) == "last":
        raise ConfigError(
            "resume = 'last': finds one run, and this is a sweep (-m); leave it out: with the same command, finished "
            "jobs return their number and the others go on"
        )


def _refuse_a_sweep_in_ranks() -> None:
    here = launch.place()
    if _is_sweep() and here is not None and here.size > 1:
        raise ConfigError(
            f"a sweep (-m) was started {here.size} times, once a rank: start it once, and each of its jobs starts its "
            "own ranks (trainer=ddp trainer.devices=...)"
        )


def _refuse_a_sweep_of_one() -> None:
    chosen = HydraConfig.get().runtime.choices.get("sweep")
    if chosen is not None and not _is_sweep() and not launch.is_ours():  # our ranks run one job each
        raise ConfigError(f"+sweep={chosen}: tries several values, which is a sweep; pass -m too")


def _refuse_a_wrong_choice(config: Any) -> None:
    if _chooses() and (said := [*sweeps.no_choice(config, HydraConfig.get().sweeper)]):
        raise ConfigError("\n".join(said))


def _to_choose_by(number: float | None) -> float | None:
    """The job's number. Raises MathSEError where a sweeper needs one and there is none."""
    if number is None and _chooses():
        raise MathSEError("the run has no dev accuracy for the sweeper to choose by; callbacks.evaluate measures it")
    return number


def _chooses() -> bool:
    return _is_sweep() and sweeps.chooses(HydraConfig.get().sweeper)


def _is_sweep() -> bool:
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def _how_to_go_on(folder: Path, arguments: Sequence[str]) -> str:
    if _is_sweep() or any(a.startswith("hydra.run.dir=") or a == "resume=last" for a in arguments):
        return "stopped; the same command goes on from here"
    with suppress(ValueError):
        folder = folder.relative_to(Path.cwd())
    return f"stopped; the same command with hydra.run.dir={folder} goes on from here"


def _remove_if_empty(folder: Path) -> None:
    """Takes back the folder that Hydra made for a run that did not begin, and empty ones above it."""
    for place in (folder, *folder.parents):
        if place != folder and (place == Path.cwd() or Path.cwd() not in place.parents):
            return
        try:
            place.rmdir()
        except OSError:  # not empty, or not ours to remove
            return


def _fail(text: str | None, error: BaseException) -> NoReturn:
    if text is None:
        raise error
    _say(*(f"error: {line}" for line in text.splitlines()))
    sys.exit(1)


def _say(*lines: str) -> None:
    here = launch.place()
    if here is not None and here.rank and not launch.is_ours():  # the watching process names the rank itself
        lines = tuple(f"rank {here.rank}: {line}" for line in lines)
    print(*lines, sep="\n", file=sys.stderr, flush=True)
