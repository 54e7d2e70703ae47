"""An engine that a command of the user's starts for each checkpoint, and that is stopped before the next one."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mathse.errors import TeacherError
from mathse.inference.serving import supervisor
from mathse.inference.serving.health_check import Address
from mathse.inference.serving.names import OURS, served_folder

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


class StartedEngine:
    """``command`` with {checkpoint}, {name} and {port} in it; one engine at a time. Logs go to ``folder``."""

    def __init__(
        self,
        command: str,
        address: Address,
        folder: Path,
        start_timeout: float,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.command, self.address, self.folder = command, address, folder
        self.start_timeout, self.say = start_timeout, say
        self._child: Child | None = None

    def serve(self, checkpoint: Path, name: str) -> str:
        served = served_folder(checkpoint, name, self.folder)
        model = name if "{name}" in self.command else str(served)  # its name in requests
        if self._child is None or self._child.name != name or self._child.process.poll() is not None:
            self.free()
            self._require_free_port()
            self.say(f"{self.address.section}: starts an engine for {checkpoint} (log: {self.folder / name}.log)")
            self._child = self._started(served, name)
            try:
                self._wait(self._child, model)
            except BaseException:  # Ctrl-C too: no engine is left behind
                self.free()
                raise
        return model

    def free(self) -> None:
        """Stop the engine, if one runs."""
        child, self._child = self._child, None
        if child is None:
            return
        os.close(child.pipe)
        try:
            child.process.wait(supervisor.PATIENCE + 5)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()

    def arguments(self, served: Path, name: str) -> list[str]:
        """The command, split as a shell splits it; a value with spaces in it stays one argument."""
        slots = {"{checkpoint}": str(served), "{name}": name, "{port}": str(self.address.port)}
        arguments = shlex.split(self.command)
        for slot, value in slots.items():
            arguments = [argument.replace(slot, value) for argument in arguments]
        return arguments

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
                    f"{', '.join(others or ()) or 'it names no model'}), and {self.address.section}.command starts an "
                    "engine there; stop it, or name another port"
                )
            time.sleep(POLL)

    def _started(self, served: Path, name: str) -> Child:
        log = self.folder / f"{name}.log"
        read_end, write_end = os.pipe()
        try:
            with open(log, "ab", buffering=0) as file:
                process = subprocess.Popen(
                    [
                        sys.executable,
                        "-I",
                        str(Path(supervisor.__file__)),
                        str(read_end),
                        *self.arguments(served, name),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    pass_fds=(read_end,),
                    process_group=0,  # Ctrl-C comes to the run alone, which stops the engine
                )
        except BaseException:
            os.close(write_end)
            raise
        finally:
            os.close(read_end)
        return Child(name, process, write_end, log)

    def _wait(self, child: Child, model: str) -> None:
        """Until the engine has the model. Raises TeacherError where it ends, or takes too long."""
        end = time.monotonic() + self.start_timeout
        setting = f"{self.address.section}.command"
        while True:
            names = self.address.models()
            if names is not None and (model in names or "{name}" not in self.command):
                return
            if (code := child.process.poll()) is not None:
                raise TeacherError(
                    f"{setting}: the engine ended with code {code} before it answered{_end_of(child.log)}"
                )
            if time.monotonic() > end:
                state = f"it has {', '.join(names)}, not {model}" if names else f"no answer at {self.address.base_url}"
                raise TeacherError(
                    f"{setting}: {state} within {self.start_timeout:g} seconds; raise {self.address.section}."
                    f"start_timeout, or see {child.log}{_end_of(child.log)}"
                )
            time.sleep(POLL)


def _end_of(log: Path) -> str:
    """The last lines of a log, for a message."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        lines = file.read().decode("utf-8", "replace").splitlines()[-LAST_LINES:]
    shown = "\n".join(f"  {line[:300]}" for line in lines if line.strip())
    return f"; the end of {log}:\n{shown}" if shown else f"; {log} is empty"
