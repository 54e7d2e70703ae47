"""An engine that is started for each checkpoint, by a command of the user's, and stopped before the next one."""

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
from mathse.inference.serving import guard
from mathse.inference.serving.names import OURS, served_folder
from mathse.inference.serving.reach import Address

POLL = 0.2  # seconds between looks
LAST_WORDS = 12  # lines of the engine's log in a message
TAIL = 8192  # bytes of it that are looked through


@dataclass(frozen=True)
class Child:
    """``held``: the pipe's end whose closing ends the engine."""

    name: str
    process: subprocess.Popen[bytes]
    held: int
    log: Path


class StartedEngine:
    """``command`` with {checkpoint}, {name} and {port} in it; one engine at a time. Logs go to ``folder``."""

    def __init__(
        self,
        command: str,
        address: Address,
        folder: Path,
        start_timeout: float,
        say: Callable[[str], None] = lambda words: None,
    ) -> None:
        self.command, self.address, self.folder = command, address, folder
        self.start_timeout, self.say = start_timeout, say
        self._child: Child | None = None

    def serve(self, checkpoint: Path, name: str) -> str:
        served = served_folder(checkpoint, name, self.folder)
        called = name if "{name}" in self.command else str(served)
        if self._child is None or self._child.name != name or self._child.process.poll() is not None:
            self.free()
            self._require_free_port()
            self.say(f"{self.address.section}: starts an engine for {checkpoint} (log: {self._log(name)})")
            self._child = self._started(served, name)
            try:
                self._wait(self._child, called)
            except BaseException:  # Ctrl-C too: no engine is left behind
                self.free()
                raise
        return called

    def free(self) -> None:
        """Stop the engine, if one runs."""
        child, self._child = self._child, None
        if child is None:
            return
        os.close(child.held)
        try:
            child.process.wait(guard.PATIENCE + 5)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()

    def words(self, served: Path, name: str) -> list[str]:
        """The command, split as a shell splits it; a value with spaces in it stays one word."""
        slots = {"{checkpoint}": str(served), "{name}": name, "{port}": str(self.address.port)}
        words = shlex.split(self.command)
        for slot, value in slots.items():
            words = [word.replace(slot, value) for word in words]
        return words

    def _require_free_port(self) -> None:
        """A server that stands there already would answer in the place of the checkpoint. The engine of a run that was
        killed ends by itself, a few seconds after it."""
        end = time.monotonic() + guard.PATIENCE + 5
        while self.address.taken():
            others = self.address.models()
            if others is None and not self.address.taken():  # it went while it was asked
                return
            if not any(other.startswith(OURS) for other in others or ()) or time.monotonic() > end:
                raise TeacherError(
                    f"{self.address.setting} = {self.address.base_url}: something answers there already ("
                    f"{', '.join(others or ()) or 'it names no model'}), and {self.address.section}.command starts an "
                    "engine there; stop it, or name another port"
                )
            time.sleep(POLL)

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _started(self, served: Path, name: str) -> Child:
        watched, held = os.pipe()
        try:
            with open(self._log(name), "ab", buffering=0) as file:
                process = subprocess.Popen(
                    [sys.executable, "-I", str(Path(guard.__file__)), str(watched), *self.words(served, name)],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    pass_fds=(watched,),
                    process_group=0,  # Ctrl-C comes to the run alone, which stops the engine
                )
        except BaseException:
            os.close(held)
            raise
        finally:
            os.close(watched)
        return Child(name, process, held, self._log(name))

    def _wait(self, child: Child, called: str) -> None:
        end = time.monotonic() + self.start_timeout
        what = f"{self.address.section}.command"
        while True:
            names = self.address.models()
            if names is not None and (called in names or "{name}" not in self.command):
                return
            if (code := child.process.poll()) is not None:
                raise TeacherError(f"{what}: the engine ended with code {code} before it answered{_said(child.log)}")
            if time.monotonic() > end:
                found = f"it has {', '.join(names)}, not {called}" if names else f"no answer at {self.address.base_url}"
                raise TeacherError(
                    f"{what}: {found} within {self.start_timeout:g} seconds; raise {self.address.section}."
                    f"start_timeout, or see {child.log}{_said(child.log)}"
                )
            time.sleep(POLL)


def _said(log: Path) -> str:
    """The last lines of a log, for a message."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        lines = file.read().decode("utf-8", "replace").splitlines()[-LAST_WORDS:]
    shown = "\n".join(f"  {line[:300]}" for line in lines if line.strip())
    return f"; the end of {log}:\n{shown}" if shown else f"; {log} is empty"
