"""A program that this run starts as an engine, waits for, and ends: with the run, however that ends (supervisor.py)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mathse.errors import TeacherError
from mathse.inference.serving import supervisor
from mathse.inference.serving.address import Address
from mathse.inference.serving.names import OURS

POLL = 0.2  # seconds between health checks
LAST_LINES = 12  # lines of the engine's log in a message
TAIL = 8192  # bytes at its end that they are read from


@dataclass(frozen=True)
class Child:
    """A running engine. ``pipe``: the end of a pipe, file descriptor; closing it ends the engine (supervisor.py)."""

    name: str
    process: subprocess.Popen[bytes]
    pipe: int
    log: Path

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


class EngineProcess:
    """One engine at a time at ``address``.

    Args:
        setting: what it is started by, for messages.
        start_timeout: seconds until it answers.
    """

    def __init__(self, address: Address, setting: str, start_timeout: float) -> None:
        self.address, self.setting, self.start_timeout = address, setting, start_timeout
        self.child: Child | None = None

    def start(
        self,
        arguments: Sequence[str],
        name: str,
        log: Path,
        ready: Callable[[list[str]], bool],
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start an engine, in the place of the one that runs, and wait until ``ready(its models)``.

        Raises TeacherError where it ends before, takes too long, or another server has its port.
        """
        self.stop()
        self._require_free_port()
        self.child = self._started(arguments, name, log, env)
        try:
            self._wait(self.child, ready)
        except BaseException:  # Ctrl-C too: no engine is left behind
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the engine, if one runs."""
        child, self.child = self.child, None
        if child is None:
            return
        os.close(child.pipe)
        try:
            child.process.wait(supervisor.PATIENCE + 5)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()

    def _require_free_port(self) -> None:
        """Raises TeacherError where another server has the port: it would answer in the place of the checkpoint. The
        engine of a run that was killed is waited for: it ends by itself, a few seconds later."""
        end = time.monotonic() + supervisor.PATIENCE + 5
        while self.address.taken():
            others = self.address.models()
            if others is None and not self.address.taken():  # it ended during the request
                return
            if not any(other.startswith(OURS) for other in others or ()) or time.monotonic() > end:
                raise TeacherError(
                    f"{self.address.setting} = {self.address.base_url}: something answers there already ("
                    f"{', '.join(others or ()) or 'it names no model'}), and {self.setting} starts an engine "
                    "there; stop it, or name another port"
                )
            time.sleep(POLL)

    def _started(self, arguments: Sequence[str], name: str, log: Path, env: Mapping[str, str] | None) -> Child:
        read_end, write_end = os.pipe()
        try:
            with open(log, "ab", buffering=0) as file:
                process = subprocess.Popen(
                    [
                        sys.executable,
                        "-I",
                        str(Path(supervisor.__file__)),
                        str(read_end),
                        *arguments,
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    pass_fds=(read_end,),
                    env=None if env is None else {**os.environ, **env},
                    process_group=0,  # Ctrl-C comes to the run alone, which stops the engine
                )
        except BaseException:
            os.close(write_end)
            raise
        finally:
            os.close(read_end)
        return Child(name, process, write_end, log)

    def _wait(self, child: Child, ready: Callable[[list[str]], bool]) -> None:
        end = time.monotonic() + self.start_timeout
        while True:
            names = self.address.models()
            if names is not None and ready(names):
                return
            if (code := child.process.poll()) is not None:
                raise TeacherError(
                    f"{self.setting}: the engine ended with code {code} before it answered{end_of(child.log)}"
                )
            if time.monotonic() > end:
                at = f"no answer at {self.address.base_url}"
                state = f"it has {', '.join(names)}, not {child.name}" if names else at
                raise TeacherError(
                    f"{self.setting}: {state} within {self.start_timeout:g} seconds; raise {self.address.section}."
                    f"start_timeout, or see {child.log}{end_of(child.log)}"
                )
            time.sleep(POLL)


def end_of(log: Path) -> str:
    """The last lines of a log, for a message."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        lines = file.read().decode("utf-8", "replace").splitlines()[-LAST_LINES:]
    shown = "\n".join(f"  {line[:300]}" for line in lines if line.strip())
    return f"; the end of {log}:\n{shown}" if shown else f"; {log} is empty"
