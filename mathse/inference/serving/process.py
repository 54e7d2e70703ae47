"""A program that this run starts as an engine, waits for, and ends with the run, however that ends (supervisor.py)."""

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
from mathse.inference.serving.names import NAME_PREFIX

POLL_SECONDS = 0.2  # between health checks


@dataclass(frozen=True)
class EngineChild:
    """A running engine. ``pipe`` is the file descriptor of a pipe's end; closing it ends the engine (supervisor.py)."""

    name: str
    process: subprocess.Popen[bytes]
    pipe: int
    log: Path

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None


class EngineProcess:
    """One engine at a time.

    Args:
        address: where the engine answers.
        setting: the setting that starts it, for messages.
        start_timeout: seconds until it must answer.
    """

    def __init__(self, address: Address, setting: str, start_timeout: float) -> None:
        self.address, self.setting, self.start_timeout = address, setting, start_timeout
        self.child: EngineChild | None = None

    def start(
        self,
        arguments: Sequence[str],
        name: str,
        log: Path,
        is_ready: Callable[[list[str]], bool],
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Stop the running engine, start another, and wait until it is ready.

        Args:
            arguments: the command.
            name: of the engine's model, for messages.
            log: gets the engine's output.
            is_ready: decides by the names of the server's models.
            env: added to this process's environment.

        Raises:
            TeacherError: the engine ends early, takes too long, or another server has its port.
        """
        self.stop()
        self._require_free_port()

        read_end, write_end = os.pipe()
        try:
            with open(log, "ab", buffering=0) as file:
                process = subprocess.Popen(
                    [sys.executable, "-I", str(Path(supervisor.__file__)), str(read_end), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    pass_fds=(read_end,),
                    env=None if env is None else {**os.environ, **env},
                    process_group=0,  # so that Ctrl-C reaches only the run, which stops the engine
                )
        except BaseException:
            os.close(write_end)
            raise
        finally:
            os.close(read_end)
        self.child = EngineChild(name, process, write_end, log)

        try:
            self._wait(self.child, is_ready)
        except BaseException:  # Ctrl-C too: no engine is left behind
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the engine, if it runs."""
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
        """Raise TeacherError if another server has the port, since it would answer in the checkpoint's place.

        The engine of a killed run ends by itself after a few seconds, and is awaited.
        """
        end = time.monotonic() + supervisor.PATIENCE + 5
        while self.address.is_taken():
            names = self.address.models()
            if names is None and not self.address.is_taken():  # the server ended during the request
                return
            is_engine = any(name.startswith(NAME_PREFIX) for name in names or ())
            if not is_engine or time.monotonic() > end:
                raise TeacherError(
                    f"{self.address.setting} = {self.address.base_url}: something answers there already ("
                    f"{', '.join(names or ()) or 'it names no model'}), and {self.setting} starts an engine "
                    "there; stop it, or name another port"
                )
            time.sleep(POLL_SECONDS)

    def _wait(self, child: EngineChild, is_ready: Callable[[list[str]], bool]) -> None:
        end = time.monotonic() + self.start_timeout
        while True:
            names = self.address.models()
            if names is not None and is_ready(names):
                return
            code = child.process.poll()
            if code is not None:
                raise TeacherError(
                    f"{self.setting}: the engine ended with code {code} before it answered{quote_end(child.log)}"
                )
            if time.monotonic() > end:
                state = f"no answer at {self.address.base_url}"
                if names:
                    state = f"it has {', '.join(names)}, not {child.name}"
                raise TeacherError(
                    f"{self.setting}: {state} within {self.start_timeout:g} seconds; raise {self.address.section}."
                    f"start_timeout, or see {child.log}{quote_end(child.log)}"
                )
            time.sleep(POLL_SECONDS)


def quote_end(log: Path) -> str:
    """Return the last 12 lines of a log (of its last 8 kB), for a message."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        lines = file.read().decode("utf-8", "replace").splitlines()[-12:]
    shown = "\n".join(f"  {line[:300]}" for line in lines if line.strip())
    return f"; the end of {log}:\n{shown}" if shown else f"; {log} is empty"
